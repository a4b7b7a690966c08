package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/tds"
	"github.com/reeve-pam/reeve/internal/selftest/recorded"
)

// What the connector's self-test does here is shipped, for owners of real targets to compare theirs with.
func TestTheSelfTestIsTheRecordedOne(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "connector-mssql")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "nomsgpack", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	recorded.Check(t, program, target(emulator(t, tds.Options{})), "mssql-db-datareader", map[string]string{"Database": "app"})
}
