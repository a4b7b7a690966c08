//go:build linux

package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// Everything wrong that a user can say is refused with a code and a reason, and changes
// nothing: not the audit trail, not the target.
func TestBadInputIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterOptions{})
	c.site("dmz")
	c.ok("site", "add", "empty")
	h := testlab.NewHost(t, c.lab, testlab.HostOptions{Name: "web01", Accounts: []testlab.HostAccount{
		{Name: "root", Password: rootPassword}, {Name: "plain", Password: "plain-person-1"}}})
	c.startAgent("dmz-1", "dmz", nil)
	c.addHost(h, "dmz")
	db := testlab.NewMariaDB(t, c.lab, testlab.MariaDBOptions{Grants: []string{"SELECT ON *.*"}})
	c.provision(h, "alice")

	c.reeve(rootPassword, "asset", "add", "lonely", "--site", "empty", "--connector", "ssh", "--address", "192.0.2.1", "--username", "root", "--password-file", "-").must(t)

	provision := func(more ...string) []string {
		return append([]string{"account", "provision", "--watch=false"}, more...)
	}
	add := func(name string, more ...string) []string {
		return append([]string{"asset", "add", name, "--site", "dmz", "--connector", "ssh", "--address", "192.0.2.1"}, more...)
	}
	files := targetFiles(t, h)
	head := c.auditHead()
	for _, tc := range []struct {
		what, stdin, code string
		words             []string
		args              []string
	}{
		{"a name the shell would like", "", "name_invalid", nil, provision("a;id", "--role", "linux-standard", "--asset", "web01")},
		{"a name with a newline", "", "name_invalid", nil, provision("a\nb", "--role", "linux-standard", "--asset", "web01")},
		{"a name with an option in it", "", "name_invalid", nil, provision("--role", "linux-standard", "--asset", "web01", "--", "-rf")},
		{"a prefix that is none", "", "name_invalid", nil, provision("bob", "--prefix", "$(id)", "--role", "linux-standard", "--asset", "web01")},
		{"the management account", "", "name_is_management", nil, provision("root", "--role", "linux-standard", "--asset", "web01")},
		{"a name that is taken", "", "name_taken", nil, provision("alice", "--role", "linux-standard", "--asset", "web01")},
		{"a password with a newline", "first\nsecond-Line-2\n", "password_policy", nil, provision("bob", "--role", "linux-standard", "--asset", "web01", "--password-file", "-")},
		{"a password that is too short", "short", "password_policy", nil, provision("bob", "--role", "linux-standard", "--asset", "web01", "--password-file", "-")},
		{"an unknown role", "", "role_unknown", []string{"reeve role list"}, provision("bob", "--role", "linux-emperor", "--asset", "web01")},
		{"another connector's role", "", "role_wrong_connector", nil, provision("bob", "--role", "mysql-db-ro", "--param", "Database=app", "--asset", "web01")},
		{"a parameter the role has not", "", "param_unknown", nil, provision("bob", "--role", "linux-standard", "--param", "Shoe=44", "--asset", "web01")},
		{"an unknown asset", "", "asset_not_found", nil, provision("bob", "--role", "linux-standard", "--asset", "web99")},
		{"an asset twice", "", "asset_twice", nil, provision("bob", "--role", "linux-standard", "--asset", "web01,web01")},
		{"an unknown account", "", "account_not_found", nil, []string{"account", "rotate", "nobody@web01"}},
		{"an account in the wrong state", "", "account_state", nil, []string{"account", "enable", "alice@web01"}},
		{"an unknown job", "", "job_not_found", nil, []string{"job", "show", "job_06f2xxxxxxxxxxxxxxxxxxxxxx"}},
		{"a site name", "", "field_invalid", nil, []string{"site", "add", "DMZ;id"}},
		{"a site twice", "", "site_name_taken", nil, []string{"site", "add", "dmz"}},
		{"a site with assets", "", "site_", nil, []string{"site", "retire", "dmz"}},
		{"an asset in a site that is not there", "", "site_not_found", nil, []string{"asset", "add", "x", "--site", "nowhere", "--connector", "ssh", "--address", "192.0.2.1"}},
		{"work in a site without agents", "", "site_without_agents", []string{"reeve agent join-token"}, []string{"asset", "verify", "lonely"}},
		{"an account in a site without agents", "", "management_unverified", []string{"reeve asset verify"}, provision("bob", "--role", "linux-standard", "--asset", "lonely")},
		{"an unknown connector", "", "connector_unknown", nil, []string{"asset", "add", "x", "--site", "dmz", "--connector", "telepathy", "--address", "192.0.2.1"}},
		{"an address that is none", "", "address_invalid", nil, []string{"asset", "add", "x", "--site", "dmz", "--connector", "ssh", "--address", "a b;c"}},
		{"a port that is none", "", "field_invalid", nil, add("x", "--port", "70000")},
		{"an option the connector has not", "", "option_unknown", nil, add("x", "--option", "colour=blue")},
		{"an asset's name twice", "", "asset_name_taken", nil, add("web01")},
		{"a host key that is none", "", "host_key_invalid", nil, add("x", "--host-key-file", c.write("no.pub", "ssh-ed25519 AAAAnonsense\n"))},
		{"a key that is none", "", "private_key_invalid", nil, add("x", "--username", "root", "--key-file", c.write("no.pem", "not a key\n"))},
		{"a fingerprint nobody has shown", "", "no_pending_key", nil, []string{"asset", "trust", "web01", "--fingerprint", "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}},
		{"an agent that is not there", "", "agent_not_found", nil, []string{"agent", "ban", "nobody", "--reason", "x"}},
		{"a token that is not there", "", "token_not_found", nil, []string{"token", "revoke", "tok_06f2xxxxxxxxxxxxxxxxxxxxxx"}},
		{"a bearer token that is none", "reevet_nobody-has-this", "token_malformed", nil, []string{"--token-file", "-", "site", "add", "y"}},
		{"no bearer token", "", "token_missing", nil, []string{"--context", c.write("nobody.yaml", "addresses: ["+c.nodes[0].api+"]\n"), "--ca-file", c.write("ca.pem", c.readContext().CA), "site", "add", "y"}},
	} {
		got := c.reeve(tc.stdin, tc.args...)
		if !strings.HasSuffix(tc.code, "_") {
			got.refused(t, tc.code, tc.words...)
		} else if got.status != 1 || !strings.Contains(got.err, "["+tc.code) {
			t.Errorf("want a code that begins with %s:\n%s", tc.code, got)
		}
		if now := c.auditHead(); now != head {
			t.Errorf("%s: the refusal has changed the audit trail:\n%s", tc.what, got)
			head = now
		}
		if t.Failed() {
			t.Log(tc.what)
		}
		if tc.stdin != "" && strings.Contains(got.err+got.out, strings.TrimSpace(tc.stdin)) {
			t.Errorf("%s: the secret is told back:\n%s", tc.what, got)
		}
	}
	if now := targetFiles(t, h); now != files {
		t.Error("the target's account files have changed")
	}

	// Wrong command lines: status 2, before anything is asked of anybody.
	for _, args := range [][]string{
		{"account", "provision", "bob", "--role", "linux-standard"},                 // no asset
		{"account", "provision", "--role", "linux-standard", "--asset", "web01"},    // no name
		{"account", "provision", "bob", "--asset", "web01", "--role", "r", "--wat"}, // unknown flag
		{"account", "provision", "bob", "--asset", "web01", "--role", "r", "--start", "soon"},
		{"account", "vanish", "alice@web01"}, {"site", "add"}, {"site", "add", "a", "b"}, {"-o", "xml", "site", "list"}, {"frobnicate"},
		{"asset", "add", "x", "--site", "dmz", "--connector", "ssh", "--address", "192.0.2.1", "--port", "many"},
		{"asset", "add", "x", "--site", "dmz", "--connector", "ssh", "--address", "192.0.2.1", "--username", "root"},
		{"asset", "add", "x", "--site", "dmz", "--connector", "ssh", "--address", "192.0.2.1", "--username", "root", "--password-file", "/nonexistent"},
		{"cluster", "snapshot", "restore", "/nonexistent"}, {"--context", "/nonexistent/context.yaml", "site", "list"},
		{"account", "reveal", "alice@web01"}, // without a reason
	} {
		c.reeve("", args...).usage(t, "reeve: ")
	}
	if now := c.auditHead(); now != head {
		t.Error("a wrong command line has changed the audit trail")
	}

	c.badManagement(h, db)
	c.changedHostKey(h)
}

// targetFiles are the account files of a host.
func targetFiles(t testing.TB, h *testlab.Host) string {
	t.Helper()
	var all string
	for _, name := range []string{"etc/passwd", "etc/shadow", "etc/group"} {
		raw, err := h.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all += string(raw)
	}
	return all
}

// badManagement adds targets with management accounts that cannot work, and says why.
func (c *cluster) badManagement(h *testlab.Host, db *testlab.Database) {
	c.t.Helper()
	t := c.t
	keys := c.write("web.pub", h.HostKey()+"\n")
	ca := c.write("db-ca.pem", db.CAPEM)
	for _, tc := range []struct {
		name, user, password, says string
		more                       []string
	}{
		{"wrong-password", "root", "not-the-password-1", "auth_failed", []string{"--connector", "ssh", "--address", h.Addr, "--host-key-file", keys}},
		{"no-such-user", "nobody-here", "whatever-1-Pass", "auth_failed", []string{"--connector", "ssh", "--address", h.Addr, "--host-key-file", keys}},
		{"without-sudo", "plain", "plain-person-1", "sudo", []string{"--connector", "ssh", "--address", h.Addr, "--host-key-file", keys}},
		{"without-create-user", testlab.Management, db.ManagementPassword, "CREATE USER", []string{"--connector", "mysql", "--address", db.Addr, "--asset-ca-file", ca}},
		{"db-wrong-password", testlab.Management, "not-the-password-1", "auth_failed", []string{"--connector", "mysql", "--address", db.Addr, "--asset-ca-file", ca}},
	} {
		files, began := targetFiles(t, h), time.Now()
		args := append([]string{"asset", "add", tc.name, "--site", "dmz", "--username", tc.user, "--password-file", "-", "--watch"}, tc.more...)
		got := c.reeve(tc.password, args...)
		if got.status != 1 || !strings.Contains(got.err+got.out, tc.says) || strings.Contains(got.err+got.out, tc.password) {
			t.Errorf("%s: want status 1 and %q:\n%s", tc.name, tc.says, got)
		}
		role := "linux-standard"
		if tc.more[1] == "mysql" {
			role = "mysql-db-ro"
		}
		refused := c.reeve("", "account", "provision", "bob", "--role", role, "--asset", tc.name)
		if refused.status == 0 || !strings.Contains(refused.err, "[") {
			t.Errorf("%s: an account was begun with a management account that cannot work:\n%s", tc.name, refused)
		}
		if now := targetFiles(t, h); now != files {
			t.Errorf("%s: the target has changed", tc.name)
		}
		t.Logf("%s: told after %s", tc.name, time.Since(began).Round(time.Millisecond))
	}
}

// changedHostKey gives the host another key: work stops before a password is sent,
// until somebody has approved it.
func (c *cluster) changedHostKey(h *testlab.Host) {
	c.t.Helper()
	t := c.t
	files, in := targetFiles(t, h), logins(h)
	if err := h.NewHostKey(); err != nil {
		t.Fatal(err)
	}
	got := c.reeve("", "account", "rotate", "alice@web01", "--watch")
	if got.status != 1 || !strings.Contains(got.err, "[host_key_changed]") || !strings.Contains(got.err, "reeve asset trust") || strings.Contains(got.err, "attempt 2") {
		t.Errorf("a changed host key, which trying again does not cure: %s", got)
	}
	if now := targetFiles(t, h); now != files || logins(h) != in {
		t.Errorf("the host was logged in to %d times, and its files changed: %v", logins(h)-in, now != files)
	}
	if got = c.reeve("", "account", "provision", "carol", "--role", "linux-standard", "--asset", "web01", "--watch"); got.status != 1 || !strings.Contains(got.out+got.err, "host_key_changed") {
		t.Errorf("work goes on with a host whose key has changed: %s", got)
	}
	if got = c.reeve("", "asset", "verify", "web01"); got.status != 1 || !strings.Contains(got.err, "host_key_changed") {
		t.Errorf("a host whose key has changed is verified: %s", got)
	}
	var asset client.Asset
	if c.json(&asset, "asset", "show", "web01"); asset.Alert == nil {
		t.Errorf("the asset does not say what stops work on it: %+v", asset)
	}
	if targetFiles(t, h) != files || logins(h) != in {
		t.Errorf("the host was logged in to %d times", logins(h)-in)
	}
	c.ok("asset", "trust", "web01", "--host-key-file", c.write("new.pub", h.HostKey()+"\n"))
	c.ok("asset", "verify", "web01")
	eventually(t, 30*time.Second, func() error {
		if a := c.reeve("", "account", "rotate", "alice@web01", "--watch"); a.status != 0 {
			return fmt.Errorf("%s", a)
		}
		return nil
	})
	c.logsIn(h, "alice")
}

// Controllers refuse to start with a configuration they do not understand, and leave
// alone what another has made.
func TestBadConfigurationIsRefused(t *testing.T) {
	t.Parallel()
	c := bootstrapped(t, clusterOptions{})
	n := c.nodes[0]
	whole := strings.Replace(n.yaml(), "data_dir: "+n.data(), "data_dir: "+c.path("fresh"), 1)
	for what, tc := range map[string]struct {
		yaml, code, says string
	}{
		"unknown key":       {whole + "colour: blue\n", "config_malformed", "colour"},
		"not YAML":          {"name: [", "config_malformed", ""},
		"no name":           {strings.Replace(whole, "name: c1", "", 1), "config_invalid", "name"},
		"bad name":          {strings.Replace(whole, "name: c1", "name: C1;id", 1), "config_invalid", "name"},
		"no data_dir":       {strings.Replace(whole, "data_dir: "+c.path("fresh"), "", 1), "config_invalid", "data_dir"},
		"no port":           {strings.Replace(whole, n.api, host(n.api), 1), "config_invalid", "api.bind"},
		"port zero":         {strings.Replace(whole, n.raft, host(n.raft)+":0", 1), "config_invalid", "raft"},
		"bad port":          {strings.Replace(whole, n.raft, host(n.raft)+":many", 1), "config_invalid", "raft"},
		"everywhere":        {strings.Replace(whole, n.agents, "0.0.0.0:8444", 1), "config_invalid", "agents"},
		"timing":            {strings.Replace(whole, "timing: lan", "timing: warp", 1), "config_invalid", "warp"},
		"a missing keyfile": {strings.Replace(whole, "seal.key", "no-seal.key", 1), "key_file_unreadable", "no-seal.key"},
	} {
		path := c.write("bad.yaml", tc.yaml)
		for _, command := range [][]string{{"bootstrap", "--admin-context", c.path("other.yaml")}, {"server"}} {
			if command[0] == "server" && what == "a missing keyfile" {
				continue // it is not even a node
			}
			got := run(t, nil, c.dir, "", "reeved", append(command, "--config", path)...)
			if got.status != 1 || !strings.Contains(got.err, "["+tc.code) || !strings.Contains(got.err, tc.says) {
				t.Errorf("%s: want %s and %q:\n%s", what, tc.code, tc.says, got)
			}
		}
		for _, left := range []string{"fresh", "other.yaml"} {
			if _, err := os.Stat(c.path(left)); err == nil {
				t.Errorf("%s: %s was left behind", what, left)
				_ = os.RemoveAll(c.path(left))
			}
		}
	}
	run(t, nil, c.dir, "", "reeved", "server", "--config", c.path("none.yaml")).refused(t, "config_unreadable")
	run(t, nil, c.dir, "", "reeved", "server").usage(t, "config")
	run(t, nil, c.dir, "", "reeved", "frobnicate").usage(t)
	run(t, nil, c.dir, "", "reeve-agent", "run", "--data", c.path("no-agent"), "--connectors", bin(t)).refused(t, "agent_not_enrolled")
	run(t, nil, c.dir, "", "reeve-agent", "run", "--wat").usage(t, "--wat")

	// A node that is not one.
	run(t, nil, c.dir, "", "reeved", "server", "--config", c.write("fresh.yaml", whole)).refused(t, "node_not_certified")
	_ = os.RemoveAll(c.path("fresh"))

	// A directory that is in use, twice over.
	key, err := os.ReadFile(filepath.Join(n.data(), "identity", "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	run(t, nil, c.dir, "", "reeved", "bootstrap", "--config", n.config, "--admin-context", c.path("other.yaml")).refused(t, "already_initialised")
	n.start()
	c.unseal(n)
	run(t, nil, c.dir, "", "reeved", "server", "--config", n.config).refused(t, "data_dir_in_use")
	if now, err := os.ReadFile(filepath.Join(n.data(), "identity", "node.key")); err != nil || string(now) != string(key) {
		t.Errorf("the node's key was touched: %v", err)
	}
	c.ok("site", "add", "still-there")
	taken := &node{c: c, name: "c2", raft: "127.0.0.1:1", api: n.api, agents: "127.0.0.1:2"}
	other := bootstrapped(t, clusterOptions{lab: c.lab})
	run(t, nil, c.dir, "", "reeved", "server", "--config",
		other.write("taken.yaml", strings.Replace(other.nodes[0].yaml(), other.nodes[0].api, taken.api, 1))).refused(t, "address_unusable", taken.api)
}
