package selftest

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// Difference is something in which two lives differ: lines that only one of them has.
type Difference struct {
	Step     string   `json:"step"`
	What     string   `json:"what"` // result, error, plan, done, verdict, facts or missing rights
	Expected []string `json:"expected"`
	Got      []string `json:"got"`
}

// Compare tells in what a life differs from the one that was expected. Names of the
// account, parameters, ids, times, addresses, versions and numbers are no difference.
// Steps that a life through a cluster cannot have, or only it has, are left out.
func Compare(expected, got *Transcript) []Difference {
	var out []Difference
	if e, g := expected.Header.Connector, got.Header.Connector; e != g {
		return []Difference{{"", "connector", []string{e}, []string{g}}}
	}
	if e, g := expected.Header.Role, got.Header.Role; e != g {
		out = append(out, Difference{"", "role", []string{e}, []string{g}})
	}
	theirs := map[string]*Entry{}
	for i := range got.Entries {
		theirs[got.Entries[i].Step] = &got.Entries[i]
	}
	sameWay := expected.Header.Through == got.Header.Through
	ours := map[string]bool{}
	for i := range expected.Entries {
		e := &expected.Entries[i]
		ours[e.Step] = true
		g, there := theirs[e.Step]
		switch {
		case there:
			out = append(out, differ(features(&expected.Header, e), features(&got.Header, g))...)
		case sameWay || inEveryLife(e.Step):
			out = append(out, Difference{e.Step, "result", []string{e.Got}, []string{"not done"}})
		}
	}
	for i := range got.Entries {
		if g := &got.Entries[i]; !ours[g.Step] && (sameWay || g.Step == StepRemoveAgain) {
			out = append(out, Difference{g.Step, "result", []string{"not done"}, []string{g.Got}})
		}
	}
	return out
}

// inEveryLife reports whether a life has the step however it is lived.
func inEveryLife(step string) bool {
	return !slices.Contains([]string{stepFree, StepPlan, "provision again", stepWrong, "deprovision again", stepLoginGone}, step)
}

// feature is what of a step can be compared: lines in no order that matters. One that is
// not known is not compared.
type feature struct {
	step, what string
	known      bool
	lines      []string
}

func features(h *Header, e *Entry) []feature {
	plain := normalizer(h)
	var class, plan, done []string
	if e.Error != nil {
		class = []string{e.Error.Class + ": " + plain(e.Error.Message)}
	}
	ids := map[string]bool{}
	for _, s := range e.Plan {
		ids[s.ID] = true
		plan = append(plan, plain(s.ID+": "+s.Command))
	}
	last := map[string]string{}
	for _, ev := range e.Events {
		if ids[ev.Step] && ev.State != "started" {
			last[ev.Step] = ev.State
		}
	}
	for step, state := range last {
		done = append(done, plain(step)+" "+state)
	}
	var missing []string
	var fp connectorv1.Fingerprint
	if protojson.Unmarshal(e.Probe, &fp) == nil {
		for _, m := range fp.GetMissingRights() {
			missing = append(missing, plain(m))
		}
	}
	var facts []string
	var f connectorv1.Facts
	known := protojson.Unmarshal(e.Facts, &f) == nil
	if known {
		facts = factLines(&f, plain)
	}
	result := e.Got
	if strings.HasPrefix(result, "missing:") {
		result = "rights are missing"
	}
	return []feature{
		{e.Step, "result", true, []string{result}},
		{e.Step, "error", true, class},
		{e.Step, "missing rights", len(e.Probe) > 0, missing},
		{e.Step, "plan", len(e.Plan) > 0, plan},
		{e.Step, "done", len(e.Events) > 0, done},
		{e.Step, "verdict", e.Verdict != "", []string{e.Verdict}},
		{e.Step, "facts", known, facts},
	}
}

func factLines(f *connectorv1.Facts, plain func(string) string) []string {
	lines := []string{fmt.Sprintf("exists: %t", f.GetExists())}
	if !f.GetExists() {
		return lines
	}
	lines = append(lines, fmt.Sprintf("locked: %t", f.GetLocked()), fmt.Sprintf("has a password: %t", f.GetHasPassword()),
		fmt.Sprintf("expires: %t", f.GetExpiresAt() != nil))
	for _, g := range f.GetGroups() {
		lines = append(lines, "group: "+plain(g))
	}
	for _, g := range f.GetGrants() {
		lines = append(lines, "grant: "+plain(g))
	}
	for _, k := range slices.Sorted(maps.Keys(f.GetAttributes())) {
		lines = append(lines, "attribute: "+plain(k))
	}
	return lines
}

// differ compares the features of one step, pair by pair.
func differ(expected, got []feature) (out []Difference) {
	for i, e := range expected {
		g := got[i]
		if !e.known || !g.known {
			continue
		}
		if a, b := only(e.lines, g.lines), only(g.lines, e.lines); len(a)+len(b) > 0 {
			out = append(out, Difference{e.step, e.what, a, b})
		}
	}
	return out
}

// only is the lines of a that b lacks.
func only(a, b []string) []string {
	out := []string{}
	for _, line := range a {
		if !slices.Contains(b, line) {
			out = append(out, line)
		}
	}
	return out
}

var (
	instants = regexp.MustCompile(`\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2})?(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?`)
	versions = regexp.MustCompile(`\d+(\.\d+)+`)
	numbers  = regexp.MustCompile(`\b\d{3,}\b`)
	hexes    = regexp.MustCompile(`(\b0x|\b|_)[0-9A-Fa-f]{14,}\b`) // what is made of an id; shorter ones are digests of scripts, which matter
)

// normalizer takes out of a text what is different in every life.
func normalizer(h *Header) func(string) string {
	type word struct {
		what *regexp.Regexp
		as   string
	}
	var words []word
	if h.Account != "" {
		words = append(words, word{regexp.MustCompile(`(?i)` + regexp.QuoteMeta(h.Account)), "‹account›"})
	}
	for _, name := range slices.Sorted(maps.Keys(h.Params)) {
		for value := range strings.FieldsSeq(h.Params[name]) {
			words = append(words, word{regexp.MustCompile(`(^|\b)` + regexp.QuoteMeta(value) + `(\b|$)`), "‹" + name + "›"})
		}
	}
	words = append(words, word{accountID, "‹id›"}, word{instants, "‹time›"}, word{versions, "‹version›"}, word{hexes, "‹hex›"}, word{numbers, "‹number›"})
	return func(s string) string {
		for _, w := range words {
			s = w.what.ReplaceAllString(s, w.as)
		}
		return strings.TrimSpace(s)
	}
}

// String is a difference for people.
func (d Difference) String() string {
	var b strings.Builder
	if d.Step != "" {
		b.WriteString(d.Step + ": ")
	}
	b.WriteString(d.What)
	for _, line := range d.Expected {
		b.WriteString("\n  - " + strings.ReplaceAll(line, "\n", "\n    "))
	}
	for _, line := range d.Got {
		b.WriteString("\n  + " + strings.ReplaceAll(line, "\n", "\n    "))
	}
	return b.String()
}

// MarshalJSON writes lists, never null.
func (d Difference) MarshalJSON() ([]byte, error) {
	type plain Difference
	if d.Expected == nil {
		d.Expected = []string{}
	}
	if d.Got == nil {
		d.Got = []string{}
	}
	return json.Marshal(plain(d))
}
