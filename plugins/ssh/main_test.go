package main_test

import (
	"fmt"
	"os"
	"testing"
)

// buildDir is where the tests put the program they build.
var buildDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "connector-ssh-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	buildDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}
