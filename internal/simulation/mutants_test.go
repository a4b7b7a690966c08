//go:build mutants

package simulation

import (
	"io"
	"testing"

	"github.com/reeve-pam/reeve/internal/mutant"
)

// Every deliberately broken build is caught, most of them within one episode.
func TestBrokenBuildsAreCaught(t *testing.T) {
	for _, m := range []mutant.Name{
		mutant.CandidateDiscarded, mutant.ExitStatusTrusted, mutant.FenceIgnored, mutant.NoHealing,
		mutant.HistoryPrunedEarly, mutant.NoQuarantine, mutant.LeaseUnconfirmed,
	} {
		t.Run(string(m), func(t *testing.T) {
			mutant.Set(m)
			defer mutant.Set("")
			o := many(t, 1, 1, caughtWithin, io.Discard)
			if o.Problem == "" {
				t.Errorf("not caught in %d rotations with %d faults", o.Rotations, o.Faults)
			}
			t.Logf("caught after %d rotations and %d faults: %s", o.Rotations, o.Faults, o.Problem)
		})
	}
}

// caughtWithin is within how many rotations a broken build must be caught.
const caughtWithin = 15000
