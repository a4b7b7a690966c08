package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// parsed gives texts to a grammar of PowerShell that others wrote, and returns where it does not take them.
func parsed(t *testing.T, texts map[string]string) string {
	t.Helper()
	if _, err := os.Stat("testdata/grammar/node_modules/web-tree-sitter"); err != nil {
		t.Fatal("the npm package web-tree-sitter is not installed: run make setup")
	}
	given, err := json.Marshal(texts)
	if err != nil {
		t.Fatal(err)
	}
	// The grammar is one huge function, which node would optimize for a minute before it ends.
	cmd := exec.CommandContext(t.Context(), "node", "--liftoff-only", "parse.mjs")
	cmd.Dir = "testdata/grammar"
	cmd.Stdin = strings.NewReader(string(given))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// What an administrator is told to run is PowerShell too, whatever the name.
func TestScriptsAndWhatAdministratorsRunArePowerShell(t *testing.T) {
	t.Parallel()
	texts := map[string]string{"policy": policyGrant, "shells": shellGrant}
	for _, s := range allScripts {
		texts[s.name] = s.text
	}
	for _, name := range []string{"helper", `CORP\o'brien`, "$(x)`x; y"} {
		texts["member "+name] = memberOf(false, name).Grant
	}
	if faults := parsed(t, texts); faults != "" {
		t.Error(faults)
	}
	if faults := parsed(t, map[string]string{"broken": scriptCreate.text + "}"}); faults == "" {
		t.Error("it takes everything")
	}
}
