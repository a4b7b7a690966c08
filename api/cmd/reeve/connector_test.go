package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/cmdline"
	"github.com/reeve-pam/reeve/internal/selftest"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

// hookName is what this test program is called when it is a hook of the kit.
const hookName = "toyhook"

var toyProgram struct {
	sync.Once
	dir, path string
	err       error
}

// hook answers the kit about a toy machine, as programs of an owner would.
func hook(what, name string) int {
	password, _ := io.ReadAll(os.Stdin)
	f, err := readTargetFile("toy.yaml") // hooks begin in its directory
	if err != nil {
		return 3
	}
	t, err := f.target(&app{}, sdk.Description{})
	if err != nil {
		return 3
	}
	ctx := context.Background()
	var c toy.Connector
	status := map[bool]int{true: 0, false: 1}
	switch what {
	case "exists":
		facts, err := c.Inspect(ctx, t, name)
		if err != nil {
			return 3
		}
		return status[facts.Exists]
	case "login":
		v, err := c.Verify(ctx, t, sdk.Credential{Username: name, Password: sdk.NewSecret(password)})
		if err != nil {
			return 3
		}
		return status[v.Kind == sdk.VerdictOK]
	case "create":
		in := sdk.Intent{Action: sdk.Provision, Account: name, AccountID: "somebody"}
		plan, err := c.Plan(ctx, t, in)
		if err == nil {
			_, err = c.Apply(ctx, t, sdk.Change{Intent: in, Plan: plan, Password: sdk.NewSecret(password)}, func(sdk.Event) {})
		}
		return status[err == nil]
	case "snapshot":
		var all []string
		err := c.Discover(ctx, t, func(x sdk.Facts) bool {
			all = append(all, fmt.Sprint(x.Account, x.Identity, x.Locked, x.PasswordChangedAt, x.Groups, x.Attributes, "\n"))
			return true
		})
		slices.Sort(all)
		_, _ = fmt.Fprint(os.Stdout, all) //nolint:forbidigo // what a hook answers
		return status[err == nil]
	case "lock":
		_, err := askMachine(t, map[string]any{"op": "lock", "name": name})
		return status[err == nil]
	case "expire":
		_, err := askMachine(t, map[string]any{"op": "expire", "name": name, "account": map[string]any{"expires": time.Now().Add(-time.Hour)}})
		return status[err == nil]
	case "failures":
		a, err := askMachine(t, map[string]any{"op": "get", "name": name})
		_, _ = fmt.Fprintln(os.Stdout, a.Refused) //nolint:forbidigo // what a hook answers
		return status[err == nil]
	default:
		return 3
	}
}

// askMachine makes one request of a toy machine, in its own protocol.
func askMachine(t sdk.Target, request map[string]any) (toy.Account, error) {
	conn, err := net.Dial("tcp", net.JoinHostPort(t.Address, fmt.Sprint(t.Port))) //nolint:noctx // short-lived
	if err != nil {
		return toy.Account{}, err
	}
	defer func() { _ = conn.Close() }()
	var answer struct {
		Error   string
		Account toy.Account
	}
	lines, out := json.NewDecoder(conn), json.NewEncoder(conn)
	err = lines.Decode(&answer) // its key
	login := map[string]any{"op": "login", "name": t.Management.Username, "text": t.Management.Password.Reveal()}
	for _, r := range []map[string]any{login, request} {
		err = errors.Join(err, out.Encode(r), lines.Decode(&answer))
		if answer.Error != "" {
			return toy.Account{}, errors.New(answer.Error)
		}
	}
	return answer.Account, err
}

// toyConnector builds the toy connector once for all tests.
func toyConnector(t *testing.T) string {
	t.Helper()
	toyProgram.Do(func() {
		toyProgram.dir, toyProgram.err = os.MkdirTemp("", "reeve-test-")
		toyProgram.path = filepath.Join(toyProgram.dir, "connector-toy")
		if toyProgram.err == nil {
			out, err := exec.Command("go", "build", "-o", toyProgram.path, "../../../plugins/sdk/sdktest/toy/connector-toy").CombinedOutput()
			if err != nil {
				toyProgram.err = fmt.Errorf("%w: %s", err, out)
			}
		}
	})
	if toyProgram.err != nil {
		t.Fatal(toyProgram.err)
	}
	return toyProgram.path
}

// toyTarget writes the target file of a machine, with hooks, and returns its path.
func toyTarget(t *testing.T, m *toy.Machine) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, hookName)); err != nil {
		t.Fatal(err)
	}
	target := m.Target()
	path := filepath.Join(dir, "toy.yaml")
	hook := func(what string) string { return "[./" + hookName + ", " + what + "]" }
	for name, text := range map[string]string{
		"toy.yaml": fmt.Sprintf(`address: %s
port: %d
trust: {host_key_file: key.pub}
management: {username: %s, password_file: password}
kit:
  wrong_trust: {host_keys: [toy of another machine]}
  name_prefix: kit
  hooks: {exists: %s, login: %s, create: %s, snapshot: %s, failed_logins: %s}
  states: {expired: {set: %s}, locked: {set: %s}, disabled: {none: the machine of these hooks disables nobody}}
  refused_role: toy-group
  refused_params: {Group: nogroup}
  in_the_clear: the machine encrypts nothing
  commands: {speak: "say hello; exit 3", stdout: hello, status: 3, pause: "say x; wait", large: "many 20000", large_end: "line 20000"}
`, target.Address, target.Port, target.Management.Username, hook("exists"), hook("login"), hook("create"), hook("snapshot"),
			hook("failures"), hook("expire"), hook("lock")),
		"key.pub":  "# of the machine\n" + target.Trust.HostKeys[0] + "\n",
		"password": target.Management.Password.Reveal() + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func TestConnectorRunDoesEveryOperationWithoutACluster(t *testing.T) {
	t.Parallel()
	m := toy.NewMachine(t)
	program, target := toyConnector(t), toyTarget(t, m)
	const first, second = "Canary-first-77", "Canary-second-77"
	alice := func() toy.Account { a, _ := m.Account("alice"); return a }
	for _, c := range []struct {
		operation, stdin string
		flags            []string
		shows            string
		holds            func() bool
	}{
		{"describe", "", nil, "toy-admin", nil},
		{"probe", "", nil, "product", nil},
		{"plan", "", []string{"--account", "alice", "--role", "toy-admin"}, "group alice admin", func() bool { return len(m.Accounts()) == 0 }},
		{"provision", first, []string{"--account", "alice", "--role", "toy-admin", "--expires-in", "24h"}, "alice",
			func() bool { return m.LoginWorks("alice", first) && !alice().Expires.IsZero() }},
		{"inspect", "", []string{"--account", "alice"}, "admin", nil},
		{"discover", "", nil, "alice", nil},
		{"verify", first, []string{"--account", "alice"}, "ok", nil},
		{"verify", second, []string{"--account", "alice"}, "bad_credential", nil},
		{"rotate", second + "\n", []string{"--account", "alice"}, "changed", func() bool { return m.LoginWorks("alice", second) }},
		{"disable", "", []string{"--account", "alice"}, "changed", func() bool { return alice().Locked }},
		{"enable", "", []string{"--account", "alice"}, "changed", func() bool { return !alice().Locked }},
		{"deprovision", "", []string{"--account", "alice"}, "changed", func() bool { return len(m.Accounts()) == 0 }},
		{"run", "", []string{"--command", "say hello"}, "hello", nil},
	} {
		for _, format := range []string{"table", "json"} {
			if format == "json" && c.holds != nil {
				continue // it was done
			}
			args := append([]string{"connector", "run", program, c.operation, "--target", target, "-o", format}, c.flags...)
			got := invoke(t.Context(), c.stdin, args...)
			if got.status != 0 || !strings.Contains(got.out, c.shows) {
				t.Fatalf("%s: status %d, without %q\n%s%s", c.operation, got.status, c.shows, got.out, got.err)
			}
			if format == "json" && c.operation != "run" && !json.Valid([]byte(got.out)) {
				t.Errorf("%s prints no JSON:\n%s", c.operation, got.out)
			}
			for _, secret := range []string{first, second, m.Target().Management.Password.Reveal()} {
				if strings.Contains(got.out+got.err, secret) {
					t.Errorf("%s prints a password", c.operation)
				}
			}
		}
		if c.holds != nil && !c.holds() {
			t.Errorf("%s is not so on the machine: %+v", c.operation, alice())
		}
	}
}

func TestConnectorRunTellsRefusalsApart(t *testing.T) {
	t.Parallel()
	m := toy.NewMachine(t)
	program, target := toyConnector(t), toyTarget(t, m)
	missing := filepath.Join(t.TempDir(), "none.yaml")
	for line, want := range map[string]struct {
		status int
		says   string
	}{
		"dance --target " + target:   {cmdline.Usage, "no operation"},
		"probe":                      {cmdline.Usage, "--target is required"},
		"probe --target " + missing:  {cmdline.Usage, "there is no file"},
		"inspect --target " + target: {cmdline.Usage, "--account"},
		"run --target " + target:     {cmdline.Usage, "--command"},
		"plan --target " + target + " --account alice --role none":            {cmdline.Usage, "toy-admin"},
		"plan --target " + target + " --account a;id":                         {cmdline.Failed, "[invalid]"},
		"disable --target " + target + " --account bob":                       {cmdline.Failed, "to do: provision it again"},
		"run --command exit\\ 4 --target " + target:                           {cmdline.Failed, "status 4"},
		"provision --target " + target + " --account bob --password-file /no": {cmdline.Usage, "there is no file /no"},
	} {
		args := strings.Fields(line)
		for i := range args {
			if i+1 < len(args) && strings.HasSuffix(args[i], `\`) {
				args = append(append(args[:i:i], strings.TrimSuffix(args[i], `\`)+" "+args[i+1]), args[i+2:]...)
			}
		}
		got := invoke(t.Context(), "", append([]string{"connector", "run", program}, args...)...)
		if got.status != want.status || !strings.Contains(got.err, want.says) {
			t.Errorf("%s: status %d, want %d and %q:\n%s", line, got.status, want.status, want.says, got.err)
		}
	}
	if got := invoke(t.Context(), "", "connector", "run", "/bin/true", "describe"); got.status != cmdline.Failed || !strings.Contains(got.err, "does not start") {
		t.Errorf("a program that is no connector: status %d\n%s", got.status, got.err)
	}
}

func TestConnectorVerifyRunsTheKitAsABlackBox(t *testing.T) {
	t.Parallel()
	m := toy.NewMachine(t)
	program, target := toyConnector(t), toyTarget(t, m)
	report := filepath.Join(t.TempDir(), "report.json")
	got := invoke(t.Context(), "", "connector", "verify", program, "--target", target, "--report", report,
		"--check", "SDK01,SDK02,SDK07,SDK13,SDK22,SDK27,SDK36,SDK71,SDK94")
	if got.status != 0 || !strings.Contains(got.out, "connector toy 1.0.0: 8 passed, 0 failed, 1 not applicable") {
		t.Errorf("status %d\n%s%s", got.status, got.out, got.err)
	}
	var r sdktest.Report
	raw, err := os.ReadFile(report)
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil || len(r.Outcomes) != 9 {
		t.Errorf("the report has %d outcomes, %v", len(r.Outcomes), err)
	}
	got = invoke(t.Context(), "", "connector", "verify", program, "--target", target, "--report", report,
		"--check", "SDK99,SDK100,SDK101,SDK102,SDK103,SDK104,SDK108,SDK109,SDK110")
	if got.status != 0 || !strings.Contains(got.out, "6 passed, 0 failed, 3 not applicable") ||
		!strings.Contains(got.out, "disables nobody") || !strings.Contains(got.out, "no hook that makes an account must_change") {
		t.Errorf("states of the target file: status %d\n%s%s", got.status, got.out, got.err)
	}
	m.Set(toy.Faults{Refuse: "lock"})
	got = invoke(t.Context(), "", "connector", "verify", program, "--target", target, "--check", "SDK14", "-o", "json")
	if got.status != cmdline.Failed || !json.Valid([]byte(got.out)) || !strings.Contains(got.err, "1 checks failed") {
		t.Errorf("a target that refuses: status %d\n%s%s", got.status, got.out, got.err)
	}
	got = invoke(t.Context(), "", "connector", "verify", program, "--target", target, "--check", "SDK00")
	if got.status != cmdline.Usage {
		t.Errorf("a check that is none: status %d\n%s", got.status, got.err)
	}
}

// steps are the entries of a transcript.
func steps(t *testing.T, path string) []selftest.Entry {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := selftest.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return all.Entries
}

func TestSelftestLivesALifeAndWritesItDownWithoutSecrets(t *testing.T) {
	t.Parallel()
	m := toy.NewMachine(t)
	program, target := toyConnector(t), toyTarget(t, m)
	path := filepath.Join(t.TempDir(), "toy.jsonl")
	got := invoke(t.Context(), "", "connector", "selftest", program, "--target", target, "--role", "toy-admin", "--transcript", path)
	if got.status != 0 || !strings.Contains(got.out, "18 steps, 0 differ") {
		t.Errorf("status %d\n%s%s", got.status, got.out, got.err)
	}
	all := steps(t, path)
	for _, e := range all {
		if !e.OK || e.Got != e.Want {
			t.Errorf("%s: %s, want %s", e.Step, e.Got, e.Want)
		}
	}
	if len(all) != 18 || len(m.Accounts()) != 0 {
		t.Errorf("%d steps; %d accounts are left", len(all), len(m.Accounts()))
	}
	raw, _ := os.ReadFile(path)
	for _, secret := range []string{m.Target().Management.Password.Reveal(), "Aa1."} { // how its passwords begin
		if strings.Contains(string(raw)+got.out+got.err, secret) {
			t.Error("a password is in the transcript or the output")
		}
	}
	if again := invoke(t.Context(), "", "connector", "selftest", program, "--target", target, "--transcript", path); again.status != cmdline.Usage {
		t.Errorf("a transcript is written over: status %d", again.status)
	}
}

func TestSelftestSaysWhatDiffersAndRemovesTheAccount(t *testing.T) {
	t.Parallel()
	m := toy.NewMachine(t)
	m.Set(toy.Faults{Refuse: "lock"})
	path := filepath.Join(t.TempDir(), "toy.jsonl")
	got := invoke(t.Context(), "", "connector", "selftest", toyConnector(t), "--target", toyTarget(t, m), "--transcript", path)
	if got.status != cmdline.Failed || !strings.Contains(got.err, "DIFFERS disable: error not_permitted") {
		t.Errorf("status %d\n%s%s", got.status, got.out, got.err)
	}
	if len(m.Accounts()) != 0 {
		t.Errorf("an account is left: %v", m.Accounts())
	}
	for _, e := range steps(t, path) {
		if e.Step == "disable" && (e.OK || e.Error == nil || e.Error.Class != "not_permitted" || e.Error.Fix == "") {
			t.Errorf("the transcript says of disable %+v", e)
		}
	}
}

// That its tests pass too is seen by who follows docs/connectors/authors.md, in internal/doctest.
func TestNewConnectorCompiles(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "acme")
	got := invoke(t.Context(), "", "connector", "new", "acme", "--dir", dir, "--reeve", root)
	if got.status != 0 {
		t.Fatalf("status %d\n%s", got.status, got.err)
	}
	for _, args := range [][]string{
		{"mod", "tidy"}, {"vet", "./..."}, {"build", "-o", "connector-acme", "."},
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	described := invoke(t.Context(), "", "connector", "run", filepath.Join(dir, "connector-acme"), "describe")
	if described.status != 0 || !strings.Contains(described.out, "acme-admin") || strings.Contains(described.out, "toy") {
		t.Errorf("it describes itself: %d\n%s%s", described.status, described.out, described.err)
	}
	if got := invoke(t.Context(), "", "connector", "new", "other", "--dir", dir+"3"); got.status != cmdline.Usage || !strings.Contains(got.err, "--reeve") {
		t.Errorf("a build that is no release makes a module nobody can build: status %d, %s", got.status, got.err)
	}
	for _, args := range [][]string{{"acme", "--dir", dir, "--reeve", root}, {"acme", "--dir", dir + "4", "--reeve", dir}, {"Acme"}, {"../x"}, {"acme", "--module", "a b"}, {"acme", "--dir", dir + "2", "--reeve", dir + "3"}} {
		if got := invoke(t.Context(), "", append([]string{"connector", "new"}, args...)...); got.status != cmdline.Usage {
			t.Errorf("connector new %q: status %d\n%s", args, got.status, got.err)
		}
	}
}

func FuzzTargetFile(f *testing.F) {
	f.Add([]byte("address: a\nport: 22\ntrust: {host_keys: [x]}\nmanagement: {username: u, password_file: '-'}\n"))
	f.Add([]byte(`{"address": "a", "kit": {"hooks": {"exists": ["x"]}}}`))
	f.Add([]byte("address: [a]\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := parseTargetFile(raw, "/nowhere")
		if err == nil && file.Address == "" {
			t.Error("a target without an address is taken")
		}
	})
}
