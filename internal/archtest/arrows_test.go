package archtest

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/reeve-pam/reeve/"

// layers are the packages of the controller from top to bottom. A package may import
// those below it, never one beside or above.
var layers = [][]string{
	{"controller/cmd/reeved"},
	{"controller"},
	{"controller/rest", "controller/gateway"},
	{"controller/lifecycle"},
	{"controller/jobs"},
	{"controller/vault", "controller/inventory", "controller/identity/oidc"},
	{"controller/identity"},
	{"controller/identity/directory"},
	{"controller/pki"},
	{"controller/seal", "controller/cluster"}, // they satisfy what the store asks for
	{"controller/audit/sink"},
	{"controller/service"},
	{"controller/audit"},
	{"controller/store"},
}

// bans are imports that must not be, each with its reason. from and to are prefixes.
var bans = []struct {
	from, to string
	except   []string // importing packages that may
	why      string
}{
	{"agent", "controller", nil, "an agent runs in other people's networks: it must not carry the controller"},
	{"agent", "api", nil, "agents speak gRPC to controllers, not the public API"},
	{"api", "controller", nil, "the public face must work against any controller version"},
	{"plugins", "controller", nil, "connectors are written by strangers"},
	{"plugins", "agent", nil, "connectors are written by strangers"},
	{"plugins", "api", nil, "connectors are written by strangers"},
	{"controller", "plugins", []string{"controller/cmd/reeved"}, "controllers never run a connector, they read its roles' commands with the SDK's templates; `reeved dev` registers some"},
	{"controller", "agent", []string{"controller/cmd/reeved"}, "only `reeved dev` runs an agent, in its own process"},
	{"controller", "internal/testlab", nil, "test servers stay in tests and the demo"},
	{"agent", "internal/testlab", nil, "test servers stay in tests and the demo"},
	{"controller", "internal/emu", nil, "emulators are for tests"},
	{"agent", "internal/emu", nil, "emulators are for tests"},
	{"api", "internal/emu", nil, "emulators are for tests"},
	{"controller", "internal/fleet", nil, "it runs controllers as processes, for the demo, chaos and benchmarks"},
	{"agent", "internal/fleet", nil, "it runs agents as processes, for the demo, chaos and benchmarks"},
	{"proto", "internal", nil, "the wire contract stands alone"},
}

// allowed are single packages that a ban on their folder does not mean, by who may import them.
var allowed = map[string]string{"plugins/sdk/template": "controller"}

type pkg struct {
	path    string
	imports []string // ours only, without the module's name
}

// packages lists our packages with what their non-test files import.
func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		p := pkg{path: strings.TrimPrefix(fields[0], module)}
		for _, imp := range fields[1:] {
			if ours, ok := strings.CutPrefix(imp, module); ok {
				p.imports = append(p.imports, ours)
			}
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 20 {
		t.Fatalf("only %d packages found: the test looks in the wrong place", len(pkgs))
	}
	return pkgs
}

func within(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

func TestNoImportIsBanned(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, ban := range bans {
			if !within(p.path, ban.from) || slices.Contains(ban.except, p.path) {
				continue
			}
			for _, imp := range p.imports {
				if from, ok := allowed[imp]; ok && from == ban.from {
					continue
				}
				if within(imp, ban.to) {
					t.Errorf("%s imports %s: %s", p.path, imp, ban.why)
				}
			}
		}
	}
}

// A connector imports the SDK, its driver and itself, as a stranger's would.
func TestConnectorsImportTheSDKAlone(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		dir, name, _ := strings.Cut(p.path, "/")
		if name, _, _ = strings.Cut(name, "/"); dir != "plugins" || name == "sdk" {
			continue
		}
		for _, imp := range p.imports {
			if !within(imp, "plugins/"+name) && !within(imp, "plugins/sdk") {
				t.Errorf("%s imports %s", p.path, imp)
			}
		}
	}
}

// The public face tries and tests connectors as programs: it imports the SDK and its kit, and no connector, so that it
// treats a stranger's as ours.
func TestTheCommandLineImportsNoConnector(t *testing.T) {
	t.Parallel()
	for _, p := range packages(t) {
		for _, imp := range p.imports {
			if within(p.path, "api") && within(imp, "plugins") && !within(imp, "plugins/sdk") {
				t.Errorf("%s imports %s", p.path, imp)
			}
		}
	}
}

func TestArrowsPointDownwards(t *testing.T) {
	t.Parallel()
	layer := map[string]int{}
	for i, names := range layers {
		for _, n := range names {
			layer[n] = i
		}
	}
	for _, p := range packages(t) {
		from, ok := layer[p.path]
		if !ok {
			continue
		}
		for _, imp := range p.imports {
			if to, ok := layer[imp]; ok && to <= from {
				t.Errorf("%s imports %s, which is not below it", p.path, imp)
			}
		}
	}
}

func TestEveryControllerPackageHasItsLayer(t *testing.T) {
	t.Parallel()
	known := slices.Concat(layers...)
	for _, p := range packages(t) {
		if within(p.path, "controller") && !slices.Contains(known, p.path) && !strings.HasSuffix(p.path, "test") {
			t.Errorf("%s has no layer: say in arrows_test.go what may import it", p.path)
		}
	}
}

// The nouns everybody shares must not drag anything along.
func TestSharedNounsUseTheStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"internal/reeve", "internal/auditchain"} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", `{{if not .Standard}}{{.ImportPath}}{{end}}`, module+name).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		for dep := range strings.FieldsSeq(string(out)) {
			if !within(dep, strings.TrimSuffix(module, "/")) {
				t.Errorf("%s depends on %s", name, dep)
			}
		}
	}
}
