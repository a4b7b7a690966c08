package main

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
)

// targetFile describes a target for work without a cluster, in YAML or JSON. Paths are
// relative to the file. Secrets stand in files of their own, never in this one.
type targetFile struct {
	Address     string            `yaml:"address"`
	Port        int               `yaml:"port"`
	Options     map[string]string `yaml:"options"`
	Trust       trustFile         `yaml:"trust"`
	Fingerprint struct {          // of an earlier probe; optional
		Product string `yaml:"product"`
		Version string `yaml:"version"`
	} `yaml:"fingerprint"`
	Management struct {
		Username       string `yaml:"username"`
		PasswordFile   string `yaml:"password_file"` // - for standard input
		PrivateKeyFile string `yaml:"private_key_file"`
	} `yaml:"management"`
	Kit kitFile `yaml:"kit"`

	dir string
}

// trustFile is what a target's identity is checked against.
type trustFile struct {
	HostKeys    []string `yaml:"host_keys"`
	HostKeyFile string   `yaml:"host_key_file"` // lines as of ssh-keyscan
	CAFile      string   `yaml:"ca_file"`
	ServerName  string   `yaml:"server_name"`
}

// kitFile is what only the conformance kit needs.
type kitFile struct {
	WrongTrust trustFile         `yaml:"wrong_trust"`
	NoIdentity bool              `yaml:"no_identity"` // the protocol has none, as Telnet
	Role       string            `yaml:"role"`
	Params     map[string]string `yaml:"params"`
	NamePrefix string            `yaml:"name_prefix"` // of the accounts it makes
	Hooks      struct {
		Exists   []string `yaml:"exists"`
		Login    []string `yaml:"login"`
		Create   []string `yaml:"create"`
		Snapshot []string `yaml:"snapshot"`
		Session  []string `yaml:"session"`

		FailedLogins []string `yaml:"failed_logins"`
	} `yaml:"hooks"`
	States        map[sdktest.State]stateFile `yaml:"states"`
	RefusedRole   string                      `yaml:"refused_role"`
	RefusedParams map[string]string           `yaml:"refused_params"`
	InTheClear    string                      `yaml:"in_the_clear"`
	Commands      *struct {
		Speak    string `yaml:"speak"`
		Stdout   string `yaml:"stdout"`
		Stderr   string `yaml:"stderr"`
		Status   int    `yaml:"status"`
		Pause    string `yaml:"pause"`
		Large    string `yaml:"large"`
		LargeEnd string `yaml:"large_end"`
	} `yaml:"commands"`
}

// stateFile is how the target gets an account into a state, or why it has none.
type stateFile struct {
	Set    []string `yaml:"set"`
	None   string   `yaml:"none"`
	Hidden string   `yaml:"hidden"`
}

func readTargetFile(path string) (*targetFile, error) {
	raw, err := readNamed("--target", path)
	if err != nil {
		return nil, err
	}
	return parseTargetFile(raw, filepath.Dir(path))
}

func parseTargetFile(raw []byte, dir string) (*targetFile, error) {
	f := &targetFile{dir: dir}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(f); err != nil {
		return nil, usagef("--target: %s\n  to do: see reeve connector run --help", yamlFault(err))
	}
	if f.Address == "" {
		return nil, usagef("--target: the file names no address")
	}
	return f, nil
}

var (
	unknownField = regexp.MustCompile(`field (\S+) not found in type .*`)
	wrongKind    = regexp.MustCompile("cannot unmarshal !!(\\S+)( `.*`)? into (.*)")
	kinds        = map[string]string{"int": "a number", "bool": "true or false", "string": "text", "[]string": "a list", "map[string]string": "names with values"}
)

// yamlFault says what is wrong with a file, in its own words and not in those of our
// types; values are not quoted, since one may be a secret in the wrong place.
func yamlFault(err error) string {
	if errors.Is(err, io.EOF) {
		return "the file is empty"
	}
	faults := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	if e, ok := errors.AsType[*yaml.TypeError](err); ok {
		faults = e.Errors
	}
	for i, fault := range faults {
		fault = unknownField.ReplaceAllString(fault, `there is no field "$1"`)
		faults[i] = wrongKind.ReplaceAllStringFunc(fault, func(s string) string {
			want := kinds[wrongKind.FindStringSubmatch(s)[3]]
			if want == "" {
				want = "fields with values"
			}
			return "here belongs " + want
		})
	}
	return strings.Join(faults, "; ")
}

func (f *targetFile) path(p string) string {
	if p == "-" || filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(f.dir, p)
}

// target reads the files a target file names.
func (f *targetFile) target(a *app, d sdk.Description) (sdk.Target, error) {
	t := sdk.Target{Address: f.Address, Port: f.Port, Options: f.Options}
	t.Fingerprint = sdk.Fingerprint{Product: f.Fingerprint.Product, Version: f.Fingerprint.Version}
	if t.Port == 0 {
		t.Port = d.DefaultPort
	}
	if err := checkOptions(d, f.Options); err != nil {
		return t, err
	}
	var err error
	if t.Trust, err = f.trust(f.Trust); err != nil {
		return t, err
	}
	m := f.Management
	t.Management.Username = m.Username
	if m.PasswordFile != "" {
		t.Management.Password, err = a.readSecret(f.path(m.PasswordFile), "Password of "+m.Username)
	}
	if m.PrivateKeyFile != "" && err == nil {
		t.Management.PrivateKey, err = a.readSecret(f.path(m.PrivateKeyFile), "Private key of "+m.Username)
	}
	return t, err
}

func (f *targetFile) trust(from trustFile) (sdk.Trust, error) {
	t := sdk.Trust{HostKeys: slices.Clone(from.HostKeys), ServerName: from.ServerName}
	var problems []error
	if from.HostKeyFile != "" {
		raw, err := readNamed("host_key_file", f.path(from.HostKeyFile))
		problems = append(problems, err)
		for line := range strings.Lines(string(raw)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				t.HostKeys = append(t.HostKeys, line)
			}
		}
	}
	if from.CAFile != "" {
		raw, err := readNamed("ca_file", f.path(from.CAFile))
		problems = append(problems, err)
		t.CAPEM = string(raw)
	}
	if err := errors.Join(problems...); err != nil {
		return t, usagef("--target: %w", err)
	}
	return t, nil
}

// checkOptions refuses options the connector does not have, before it is asked.
func checkOptions(d sdk.Description, options map[string]string) error {
	var known []string
	for _, o := range d.Options {
		known = append(known, o.Name)
		value, given := options[o.Name]
		switch {
		case given && len(o.Allowed) > 0 && !slices.Contains(o.Allowed, value):
			return usagef("--target: option %s of connector %s takes %s", o.Name, d.Name, strings.Join(o.Allowed, ", "))
		case o.Required && value == "" && o.Default == "":
			return usagef("--target: connector %s needs the option %s: %s", d.Name, o.Name, o.Help)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if !slices.Contains(known, name) {
			return usagef("--target: connector %s has no option %q; it has %s", d.Name, name, orNone(known))
		}
	}
	return nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// roleOf finds a role of the catalogue; "" is no role.
func roleOf(d sdk.Description, name string) (sdk.Role, error) {
	if name == "" {
		return sdk.Role{}, nil
	}
	var known []string
	for _, r := range d.Roles {
		if r.Name == name {
			return r, nil
		}
		known = append(known, r.Name)
	}
	return sdk.Role{}, usagef("connector %s has no role %q; it has %s", d.Name, name, orNone(known))
}
