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
// package's author both misunderstood. These are Oracle's own: Debian's python3-oracledb, and oracledb from npm.

func TestOraclesPythonClientAgrees(t *testing.T) {
	t.Parallel()
	out, err := run(t, crowded(t), "/usr/bin/python3", filepath.Join("crosscheck", "thin.py"))
	if err != nil || strings.TrimSpace(out) != "passed" {
		t.Errorf("%v: %s", err, out)
	}
}

func TestOraclesNodeClientAgreesAndNoticesARogueServer(t *testing.T) {
	t.Parallel()
	modules := install(t)
	script := filepath.Join("crosscheck", "thin.mjs")
	s := crowded(t)
	out, err := run(t, s, "node", script, modules)
	if err != nil || strings.TrimSpace(out) != "passed" {
		t.Errorf("%v: %s", err, out)
	}
	s.SetFaults(oracle.Faults{Rogue: true}) // what go-ora lets pass; so the cross-check can fail
	if out, err := run(t, s, "node", script, modules); err == nil || !strings.Contains(out, "NJS-173") {
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
	return s
}

// install brings the pinned npm package into a folder of the test's own.
func install(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json"} {
		data, err := os.ReadFile(filepath.Join("crosscheck", name)) //nolint:gosec // of the repository
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v: %s", err, out)
	}
	return dir
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
