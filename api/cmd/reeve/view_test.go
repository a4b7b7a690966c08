package main

import (
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/systemtest"
)

var update = flag.Bool("update", false, "write the golden files again")

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == hookName {
		os.Exit(hook(os.Args[1], os.Getenv("REEVE_ACCOUNT")))
	}
	time.Local = time.UTC // tables show local time
	status := m.Run()
	_ = os.RemoveAll(toyProgram.dir)
	systemtest.CleanUp()
	os.Exit(status)
}

// answers are what a controller says, in the form of the contract.
var answers = map[string]string{
	"/v1/status": `{"node":"node_1","name":"c1","version":"1.0","cluster":"example","initialized":true,"sealed":true,"leader":false,
		"seal":{"scheme":"shamir","threshold":3,"shares":5,"progress":1}}`,
	"/v1/cluster": `{"id":"example","members":[
		{"id":"node_1","name":"c1","raft_address":"192.0.2.1:8445","api_address":"192.0.2.1:8443","agent_address":"192.0.2.1:8444","voter":true,"leader":true,"healthy":true},
		{"id":"node_2","name":"c2","raft_address":"192.0.2.2:8445","api_address":"192.0.2.2:8443","agent_address":"192.0.2.2:8444","voter":true,"leader":false,"healthy":false},
		{"id":"node_3","name":"c3","raft_address":"192.0.2.3:8445","api_address":"192.0.2.3:8443","agent_address":"192.0.2.3:8444","voter":false,"leader":false,"healthy":true}]}`,
	"/v1/whoami": `{"id":"prin_1","name":"root","kind":"root"}`,
	"/v1/tokens": `{"items":[{"id":"tok_1","name":"ci","created_at":"2026-11-22T15:00:00Z","expires_at":"2026-11-23T15:00:00Z"},
		{"id":"tok_2","name":"nightly","principal":"ci","privileges":["audit.read","audit.export"],"networks":["192.0.2.0/24"],"scope":{"sites":["dmz"],"tags":{"team":"web"}},
		"created_at":"2026-11-22T15:00:00Z","expires_at":"2026-11-23T15:00:00Z","last_used_at":"2026-11-22T15:00:00Z"}]}`,
	"/v1/wraps": `{"items":[{"id":"wrap_1","account":"pam_alice@web01","account_id":"acct_1","made_by":"root","for":"bob","reason":"ticket 4711","state":"opened",
		"created_at":"2026-11-22T15:00:00Z","expires_at":"2026-11-22T15:05:00Z","opened_at":"2026-11-22T15:01:00Z","opened_from":"192.0.2.7"}]}`,
	"/v1/system/services": `{"leader":"c1","items":[{"name":"directories","does":"asks directories","switched":false,"enabled":true,"last_tick":"2026-11-22T15:00:00Z",
		"last_error":"directory corp did not say: unreachable","error_at":"2026-11-22T14:55:00Z"},{"name":"lifecycle","does":"all work on accounts","switched":true,"enabled":false}]}`,
	"/v1/sites": `{"items":[{"id":"site_1","name":"dmz","description":"web servers","created_at":"2026-11-22T15:00:00Z"}]}`,
	"/v1/agents": `{"items":[{"id":"agent_1","name":"dmz-1","site":"dmz","status":"active","connected":true,"version":"1.0","last_seen_at":"2026-11-22T15:00:00Z"},
		{"id":"agent_2","name":"dmz-2","site":"dmz","status":"banned","connected":false}]}`,
	"/v1/connectors": `{"items":[{"name":"ssh","title":"Linux hosts over SSH","version":"1.0.0","category":"operating_system","default_port":22,
		"digests":[{"sha256":"aa"},{"sha256":"bb","revoked_at":"2026-11-22T15:00:00Z"}]}]}`,
	"/v1/roles":                       `{"items":[` + backupRole + `,` + sysadmin + `]}`,
	"/v1/roles/linux-backup-operator": backupRole,
	"/v1/roles/our-sysadmin":          sysadmin,
	"/v1/assets":                      `{"items":[` + web01 + `,` + web02 + `,` + web03 + `,` + web04 + `]}`,
	"/v1/assets/web01":                web01,
	"/v1/assets/web03":                web03,
	"/v1/accounts": `{"items":[` + alice + `,{"id":"acct_2","name":"carol","asset":"web01","legacy":true,"connector":"ssh","state":"removed","sync":"unproven","role":"linux-standard","role_version":1,
		"password_mode":"generated","rotation_enabled":true}]}`,
	"/v1/accounts/pam_alice@web01": alice,
	"/v1/jobs":                     `{"items":[` + rotate + `]}`,
	"/v1/jobs/job_1":               rotate,
	"/v1/audit": `{"items":[{"sequence":7,"time":"2026-11-22T15:00:00Z","revision":3,"actor":{"kind":"user","name":"root"},"action":"secret.reveal","object":"sec_1",
		"outcome":"ok","details":{"reason":"ticket 4711"},"prev":"","hash":""}]}`,
	"/v1/audit/checkpoints": `{"items":[` + signedOnce + `],"newest":` + signedOnce + `,"key":"reeve.audit/example+1a2b3c4d+AbCd"}`,
}

const (
	assetStart = `"connector":"ssh","address":"192.0.2.10","port":22,"site":"dmz","status":"active","created_at":"2026-11-22T15:00:00Z"`
	web01      = `{"id":"asset_1","name":"web01",` + assetStart + `,"product":"debian","product_version":"12","options":{"shell":"/bin/bash"},"trusted":["SHA256:aaa","SHA256:bbb"],
		"management_account":{"username":"root","verified":true,"verified_at":"2026-11-22T15:00:00Z","verified_by":"dmz-1"}}`
	backupRole = `{"name":"linux-backup-operator","connector":"ssh","category":"operating_system","title":"Backup operator","version":1,"high_risk":true,"predefined":true,
		"params":[{"name":"Paths","help":"absolute directories"}],"phases":[{"phase":"grant","commands":["group? backup","sudoers %Username% ALL=(root) NOPASSWD: /usr/bin/tar"]}],
		"created_at":"2026-11-22T15:00:00Z"}`
	sysadmin = `{"name":"our-sysadmin","connector":"mssql","category":"database","title":"Ours","version":2,"high_risk":false,"predefined":false,"params":[],
		"phases":[{"phase":"grant","commands":["CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'"]}],
		"advice":[{"phase":"grant","command":"CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'",
		"modern":"ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%","reason":"it is old"}],"created_at":"2026-11-22T15:00:00Z","created_by":"root"}`
	web02 = `{"id":"asset_2","name":"web02",` + assetStart + `,"pending_fingerprint":"SHA256:ccc","alert":"first contact","management_account":{"username":"root","verified":false}}`
	web03 = `{"id":"asset_3","name":"web03",` + assetStart + `,"legacy":true,"management_account":{"username":"ops","verified":true,"missing_rights":["chpasswd"]}}`
	web04 = `{"id":"asset_4","name":"web04",` + assetStart + `,"management_account":{"username":"ops","verified":false,"last_error":{"class":"auth_failed","message":"refused","at":"2026-11-22T15:00:00Z"}}}`
	alice = `{"id":"acct_1","name":"pam_alice","prefix":"pam_","asset":"web01","connector":"ssh","state":"active","sync":"stranded","role":"linux-admin-sudo","role_version":1,
		"owner":"bob","password_mode":"generated","password_version":3,"rotation_enabled":true,"identity":"1000","verified_at":"2026-11-22T15:00:00Z","expires_at":"2027-01-31T00:00:00Z",
		"last_error":{"class":"auth_failed","message":"refused","fix":"set another","at":"2026-11-22T15:00:00Z"},
		"facts":{"exists":true,"locked":false,"has_password":true,"groups":["pam_alice","sudo"],"read_at":"2026-11-22T15:00:00Z","attributes":{"shell":"/bin/bash","home":"/home/pam_alice"}},
		"plans":[{"action":"rotate","hash":"abc","steps":[{"id":"password","title":"Set the password","command":"chpasswd","changes":true}]}]}`
	signedOnce = `{"sequence":7,"hash":"ab","root":"cd","time":"2026-11-22T15:00:00Z","note":"reeve.audit/example\n7\ncd\nhead ab\ntime 2026-11-22T15:00:00Z\n\n— reeve.audit/example ef\n"}`
	rotate     = `{"id":"job_1","site":"dmz","legacy":true,"connector":"ssh","operation":"rotate","class":"rotation","state":"dead","account":"pam_alice@web01","asset":"web01","attempt":5,
		"created_at":"2026-11-22T15:00:00Z","error":{"class":"unreachable","message":"no route","fix":"look at the network","at":"2026-11-22T15:00:00Z"}}`
)

// views are the commands people look at most.
var views = []string{
	"status", "cluster status", "whoami", "token list", "wrap list", "system services", "site list", "agent list", "connector list", "role list", "role show linux-backup-operator", "role show our-sysadmin", "role show our-sysadmin --export",
	"asset list", "asset show web01", "asset show web03", "account list", "account show pam_alice@web01 --plans", "job list", "job show job_1", "audit list",
	"audit checkpoint", "audit checkpoint --all", "audit key",
}

func face(t *testing.T) string {
	t.Helper()
	context, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, body)
	}))
	return context
}

func TestViewsLookAsTheyDid(t *testing.T) {
	t.Parallel()
	context := face(t)
	for _, view := range views {
		t.Run(view, func(t *testing.T) {
			t.Parallel()
			res := invoke(t.Context(), "", append([]string{"--context", context}, strings.Fields(view)...)...)
			if res.status != 0 || res.err != "" {
				t.Fatalf("status %d: %s", res.status, res.err)
			}
			path := filepath.Join("testdata", strings.ReplaceAll(strings.ReplaceAll(view, " ", "_"), "@", "_")+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(res.out), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), res.out); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEveryViewIsJSONOnRequestAndNothingElse(t *testing.T) {
	t.Parallel()
	context := face(t)
	for _, view := range views {
		res := invoke(t.Context(), "", append([]string{"--context", context, "-o", "json"}, strings.Fields(view)...)...)
		if res.status != 0 || !json.Valid([]byte(res.out)) || res.err != "" {
			t.Errorf("%s: status %d, %s%s", view, res.status, res.out, res.err)
		}
	}
}

func TestAnEmptyListIsAnEmptyArray(t *testing.T) {
	t.Parallel()
	context, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"items":[]}`) }))
	for _, list := range []string{"token", "site", "agent", "connector", "role", "asset", "account", "job"} {
		if res := invoke(t.Context(), "", "--context", context, list, "list", "-o", "json"); res.status != 0 || strings.TrimSpace(res.out) != "[]" {
			t.Errorf("%s list: %q (%s)", list, res.out, res.err)
		}
		if res := invoke(t.Context(), "", "--context", context, list, "list"); res.out != "" || res.err != "none\n" {
			t.Errorf("%s list: %q, %q", list, res.out, res.err)
		}
	}
}

// Whatever is typed, read or configured as a secret is in no output of any command.
func TestNoCommandPrintsASecretItWasGiven(t *testing.T) {
	t.Parallel()
	const password = "canary-Password-0815"
	file := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{http.StatusOK, http.StatusUnprocessableEntity, http.StatusInternalServerError} {
		context, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			raw, _ := io.ReadAll(r.Body)
			w.WriteHeader(status)
			if strings.HasSuffix(r.URL.Path, "/log") {
				_, _ = io.WriteString(w, event("1", "end", endFailed))
				return
			}
			if status != http.StatusOK {
				_, _ = w.Write(raw) // a broken proxy that sends back what it got
				return
			}
			_, _ = io.WriteString(w, `{}`)
		}))
		for _, line := range append([]string{
			"asset add a --site s --connector ssh --address h --username root --password-file " + file,
			"asset set-management a --username root --password-file " + file,
			"account provision a --role r --asset x --password-file " + file,
			"seal unseal --share-file " + file,
			"whoami --token-file " + file,
			"asset add a --site s --connector ssh --address h --username root --key-file " + file,
		}, views...) {
			for _, format := range []string{"table", "json"} {
				res := invoke(t.Context(), password, append([]string{"--context", context, "-o", format}, strings.Fields(line)...)...)
				if strings.Contains(res.out+res.err, password) || strings.Contains(res.out+res.err, canary) {
					t.Errorf("%s, answered with %d: a secret is in the output:\n%s%s", line, status, res.out, res.err)
				}
			}
		}
	}
}
