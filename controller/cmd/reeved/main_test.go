package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/internal/cmdline"
)

// screen is a place where logger and command may write at the same time, as they may on
// standard error.
type screen struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// invoke runs the program and returns its exit status and all it printed.
func invoke(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	var out screen
	root := newRoot()
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&out)
	return cmdline.Run(t.Context(), root, args), out.String()
}

func TestEveryCommandSaysWhatItDoesAndItsExamplesParse(t *testing.T) {
	t.Parallel()
	n := 0
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" || c.Example == "" {
			t.Errorf("%s: Short %q, Example %q", c.CommandPath(), c.Short, c.Example)
		}
		for line := range strings.Lines(c.Example) {
			words := strings.Fields(line)
			if words[0] != "reeved" {
				continue // reeve: its own tests
			}
			n++
			root := newRoot()
			cmd, rest, err := root.Find(words[1:])
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err == nil {
				err = cmd.ValidateRequiredFlags()
			}
			if err != nil {
				t.Errorf("%s, example %q: %v", c.CommandPath(), strings.TrimSpace(line), err)
			}
		}
		for _, child := range c.Commands() {
			visit(child)
		}
	}
	visit(newRoot())
	if n < 8 {
		t.Errorf("only %d examples were looked at", n)
	}
}

func TestExitStatuses(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "none.yaml")
	for line, want := range map[string]int{
		"":                                       0,
		"--version":                              0,
		"nope":                                   cmdline.Usage,
		"server":                                 cmdline.Usage,
		"server --config x extra":                cmdline.Usage,
		"bootstrap --nope":                       cmdline.Usage,
		"key-file":                               cmdline.Usage,
		"server --config " + missing:             cmdline.Failed,
		"join --config " + missing:               cmdline.Failed,
		"completion bash":                        0,
		"completion zsh":                         0,
		"completion fish":                        0,
		"completion powershell":                  0,
		"dev --log-level loud --data " + missing: cmdline.Usage,
	} {
		if got, told := invoke(t, "", strings.Fields(line)...); got != want {
			t.Errorf("reeved %s: status %d, want %d\n%s", line, got, want, told)
		}
	}
}

func TestAMisspeltKeyOfTheConfigurationIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c1.yaml")
	if err := os.WriteFile(path, []byte("name: c1\ndata_dri: /x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	status, told := invoke(t, "", "server", "--config", path)
	if status != cmdline.Failed || !strings.Contains(told, "[config_malformed]") || !strings.Contains(told, "data_dri") {
		t.Errorf("status %d, %s", status, told)
	}
}

func TestAKeyFileIsMadeOnceAndForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "seal.key")
	if status, told := invoke(t, "", "key-file", path); status != 0 || told != "" {
		t.Fatalf("status %d, %s", status, told)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	status, told := invoke(t, "", "key-file", path)
	after, err := os.ReadFile(path)
	if status != cmdline.Failed || err != nil || !bytes.Equal(before, after) {
		t.Errorf("a second time: status %d, %v, the file is the same: %v", status, err, bytes.Equal(before, after))
	}
	if strings.Contains(told, strings.TrimSpace(string(before))) {
		t.Error("the key is in the output")
	}
}

// Bootstrap hands out shares and the root token: to their files and nowhere else.
func TestBootstrapPrintsNoSecretWhenThereAreFilesForThem(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "c1.yaml")
	text := "name: c1\ndata_dir: " + filepath.Join(dir, "data") + "\napi: {bind: '127.0.0.1:8443'}\nagents: {bind: '127.0.0.1:8444'}\nraft: {bind: '127.0.0.1:8445'}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	context, shares := filepath.Join(dir, "admin.yaml"), filepath.Join(dir, "shares")
	bootstrap := func() (int, string) {
		return invoke(t, "", "bootstrap", "--config", config, "--shares", "3", "--threshold", "2", "--shares-dir", shares,
			"--admin-context", context, "--log-level", "debug")
	}
	status, told := bootstrap()
	if status != 0 {
		t.Fatalf("status %d, %s", status, told)
	}
	made, err := readContext(context)
	if err != nil || made.Token == "" {
		t.Fatalf("%v, %v", made.Addresses, err)
	}
	secrets := []string{made.Token}
	for _, name := range []string{"share-1.txt", "share-2.txt", "share-3.txt"} {
		raw, err := os.ReadFile(filepath.Join(shares, name))
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, strings.TrimSpace(string(raw)))
	}
	for _, path := range []string{context, filepath.Join(shares, "share-1.txt")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	for _, s := range secrets {
		if strings.Contains(told, s) {
			t.Errorf("a secret is in the output:\n%s", told)
		}
	}
	if status, told := bootstrap(); status != cmdline.Failed || !strings.Contains(told, context+" exists") {
		t.Errorf("a second time: status %d, %s", status, told)
	}
	if err := os.Remove(context); err != nil {
		t.Fatal(err)
	}
	if status, told := bootstrap(); status != cmdline.Failed || !strings.Contains(told, "[already_initialised]") {
		t.Errorf("into a directory that is taken: status %d, %s", status, told)
	}
}

func TestWithoutADirectoryTheSharesAreShownOnceOnStandardOutput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config := filepath.Join(dir, "c1.yaml")
	text := "name: c1\ndata_dir: " + filepath.Join(dir, "data") + "\napi: {bind: '127.0.0.1:8443'}\nagents: {bind: '127.0.0.1:8444'}\nraft: {bind: '127.0.0.1:8445'}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errOut screen
	root := newRoot()
	root.SetOut(&out)
	root.SetErr(&errOut)
	if status := cmdline.Run(t.Context(), root, []string{"bootstrap", "--config", config, "--admin-context", filepath.Join(dir, "admin.yaml")}); status != 0 {
		t.Fatalf("status %d, %s", status, errOut.String())
	}
	if lines := strings.Fields(out.String()); len(lines) != 5 {
		t.Errorf("%d shares on standard output, want 5", len(lines))
	}
}
