package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/internal/cmdline"
)

// result is what a run of the program printed and how it ended.
type result struct {
	status   int
	out, err string
}

// invoke runs the program. No context file of the machine is read.
func invoke(ctx context.Context, stdin string, args ...string) result {
	var out, errOut bytes.Buffer
	if !strings.Contains(strings.Join(args, " "), "--context") {
		args = append([]string{"--context", ""}, args...)
	}
	status := cmdline.Run(ctx, newRoot(stdio{in: strings.NewReader(stdin), out: &out, err: &errOut}), args)
	return result{status, out.String(), errOut.String()}
}

// walk visits every command of ours.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, child := range c.Commands() {
		walk(child, visit)
	}
}

func TestEveryCommandSaysWhatItDoesAndShowsHow(t *testing.T) {
	t.Parallel()
	n := 0
	walk(newRoot(stdio{}), func(c *cobra.Command) {
		n++
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: Short is %q", c.CommandPath(), c.Short)
		}
		if c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
	})
	if n < 50 {
		t.Errorf("only %d commands were looked at", n)
	}
}

// words splits a line as a shell does, for the quotes our examples use. Redirections
// are left out; && and | begin another command.
func words(line string) (commands [][]string) {
	var word []rune
	var current []string
	quoted, begun := false, false
	end := func() {
		if begun {
			current = append(current, string(word))
		}
		word, begun = nil, false
	}
	for _, r := range line + " " {
		switch {
		case r == '\'':
			quoted, begun = !quoted, true
		case r == ' ' && !quoted:
			end()
		default:
			word, begun = append(word, r), true
		}
	}
	for i := 0; i < len(current); i++ {
		switch current[i] {
		case "&&", "|":
			commands, current, i = append(commands, current[:i]), current[i+1:], -1
		case ">":
			current = append(current[:i], current[i+2:]...)
			i--
		case "#":
			current = current[:i]
		}
	}
	return append(commands, current)
}

func TestEveryExampleIsACommandLineThatParses(t *testing.T) {
	t.Parallel()
	n := 0
	walk(newRoot(stdio{}), func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			for _, args := range words(strings.TrimSpace(line)) {
				if args[0] != "reeve" {
					continue // other programs: their own tests
				}
				n++
				if err := parse(args[1:]); err != nil {
					t.Errorf("%s, example %q: %v", c.CommandPath(), strings.TrimSpace(line), err)
				}
			}
		}
	})
	if n < 60 {
		t.Errorf("only %d examples were looked at", n)
	}
}

// parse does everything with a command line but run it.
func parse(args []string) error {
	root := newRoot(stdio{})
	c, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	if err := c.ParseFlags(rest); err != nil {
		return err
	}
	if err := c.ValidateArgs(c.Flags().Args()); err != nil {
		return err
	}
	return c.ValidateRequiredFlags()
}

func TestParseFindsWhatIsWrongWithAnExample(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"reeve nope", "reeve account nope", "reeve asset add web01", "reeve account list --nope", "reeve site add", "reeve site list x"} {
		if parse(words(line)[0][1:]) == nil {
			t.Errorf("%q parses", line)
		}
	}
}

func TestAWrongCommandLineEndsWith2AndARefusalWith1(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]int{
		"account lst":                              cmdline.Usage,
		"nope":                                     cmdline.Usage,
		"--nope":                                   cmdline.Usage,
		"account list extra":                       cmdline.Usage,
		"account show":                             cmdline.Usage,
		"asset add web01":                          cmdline.Usage,
		"account list -o yaml":                     cmdline.Usage,
		"account list":                             cmdline.Usage, // no cluster is known
		"account list --context /does/not/exist":   cmdline.Usage,
		"account reveal a@b":                       cmdline.Usage, // no reason
		"cluster transfer c1 c2":                   cmdline.Usage,
		"audit verify /does/not/exist":             cmdline.Usage,
		"audit verify --head nonsense -":           cmdline.Usage,
		"audit list --since yesterday":             cmdline.Usage,
		"audit export --format xml":                cmdline.Usage,
		"connector register":                       cmdline.Usage,
		"account provision a --role r":             cmdline.Usage,
		"asset trust web01":                        cmdline.Usage,
		"audit verify -":                           cmdline.Failed, // an empty trail proves nothing
		"account":                                  0,              // help
		"status --help":                            0,
		"whoami --address 127.0.0.1:1 --ca-file x": cmdline.Usage,
	} {
		if got := invoke(t.Context(), "", strings.Fields(line)...); got.status != want {
			t.Errorf("reeve %s: status %d, want %d\n%s%s", line, got.status, want, got.out, got.err)
		}
	}
	if got := invoke(t.Context(), "not a record\n", "audit", "verify", "-"); got.status != cmdline.Failed {
		t.Errorf("a trail that is none: status %d\n%s", got.status, got.err)
	}
}

func TestCompletionScriptsAreGeneratedForEveryShell(t *testing.T) {
	t.Parallel()
	for shell, mark := range map[string]string{"bash": "__start_reeve", "zsh": "#compdef reeve", "fish": "complete -c reeve", "powershell": "Register-ArgumentCompleter"} {
		got := invoke(t.Context(), "", "completion", shell)
		if got.status != 0 || !strings.Contains(got.out, mark) {
			t.Errorf("completion %s: status %d, without %q\n%s", shell, got.status, mark, got.err)
		}
		if shell != "bash" {
			continue
		}
		check := exec.CommandContext(t.Context(), "bash", "-n")
		check.Stdin = strings.NewReader(got.out)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("bash does not take its script: %v\n%s", err, out)
		}
	}
}

func TestCompletionKnowsCommandsAndFormats(t *testing.T) {
	t.Parallel()
	if got := invoke(t.Context(), "", "__complete", "account", "ro"); !strings.HasPrefix(got.out, "rotate\t") {
		t.Errorf("account ro: %q", got.out)
	}
	if got := invoke(t.Context(), "", "__complete", "account", "list", "-o", ""); !strings.HasPrefix(got.out, "table\njson\n") {
		t.Errorf("-o: %q", got.out)
	}
}

func TestWordsSplitsAsAShellDoes(t *testing.T) {
	t.Parallel()
	got := words("reeve a --reason 'host was stolen' > x.jsonl && reeve b x | reeved c # say")
	want := [][]string{{"reeve", "a", "--reason", "host was stolen"}, {"reeve", "b", "x"}, {"reeved", "c"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAWrongRoleFileIsToldInPlainWords(t *testing.T) {
	t.Parallel()
	context := face(t)
	file := filepath.Join(t.TempDir(), "role.yaml")
	for text, says := range map[string]string{
		"":                     "--file " + file + ": the file is empty",
		"nam: x":               `--file ` + file + `: line 1: there is no field "nam"`,
		"name: x\nparams: y":   "--file " + file + ": line 2: here belongs",
		"name: x\nphases: [a]": "--file " + file + ": line 2: here belongs",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := invoke(t.Context(), "", "--context", context, "role", "add", "--file", file)
		if got.status != cmdline.Usage || !strings.HasPrefix(got.err, "reeve: "+says) || strings.Contains(got.err, "main.") {
			t.Errorf("%q: status %d, %q; want %q", text, got.status, got.err, says)
		}
	}
	if got := invoke(t.Context(), "", "--context", context, "role", "add", "--file", file+"x"); got.status != cmdline.Usage || got.err != "reeve: --file: there is no file "+file+"x\n  to do: correct the path\n" {
		t.Errorf("status %d, %q", got.status, got.err)
	}
}
