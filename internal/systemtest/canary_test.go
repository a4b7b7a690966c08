package systemtest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/systemtest"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// forms are ways in which a secret may be written down.
func forms(secret string) (out [][]byte) {
	raw := []byte(secret)
	var utf16le []byte
	for _, u := range utf16.Encode([]rune(secret)) {
		utf16le = append(utf16le, byte(u), byte(u>>8)) //nolint:gosec // halves
	}
	out = append(out, raw, utf16le, []byte(hex.EncodeToString(raw)), []byte(strings.ToUpper(hex.EncodeToString(raw))), []byte(url.QueryEscape(secret)))
	for shift := range 3 { // as part of something longer
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			e := enc.EncodeToString(append(make([]byte, shift), raw...))
			out = append(out, []byte(e[(shift*8+5)/6+1:len(e)-2]))
		}
	}
	return out
}

// A whole life, with passwords that are known to the test: no file of a controller or an
// agent, no log, no trail, no snapshot, no job's log, no answer of the API but the reveal
// has any of them in any form, nor any audit sink, though connectors fail over them and
// agents die with them.
func TestSecretsAreWrittenDownNowhere_A6_K1_U5(t *testing.T) {
	t.Parallel()
	lab := shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Nodes: 3, Terms: terms})
	const management, static = "Canary-Management+8Qz/7", "Canary-Static&Account=5Xw%2"
	host := testlab.NewHost(t, lab, testlab.HostOptions{Accounts: []testlab.HostAccount{
		{Name: "ops", Password: management, Sudo: testlab.SudoPassword}}})
	targets := []systemtest.Target{systemtest.HostTarget(host, "ops", management), shared.target(t, "mysql")}
	signing, collect := everySink(t, c, lab)
	secrets := append(signing, management, static, c.RootToken.Reveal())
	var answers bytes.Buffer
	for i, kind := range kinds {
		a := c.Agent("canary-"+kind, systemtest.AgentOptions{})
		g := c.AddAsset("canary-"+kind, "canary-"+kind, targets[i])
		password := static
		id := c.Order("canary-"+kind, func(r *client.ProvisionRequest) { r.Password = &password }, g)[0].Id
		c.AwaitSync(id)
		if got := c.Reveal(id); got != static {
			t.Errorf("revealed %q", got)
		}
		if err := g.Login(t.Context(), "canary-"+kind, static); err != nil {
			t.Error(err)
		}
		a.Stop()
		a.Restart(systemtest.CrashAt("after-apply")) // with the new password in its hands
		c.Act(id, "rotate", "")
		a.Crashed()
		a.Restart(nil)
		c.AwaitAccount(id, "is rotated", func(a client.Account) bool { return a.Sync == "in_sync" && *a.PasswordVersion == 2 && c.Idle(a) })
		secrets = append(secrets, c.Reveal(id))
		for _, action := range []string{"disable", "enable"} {
			c.AwaitJob(c.Act(id, action, ""), "is done", func(j client.Job) bool { return j.State == client.JobStateDone })
		}
		for _, j := range c.Kept(id).Jobs {
			follow := false
			answers.Write(systemtest.Call[[]byte](c, func(api *client.Client) (*http.Response, error) {
				return api.GetJobLog(t.Context(), string(j.ID), &client.GetJobLogParams{Follow: &follow})
			}))
			answers.Write(systemtest.Call[[]byte](c, func(api *client.Client) (*http.Response, error) { return api.GetJob(t.Context(), string(j.ID)) }))
		}
		answers.Write(systemtest.Call[[]byte](c, func(api *client.Client) (*http.Response, error) { return api.GetAccount(t.Context(), id) }))
		answers.Write(systemtest.Call[[]byte](c, func(api *client.Client) (*http.Response, error) { return api.GetAsset(t.Context(), g.Asset) }))
		bad := static + "\n"
		_, err := systemtest.Try[client.Batch](c, func(api *client.Client) (*http.Response, error) {
			return api.ProvisionAccounts(t.Context(), nil, client.ProvisionRequest{Name: "bad", Role: "linux-admin-sudo", Assets: []string{g.Asset}, Password: &bad})
		})
		fmt.Fprintln(&answers, err)
	}
	collect()
	answers.Write(systemtest.Call[[]byte](c, func(api *client.Client) (*http.Response, error) { return api.ListAuditSinks(t.Context()) }))
	answers.Write(exportAudit(t, c))
	answers.Write(systemtest.Call[[]byte](c, func(api *client.Client) (*http.Response, error) { return api.SaveSnapshot(t.Context()) }))
	for i := range c.Nodes() {
		for _, path := range []string{"/metrics", "/v1/status"} {
			answers.Write(get(t, c, i, path))
		}
	}
	if err := os.WriteFile(filepath.Join(c.Dir, "answers"), answers.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if answers.Len() < 10_000 || len(c.Log.Bytes()) < 10_000 {
		t.Fatalf("%d bytes of answers, %d of logs: the test looks at the wrong things", answers.Len(), len(c.Log.Bytes()))
	}
	for i := range c.Nodes() {
		c.Stop(i)
	}
	for i, s := range secrets {
		if found := c.Scan(forms(s)...); len(found) > 0 {
			t.Errorf("secret %d is in %v", i, found)
		}
	}
	// The scan finds what is there.
	if err := os.WriteFile(filepath.Join(c.Dir, "leak"), []byte("x"+base64.StdEncoding.EncodeToString([]byte("pw: "+static+"\n"))), 0o600); err != nil {
		t.Fatal(err)
	}
	if len(c.Scan(forms(static)...)) == 0 {
		t.Error("the scan does not find a secret in a longer text in base64")
	}
}

func get(t *testing.T, c *systemtest.Cluster, node int, path string) []byte {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL(node)+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.RootToken.Reveal())
	resp, err := c.HTTP().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
