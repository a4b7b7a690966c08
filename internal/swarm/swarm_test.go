//go:build linux

package swarm_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/swarm"
	"github.com/reeve-pam/reeve/internal/testlab"
)

var (
	agents = flag.Int("agents", 200, "how many agents there are")
	timing = flag.String("timing", "", "the controllers' timing: nothing, or lan")
)

// How soon a crowd must be back.
const (
	backWithin = 20 * time.Second
	backEach   = 20 * time.Millisecond
)

// watching in the environment makes this program a watcher of the API.
const watching = "REEVE_SWARM_WATCHES"

func TestMain(m *testing.M) {
	if os.Getenv(watching) == "" {
		os.Exit(m.Run())
	}
	if err := swarm.Watch(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// After kill -9 of the leader all agents come back: in bounded time, with no more than
// two attempts each in any second, and the API answers meanwhile.
func TestACrowdOfAgentsComesBackWithoutAStorm(t *testing.T) {
	t.Parallel()
	testlab.Require(t)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	f := start(ctx, t, 3)
	began := time.Now()
	s, err := swarm.Enroll(ctx, f, t.TempDir(), "crowd", *agents)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d agents enrolled in %s", *agents, time.Since(began).Round(time.Millisecond))
	began = time.Now()
	s.Start(ctx)
	t.Cleanup(s.Disconnect)
	if err := s.AwaitConnected(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("all connected after %s", time.Since(began).Round(time.Millisecond))

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reader := exec.CommandContext(ctx, self) //nolint:gosec // this program
	reader.Env = append(os.Environ(), watching+"=1")
	r, err := s.Failover(ctx, f, reader)
	t.Log(r)
	if err != nil {
		t.Fatal(err)
	}
	if limit := backWithin + time.Duration(*agents)*backEach; r.Back > limit {
		t.Errorf("the agents were back after %s instead of %s", r.Back, limit)
	}
	if r.Busiest > *agents*3/2 {
		t.Errorf("a storm: %d attempts of %d agents in one second", r.Busiest, *agents)
	}
	if r.Moves > 0 {
		t.Errorf("the crowd has cost the new leader its leadership: %d elections", r.Moves)
	}
	if median := r.Read(0.5); median > time.Second || median == 0 {
		t.Errorf("the API took %s to answer", median)
	}
}

// A bare server's memory for each client is found, so that there is a floor to compare with.
func TestTheFloorIsMeasured(t *testing.T) {
	t.Parallel()
	testlab.Require(t)
	b, err := swarm.StartBare(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	each, err := b.Footprint(t.Context(), 200, 0)
	if err != nil {
		t.Error(err)
	}
	if each < 10_000 || each > 1_000_000 {
		t.Errorf("%.0f bytes for each client", each)
	}
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
}

func start(ctx context.Context, t *testing.T, controllers int) *fleet.Fleet {
	t.Helper()
	dir := t.TempDir()
	if err := fleet.Build(ctx, filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Options{Dir: filepath.Join(dir, "fleet"), Bin: filepath.Join(dir, "bin"), Timing: *timing})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Kill)
	t.Cleanup(func() {
		if t.Failed() {
			f.Tails(os.Stderr, 10)
		}
	})
	if err := f.StartControllers(ctx, controllers); err != nil {
		t.Fatal(err)
	}
	return f
}
