package vault

import (
	"testing"

	"github.com/reeve-pam/reeve/controller/audit"
)

func TestAllSecretsArePrunedByTheSameRule_R1(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	old, young := r.create(), r.create()
	r.rotate(old, "old-1")
	r.rotate(old, "old-2")
	r.rotate(old, "old-3")
	r.clock.Advance(Retention)
	for range 3 {
		r.rotate(young, "young")
	}
	n, err := r.PruneAll(t.Context(), r.store, audit.System("test"))
	if n != 1 || err != nil { // old-2 has one later proof, and young's versions are not thirty days old
		t.Errorf("pruned %d versions (%v), want 1", n, err)
	}
	r.want(old, map[uint32]State{2: Retired, 3: Current})
	r.want(young, map[uint32]State{1: Retired, 2: Retired, 3: Current})
}
