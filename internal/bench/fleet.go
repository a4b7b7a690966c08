package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/reeve-pam/reeve/internal/fleet"
)

// startFleet starts three controllers, as processes of their own, from the programs of `make build`. They end with the
// row, or with the program if it is told to end early.
func (e *env) startFleet(ctx context.Context, timing string) (*fleet.Fleet, error) {
	bin, err := e.programs(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := e.tempDir("fleet")
	if err != nil {
		return nil, err
	}
	f, err := fleet.New(fleet.Options{Dir: dir, Bin: bin, Timing: timing})
	if err != nil {
		return nil, err
	}
	if err := f.StartControllers(ctx, 3); err != nil {
		f.Tails(e.stderr, 20)
		f.Kill()
		return nil, err
	}
	return f, nil
}

// programs is a directory with what `make build` built and with the benchmark's own connector.
func (e *env) programs(ctx context.Context) (string, error) {
	dir := filepath.Join(e.dir, "programs")
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	built, err := filepath.Abs(e.bin)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Join(dir, "connectors"), 0o700); err != nil {
		return "", err
	}
	for _, name := range []string{"reeved", "reeve-agent", "reeve", "connectors/connector-ssh", "connectors/connector-mysql"} {
		from := filepath.Join(built, name)
		if _, err := os.Stat(from); err != nil {
			return "", fmt.Errorf("%w: run `make build` first", err)
		}
		if err := os.Symlink(from, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	const clock = "github.com/reeve-pam/reeve/internal/bench/connector-clock"
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "nomsgpack", "-o", filepath.Join(dir, "connectors", "connector-clock"), clock)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", clock, err, out)
	}
	return dir, nil
}
