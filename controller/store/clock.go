package store

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// How far a node believes its clock.
const (
	// ClockBound is how far a clock may be from where it should be: far more than time
	// synchronisation corrects, far less than anything that expires here lives.
	ClockBound = 30 * time.Second
	// ClockGap is how long a cluster may have stood still before a controller that has no
	// fellow to ask doubts that it is so late.
	ClockGap = 7 * 24 * time.Hour
	// slew is the part of the time that passes by which time follows a clock that is believed
	// but not quite equal, so that no lease is ever cut short by a correction.
	slew = 100
)

// ClockReason is why a clock is not believed.
type ClockReason string

// The reasons.
const (
	ClockJumped ClockReason = "jumped" // it was set while this process ran
	ClockBehind ClockReason = "behind" // the cluster has recorded later times
	ClockPeers  ClockReason = "peers"  // most of the other controllers have another time
	ClockIdle   ClockReason = "idle"   // it says that a lone controller was off for longer than ClockGap
)

// ClockDoubt says that a node does not believe its clock: time goes on from what was
// believed last, at the speed of the monotonic clock.
type ClockDoubt struct {
	Reason ClockReason
	Since  time.Time     // in the time that goes on
	Ahead  time.Duration // of the clock, against the time that goes on; negative: it is behind
}

// clock is the time of one node. It moves as the monotonic clock does and follows the
// wall clock in small steps, as long as the two say nearly the same.
type clock struct {
	wall   func() time.Time
	steady func() time.Duration // since some moment, untouched by setting the clock; nil: wall is believed whatever it says
	log    *slog.Logger

	mu       sync.Mutex
	time     time.Time // when steady was at
	at       time.Duration
	catching bool // a clock behind time was accepted: time runs at half speed until it has caught up
	doubt    *ClockDoubt
}

func newClock(wall func() time.Time, steady func() time.Duration, log *slog.Logger) *clock {
	if wall == nil {
		wall, steady = time.Now, uptime
	}
	c := &clock{wall: wall, steady: steady, log: log}
	if steady != nil {
		c.time, c.at = c.read(), steady()
	}
	return c
}

// uptime is a clock that goes on while the machine sleeps, unlike Go's monotonic one: a
// machine that wakes up has a clock that is right.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Since(started)
	}
	return time.Duration(ts.Nano())
}

var started = time.Now()

// read is the wall clock without a monotonic reading, so that differences are of walls.
func (c *clock) read() time.Time { return c.wall().Round(0).UTC() }

// now is the time, and whether the clock is in doubt.
func (c *clock) now() (time.Time, bool) {
	if c.steady == nil {
		return c.read(), false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked(), c.doubt != nil
}

func (c *clock) nowLocked() time.Time {
	wall, at := c.read(), c.steady()
	run := at - c.at
	c.time, c.at = c.time.Add(run), at
	ahead := wall.Sub(c.time)
	if c.catching && ahead < 0 {
		c.time = c.time.Add(-min(run/2, -ahead))
		return c.time
	}
	c.catching = false
	if ahead.Abs() > ClockBound {
		c.doubtLocked(ClockJumped, ahead)
		return c.time
	}
	if c.doubt != nil {
		c.log.Info("the clock agrees again with the time that went on", "ahead", ahead)
		c.doubt = nil
	}
	c.time = c.time.Add(max(-run/slew, min(run/slew, ahead)))
	return c.time
}

func (c *clock) doubtLocked(why ClockReason, ahead time.Duration) {
	if c.doubt == nil {
		c.doubt = &ClockDoubt{Reason: why, Since: c.time}
		c.log.Error("the clock is not believed: time goes on from what was believed last, and nothing is begun because of the time",
			"reason", why, "ahead", ahead, "time", c.time)
	}
	c.doubt.Ahead = ahead
}

// hold lets time go on from at, because the clock says something that cannot be.
func (c *clock) hold(why ClockReason, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time, c.at, c.catching, c.doubt = at.UTC(), c.steady(), false, nil
	c.doubtLocked(why, c.read().Sub(c.time))
}

// reach makes it no earlier than at.
func (c *clock) reach(at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.time = latest(c.nowLocked(), at)
}

// accept believes the wall clock from now on. Time does not go back: if the clock is
// behind, time runs at half speed until the clock has caught up.
func (c *clock) accept() (ClockDoubt, bool) {
	if c.steady == nil {
		return ClockDoubt{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.nowLocked()
	if c.doubt == nil {
		return ClockDoubt{}, false
	}
	was, wall := *c.doubt, c.read()
	c.time, c.catching, c.doubt = latest(wall, now), wall.Before(now), nil
	c.log.Warn("the clock was accepted", "ahead", was.Ahead, "clock", wall)
	return was, true
}

// Now is the time of this node as transactions see it: its clock's, unless that is in
// doubt, and not before the last transaction applied.
func (s *Store) Now() time.Time {
	s.mu.Lock()
	floor := s.applied.Time
	s.mu.Unlock()
	now, _ := s.stamp(floor)
	return now
}

// Clock tells whether this node's clock is in doubt, and why.
func (s *Store) Clock() (ClockDoubt, bool) {
	if s.clock.steady == nil {
		return ClockDoubt{}, false
	}
	s.clock.mu.Lock()
	defer s.clock.mu.Unlock()
	s.clock.nowLocked()
	if s.clock.doubt == nil {
		return ClockDoubt{}, false
	}
	return *s.clock.doubt, true
}

// AcceptClock makes this node believe its clock again, because a person says that it is
// right, and returns what was in doubt. Time still never goes back: if the clock is
// behind, time runs at half speed until the clock has caught up. Conflict
// "clock_agrees" if nothing is in doubt.
func (s *Store) AcceptClock() (ClockDoubt, error) {
	was, ok := s.clock.accept()
	if !ok {
		return was, reeve.Errorf(reeve.Conflict, "clock_agrees", "this controller's clock is not in doubt").
			WithFix("there is nothing to accept")
	}
	return was, nil
}

// checkClock is for a new leader, whose clock every stamp is to come from: it holds it
// against what the leaders before it have recorded, and where that is too long ago to
// say anything, against the other controllers'.
func (s *Store) checkClock() {
	s.mu.Lock()
	last := s.applied.Time
	s.mu.Unlock()
	if s.clock.steady == nil || last == 0 {
		return
	}
	now, doubted := s.clock.now()
	recorded := time.Unix(0, last).UTC()
	late := now.Sub(recorded)
	if late < -ClockBound {
		s.clock.hold(ClockBehind, recorded)
		return
	}
	if late <= ClockBound || doubted {
		s.clock.reach(recorded)
		return
	}
	var peers []time.Time
	if s.peers != nil {
		peers = s.peers()
	}
	if len(peers) == 0 {
		if late > ClockGap {
			s.clock.hold(ClockIdle, recorded)
		}
		return
	}
	if most := median(append(peers, now)); most.Sub(now).Abs() > ClockBound {
		s.clock.hold(ClockPeers, latest(most, recorded))
	}
}

// median is the middle time; of two in the middle the earlier, with which less expires.
func median(times []time.Time) time.Time {
	slices.SortFunc(times, time.Time.Compare)
	return times[(len(times)-1)/2]
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
