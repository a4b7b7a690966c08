package inventory

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

var alice = audit.Actor{Kind: "user", ID: "prin_1", Name: "alice"}

const digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func description() *connectorv1.Description {
	return &connectorv1.Description{
		Name: "ssh", Title: "Linux", Version: "1.0.0", Category: "operating_system", DefaultPort: 22,
		NameRule: &connectorv1.NameRule{Pattern: `[a-z_][a-z0-9_-]*`, MaxBytes: 32, Help: "1 to 32 of a-z, 0-9, _ and -"},
		Options:  []*connectorv1.Option{{Name: "sudo", DefaultValue: "auto", Allowed: []string{"auto", "never"}}, {Name: "shell"}},
		Roles: []*connectorv1.Role{
			{Name: "linux-standard", Version: 1},
			{Name: "linux-service-operator", Version: 1, Params: []*connectorv1.RoleParam{
				{Name: "Units", Pattern: `[a-z.]+(,[a-z.]+)*`, Required: true, Help: "unit names"}, {Name: "Note", Pattern: `.*`}}},
		},
	}
}

type rig struct {
	t     *testing.T
	store *store.Store
}

// newRig has the connector ssh registered and the site "dc1".
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, store: storetest.New(t)}
	r.do(func(tx *store.Tx) error {
		if _, err := RegisterConnector(tx, alice, description(), digest); err != nil {
			return err
		}
		_, err := AddSite(tx, alice, NewSite{Name: "dc1"})
		return err
	})
	return r
}

func (r *rig) try(fn func(*store.Tx) error) error { return r.store.Update(context.Background(), fn) }

func (r *rig) do(fn func(*store.Tx) error) {
	r.t.Helper()
	if err := r.try(fn); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) wantCode(code string, fn func(*store.Tx) error) {
	r.t.Helper()
	if err := r.try(fn); reeve.CodeOf(err) != code {
		r.t.Errorf("error %v, want code %q", err, code)
	}
}

func (r *rig) asset(name string) (a *Asset) {
	r.t.Helper()
	r.do(func(tx *store.Tx) (err error) {
		a, err = AddAsset(tx, alice, NewAsset{Name: name, Site: "dc1", Connector: "ssh", Address: "10.0.0.1"})
		return err
	})
	return a
}

func (r *rig) get(id reeve.AssetID) (a *Asset) {
	r.t.Helper()
	r.do(func(tx *store.Tx) (err error) {
		a, err = GetAsset(tx, string(id))
		return err
	})
	return a
}

func (r *rig) actions() (out []string) {
	r.t.Helper()
	r.do(func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 1000, audit.Filter{})
		for _, e := range all {
			out = append(out, e.Action)
		}
		return err
	})
	return out
}

func TestEveryChangeLeavesOneRecord_U1(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.asset("web1")
	address := "10.0.0.2"
	r.do(func(tx *store.Tx) error {
		_, err := UpdateAsset(tx, alice, a.ID, AssetChange{Address: &address})
		return err
	})
	r.do(func(tx *store.Tx) error { return RetireAsset(tx, alice, a.ID) })
	r.do(func(tx *store.Tx) error { return RetireAsset(tx, alice, a.ID) }) // nothing changes
	r.do(func(tx *store.Tx) error { return RetireConnector(tx, alice, "ssh") })
	r.do(func(tx *store.Tx) error { return RetireSite(tx, alice, a.SiteID) })
	want := []string{"connector.register", "site.add", "asset.add", "asset.update", "asset.retire", "connector.retire", "site.retire"}
	if diff := cmp.Diff(want, r.actions()); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}

func TestAssetGetsTheConnectorsDefaults_A1_6(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.asset("web1")
	if a.Port != 22 || a.Category != "operating_system" || a.Options["sudo"] != "auto" || len(a.Options) != 1 {
		t.Errorf("port %d, category %q, options %v", a.Port, a.Category, a.Options)
	}
}

func TestBadAssetsAreRefusedAndNothingChanges(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.asset("web1")
	before := len(r.actions())
	good := NewAsset{Name: "web2", Site: "dc1", Connector: "ssh", Address: "host.example"}
	for code, change := range map[string]func(*NewAsset){
		"object_name_invalid": func(a *NewAsset) { a.Name = "Web 2" },
		"site_not_found":      func(a *NewAsset) { a.Site = "nowhere" },
		"connector_unknown":   func(a *NewAsset) { a.Connector = "telnet" },
		"address_invalid":     func(a *NewAsset) { a.Address = "ssh://host" },
		"port_invalid":        func(a *NewAsset) { a.Port = 70000 },
		"option_unknown":      func(a *NewAsset) { a.Options = map[string]string{"insecure": "yes"} },
		"option_invalid":      func(a *NewAsset) { a.Options = map[string]string{"sudo": "maybe"} },
		"host_key_invalid":    func(a *NewAsset) { a.HostKeys = []string{"ssh-ed25519 nonsense"} },
		"ca_invalid":          func(a *NewAsset) { a.CAPEM = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n" },
		"server_name_invalid": func(a *NewAsset) { a.ServerName = "a b" },
		"text_invalid":        func(a *NewAsset) { a.Description = strings.Repeat("x", 1025) },
		"asset_name_taken":    func(a *NewAsset) { a.Name = "web1" },
	} {
		in := good
		change(&in)
		r.wantCode(code, func(tx *store.Tx) error { _, err := AddAsset(tx, alice, in); return err })
	}
	for _, address := range []string{"", "a;id", "host:22", "user@host", "-oProxyCommand=x", "a..b", "host\n"} {
		in := good
		in.Address = address
		r.wantCode("address_invalid", func(tx *store.Tx) error { _, err := AddAsset(tx, alice, in); return err })
	}
	if n := len(r.actions()); n != before {
		t.Errorf("%d audit records were added by refused requests", n-before)
	}
}

func TestAccountNamesFollowTheConnectorsGrammar_C36(t *testing.T) {
	t.Parallel()
	c := &Connector{Name: "ssh", Description: store.Wrap(description())}
	for _, name := range []string{"a;id", "", "1abc", "Bad.Name", "x\n", "a b", "-x", strings.Repeat("a", 33), "naïve", "a$(id)"} {
		err := c.CheckName(name)
		if reeve.CodeOf(err) != "name_invalid" || !strings.Contains(err.Error(), "1 to 32 of a-z") {
			t.Errorf("%q: %v, want name_invalid with the rule in words", name, err)
		}
	}
	for _, name := range []string{"a", "pam_alice", "_x-1", strings.Repeat("a", 32)} {
		if err := c.CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAPatternWithAlternativesMustMatchTheWholeName_C38(t *testing.T) {
	t.Parallel()
	d := description()
	d.NameRule.Pattern = `a|b` // unanchored: a careless connector
	c := &Connector{Name: "ssh", Description: store.Wrap(d)}
	for _, name := range []string{"ab", "a;id", "x;b", "a\n"} {
		if c.CheckName(name) == nil {
			t.Errorf("%q was accepted", name)
		}
	}
}

func TestWhatALiveAccountStandsOnCannotBeRetired_C14(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.asset("web1")
	role := RoleKey{Connector: "ssh", Name: "linux-ours", Version: 1}
	r.do(func(tx *store.Tx) error { _, err := CloneRole(tx, alice, "linux-standard", role.Name); return err })
	r.do(func(tx *store.Tx) error { return Hold(tx, "acct_1", a.ID, role) })
	r.do(func(tx *store.Tx) error { return Hold(tx, "acct_1", a.ID, role) })
	r.do(func(tx *store.Tx) error { return Hold(tx, "acct_2", a.ID, role) })
	refused := func() {
		t.Helper()
		r.wantCode("asset_in_use", func(tx *store.Tx) error { return RetireAsset(tx, alice, a.ID) })
		r.wantCode("site_in_use", func(tx *store.Tx) error { return RetireSite(tx, alice, a.SiteID) })
		r.wantCode("connector_in_use", func(tx *store.Tx) error { return RetireConnector(tx, alice, "ssh") })
	}
	refused()
	// A role in use can only be retired: the record stays.
	r.do(func(tx *store.Tx) error { return RetireRole(tx, alice, role.Name) })
	r.wantCode("role_unknown", func(tx *store.Tx) error { _, err := CurrentRole(tx, "ssh", role.Name); return err })
	r.do(func(tx *store.Tx) error { _, err := GetRole(tx, role); return err })

	r.do(func(tx *store.Tx) error { return Release(tx, "acct_1") })
	refused()
	r.do(func(tx *store.Tx) error { return Release(tx, "acct_2") })
	r.do(func(tx *store.Tx) error { return RetireAsset(tx, alice, a.ID) })
	r.asset("web1") // the name is free again
	if got := r.get(a.ID); got.Status != Retired {
		t.Errorf("status %q", got.Status)
	}
}

func TestRoleVersions_A2(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other := description()
	other.Name, other.Roles = "mysql", []*connectorv1.Role{{Name: "mysql-readonly", Version: 1}}
	r.do(func(tx *store.Tx) error {
		_, err := RegisterConnector(tx, alice, other, strings.Repeat("a", 64))
		return err
	})
	r.wantCode("role_wrong_connector", func(tx *store.Tx) error { _, err := CurrentRole(tx, "ssh", "mysql-readonly"); return err })
	r.wantCode("role_unknown", func(tx *store.Tx) error { _, err := CurrentRole(tx, "ssh", "root"); return err })

	newer := description()
	newer.Version = "1.1.0"
	newer.Roles[0].Version = 2
	newer.Roles = newer.Roles[:1]
	r.do(func(tx *store.Tx) error {
		_, err := RegisterConnector(tx, alice, newer, strings.Repeat("b", 64))
		return err
	})
	r.do(func(tx *store.Tx) error {
		got, err := CurrentRole(tx, "ssh", "linux-standard")
		if err == nil && got.Key.Version != 2 {
			t.Errorf("current version %d, want 2", got.Key.Version)
		}
		return err
	})
	r.do(func(tx *store.Tx) error { // the old version is kept
		_, err := GetRole(tx, RoleKey{"ssh", "linux-standard", 1})
		return err
	})
	r.wantCode("role_unknown", func(tx *store.Tx) error { _, err := CurrentRole(tx, "ssh", "linux-service-operator"); return err })
	// Going back to the older build brings its roles back.
	r.do(func(tx *store.Tx) error {
		_, err := RegisterConnector(tx, alice, description(), strings.Repeat("c", 64))
		return err
	})
	var names []string
	r.do(func(tx *store.Tx) error {
		for role, err := range ListRoles(tx, "") {
			if err != nil {
				return err
			}
			names = append(names, role.Key.String())
		}
		return nil
	})
	want := []string{"mysql/mysql-readonly/0000000001", "ssh/linux-service-operator/0000000001", "ssh/linux-standard/0000000001"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("roles (-want +got):\n%s", diff)
	}
}

func TestRoleParameters(t *testing.T) {
	t.Parallel()
	role := &Role{Key: RoleKey{Name: "linux-service-operator"}, Role: store.Wrap(description().Roles[1])}
	for code, params := range map[string]map[string]string{
		"":              {"Units": "nginx.service,cron.service"},
		"param_missing": {"Note": "x"},
		"param_invalid": {"Units": "nginx;id"},
		"param_unknown": {"Units": "nginx", "Shell": "/bin/sh"},
	} {
		if err := role.CheckParams(params); reeve.CodeOf(err) != code {
			t.Errorf("%v: %v, want %q", params, err, code)
		}
	}
}

func TestOnlyRegisteredDigestsMayRun_P4(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	second := strings.Repeat("d", 64)
	r.do(func(tx *store.Tx) error { _, err := RegisterConnector(tx, alice, description(), second); return err })
	r.do(func(tx *store.Tx) error {
		got, err := ConnectorDigests(tx, "ssh")
		if diff := cmp.Diff([]string{digest, second}, got); diff != "" {
			t.Errorf("digests (-want +got):\n%s", diff)
		}
		return err
	})
	r.do(func(tx *store.Tx) error { return RevokeDigest(tx, alice, "ssh", digest) })
	r.wantCode("digest_revoked", func(tx *store.Tx) error { _, err := RegisterConnector(tx, alice, description(), digest); return err })
	r.do(func(tx *store.Tx) error { return RevokeDigest(tx, alice, "ssh", second) })
	r.wantCode("connector_unregistered", func(tx *store.Tx) error { _, err := ConnectorDigests(tx, "ssh"); return err })
	r.wantCode("connector_unregistered", func(tx *store.Tx) error { _, err := ConnectorDigests(tx, "nosuch"); return err })
	r.wantCode("digest_not_found", func(tx *store.Tx) error { return RevokeDigest(tx, alice, "ssh", strings.Repeat("e", 64)) })
	r.wantCode("digest_invalid", func(tx *store.Tx) error {
		_, err := RegisterConnector(tx, alice, description(), strings.ToUpper(digest))
		return err
	})
}

func TestCarelessConnectorsAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for name, change := range map[string]func(*connectorv1.Description){
		"name":          func(d *connectorv1.Description) { d.Name = "SSH!" },
		"version":       func(d *connectorv1.Description) { d.Version = "" },
		"category":      func(d *connectorv1.Description) { d.Category = "toaster" },
		"port":          func(d *connectorv1.Description) { d.DefaultPort = 99999 },
		"no grammar":    func(d *connectorv1.Description) { d.NameRule = nil },
		"bad grammar":   func(d *connectorv1.Description) { d.NameRule.Pattern = `(` },
		"role version":  func(d *connectorv1.Description) { d.Roles[0].Version = 0 },
		"param pattern": func(d *connectorv1.Description) { d.Roles[1].Params[0].Pattern = "" },
	} {
		d := description()
		change(d)
		err := r.try(func(tx *store.Tx) error {
			_, err := RegisterConnector(tx, alice, d, strings.Repeat("f", 64))
			return err
		})
		if reeve.KindOf(err) != reeve.Invalid {
			t.Errorf("%s: %v, want invalid", name, err)
		}
	}
}

// manage gives the asset a management account and lets a probe say f.
func (r *rig) manage(id reeve.AssetID) {
	r.t.Helper()
	r.do(func(tx *store.Tx) error {
		_, err := SetManagement(tx, alice, id, "root", "password", "sec_1", 1)
		return err
	})
}

func (r *rig) probe(id reeve.AssetID, p Probe) {
	r.t.Helper()
	p.Agent = "agent_1"
	if p.Secret == "" {
		p.Secret, p.Version = "sec_1", 1
	}
	r.do(func(tx *store.Tx) error {
		_, err := RecordProbe(tx, audit.Actor{Kind: "agent", ID: "agent_1"}, id, p)
		return err
	})
}

func TestOnlyAVerifiedManagementAccountIsWorkedWith_A1_3(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.asset("web1").ID
	ready := func() string { return reeve.CodeOf(r.get(id).Ready()) }
	want := func(code string) {
		t.Helper()
		if got := ready(); got != code {
			t.Errorf("ready: %q, want %q", got, code)
		}
	}
	want("management_missing")
	r.manage(id)
	want("management_unverified")
	r.probe(id, Probe{Failure: &Failure{Class: reeve.ClassAuthFailed, Message: "wrong password", Fix: "set the right one"}})
	want("management_unverified")
	if err := r.get(id).Ready(); !strings.Contains(err.Error(), "wrong password") || !strings.Contains(err.Error(), "set the right one") {
		t.Errorf("the refusal does not say why: %v", err)
	}
	r.probe(id, Probe{Fingerprint: &connectorv1.Fingerprint{Product: "debian", Version: "12"}})
	want("")
	if m := r.get(id).Management; m.VerifiedByAgent != "agent_1" || m.VerifiedAt.IsZero() || m.LastError != nil {
		t.Errorf("%+v", m)
	}
	// Being unreachable for a while proves nothing about the account.
	r.probe(id, Probe{Failure: &Failure{Class: reeve.ClassUnreachable, Message: "no route"}})
	want("")
	r.probe(id, Probe{Fingerprint: &connectorv1.Fingerprint{Product: "debian", MissingRights: []string{"sudo"}}})
	want("management_rights") // A1.4
	// An answer about a secret that was replaced meanwhile says nothing.
	r.manage(id)
	r.probe(id, Probe{Secret: "sec_old", Version: 1, Fingerprint: &connectorv1.Fingerprint{}})
	want("management_unverified")
	r.probe(id, Probe{Fingerprint: &connectorv1.Fingerprint{Product: "debian"}})
	address := "10.9.9.9"
	r.do(func(tx *store.Tx) error {
		_, err := UpdateAsset(tx, alice, id, AssetChange{Address: &address})
		return err
	})
	want("management_unverified")
}

func TestFirstContactWaitsForApproval_C83(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.asset("web1").ID
	r.manage(id)
	r.probe(id, Probe{HostKey: keyA, Failure: &Failure{Class: reeve.ClassHostKeyUnknown, Message: "unknown key"}})
	a := r.get(id)
	if a.Trust.Pending == nil || a.Trust.Pending.Fingerprint != printA || len(a.Trust.HostKeys) != 0 {
		t.Fatalf("trust %+v", a.Trust)
	}
	if code := reeve.CodeOf(a.Ready()); code != "host_key_unknown" {
		t.Errorf("ready: %q", code)
	}
	r.wantCode("fingerprint_mismatch", func(tx *store.Tx) error { _, err := ApproveHostKey(tx, alice, id, printB); return err })
	r.wantCode("fingerprint_mismatch", func(tx *store.Tx) error { _, err := ApproveHostKey(tx, alice, id, ""); return err })
	r.do(func(tx *store.Tx) error { _, err := ApproveHostKey(tx, alice, id, printA); return err })
	a = r.get(id)
	if diff := cmp.Diff([]string{keyA}, a.Trust.HostKeys); diff != "" || a.Trust.Pending != nil {
		t.Errorf("host keys (-want +got):\n%s pending %v", diff, a.Trust.Pending)
	}
	if diff := cmp.Diff([]string{printA}, a.Trust.Fingerprints()); diff != "" {
		t.Errorf("fingerprints (-want +got):\n%s", diff)
	}
	r.wantCode("no_pending_key", func(tx *store.Tx) error { _, err := ApproveHostKey(tx, alice, id, printA); return err })
}

func TestAChangedHostKeyStopsAllWork_C83(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.asset("web1").ID
	r.manage(id)
	r.do(func(tx *store.Tx) error {
		_, err := ImportTrust(tx, alice, id, TrustChange{HostKeys: []string{keyA}})
		return err
	})
	r.probe(id, Probe{Fingerprint: &connectorv1.Fingerprint{Product: "debian"}})
	if err := r.get(id).Ready(); err != nil {
		t.Fatal(err)
	}
	r.do(func(tx *store.Tx) error {
		return RecordAlarm(tx, alice, id, &Failure{Class: reeve.ClassHostKeyChanged, Message: "another key"}, keyB)
	})
	a := r.get(id)
	if code := reeve.CodeOf(a.Ready()); code != "host_key_changed" || !strings.Contains(a.Alert(), printB) {
		t.Errorf("ready %q, alert %q", code, a.Alert())
	}
	if diff := cmp.Diff([]string{keyA}, a.Trust.HostKeys); diff != "" {
		t.Errorf("the trusted key was replaced by itself:\n%s", diff)
	}
	r.do(func(tx *store.Tx) error { _, err := ApproveHostKey(tx, alice, id, printB); return err })
	a = r.get(id)
	if diff := cmp.Diff([]string{keyB}, a.Trust.HostKeys); diff != "" {
		t.Errorf("after approval only the new key is trusted:\n%s", diff)
	}
	if code := reeve.CodeOf(a.Ready()); code != "management_unverified" {
		t.Errorf("ready: %q; the machine behind the new key is not probed yet", code)
	}
	// A changed key that the connector could not show stops work as well.
	r.do(func(tx *store.Tx) error {
		return RecordAlarm(tx, alice, id, &Failure{Class: reeve.ClassHostKeyChanged, Message: "another key"}, "")
	})
	err := r.get(id).Ready()
	if e, ok := errors.AsType[*reeve.Error](err); !ok || e.Code != "host_key_changed" || !strings.HasSuffix(e.Fix, "reeve asset verify web1") {
		t.Errorf("ready: %v, to do: %q", err, e.Fix)
	}
	if !slices.Contains(r.actions(), "asset.alarm") {
		t.Error("the alarm is not in the audit trail")
	}
}

func TestListsPageByID(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var want []string
	for _, n := range []string{"a1", "a2", "a3"} {
		want = append(want, string(r.asset(n).ID))
	}
	var got []string
	r.do(func(tx *store.Tx) error {
		for a, err := range ListAssets(tx, want[0]) {
			if err != nil {
				return err
			}
			got = append(got, string(a.ID))
		}
		return nil
	})
	if diff := cmp.Diff(want[1:], got); diff != "" {
		t.Errorf("after the first (-want +got):\n%s", diff)
	}
}
