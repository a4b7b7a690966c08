package store_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// clocks is a node's wall clock and its monotonic one.
type clocks struct {
	mu     sync.Mutex
	wall   time.Time
	steady time.Duration
}

func newClocks() *clocks { return &clocks{wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clocks) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall
}

func (c *clocks) since() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.steady
}

// pass lets time pass; set sets the wall clock forward, or back.
func (c *clocks) pass(d time.Duration) { c.move(d, d) }
func (c *clocks) set(d time.Duration)  { c.move(d, 0) }

func (c *clocks) move(wall, steady time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.steady = c.wall.Add(wall), c.steady+steady
}

func (c *clocks) options() []storetest.Option {
	return []storetest.Option{storetest.WithClock(c.now), storetest.WithSteady(c.since)}
}

// stamp is the time of a transaction, and whether it says that it may be wrong.
func stamp(t *testing.T, s *store.Store) (at time.Time, doubted bool) {
	t.Helper()
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		at, doubted = tx.Now(), tx.ClockInDoubt()
		return hosts.Put(tx, &host{ID: "stamp", N: at.Nanosecond()})
	})
	if err != nil {
		t.Fatal(err)
	}
	return at, doubted
}

const year = 365 * 24 * time.Hour

func TestAClockThatJumpsDoesNotMoveTime(t *testing.T) {
	t.Parallel()
	for name, jump := range map[string]time.Duration{
		"an hour ahead": time.Hour, "an hour back": -time.Hour, "a year ahead": year, "a year back": -year, "a minute": time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClocks()
			s := storetest.New(t, c.options()...)
			begin, doubted := stamp(t, s)
			if _, ok := s.Clock(); doubted || ok {
				t.Fatal("a clock that runs is in doubt")
			}
			c.set(jump)
			c.pass(90 * time.Second)
			at, doubted := stamp(t, s)
			if got := at.Sub(begin); got != 90*time.Second || !doubted {
				t.Errorf("%s passed in 90 s, doubted %v", got, doubted)
			}
			if d, ok := s.Clock(); !ok || d.Reason != store.ClockJumped || d.Ahead != jump || !s.Now().Equal(at) {
				t.Errorf("%v %+v, now %s", ok, d, s.Now())
			}
			c.set(-jump) // it is mended
			c.pass(time.Second)
			at, doubted = stamp(t, s)
			if _, ok := s.Clock(); ok || doubted || !at.Equal(c.now()) {
				t.Errorf("mended, but doubted %v %v, at %s of %s", ok, doubted, at, c.now())
			}
		})
	}
}

func TestAClockMayDriftAndBeCorrected(t *testing.T) {
	t.Parallel()
	c := newClocks()
	s := storetest.New(t, c.options()...)
	for range 100 { // 10 s an hour for 100 hours, and back and forth meanwhile
		c.move(time.Hour+10*time.Second, time.Hour)
		c.set(5 * time.Second)
		stamp(t, s)
		c.set(-5 * time.Second)
		if at, doubted := stamp(t, s); doubted || at.Sub(c.now()).Abs() > store.ClockBound {
			t.Fatalf("%s of %s, doubted %v", at, c.now(), doubted)
		}
	}
}

// A lease is counted in this time: a correction must not cut it short.
func TestACorrectionOfTheClockIsNoStepOfTime(t *testing.T) {
	t.Parallel()
	c := newClocks()
	s := storetest.New(t, c.options()...)
	for _, step := range []time.Duration{25 * time.Second, -25 * time.Second} {
		before := s.Now()
		c.set(step)
		c.pass(time.Second)
		if passed := s.Now().Sub(before); (passed - time.Second).Abs() > 10*time.Millisecond {
			t.Errorf("%s passed in a second in which the clock was set by %s", passed, step)
		}
		c.pass(time.Hour)
		if now := s.Now(); !now.Equal(c.now()) {
			t.Errorf("an hour later it is %s, not %s", now, c.now())
		}
	}
}

func TestAnAcceptedClockIsBelieved(t *testing.T) {
	t.Parallel()
	c := newClocks()
	s := storetest.New(t, c.options()...)
	stamp(t, s)
	if _, err := s.AcceptClock(); reeve.CodeOf(err) != "clock_agrees" {
		t.Error(err)
	}
	c.set(year)
	stamp(t, s)
	if d, err := s.AcceptClock(); err != nil || d.Ahead != year {
		t.Errorf("%+v, %v", d, err)
	}
	if at, doubted := stamp(t, s); doubted || !at.Equal(c.now()) {
		t.Errorf("%s, doubted %v", at, doubted)
	}
	// Back again: time neither goes back nor stands still.
	c.set(-time.Hour)
	before, _ := stamp(t, s)
	if _, err := s.AcceptClock(); err != nil {
		t.Error(err)
	}
	c.pass(time.Hour)
	at, doubted := stamp(t, s)
	if doubted || at.Sub(before) != 30*time.Minute {
		t.Errorf("%s in the hour after a clock an hour behind was accepted, doubted %v", at.Sub(before), doubted)
	}
	c.pass(time.Hour)
	if at, doubted := stamp(t, s); doubted || !at.Equal(c.now()) {
		t.Errorf("%s of %s, doubted %v", at, c.now(), doubted)
	}
	c.set(time.Hour)
	if _, doubted := stamp(t, s); !doubted {
		t.Error("a jump after that is believed")
	}
}

// A new leader holds its clock against what was recorded, and against its fellows.
func TestANewLeadersClock(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		name   string
		passed time.Duration   // since the last record, in truth
		wrong  time.Duration   // the new leader's clock
		peers  []time.Duration // how wrong those of its fellows are; nil: none answers
		reason store.ClockReason
		from   time.Duration // where time goes on, after the last record
	}{
		{"right after the last record", time.Second, 0, nil, "", time.Second},
		{"right after a weekend off", 60 * time.Hour, 0, nil, "", 60 * time.Hour},
		{"an hour behind", time.Second, -time.Hour, nil, store.ClockBehind, 0},
		{"a year behind, whatever others say", time.Second, -year, []time.Duration{-year}, store.ClockBehind, 0},
		{"alone and a year ahead", time.Second, year, nil, store.ClockIdle, 0},
		{"an hour ahead of its fellows", 2 * time.Second, time.Hour, []time.Duration{0, 0}, store.ClockPeers, 2 * time.Second},
		{"a year ahead of the one that answers", 2 * time.Second, year, []time.Duration{0}, store.ClockPeers, 2 * time.Second},
		{"right, and one fellow is wrong", time.Hour, 0, []time.Duration{year, 0}, "", time.Hour},
		{"right, and the one that answers is a year ahead", time.Hour, 0, []time.Duration{year}, "", time.Hour},
		{"an hour behind its fellows, long after", 3 * time.Hour, -time.Hour, []time.Duration{0, 0}, store.ClockPeers, 3 * time.Hour},
		{"as late as its fellows say", 30 * 24 * time.Hour, 0, []time.Duration{0, 0}, "", 30 * 24 * time.Hour},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			c := newClocks()
			kept := []storetest.Option{storetest.WithPath(filepath.Join(t.TempDir(), "state.db")), storetest.WithCipher(storetest.NewCipher())}
			first := storetest.Start(t, append(kept, c.options()...)...)
			recorded, _ := stamp(t, first.Store)
			first.Stop()
			c.pass(x.passed)
			truth := c.now()
			c.set(x.wrong)
			peers := storetest.WithPeers(func() (times []time.Time) {
				for _, wrong := range x.peers {
					times = append(times, truth.Add(wrong))
				}
				return times
			})
			s := storetest.New(t, append(append(kept, peers), c.options()...)...)
			at, doubted := stamp(t, s)
			d, _ := s.Clock()
			if at.Sub(recorded) != x.from || doubted != (x.reason != "") || d.Reason != x.reason {
				t.Errorf("time goes on at %s, doubted %v: %+v", at.Sub(recorded), doubted, d)
			}
		})
	}
}
