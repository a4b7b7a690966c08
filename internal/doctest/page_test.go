package doctest

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// page is a document, read.
type page struct {
	path   string // from the repository's root
	text   string
	blocks []block
}

// block is a fenced block.
type block struct {
	line  int
	info  []string // words after the fence
	lines []string
}

func (b block) is(lang string) bool     { return len(b.info) > 0 && b.info[0] == lang }
func (b block) marked(word string) bool { return slices.Contains(b.info[min(1, len(b.info)):], word) }

// command is a line after "$ " with what it must print.
type command struct {
	line  int
	text  string
	shown []string
}

// root is the repository.
const root = "../.."

func readPage(t *testing.T, path string) page {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	p := page{path: path, text: string(raw)}
	var open *block
	sc := bufio.NewScanner(strings.NewReader(p.text))
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		info, fence := strings.CutPrefix(line, "```")
		switch {
		case fence && open == nil:
			open = &block{line: n, info: strings.Fields(info)}
		case fence:
			p.blocks = append(p.blocks, *open)
			open = nil
		case open != nil:
			open.lines = append(open.lines, line)
		}
	}
	if open != nil {
		t.Fatalf("%s:%d: the block does not end", path, open.line)
	}
	return p
}

// commands reads a terminal. A line that ends with a backslash goes on in the next.
func (b block) commands() []command {
	var all []command
	for i := 0; i < len(b.lines); i++ {
		text, ok := strings.CutPrefix(b.lines[i], "$ ")
		if !ok {
			if len(all) > 0 {
				last := &all[len(all)-1]
				last.shown = append(last.shown, b.lines[i])
			}
			continue
		}
		c := command{line: b.line + 1 + i, text: text}
		for strings.HasSuffix(c.text, `\`) && i+1 < len(b.lines) {
			i++
			c.text = strings.TrimSuffix(c.text, `\`) + strings.TrimSpace(b.lines[i])
		}
		all = append(all, c)
	}
	return all
}

// mustFail reports whether the page shows the command failing.
func (c command) mustFail() bool {
	return slices.ContainsFunc(c.shown, regexp.MustCompile(`^(reeve|reeved|reeve-agent): |^\[exit status [0-9]+\]$`).MatchString)
}

// What is replaced, on both sides, before what was printed is compared with the page.
var kinds = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?`), "<time>"},
	{regexp.MustCompile(`\b\d\d:\d\d:\d\d\.\d{3}\b`), "<time>"},
	{regexp.MustCompile(`\b[a-z]+_0[0-9a-z]{3,25}…?`), "<id>"},
	{regexp.MustCompile(`\bSHA256:[A-Za-z0-9+/]{8,43}…?`), "<fingerprint>"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b|\b[0-9a-f]{8,63}…`), "<digest>"},
	{regexp.MustCompile(`\b(reevej|reevet)_[A-Za-z0-9_-]{8,}…?`), "<token>"},
	{regexp.MustCompile(`\breeve-[a-z0-9]{8}\b`), "<cluster>"},
	{regexp.MustCompile(`\s+`), " "},
}

func normal(line string) string {
	for _, k := range kinds {
		line = k.pattern.ReplaceAllString(line, k.by)
	}
	return strings.TrimSpace(line)
}

// pattern turns shown lines into one expression for everything that was printed.
func pattern(shown []string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`\A`)
	for _, line := range shown {
		line = normal(line)
		switch {
		case line == "" || strings.HasPrefix(line, "[exit status "):
			continue
		case line == "…":
			b.WriteString(`(?:.*\n)*?`)
		default:
			b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + `\n`)
		}
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

// patient are the lines that are only there when a machine was slow.
var patient = regexp.MustCompile(`^<time> (agent \S+ is still at work|waits for an agent of site \S+|attempt \d+ begins at <time>)$`)

// matches reports whether what was printed is what the page shows.
func matches(printed string, shown []string) bool {
	if !slices.ContainsFunc(shown, func(l string) bool { return strings.TrimSpace(l) != "" }) {
		return true
	}
	var b strings.Builder
	for line := range strings.Lines(printed) {
		if line = normal(line); line != "" && !patient.MatchString(line) {
			b.WriteString(line + "\n")
		}
	}
	return pattern(shown).MatchString(b.String())
}

func TestMatchingIsStrictAboutWordsAndLenientAboutTimes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		shown   string
		printed string
		want    bool
	}{
		"equal":             {"a b", "a   b\n", true},
		"nothing shown":     {"", "anything\n", true},
		"other word":        {"a b", "a c\n", false},
		"line too many":     {"a", "a\nb\n", false},
		"line too few":      {"a\nb", "a\n", false},
		"any lines":         {"a\n…\nz", "a\nb\nc\nz\n", true},
		"any lines, no end": {"a\n…\nz", "a\nb\n", false},
		"any words":         {"version …", "version 1.2-3\n", true},
		"times and ids":     {"12:00:00.000 job_06h07j… done", "15:03:05.299 job_06h07j20jztykj6beqye4tfaqw done\n", true},
		"an id of any kind": {"prove rekey_06h0…", "prove rekey_06h2hx3917g3nz7nc3x8z2bca8\n", true},
		"kinds differ":      {"job_06h07j…", "15:03:05.299\n", false},
		"slow machine":      {"a\nb", "a\n15:03:05.299   agent dev is still at work\nb\n", true},
		"dots are dots":     {"192.0.2.10", "192x0.2.10\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := matches(c.printed, strings.Split(c.shown, "\n")); got != c.want {
				t.Errorf("matches(%q, %q) = %v", c.printed, c.shown, got)
			}
		})
	}
}
