//go:build linux

package doctest

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages are README.md, CHANGELOG.md and everything in docs/.
func pages(t *testing.T) []page {
	t.Helper()
	all := []page{readPage(t, "README.md"), readPage(t, "CHANGELOG.md")}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			rel, _ := filepath.Rel(root, path)
			all = append(all, readPage(t, rel))
		}
		return err
	})
	if err != nil || len(all) < 10 {
		t.Fatalf("%d pages, %v", len(all), err)
	}
	return all
}

// notRun is how many console blocks of a page are only shown. A block that is added to
// them must be added here, with a reason.
var notRun = map[string]int{
	"README.md":         1, // make demo, make test: this test is part of them
	"docs/users.md":     1, // on the host itself
	"docs/operators.md": 1, // installs into the system
	"docs/api.md":       1, // a controller with a name
	"docs/people.md":    1, // a security key; api/cmd/reeve does it in a real browser
}

func TestOnlyKnownBlocksAreNotRun(t *testing.T) {
	t.Parallel()
	followed := []string{"README.md", "docs/users.md", "docs/operators.md", "docs/people.md", "docs/connectors/authors.md", "docs/directory.md"}
	for _, p := range pages(t) {
		n := 0
		for _, b := range p.blocks {
			if len(b.info) == 0 || slices.Contains([]string{"sh", "bash", "shell", "zsh"}, b.info[0]) {
				t.Errorf("%s:%d: the block has no kind, or one that is not tested; use console, yaml, go, json or text", p.path, b.line)
			}
			if !b.is("console") {
				continue
			}
			if b.marked("not-run") {
				n++
			} else if !slices.Contains(followed, p.path) {
				t.Errorf("%s:%d: no test follows this page; mark the block not-run, or write the test", p.path, b.line)
			}
		}
		if n != notRun[p.path] {
			t.Errorf("%s: %d console blocks are not run, want %d", p.path, n, notRun[p.path])
		}
	}
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchor is what GitHub makes of a heading.
func anchor(text string) string {
	return strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(text), ""), " ", "-")
}

func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	n := 0
	for _, p := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(p.text, -1) {
			if strings.HasPrefix(m[1], "https://") {
				continue
			}
			n++
			file, fragment, _ := strings.Cut(m[1], "#")
			path := p.path
			if file != "" {
				path = filepath.Join(filepath.Dir(p.path), file)
			}
			info, err := os.Stat(filepath.Join(root, path))
			if err != nil {
				t.Errorf("%s: %s leads nowhere", p.path, m[1])
				continue
			}
			if fragment == "" || info.IsDir() {
				continue
			}
			found := slices.ContainsFunc(heading.FindAllStringSubmatch(readPage(t, path).text, -1), func(h []string) bool { return anchor(h[1]) == fragment })
			if !found {
				t.Errorf("%s: %s: there is no such heading", p.path, m[1])
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d links were looked at", n)
	}
}

// helps asks the programs for their help texts, by command path.
func helps(t *testing.T) map[string]string {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	var ask func(path []string)
	ask = func(path []string) {
		out, err := exec.CommandContext(t.Context(), filepath.Join(bin, path[0]), append(slices.Clone(path[1:]), "--help")...).CombinedOutput() //nolint:gosec // our own programs
		if err != nil {
			t.Fatalf("%v --help: %v", path, err)
		}
		text := string(out)
		all[strings.Join(path, " ")] = text
		_, list, ok := strings.Cut(text, "Available Commands:\n")
		if !ok {
			return
		}
		list, _, _ = strings.Cut(list, "\n\n")
		for line := range strings.Lines(list) {
			if name, _, _ := strings.Cut(strings.TrimSpace(line), " "); name != "help" {
				ask(append(slices.Clone(path), name))
			}
		}
	}
	for _, program := range []string{"reeve", "reeved", "reeve-agent"} {
		ask([]string{program})
	}
	return all
}

var (
	mention   = regexp.MustCompile(`\b(reeve|reeved|reeve-agent)( [^\n]+)?$`)
	inline    = regexp.MustCompile("`([^`\n]+)`")
	flagWord  = regexp.MustCompile(`^--[a-z][a-z-]*`)
	otherTool = regexp.MustCompile(`^(curl|ssh-keygen|install|useradd|make|git|go|apt|systemctl)\b`)
)

// wrong says what is wrong with a command line that is mentioned, "" if nothing.
func wrong(all map[string]string, line string) string {
	for _, one := range regexp.MustCompile(` \| | && |; `).Split(line, -1) {
		words := strings.Fields(strings.TrimSpace(one))
		if len(words) == 0 || !slices.Contains([]string{"reeve", "reeved", "reeve-agent"}, words[0]) {
			continue
		}
		path, rest := words[0], words[1:]
		for len(rest) > 0 && strings.HasPrefix(rest[0], "--") && rest[0] != "--help" { // flags of the root come before, with a value
			if !strings.Contains(all[path], rest[0]+" ") {
				return path + " has no flag " + rest[0]
			}
			rest = rest[min(2, len(rest)):]
		}
		for len(rest) > 0 && all[path+" "+rest[0]] != "" {
			path, rest = path+" "+rest[0], rest[1:]
		}
		if strings.Contains(all[path], "Available Commands:") && len(rest) > 0 && regexp.MustCompile(`^[a-z]`).MatchString(rest[0]) {
			return path + " has no command " + rest[0]
		}
		for _, w := range rest {
			if f := flagWord.FindString(w); f != "" && !strings.Contains(all[path], f+" ") {
				return path + " has no flag " + f
			}
		}
	}
	return ""
}

func TestWhatIsMentionedExists(t *testing.T) {
	t.Parallel()
	all := helps(t)
	if len(all) < 60 {
		t.Fatalf("only %d commands have help", len(all))
	}
	everything := strings.Join(slices.Collect(func(yield func(string) bool) {
		for _, h := range all {
			if !yield(h) {
				return
			}
		}
	}), "\n")
	n := 0
	for _, p := range pages(t) {
		var lines []string
		for _, b := range p.blocks {
			for _, c := range b.commands() {
				if !c.mustFail() {
					lines = append(lines, c.text)
				}
			}
		}
		for _, m := range inline.FindAllStringSubmatch(p.text, -1) {
			lines = append(lines, m[1])
			if f := flagWord.FindString(m[1]); f != "" && !strings.Contains(everything, f) {
				t.Errorf("%s: no program has a flag %s", p.path, f)
			}
		}
		for _, line := range lines {
			if otherTool.MatchString(line) || !mention.MatchString(line) {
				continue
			}
			n++
			if complaint := wrong(all, strings.TrimPrefix(line, "bin/")); complaint != "" {
				t.Errorf("%s: %s: %s", p.path, line, complaint)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d mentions were looked at", n)
	}
	for _, line := range []string{"reeve nope", "reeve account nope x", "reeve account list --nope", "reeved --nope x server"} {
		if wrong(all, line) == "" {
			t.Errorf("nothing is found wrong with %q", line)
		}
	}
}

// sources are all Go files that are no tests, with their text.
func sources(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{"agent", "api/cmd", "controller", "internal", "plugins"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			raw, err := os.ReadFile(path)
			all[path] = string(raw)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

var advice = regexp.MustCompile("(?:WithFix\\(|Fix: +|fix := )[^\n]*?[\"`: ](reeve(?:d|-agent)? [a-z][a-z -]*)")

// What an error tells people to do, they must be able to do.
func TestAdviceInErrorsNamesCommandsThatExist(t *testing.T) {
	t.Parallel()
	all := helps(t)
	n := 0
	for path, text := range sources(t) {
		for _, m := range advice.FindAllStringSubmatch(text, -1) {
			if strings.HasPrefix(m[1], "reeve with ") {
				continue // prose
			}
			n++
			if complaint := wrong(all, m[1]); complaint != "" {
				t.Errorf("%s advises %q: %s", path, m[1], complaint)
			}
		}
	}
	if n < 10 {
		t.Errorf("only %d pieces of advice were looked at", n)
	}
}

var code = regexp.MustCompile("(?m)^reeve.*\\[([a-z_]+)\\]$|^\\| `([a-z]+_[a-z_]+)`")

func TestCodesThatAreDocumentedAreGiven(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for _, s := range sources(t) {
		text.WriteString(s)
	}
	n := 0
	for _, path := range []string{"docs/users.md", "docs/operators.md"} {
		for _, m := range code.FindAllStringSubmatch(readPage(t, path).text, -1) {
			c := m[1] + m[2]
			if slices.Contains([]string{"in_sync", "out_of_sync", "data_dir", "key_file"}, c) {
				continue // states and keys
			}
			n++
			if !strings.Contains(text.String(), `"`+c+`"`) {
				t.Errorf("%s: nothing gives the code %q", path, c)
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d codes were looked at", n)
	}
}
