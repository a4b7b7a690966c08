package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/reeve-pam/reeve/internal/reeve"
)

func TestOneNodeBootstrapsOnceAndKeepsItsStateOverRestarts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.add(&ledger{})
	wantCode(t, m.put("early"), reeve.Unavailable, "not_leader")
	if err := m.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, m.Bootstrap(), reeve.Conflict, "already_bootstrapped")
	l.mustPut("a")
	l.mustPut("b")
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, m.put("late"), reeve.Unavailable, "not_leader")
	wantCode(t, m.Bootstrap(), reeve.Unavailable, "node_stopped")

	m.start()
	wantCode(t, m.Bootstrap(), reeve.Conflict, "already_bootstrapped")
	l.mustPut("c")
	if err := m.VerifyLeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b", "c"}, m.ledger().entries()); diff != "" {
		t.Fatal(diff)
	}
	if applies, restores := m.ledger().counts(); applies != 3 || restores != 0 {
		t.Fatalf("%d applies and %d restores for 3 entries: the restart replayed history", applies, restores)
	}
}

func TestBootstrapBeforeRun(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	m := l.add(&ledger{})
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	n, err := Open(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, n.Bootstrap(), reeve.Conflict, "already_bootstrapped")
	_, err = Open(m.cfg)
	wantCode(t, err, reeve.Conflict, "data_dir_in_use")
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, n.run(t.Context(), m.state), reeve.Conflict, "node_already_ran")
	m.start()
	l.mustPut("a")
}

func TestNodesJoinAsNonvotersAndVoteOnceStable(t *testing.T) {
	t.Parallel()
	for _, size := range []int{3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			first := l.add(&ledger{}, func(c *Config) { c.StableFor = 300 * time.Millisecond })
			if err := first.Bootstrap(); err != nil {
				t.Fatal(err)
			}
			l.mustPut("before")
			second := l.add(&ledger{})
			wantCode(t, second.AddNonvoter(t.Context(), second.cfg.ID, second.Addr()), reeve.Unavailable, "not_leader")
			wantCode(t, first.AddNonvoter(t.Context(), second.cfg.ID, "0.0.0.0:1"), reeve.Invalid, "raft_address_invalid")
			wantCode(t, first.AddNonvoter(t.Context(), "x", second.Addr()), reeve.Invalid, "node_id_invalid")
			wantCode(t, first.AddNonvoter(t.Context(), reeve.NewNodeID(), first.Addr()), reeve.Conflict, "address_taken")

			joined := time.Now()
			l.join(second)
			if m := first.Members(); len(m) != 2 || m[1].Voter {
				t.Fatalf("a new member must not vote at once: %+v", m)
			}
			l.voters(2)
			if waited := time.Since(joined); waited < 300*time.Millisecond {
				t.Fatalf("the member got its vote after %v instead of 300 ms of health", waited)
			}
			for range size - 2 {
				l.join(l.add(&ledger{}))
			}
			l.voters(size)
			l.mustPut("after")
			agree(t, []string{"before", "after"}, l.members...)

			until(t, "all healthy and up to date", func() bool {
				for _, m := range first.Members() {
					if !m.Healthy || m.AppliedIndex < first.ledger().AppliedIndex() || m.LastContact < 0 ||
						m.Leader != (m.ID == first.cfg.ID) {
						return false
					}
				}
				return true
			})
			if id, addr, ok := second.Leader(); !ok || id != first.cfg.ID || addr != first.Addr() {
				t.Fatalf("a follower names the leader %s at %s, %v", id, addr, ok)
			}
		})
	}
}

func TestRemoveKeepsAHealthyMajority(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3)
	leader, followers := l.leader(), l.followers()
	ctx := t.Context()
	wantCode(t, leader.Remove(ctx, reeve.NewNodeID()), reeve.NotFound, "node_not_member")
	wantCode(t, followers[0].Remove(ctx, leader.cfg.ID), reeve.Unavailable, "not_leader")

	if err := followers[1].stop(); err != nil {
		t.Fatal(err)
	}
	until(t, "the stopped member is seen as unhealthy", func() bool {
		for _, m := range leader.Members() {
			if m.ID == followers[1].cfg.ID {
				return !m.Healthy
			}
		}
		return false
	})
	wantCode(t, leader.Remove(ctx, followers[0].cfg.ID), reeve.Precondition, "quorum_at_risk")
	if err := leader.Remove(ctx, followers[1].cfg.ID); err != nil {
		t.Fatal(err)
	}
	if err := leader.Remove(ctx, leader.cfg.ID); err != nil {
		t.Fatal(err)
	}
	l.mustPut("left to one", leader)
	if m := followers[0].Members(); len(m) != 1 || m[0].ID != followers[0].cfg.ID {
		t.Fatalf("the survivor's members are %+v", m)
	}
	wantCode(t, followers[0].Remove(ctx, followers[0].cfg.ID), reeve.Precondition, "quorum_at_risk")
}

func TestLeadershipMovesWhereItIsSent(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(1)
	only := l.leader()
	wantCode(t, only.TransferLeadership(t.Context(), ""), reeve.Precondition, "no_other_voter")
	l.join(l.add(&ledger{}))
	l.join(l.add(&ledger{}))
	l.voters(3)
	from, to := l.leader(), l.followers()[1]
	wantCode(t, from.TransferLeadership(t.Context(), from.cfg.ID), reeve.NotFound, "node_not_voter")
	wantCode(t, to.TransferLeadership(t.Context(), ""), reeve.Unavailable, "not_leader")
	// On a busy machine the successor may not be ready in time.
	until(t, "a transfer", func() bool { return from.TransferLeadership(t.Context(), to.cfg.ID) == nil })
	if from.IsLeader() {
		t.Fatal("the old leader still takes proposals")
	}
	until(t, "the new leader", to.IsLeader)
	until(t, "a transfer to anybody", func() bool { return to.TransferLeadership(t.Context(), "") == nil })
	l.mustPut("a")
	agree(t, []string{"a"}, l.members...)
}

// A planned stop hands leadership over, so nobody waits for an election timeout.
func TestStoppingALeaderHandsLeadershipOver(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3)
	handedOver := func() bool {
		votes := make(chan raft.Observation, 100)
		for _, m := range l.members {
			m.raft.Load().RegisterObserver(raft.NewObserver(votes, false, func(o *raft.Observation) bool {
				vote, ok := o.Data.(raft.RequestVoteRequest)
				return ok && vote.LeadershipTransfer
			}))
		}
		old := l.leader()
		if err := old.stop(); err != nil {
			t.Fatal(err)
		}
		l.leader(old)
		old.start()
		return len(votes) > 0
	}
	for range 5 { // a busy machine may be too slow for raft's time limit
		if handedOver() {
			return
		}
	}
	t.Fatal("leaders stop without asking another node to lead")
}

func TestARestartedNodeKeepsItsPlace(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3)
	l.mustPut("a")
	away := l.followers()[0]
	agree(t, []string{"a"}, away)
	if err := away.stop(); err != nil {
		t.Fatal(err)
	}
	l.mustPut("b")
	away.start()
	agree(t, []string{"a", "b"}, l.members...)
	if applies, restores := away.ledger().counts(); applies != 2 || restores != 0 {
		t.Fatalf("%d applies, %d restores for two entries", applies, restores)
	}
}

func TestALaggingNodeInstallsASnapshot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3, smallLog)
	lagging := l.followers()[0]
	l.net.Isolate(lagging.cfg.ID)
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprint(i))
		l.mustPut(want[i], lagging)
	}
	if err := l.leader(lagging).Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.net.Heal()
	agree(t, want, l.members...)
	if applies, restores := lagging.ledger().counts(); restores != 1 || applies > 2 {
		t.Fatalf("%d restores and %d applies instead of one snapshot", restores, applies)
	}
}

func TestRestartRestoresASnapshotOnlyIfTheStateIsBehindIt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(1, smallLog)
	m := l.leader()
	l.mustPut("a")
	l.mustPut("b")
	// A barrier makes the snapshot's index higher than any the state sees.
	if err := m.raft.Load().Barrier(0).Error(); err != nil {
		t.Fatal(err)
	}
	if err := m.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	restart := func() {
		t.Helper()
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
		m.start()
	}
	restart()
	l.mustPut("c")
	if applies, restores := m.ledger().counts(); applies != 3 || restores != 0 {
		t.Fatalf("%d applies and %d restores, want 3 and 0", applies, restores)
	}

	m.state = &ledger{} // the state file was lost
	restart()
	l.mustPut("d")
	agree(t, []string{"a", "b", "c", "d"}, m)
	if applies, restores := m.ledger().counts(); applies != 2 || restores != 1 {
		t.Fatalf("%d applies and %d restores, want 2 and 1", applies, restores)
	}

	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	m.cfg.DataDir = t.TempDir() // the log was lost, the state was not
	n, err := Open(m.cfg)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, n.run(t.Context(), m.state), reeve.Internal, "state_ahead_of_log")
}

// Going on after an entry that cannot be applied would diverge in silence.
func TestANodeThatCannotApplyStops(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3)
	broken := l.followers()[0]
	broken.ledger().failWith("poison")
	l.mustPut("before")
	l.mustPut("poison")
	wantCode(t, broken.ended(), reeve.Internal, "apply_failed")
	l.mustPut("after", broken)
	if diff := cmp.Diff([]string{"before"}, broken.ledger().entries()); diff != "" {
		t.Fatalf("the broken node went on: %s", diff)
	}

	// A leader stops too; whoever waits does not know, because the others may apply it.
	leader := l.leader(broken)
	leader.ledger().failWith("poison 2")
	wantCode(t, leader.put("poison 2"), reeve.OutcomeUnknown, "outcome_unknown")
	wantCode(t, leader.ended(), reeve.Internal, "apply_failed")
}

func TestReadBarrier(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3)
	leader, follower := l.leader(), l.followers()[0]
	for i := range 20 {
		l.mustPut(fmt.Sprint(i))
		if err := leader.VerifyLeader(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, follower.VerifyLeader(t.Context()), reeve.Unavailable, "not_leader")

	l.net.Isolate(leader.cfg.ID)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	// A confirmation that had left a follower before the cut may still count, once for each of the two.
	err := leader.VerifyLeader(ctx)
	for range 2 {
		if err == nil {
			err = leader.VerifyLeader(ctx)
		}
	}
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a leader that is cut off answers %v", err)
	}
}

// Between losing and regaining leadership another leader may have committed what this
// node has not seen; that it leads again does not make it current.
func TestReadBarrierDoesNotSpanTwoLeaderships(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(1)
	m := l.leader()
	term := m.leading.Load()
	m.leading.Store(term - 1) // as until the node reads raft's notification
	wantCode(t, m.VerifyLeader(t.Context()), reeve.Unavailable, "not_leader")
	m.leading.Store(term)
	if err := m.VerifyLeader(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWrongConfigurationIsNamed(t *testing.T) {
	t.Parallel()
	good := newLab(t).add(&ledger{})
	if err := good.stop(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		field  string
		code   string
	}{
		"id":           {func(c *Config) { c.ID = "acct_1" }, "/ID", "cluster_config_invalid"},
		"cluster":      {func(c *Config) { c.Cluster = "" }, "/Cluster", "cluster_config_invalid"},
		"data dir":     {func(c *Config) { c.DataDir = "" }, "/DataDir", "cluster_config_invalid"},
		"tls":          {func(c *Config) { c.TLS = nil }, "/TLS", "cluster_config_invalid"},
		"lead":         {func(c *Config) { c.Lead = nil }, "/Lead", "cluster_config_invalid"},
		"timeouts":     {func(c *Config) { c.Timeouts = "slow" }, "/Timeouts", "cluster_config_invalid"},
		"bind":         {func(c *Config) { c.Bind = "nonsense" }, "", "bind_failed"},
		"unspecified":  {func(c *Config) { c.Bind = "0.0.0.0:0" }, "", "raft_address_invalid"},
		"advertise":    {func(c *Config) { c.Advertise = "host" }, "", "raft_address_invalid"},
		"another node": {func(c *Config) { c.ID = reeve.NewNodeID() }, "", "node_certificate_invalid"},
		"unusable dir": {func(c *Config) { c.DataDir = filepath.Join(c.DataDir, "raft", "log.db") }, "", "data_dir_unusable"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good.cfg
			c.change(&cfg)
			_, err := Open(cfg)
			e, ok := errors.AsType[*reeve.Error](err)
			if !ok || e.Code != c.code || e.Field != c.field {
				t.Fatalf("got %v, want code %s at %q", err, c.code, c.field)
			}
		})
	}
	if n, err := Open(good.cfg); err != nil {
		t.Fatalf("a refused configuration left something behind: %v", err)
	} else if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}
