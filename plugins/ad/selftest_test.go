package main

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/reeve-pam/reeve/internal/selftest/recorded"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// What the connector's self-test does here is shipped, for owners of real targets to compare theirs with.
func TestTheSelfTestIsTheRecordedOne(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "connector-ad")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "nomsgpack", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d := testlab.NewSambaAD(t, testlab.New(t), testlab.SambaOptions{})
	recorded.Check(t, program, target(d), "ad-domain-user", nil)
}
