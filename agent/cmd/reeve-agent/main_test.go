package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/agent"
	"github.com/reeve-pam/reeve/internal/cmdline"
)

// invoke runs the program and returns its exit status and all it printed.
func invoke(t *testing.T, stdin string, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	c := root()
	c.SetIn(strings.NewReader(stdin))
	c.SetOut(&out)
	c.SetErr(&out)
	return cmdline.Run(t.Context(), c, args), out.String()
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
			if words[0] != "reeve-agent" {
				continue // reeve: its own tests
			}
			n++
			cmd, rest, err := root().Find(words[1:])
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
	visit(root())
	if n < 5 {
		t.Errorf("only %d examples were looked at", n)
	}
}

func TestExitStatuses(t *testing.T) {
	t.Parallel()
	none := filepath.Join(t.TempDir(), "none")
	for line, want := range map[string]int{
		"":                                  0,
		"--version":                         0,
		"nope":                              cmdline.Usage,
		"run":                               cmdline.Usage,
		"run --data x":                      cmdline.Usage,
		"run --data x --connectors y extra": cmdline.Usage,
		"run --data x --connectors y --concurrency 0": cmdline.Usage,
		"enroll --data x":                                 cmdline.Usage,
		"run --data " + none + " --connectors x":          cmdline.Failed,
		"run --config " + none:                            cmdline.Failed,
		"enroll --data " + none + " --token-file " + none: cmdline.Failed,
		"completion bash":                                 0,
		"completion zsh":                                  0,
		"completion fish":                                 0,
		"completion powershell":                           0,
	} {
		if got, told := invoke(t, "", strings.Fields(line)...); got != want {
			t.Errorf("reeve-agent %s: status %d, want %d\n%s", line, got, want, told)
		}
	}
}

func TestATokenThatIsNoneIsRefusedAndNotQuoted(t *testing.T) {
	t.Parallel()
	const canary = "reevej_canarycanarycanary"
	status, told := invoke(t, canary+"\n", "enroll", "--token-file", "-", "--data", filepath.Join(t.TempDir(), "agent"))
	if status != cmdline.Failed || strings.Contains(told, "canary") {
		t.Errorf("status %d, %s", status, told)
	}
}

func TestSettingsAreReadFromTheFileAndUnknownOnesRefused(t *testing.T) {
	t.Parallel()
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	got, err := readSettings(file("data: /d\nconnectors: /c\nconcurrency: 3\n"))
	if diff := cmp.Diff(settings{"/d", "/c", 3}, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
	if got, err = readSettings(file("data: /d\n")); err != nil || got.Concurrency != agent.DefaultConcurrency {
		t.Errorf("%v, %v", got, err)
	}
	if got, err = readSettings(file("")); err != nil || got.Data != "" {
		t.Errorf("an empty file: %v, %v", got, err)
	}
	for _, text := range []string{"dta: /d\n", "concurrency: many\n", "[]"} {
		if _, err := readSettings(file(text)); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
