package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/reeve-pam/reeve/internal/reeve"
)

func TestWritesResumeWhenTheLeaderDies(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3)
	l.mustPut("a")
	dead := l.leader()
	l.net.Isolate(dead.cfg.ID)
	l.mustPut("b", dead)
	l.net.Heal()
	agree(t, []string{"a", "b"}, l.members...)
}

// O1: what was acknowledged stays, once; what was not known happened at most once.
func TestPartitionLosesAndDoublesNothing_O1(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(5)
	var mu sync.Mutex
	fate := map[string]error{}
	count := func(of func(error) bool) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, err := range fate {
			if of(err) {
				n++
			}
		}
		return n
	}
	acknowledged := func() int { return count(func(err error) bool { return err == nil }) }
	unknown := func() int { return count(func(err error) bool { return reeve.KindOf(err) == reeve.OutcomeUnknown }) }
	progress := func() {
		t.Helper()
		from := acknowledged()
		until(t, "writes go on", func() bool { return acknowledged() > from+50 })
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for w := range 10 {
		m := l.members[w%5] // whoever leads, two writers write to it
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; {
				if !m.IsLeader() {
					time.Sleep(time.Millisecond) // polling, as until does
					continue
				}
				entry := fmt.Sprintf("%d/%d", w, i)
				err := m.put(entry)
				mu.Lock()
				fate[entry] = err
				mu.Unlock()
				i++
			}
		})
	}
	progress()
	before := unknown()
	old := l.leader()
	minority := []*member{old, l.followers()[0]}
	l.net.Isolate(minority[0].cfg.ID, minority[1].cfg.ID)
	l.leader(minority...)
	progress()
	for _, m := range minority {
		until(t, "the minority to notice", func() bool { return !m.IsLeader() })
		wantCode(t, m.put("minority"), reeve.Unavailable, "not_leader")
	}
	if unknown() == before {
		t.Error("no writer was left in the dark: the partition came too late to prove anything")
	}
	l.net.Heal()
	progress()
	stop()
	writers.Wait()

	l.mustPut("last")
	held := l.leader().ledger().entries()
	agree(t, held, l.members...)
	times := map[string]int{}
	for _, e := range held {
		times[e]++
	}
	for entry, err := range fate {
		got := times[entry]
		switch {
		case got > 1, err == nil && got != 1:
			t.Errorf("entry %s, answered with %v, is there %d times", entry, err, got)
		case reeve.KindOf(err) == reeve.Unavailable && got != 0:
			t.Errorf("entry %s was refused as never happening, but it did", entry)
		}
	}
	if times["minority"] != 0 {
		t.Error("a minority wrote")
	}
}

// Whatever its peers do, a node stops soon.
func TestANodeThatIsCutOffStops(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3)
	leader, follower := l.leader(), l.followers()[0]
	l.net.Isolate(leader.cfg.ID)
	stuck := leader.Propose([]byte("stuck"))
	began := time.Now()
	for _, m := range []*member{leader, follower} {
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
	}
	if err := stuck.Wait(); err == nil {
		t.Fatal("a leader that was cut off committed")
	}
	if took := time.Since(began); took > 8*time.Second { // raft's own I/O timeout is 10 s
		t.Fatalf("it took %v", took)
	}
}

// leadLog records when the leader's work begins and ends.
type leadLog struct {
	mu      sync.Mutex
	running int
	terms   []uint64
	overlap bool
	hold    atomic.Pointer[chan struct{}] // not nil: the end of the work waits for it
}

func (g *leadLog) lead(ctx context.Context, term uint64) error {
	g.mu.Lock()
	g.running++
	g.overlap = g.overlap || g.running > 1
	g.terms = append(g.terms, term)
	g.mu.Unlock()
	<-ctx.Done()
	if hold := g.hold.Load(); hold != nil {
		<-*hold
	}
	g.mu.Lock()
	g.running--
	g.mu.Unlock()
	return nil
}

func (g *leadLog) seen() []uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.terms)
}

// Leadership comes and goes while the work of the first leadership still ends: the
// notifications in between are overwritten, and only the last can be read.
func TestLeadershipLostAndRegainedWithinOneNotification(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var log leadLog
	first := l.add(&ledger{}, func(c *Config) { c.Lead = log.lead })
	if err := first.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	l.mustPut("a")
	second := l.add(&ledger{})
	l.join(second)
	l.voters(2)

	hold := make(chan struct{})
	log.hold.Store(&hold)
	flip(t, first, second)
	flip(t, second, first)
	flip(t, first, second)
	flip(t, second, first)
	if terms := log.seen(); len(terms) != 1 {
		t.Fatalf("the leader's work began %d times before the first one ended", len(terms))
	}
	wantCode(t, first.put("too early"), reeve.Unavailable, "not_leader")
	log.hold.Store(nil)
	close(hold)
	until(t, "the leader's work begins again", func() bool { return len(log.seen()) == 2 && first.IsLeader() })
	terms := log.seen()
	if terms[1] <= terms[0] || terms[1] != first.raft.Load().CurrentTerm() || log.overlap {
		t.Fatalf("terms %v, current %d, overlap %v", terms, first.raft.Load().CurrentTerm(), log.overlap)
	}
	l.mustPut("b")
	agree(t, []string{"a", "b"}, first, second)
}

// gate is a log handler that stops whoever logs the message until it is opened.
type gate struct {
	slog.Handler
	message string
	reached chan struct{}
	open    chan struct{}
	once    *sync.Once
}

func (g gate) Enabled(context.Context, slog.Level) bool { return true }
func (g gate) WithAttrs([]slog.Attr) slog.Handler       { return g }

func (g gate) Handle(_ context.Context, r slog.Record) error {
	if r.Message == g.message {
		g.once.Do(func() {
			close(g.reached)
			<-g.open
		})
	}
	return nil
}

// A gain that replaced the loss in the channel, unread, ends the work like the loss.
func TestASecondGainEndsTheFirstLeadership(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var log leadLog
	first := l.add(&ledger{}, func(c *Config) { c.Lead = log.lead })
	if err := first.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	l.mustPut("a")
	g := gate{slog.DiscardHandler, "raft: leading", make(chan struct{}), make(chan struct{}), new(sync.Once)}
	var log2 leadLog
	second := l.add(&ledger{}, func(c *Config) { c.Lead = log2.lead; c.Logger = slog.New(g) })
	l.join(second)
	l.voters(2)
	flip(t, first, second)
	<-g.reached // second is established, and does not look at the channel now
	flip(t, second, first)
	flip(t, first, second)
	close(g.open)
	until(t, "the work begins in the new term", func() bool {
		terms := log2.seen()
		return len(terms) > 0 && terms[len(terms)-1] == second.raft.Load().CurrentTerm() && second.IsLeader()
	})
	if terms := log2.seen(); len(terms) != 2 || log2.overlap {
		t.Fatalf("terms %v, overlap %v: want the old term ended and the new one begun", terms, log2.overlap)
	}
	l.mustPut("b")
	agree(t, []string{"a", "b"}, first, second)
}

// flip moves leadership behind the node's back, as an election would.
func flip(t *testing.T, from, to *member) {
	t.Helper()
	until(t, "transfer", func() bool {
		r := from.raft.Load()
		if r.State() == raft.Leader {
			_ = r.LeadershipTransferToServer(raft.ServerID(to.cfg.ID), raft.ServerAddress(to.Addr())).Error()
		}
		return to.raft.Load().State() == raft.Leader
	})
}

func TestALeaderWhoseWorkFailsHandsLeadershipOver(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var broken atomic.Bool
	fail := make(chan struct{})
	first := l.add(&ledger{}, func(c *Config) {
		c.Lead = func(ctx context.Context, _ uint64) error {
			select {
			case <-ctx.Done():
				return nil
			case <-fail:
				broken.Store(true)
				return errors.New("made to fail")
			}
		}
	})
	if err := first.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	l.join(l.add(&ledger{}))
	l.voters(2)
	close(fail)
	until(t, "the other one leads", l.members[1].IsLeader)
	if !broken.Load() || first.IsLeader() {
		t.Fatal("the first node leads although its work failed")
	}
}

// With nobody to take leadership, the work is tried again.
func TestALoneLeaderTriesItsWorkAgain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var attempts atomic.Int32
	m := l.add(&ledger{}, func(c *Config) {
		c.Lead = func(ctx context.Context, _ uint64) error {
			if attempts.Add(1) == 1 {
				return errors.New("made to fail once")
			}
			<-ctx.Done()
			return nil
		}
	})
	if err := m.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	until(t, "a second attempt", func() bool { return attempts.Load() == 2 && m.IsLeader() })
	l.mustPut("a")
}

func TestProposalsKeepTheirOrder(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3)
	leader := l.leader()
	var want []string
	for i := range 2000 {
		want = append(want, fmt.Sprint(i))
		p := leader.Propose([]byte(want[i]))
		if i == 1999 {
			if err := p.Wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if diff := cmp.Diff(want, leader.ledger().entries()); diff != "" {
		t.Fatal(diff)
	}
	agree(t, want, l.members...)
}
