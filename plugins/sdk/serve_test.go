package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// asConnector makes this test program a connector.
const asConnector = "SDK_TEST_AS_CONNECTOR"

func TestMain(m *testing.M) {
	if os.Getenv(asConnector) != "" {
		sdk.Serve(noisy{})
	}
	os.Exit(m.Run())
}

const (
	canary     = "canary-9f1c2e"
	rawOutput  = "written to descriptor 1"
	gentleLine = "said in good order"
)

// noisy prints where it should not, and lets its errors quote secrets.
type noisy struct{ bare }

func (noisy) Probe(_ context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	_, _ = fmt.Fprintln(os.Stdout, "printed with fmt")
	_, _ = unix.Write(1, []byte(rawOutput+"\n"))
	slog.Info(gentleLine, "password", t.Management.Password)
	if t.Address == "crash" {
		panic(canary)
	}
	return sdk.Fingerprint{}, errors.New("SET PASSWORD = " + t.Management.Password.Reveal())
}

// syncBuffer is a buffer for several writers.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start starts this test program as a plugin, as an agent would.
func start(t *testing.T) (*sdk.Client, *syncBuffer, func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self) //nolint:gosec // this program
	cmd.Env = []string{asConnector + "=1"}
	var said syncBuffer
	host := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig: sdk.Handshake(), VersionedPlugins: sdk.Plugins(), Cmd: cmd,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC}, AutoMTLS: true, SkipHostEnv: true,
		Logger: hclog.New(&hclog.LoggerOptions{Output: &said, Level: hclog.Debug}),
		Stderr: &said, SyncStdout: &said, SyncStderr: &said,
	})
	t.Cleanup(host.Kill)
	protocol, err := host.Client()
	if err != nil {
		t.Fatalf("%v\n%s", err, said.String())
	}
	raw, err := protocol.Dispense(sdk.PluginName)
	if err != nil {
		t.Fatal(err)
	}
	return raw.(*sdk.Client), &said, host.Kill
}

func TestStrayOutputDoesNotBreakTheConnector_C46(t *testing.T) {
	t.Parallel()
	client, said, kill := start(t)
	for _, address := range []string{"host", "crash", "host"} {
		_, err := client.Probe(t.Context(), sdk.Target{
			Address: address, Management: sdk.Credential{Username: "u", Password: sdk.NewSecret([]byte(canary))},
		})
		if sdk.ClassOf(err) != sdk.ClassInternal || strings.Contains(err.Error(), canary) {
			t.Errorf("probe of %s: %v", address, err)
		}
	}
	if d, err := client.Describe(t.Context()); err != nil || d.Name != "test" {
		t.Errorf("describe: %+v, %v", d, err)
	}
	kill() // joins the readers of its output
	for _, want := range []string{rawOutput, gentleLine, "connector panicked", "unclassified"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("the host did not see %q in:\n%s", want, said.String())
		}
	}
	if strings.Contains(said.String(), canary) {
		t.Errorf("the secret is in the log:\n%s", said.String())
	}
}

func TestStartedByHandItExplainsItself(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]struct {
		status int
		text   string
	}{
		"":          {2, "An agent starts it"},
		"--version": {0, "connector-test 1.2.3 (connector protocol 2)"},
	} {
		cmd := exec.CommandContext(t.Context(), self, strings.Fields(args)...) //nolint:gosec // this program
		cmd.Env = []string{asConnector + "=1"}
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != want.status || !strings.Contains(string(out), want.text) {
			t.Errorf("started with %q: status %d, said %s", args, cmd.ProcessState.ExitCode(), out)
		}
	}
}

func TestDescriptionsThatLieAreNotServed(t *testing.T) {
	t.Parallel()
	good := description()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	role := sdk.Role{Name: "r", Version: 1, Params: []sdk.RoleParam{{Name: "P", Pattern: "^a$"}}, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"x %P% %Username% 100%%"}}}
	good.Roles = []sdk.Role{role}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*sdk.Description){
		"name":            func(d *sdk.Description) { d.Name = "Bad Name" },
		"category":        func(d *sdk.Description) { d.Category = "toaster" },
		"port":            func(d *sdk.Description) { d.DefaultPort = 0 },
		"loose name rule": func(d *sdk.Description) { d.NameRule.Pattern = "[a-z]+" },
		"bad name rule":   func(d *sdk.Description) { d.NameRule.Pattern = "^[a-z+$" },
		"password rule":   func(d *sdk.Description) { d.PasswordRule.MaxLength = 1 },
		"option default":  func(d *sdk.Description) { d.Options[0].Default = "c" },
		"role twice":      func(d *sdk.Description) { d.Roles = []sdk.Role{role, role} },
		"placeholder": func(d *sdk.Description) {
			d.Roles[0].Phases = map[sdk.Phase][]string{sdk.PhaseGrant: {"x %Unknown%"}}
		},
		"percent":  func(d *sdk.Description) { d.Roles[0].Phases = map[sdk.Phase][]string{sdk.PhaseGrant: {"100% x"}} },
		"phase":    func(d *sdk.Description) { d.Roles[0].Phases = map[sdk.Phase][]string{"later": {"x"}} },
		"dialect":  func(d *sdk.Description) { d.Dialect = "cobol" },
		"no phase": func(d *sdk.Description) { d.Phases = []sdk.Phase{"later"} },
		"phase that is not run": func(d *sdk.Description) {
			d.Roles[0].Phases = map[sdk.Phase][]string{sdk.PhaseVerify: {"x"}}
		},
		"command that does not parse": func(d *sdk.Description) {
			d.Dialect, d.Roles[0].Phases = "tsql", map[sdk.Phase][]string{sdk.PhaseGrant: {"PRINT '%P%"}}
		},
		"placeholder in a comment": func(d *sdk.Description) {
			d.Dialect, d.Roles[0].Phases = "tsql", map[sdk.Phase][]string{sdk.PhaseGrant: {"PRINT 1 -- %P%"}}
		},
		"loose command rule": func(d *sdk.Description) { d.CommandRule = sdk.CommandRule{Pattern: "x", Help: "x"} },
		"mute command rule":  func(d *sdk.Description) { d.CommandRule = sdk.CommandRule{Pattern: "^x$"} },
		"mute rule of a phase": func(d *sdk.Description) {
			d.PhaseRules = map[sdk.Phase]sdk.CommandRule{sdk.PhaseGrant: {Pattern: "^x.*$"}}
		},
		"rule of a phase that is not run": func(d *sdk.Description) {
			d.PhaseRules = map[sdk.Phase]sdk.CommandRule{sdk.PhaseFacts: {Pattern: "^x$", Help: "x"}}
		},
		"command that breaks the rule of its phase": func(d *sdk.Description) {
			d.PhaseRules = map[sdk.Phase]sdk.CommandRule{sdk.PhaseGrant: {Pattern: "^y .*$", Help: "y and more"}}
		},
		"command that breaks the rule": func(d *sdk.Description) {
			d.CommandRule = sdk.CommandRule{Pattern: "^y .*$", Help: "y and more"}
		},
		"placeholder within a word": func(d *sdk.Description) {
			d.Roles[0].Phases = map[sdk.Phase][]string{sdk.PhaseGrant: {"x=%P%"}}
		},
		"loose parameter": func(d *sdk.Description) {
			d.Roles[0].Params = []sdk.RoleParam{{Name: "P", Pattern: "a"}}
		},
		"parameter named Username": func(d *sdk.Description) {
			d.Roles[0].Params = []sdk.RoleParam{{Name: "Username", Pattern: "^a$"}}
		},
	} {
		d := description()
		d.Roles = []sdk.Role{{Name: "r", Version: 1, Params: role.Params, Phases: role.Phases}}
		change(&d)
		if err := d.Validate(); sdk.ClassOf(err) != sdk.ClassInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAPhaseMayHaveARuleOfItsOwn(t *testing.T) {
	t.Parallel()
	d := description()
	d.CommandRule = sdk.CommandRule{Pattern: "^x .*$", Help: "x and more"}
	d.PhaseRules = map[sdk.Phase]sdk.CommandRule{sdk.PhaseRemove: {Pattern: "^y$", Help: "y"}}
	for _, c := range []struct {
		phase   sdk.Phase
		command string
		fits    bool
	}{
		{sdk.PhaseGrant, "x %Username%", true},
		{sdk.PhaseGrant, "y", false},
		{sdk.PhaseRemove, "x %Username%", false},
		{sdk.PhaseRemove, "y", true},
	} {
		r := sdk.Role{Name: "r", Version: 1, Phases: map[sdk.Phase][]string{c.phase: {c.command}}}
		for _, d := range []sdk.Description{d, sdk.DescriptionFromProto(sdk.DescriptionToProto(d))} {
			if err := d.CheckRole(r); (err == nil) != c.fits {
				t.Errorf("%q in %s: %v", c.command, c.phase, err)
			}
		}
	}
}

func TestAConnectorSaysWhichPhasesItRuns(t *testing.T) {
	t.Parallel()
	d := description()
	role := sdk.Role{Name: "r", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseFacts: {"x %Username%"}}}
	if err := d.CheckRole(role); sdk.ClassOf(err) != sdk.ClassInvalid {
		t.Errorf("commands nobody runs: %v", err)
	}
	d.Phases = []sdk.Phase{sdk.PhaseFacts}
	if err := d.CheckRole(role); err != nil {
		t.Error(err)
	}
	role.Phases[sdk.PhaseGrant] = []string{"y"}
	if err := d.CheckRole(role); sdk.ClassOf(err) != sdk.ClassInvalid {
		t.Errorf("commands nobody runs: %v", err)
	}
}

func TestRoleParameters(t *testing.T) {
	t.Parallel()
	role := sdk.Role{Name: "r", Version: 1, Params: []sdk.RoleParam{
		{Name: "Must", Pattern: "^[a-z]+$", Required: true}, {Name: "May", Pattern: "^[0-9]+$"},
	}}
	for name, c := range map[string]struct {
		params map[string]string
		ok     bool
	}{
		"all":       {map[string]string{"Must": "a", "May": "1"}, true},
		"required":  {map[string]string{"Must": "a"}, true},
		"missing":   {map[string]string{"May": "1"}, false},
		"empty":     {map[string]string{"Must": ""}, false},
		"unknown":   {map[string]string{"Must": "a", "Other": "x"}, false},
		"unfitting": {map[string]string{"Must": "a; id"}, false},
		"newline":   {map[string]string{"Must": "a\n"}, false},
	} {
		if err := role.CheckParams(c.params); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
