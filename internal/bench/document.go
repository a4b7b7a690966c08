package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// The markers of the part of a document that is written by --write.
const (
	markBegin = "<!-- bench:begin -->"
	markEnd   = "<!-- bench:end -->"
)

// document replaces the part of a markdown file between the markers by the table.
func (rep *report) document(path string) error {
	old, err := os.ReadFile(path) //nolint:gosec // the user names the file
	if err != nil {
		return err
	}
	before, rest, found := bytes.Cut(old, []byte(markBegin))
	_, after, ended := bytes.Cut(rest, []byte(markEnd))
	if !found || !ended {
		return fmt.Errorf("%s has no %s … %s", path, markBegin, markEnd)
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%s%s\n%s%s%s", before, markBegin, rep.markdown(), markEnd, after), 0o644) //nolint:gosec // a document for everybody
}

func (rep *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n| %s |\n|%s\n", strings.Join(heads, " | "), strings.Repeat(" --- |", len(heads)))
	for _, r := range rep.Results {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(r.cells(), " | "))
	}
	fmt.Fprintf(&b, "\nMeasured %s.\n", rep.Machine)
	for _, r := range rep.Results {
		if r.Note != "" {
			fmt.Fprintf(&b, "\n%s: %s\n", r.Work, r.Note)
		}
	}
	return b.String()
}
