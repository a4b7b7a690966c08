package cluster

import (
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// patient makes members that wait long before they miss a leader.
func patient(c *Config) {
	c.Tune = func(r *raft.Config) {
		r.HeartbeatTimeout, r.ElectionTimeout, r.LeaderLeaseTimeout = 3*time.Second, 3*time.Second, 3*time.Second
	}
}

// TestADeadLeaderIsReplacedBeforeItIsMissed has a leader's connections and its port close at once, as the kernel does
// when a process dies. Without the vigil nobody would be a candidate before a heartbeat timeout is over.
func TestADeadLeaderIsReplacedBeforeItIsMissed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3, patient)
	dead := l.leader()
	l.mustPut("before")
	var candidacies atomic.Int64
	for _, m := range l.followers() {
		r := m.raft.Load()
		// Long even on a busy machine; at the first election it would have been too long.
		settings := r.ReloadableConfig()
		settings.HeartbeatTimeout, settings.ElectionTimeout = 15*time.Second, 15*time.Second
		if err := r.ReloadConfig(settings); err != nil {
			t.Fatal(err)
		}
		r.RegisterObserver(raft.NewObserver(nil, false, func(o *raft.Observation) bool {
			if vote, ok := o.Data.(raft.RequestVoteRequest); ok && vote.LeadershipTransfer {
				candidacies.Add(1)
			}
			return false
		}))
	}
	if err := dead.stream.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "a candidate", func() bool { return candidacies.Load() > 0 })
	if err := l.leader(dead).put("after"); err != nil {
		t.Fatal(err)
	}
}

// TestABrokenConnectionIsNoDeath breaks every connection to a leader that lives on. It must stay leader.
func TestABrokenConnectionIsNoDeath(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3, patient)
	leader := l.leader()
	l.mustPut("before")
	term := leader.raft.Load().CurrentTerm()
	for range 3 {
		leader.stream.mu.Lock()
		open := slices.Collect(maps.Keys(leader.stream.open))
		leader.stream.mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
		l.mustPut("while they come back")
	}
	if got := l.leader().raft.Load().CurrentTerm(); l.leader() != leader || got != term {
		t.Fatalf("%s leads in term %d, not %s in %d", l.leader().cfg.ID, got, leader.cfg.ID, term)
	}
}
