package archtest

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The table of public failures in docs/security.md names tests that are there, and all that carry such a number.
func TestThePublicFailuresHaveTheirTests(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, name := range regexp.MustCompile("`(Test[A-Za-z0-9_]+)`").FindAllStringSubmatch(string(doc), -1) {
		named[name[1]] = true
	}
	there := map[string]string{}
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(t \*testing\.T\)`)
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || len(d.Name()) > 2 && d.Name()[0] == '.') {
			if err == nil {
				err = fs.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		source, err := os.ReadFile(path) //nolint:gosec // of this repository
		if err != nil {
			return err
		}
		for _, name := range declared.FindAllStringSubmatch(string(source), -1) {
			there[name[1]] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range named {
		if there[name] == "" {
			t.Errorf("docs/security.md names %s, which is not there", name)
		}
	}
	for name, path := range there {
		if (strings.Contains(name, "_CVE_") || strings.Contains(name, "_GHSA_")) && !named[name] {
			t.Errorf("%s in %s is not in docs/security.md", name, path)
		}
	}
	if len(named) < 20 {
		t.Errorf("only %d tests are named", len(named))
	}
}
