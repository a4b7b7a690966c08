package oracle_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
)

// Clients that others wrote prove that the emulator speaks Oracle's protocol, and not only what go-ora and this
// package's author both misunderstood. These are Oracle's own: Debian's python3-oracledb, and oracledb from npm, which make setup installs.

const crosscheck = "testdata/crosscheck"

func TestOraclesPythonClientAgrees(t *testing.T) {
	t.Parallel()
	out, err := run(t, crowded(t), "/usr/bin/python3", filepath.Join(crosscheck, "thin.py"))
	if err != nil || strings.TrimSpace(out) != "passed" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestOraclesNodeClientAgreesAndNoticesARogueServer(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(filepath.Join(crosscheck, "node_modules", "oracledb")); err != nil {
		t.Fatal("the npm package oracledb is not installed: run make setup")
	}
	script := filepath.Join(crosscheck, "thin.mjs")
	s := crowded(t)
	out, err := run(t, s, "node", script)
	if err != nil || strings.TrimSpace(out) != "passed" {
		t.Errorf("%v: %s", err, out)
	}
	s.SetFaults(oracle.Faults{Rogue: true}) // what go-ora lets pass; so the cross-check can fail
	if out, err := run(t, s, "node", script); err == nil || !strings.Contains(out, "NJS-173") {
		t.Errorf("%v: %s", err, out)
	}
}

// crowded starts a server with more users than one answer holds.
func crowded(t *testing.T) *oracle.Server {
	t.Helper()
	s := oracle.Start(t, oracle.Options{Major: 23})
	for i := range 210 {
		s.Exec(fmt.Sprintf(`CREATE USER "U%03d" IDENTIFIED EXTERNALLY AS 'CN=u'`, i))
	}
	s.Exec("GRANT SYSBACKUP TO " + oracle.Management)
	return s
}

// run gives a client's script the server's port, certificates and management account.
func run(t *testing.T, s *oracle.Server, program string, args ...string) (string, error) {
	t.Helper()
	dir := t.TempDir() // Python's client wants certificates by this name
	if err := os.WriteFile(filepath.Join(dir, "ewallet.pem"), []byte(s.CAPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args = append(args, strconv.Itoa(s.Port), dir, oracle.Management, oracle.ManagementPassword)
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // of the test
	cmd.Env = append(os.Environ(), "NODE_EXTRA_CA_CERTS="+filepath.Join(dir, "ewallet.pem"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}
