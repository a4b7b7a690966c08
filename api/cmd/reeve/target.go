package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
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
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("--target: %w", err)
	}
	return parseTargetFile(raw, filepath.Dir(path))
}

func parseTargetFile(raw []byte, dir string) (*targetFile, error) {
	f := &targetFile{dir: dir}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	dec.KnownFields(true)
	if err := dec.Decode(f); err != nil {
		return nil, usagef("--target: %w; see reeve connector run --help", err)
	}
	if f.Address == "" {
		return nil, usagef("--target: the file names no address")
	}
	return f, nil
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
		raw, err := os.ReadFile(f.path(from.HostKeyFile))
		problems = append(problems, err)
		for line := range strings.Lines(string(raw)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				t.HostKeys = append(t.HostKeys, line)
			}
		}
	}
	if from.CAFile != "" {
		raw, err := os.ReadFile(f.path(from.CAFile))
		problems = append(problems, err)
		t.CAPEM = string(raw)
	}
	if err := errors.Join(problems...); err != nil {
		return t, usagef("trust: %w", err)
	}
	return t, nil
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
	return sdk.Role{}, usagef("connector %s has no role %q; it has %s", d.Name, name, strings.Join(known, ", "))
}
