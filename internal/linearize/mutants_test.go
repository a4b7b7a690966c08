//go:build mutants

package linearize_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/linearize"
	"github.com/reeve-pam/reeve/internal/mutant"
)

// killers say under which faults, working on what, a broken build shows. The unbroken
// build runs all of it and passes.
var killers = []struct {
	name    mutant.Name
	objects []string
	faults  []string
}{
	{mutant.AckedEarly, []string{"lock", "secret"}, []string{"cut-leader", "kill-leader", "refuse"}},
	{mutant.DirtyAnswer, []string{"lock", "secret"}, []string{"refuse", "cut-leader"}},
	{mutant.UnknownRetried, []string{"lock", "secret"}, []string{"transfer", "cut-leader", "kill-leader"}},
	{mutant.UnknownRefused, []string{"lock", "secret"}, []string{"cut-leader", "mute-leader", "kill-leader"}},
	{mutant.InFlightUnseen, []string{"lock", "secret"}, []string{"transfer"}},
	{mutant.UniqueCommittedOnly, []string{"lock"}, []string{"transfer"}},
	{mutant.TermGuardOff, []string{"lock", "secret"}, []string{"stall"}},
	{mutant.BaseGuardOff, []string{"lock", "secret"}, []string{"refuse"}},
	{mutant.SnapshotUnflushed, []string{"lock", "secret"}, []string{"install"}},
	{mutant.ReplayAhead, []string{"lock", "secret"}, []string{"kill-leader", "kill-follower"}},
	{mutant.LedEarly, []string{"lock"}, []string{"kill-leader"}},
	{mutant.BarrierSkipped, []string{"lock", "secret"}, []string{"freeze-leader"}},
	{mutant.FollowerReads, []string{"lock", "secret"}, []string{"cut-follower"}},
	{mutant.TokenKept, []string{"token"}, []string{"transfer"}},
	{mutant.ProofUnfenced, []string{"secret"}, []string{"transfer"}},
	{mutant.IdempotencyLost, []string{"site"}, []string{"transfer"}},
	{mutant.FenceIgnored, []string{"job"}, []string{"cut-follower"}},
}

const (
	underMutant = "REEVE_LINEARIZE_MUTANT" // set in the process that runs one
	caught      = "caught by "
	perMutant   = 2 * time.Minute // seconds, on a machine that does nothing else
)

// Each broken build is run in a process of its own, again and again until it is caught.
func TestBrokenBuildsAreCaught_O2(t *testing.T) {
	if os.Getenv(underMutant) != "" {
		t.Skip("this is one of the processes")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range killers {
		t.Run(string(k.name), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), perMutant)
			defer cancel()
			began := time.Now()
			cmd := exec.CommandContext(ctx, self, "-test.run=^TestOneBrokenBuild$", "-test.v", fmt.Sprintf("-seed=%d", *seed)) //nolint:gosec // this very program
			cmd.Env = append(os.Environ(), "REEVE_MUTANT="+string(k.name), underMutant+"="+string(k.name), "TMPDIR="+t.TempDir())
			output, err := cmd.CombinedOutput()
			_, how, ok := strings.Cut(string(output), caught)
			if !ok {
				t.Fatalf("not caught within %s: %v\n%s", time.Since(began).Round(time.Second), err, output)
			}
			how, _, _ = strings.Cut(how, "\n")
			t.Logf("caught after %s by %s", time.Since(began).Round(100*time.Millisecond), how)
		})
	}
}

// TestOneBrokenBuild is the process of TestBrokenBuildsAreCaught.
func TestOneBrokenBuild(t *testing.T) {
	name := os.Getenv(underMutant)
	if name == "" {
		t.Skip("run by TestBrokenBuildsAreCaught")
	}
	for _, k := range killers {
		if string(k.name) != name {
			continue
		}
		for round := 1; ; round++ {
			opt := options(t)
			opt.For, opt.Objects, opt.Faults, opt.Seed = 4*time.Second, k.objects, k.faults, opt.Seed+uint64(round)
			if opt.Objects[0] == "job" {
				opt.For = 6 * time.Second // leases must run out
			}
			report, err := linearize.Run(t.Context(), opt)
			if report == nil {
				t.Fatal(err)
			}
			t.Log(report, err)
			switch {
			case slices.ContainsFunc(report.Violations, func(v linearize.Violation) bool { return !v.Undecided }):
				t.Logf("%sa history (%s), round %d", caught, report.Violations[0].Object, round)
				return
			case report.Diverged:
				t.Logf("%sreplicas that differ, round %d", caught, round)
				return
			case len(report.Failed) > 0:
				t.Logf("%sthe node itself: %s, round %d", caught, report.Failed[0], round)
				return
			}
		}
	}
	t.Fatalf("no mutant %q", name)
}
