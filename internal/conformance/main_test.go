package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestEveryConnectorWithATestIsFound(t *testing.T) {
	t.Parallel()
	names, err := connectors("../../plugins")
	if err != nil {
		t.Fatal(err)
	}
	mains, err := filepath.Glob("../../plugins/*/main.go")
	if err != nil || len(mains) < 2 {
		t.Fatalf("%d connectors, %v", len(mains), err)
	}
	for _, main := range mains {
		if name := filepath.Base(filepath.Dir(main)); !slices.Contains(names, name) {
			t.Errorf("connector %s has no TestConformance", name)
		}
	}
	if len(names) != len(mains) {
		t.Errorf("%q for %d connectors", names, len(mains))
	}
}

func TestNoTestsAreNoProof(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x", "x_test.go"), []byte("package x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := connectors(dir); err == nil {
		t.Error("a folder without connectors is taken for conformance")
	}
	for _, c := range []struct {
		n      tally
		failed error
		good   bool
	}{
		{tally{1, 90, 0}, nil, true},
		{tally{1, 90, 1}, errors.New("exit status 1"), false},
		{tally{1, 90, 0}, errors.New("exit status 1"), false},
		{tally{1, 0, 0}, nil, false},
	} {
		if err := verdict("x", c.n, c.failed); (err == nil) != c.good {
			t.Errorf("%+v, %v: %v", c.n, c.failed, err)
		}
	}
}
