package cluster

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// sickDisk is a log store whose writes hang or fail on demand.
type sickDisk struct {
	raft.LogStore
	mu   sync.Mutex
	cure chan struct{} // not nil: writes wait for it
	err  error
}

func (d *sickDisk) hang() (cure func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := make(chan struct{})
	d.cure = c
	return sync.OnceFunc(func() { close(c) })
}

func (d *sickDisk) failWith(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *sickDisk) StoreLog(l *raft.Log) error { return d.StoreLogs([]*raft.Log{l}) }

func (d *sickDisk) StoreLogs(logs []*raft.Log) error {
	d.mu.Lock()
	cure, err := d.cure, d.err
	d.mu.Unlock()
	if cure != nil {
		<-cure
	}
	if err != nil {
		return err
	}
	return d.LogStore.StoreLogs(logs)
}

// O6: a leader whose log store hangs stays leader and blocks everything, so the
// watchdog ends the process; then writes resume elsewhere.
func TestAHungDiskEndsTheLeader_O6(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	disks := map[reeve.NodeID]*sickDisk{}
	l.cluster(3, func(c *Config) {
		id := c.ID
		c.DiskLimit = 700 * time.Millisecond
		c.WrapLogs = func(s raft.LogStore) raft.LogStore {
			disks[id] = &sickDisk{LogStore: s}
			return disks[id]
		}
	})
	l.mustPut("a")
	old := l.leader()
	cure := disks[old.cfg.ID].hang()
	defer cure() // before the cleanup stops the node
	hung := time.Now()
	stuck := old.Propose([]byte("stuck"))
	select {
	case status := <-old.exits:
		if status != ExitFenced {
			t.Fatalf("exit status %d", status)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the watchdog does not bark")
	}
	if waited := time.Since(hung); waited < 700*time.Millisecond {
		t.Fatalf("the watchdog barked after %v, before the limit", waited)
	}
	if !old.IsLeader() {
		t.Fatal("the hung node lost leadership by itself: the premise of the watchdog is gone")
	}
	l.net.Isolate(old.cfg.ID) // the process is gone now
	l.mustPut("b", old)
	cure()
	l.net.Heal()
	wantCode(t, stuck.Wait(), reeve.OutcomeUnknown, "outcome_unknown")
	l.mustPut("c")
	agree(t, l.leader().ledger().entries(), l.members...)
}

// A disk that fails to write makes raft step down; the entry's fate is unknown.
func TestAFailingDiskMovesLeadership_O6(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	disks := map[reeve.NodeID]*sickDisk{}
	l.cluster(3, func(c *Config) {
		id := c.ID
		c.WrapLogs = func(s raft.LogStore) raft.LogStore {
			disks[id] = &sickDisk{LogStore: s}
			return disks[id]
		}
	})
	old := l.leader()
	disks[old.cfg.ID].failWith(errors.New("input/output error"))
	wantCode(t, old.put("lost"), reeve.OutcomeUnknown, "outcome_unknown")
	l.mustPut("a", old)

	// With the third node gone the leader cannot commit, but the sick one still answers
	// its heartbeats. It must be able to stop all the same.
	leader := l.leader(old)
	for _, m := range l.members {
		if m != old && m != leader {
			if err := m.stop(); err != nil {
				t.Fatal(err)
			}
		}
	}
	stuck := leader.Propose([]byte("stuck"))
	if err := leader.stop(); err != nil {
		t.Fatal(err)
	}
	wantCode(t, stuck.Wait(), reeve.OutcomeUnknown, "outcome_unknown")
}

// raft's transport may be at a heartbeat of a new term while the node's files are closed.
// raft panics when it cannot keep a term, and the watchdog would end the process with 75.
func TestAHeartbeatThatMeetsAStoppedNodeDoesNoHarm(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(1)
	m := l.leader()
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	if err := m.terms.SetUint64([]byte("CurrentTerm"), 99); err != nil {
		t.Errorf("raft would panic: %v", err)
	}
	select {
	case status := <-m.exits:
		t.Errorf("the process ends with %d", status)
	default:
	}
}

// The canary notices what the log does not need to be written for.
func TestAnUnwritableDataDirectoryEndsTheLeader(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(1, func(c *Config) { c.DiskLimit = 300 * time.Millisecond })
	m := l.leader()
	if err := replaceByDirectory(m.cfg.DataDir + "/raft/canary"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.exits:
	case <-time.After(10 * time.Second):
		t.Fatal("the watchdog does not bark")
	}
}

func TestALeaderRefusesWritesWhenItsDiskIsLowAndEndsWhenItIsFull(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	disks := map[reeve.NodeID]*atomic.Uint64{}
	l.cluster(3, func(c *Config) {
		c.DiskLimit = 2 * time.Second
		free := new(atomic.Uint64)
		free.Store(math.Float64bits(0.5))
		c.freeDisk = func() (float64, error) { return math.Float64frombits(free.Load()), nil }
		disks[c.ID] = free
	})
	l.mustPut("a")
	leader := l.leader()
	set := func(f float64) { disks[leader.cfg.ID].Store(math.Float64bits(f)) }
	set(0.04)
	until(t, "refusal", func() bool { return leader.put("b") != nil })
	wantCode(t, leader.put("c"), reeve.Unavailable, "disk_full")
	if err := leader.VerifyLeader(t.Context()); err != nil {
		t.Fatalf("reads stopped too: %v", err)
	}
	set(0.5)
	until(t, "writes resume", func() bool { return leader.put("d") == nil })
	set(0.01)
	select {
	case status := <-leader.exits:
		if status != ExitFenced {
			t.Fatalf("exit status %d", status)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("a leader without disk space goes on")
	}
	if leader.IsLeader() {
		t.Fatal("leadership was not handed over first")
	}
	set(0.5)
	l.mustPut("e", leader)
}

// Alone, a leader with a full disk goes on answering reads.
func TestALoneLeaderWithAFullDiskKeepsReading(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	asked := make(chan struct{}, 100)
	l.cluster(1, func(c *Config) {
		c.DiskLimit = 3 * time.Second
		c.freeDisk = func() (float64, error) { asked <- struct{}{}; return 0, nil }
	})
	m := l.leader()
	for range 5 {
		<-asked
	}
	wantCode(t, m.put("a"), reeve.Unavailable, "disk_full")
	if err := m.VerifyLeader(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case status := <-m.exits:
		t.Fatalf("exit %d", status)
	default:
	}
	go func() { // so that the node is not held up while it stops
		for range asked {
		}
	}()
}

func TestMetricsShowWhoLeads(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	registry := prometheus.NewPedanticRegistry()
	m := l.add(&ledger{}, func(c *Config) { c.Registry = registry })
	if err := m.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	l.mustPut("a")
	got := map[string]float64{}
	gather := func() {
		t.Helper()
		clear(got)
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			got[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	gather()
	if got["reeve_raft_log_file_bytes"] < 4096 || got["reeve_raft_log_free_pages"] < 0 {
		t.Errorf("the log's file is not measured: %v", got)
	}
	for name, want := range map[string]float64{
		"reeve_raft_leader": 1, "reeve_raft_peers": 1, "reeve_raft_last_contact_seconds": 0,
		"reeve_raft_oldest_proposal_seconds": 0,
		"reeve_raft_commit_index":            float64(m.raft.Load().CommitIndex()),
		"reeve_raft_applied_index":           float64(m.ledger().AppliedIndex()),
		"reeve_raft_term":                    float64(m.raft.Load().CurrentTerm()),
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	if err := m.stop(); err != nil {
		t.Fatal(err)
	}
	if gather(); len(got) != 0 {
		t.Errorf("a stopped node still publishes %v", fmt.Sprint(got))
	}
}

// A process that was stopped for a minute finds everything a minute old.
func TestAStoppedProcessGetsItsFullTimeAgain(t *testing.T) {
	t.Parallel()
	const limit = 10 * time.Second
	var a alarm
	for _, c := range []struct{ at, want time.Duration }{
		{1, 0}, {501, 500}, {1001, 1000}, {5900, 5899}, {65_000, 0}, {65_500, 500}, {70_400, 5400}, {75_401, 0},
	} {
		if got := a.ring(int64(c.at*time.Millisecond), limit); got != c.want*time.Millisecond {
			t.Fatalf("at %d ms: running for %v, want %d ms", c.at, got, c.want)
		}
	}
}
