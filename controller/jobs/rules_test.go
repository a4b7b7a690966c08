package jobs

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/internal/reeve"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func queued(mutates bool) *Job {
	return &Job{ID: "job_1", State: StateQueued, Mutates: mutates, CreatedAt: epoch, NotBefore: epoch,
		Deadline: epoch.Add(time.Hour), Timeout: 2 * time.Minute}
}

func TestEndOfADelivery(t *testing.T) {
	t.Parallel()
	done := ended{how: EndReported, outcome: reeve.Done}
	notDone := func(c reeve.Class) ended {
		return ended{how: EndReported, outcome: reeve.NotDone, class: c, message: "m"}
	}
	unknown := ended{how: EndReported, outcome: reeve.OutcomeUncertain, class: reeve.ClassUnknownOutcome, message: "m"}
	lost := ended{how: EndLost, outcome: reeve.OutcomeUncertain, class: reeve.ClassUnknownOutcome, message: "m"}
	for name, c := range map[string]struct {
		mutates, cancel bool
		end             ended
		state           State
		quarantined     bool
		notBefore       time.Duration // after the end; -1: not looked at
	}{
		"done":                                   {true, false, done, StateDone, false, -1},
		"done although cancelled":                {true, true, done, StateDone, false, -1},
		"unreachable waits":                      {true, false, notDone(reeve.ClassUnreachable), StateQueued, false, time.Second / 2},
		"deterministic failure fails at once":    {true, false, notDone(reeve.ClassNotPermitted), StateFailed, false, -1},
		"changed plan fails at once":             {true, false, notDone(reeve.ClassPlanChanged), StateFailed, false, -1},
		"not done after cancel is cancelled":     {true, true, notDone(reeve.ClassCancelled), StateCancelled, false, -1},
		"any proof of nothing done is cancelled": {true, true, notDone(reeve.ClassUnreachable), StateCancelled, false, -1},
		"unknown change is quarantined":          {true, false, unknown, StateQueued, true, 2*time.Minute + DriftMargin},
		"lost change is quarantined for longer":  {true, false, lost, StateQueued, true, 2*time.Minute + DriftMargin + KillGrace},
		"unknown change after cancel too":        {true, true, unknown, StateQueued, true, 2*time.Minute + DriftMargin},
		"lost reader is only repeated":           {false, false, lost, StateQueued, false, time.Second / 2},
		"lost reader after cancel is cancelled":  {false, true, lost, StateCancelled, false, -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := queued(c.mutates)
			j.lease("agent_1", 7, epoch, defaultTerms)
			if c.cancel {
				j.cancel("me", epoch)
				if j.State != StateLeased {
					t.Fatalf("cancel of a leased job is a request, but it is %s", j.State)
				}
			}
			now := epoch.Add(10 * time.Second)
			j.end(c.end, now, 0.5, defaultTerms)
			if j.State != c.state || j.Quarantined != c.quarantined {
				t.Fatalf("state %s quarantined %v, want %s %v", j.State, j.Quarantined, c.state, c.quarantined)
			}
			if c.notBefore >= 0 && !j.NotBefore.Equal(now.Add(c.notBefore)) {
				t.Fatalf("not before %s after the end, want %s", j.NotBefore.Sub(now), c.notBefore)
			}
			if live := j.Live(7); live != c.quarantined {
				t.Fatalf("fence live: %v", live)
			}
			if c.quarantined {
				j.release(j.NotBefore)
				want := StateQueued
				if c.cancel {
					want = StateUncertain
				}
				if j.State != want || j.Live(7) {
					t.Fatalf("after quarantine: %s, live %v; want %s and a dead fence", j.State, j.Live(7), want)
				}
			}
		})
	}
}

func TestCancelWhileWaiting(t *testing.T) {
	t.Parallel()
	j := queued(true)
	j.cancel("me", epoch)
	if j.State != StateCancelled || j.CancelledBy != "me" {
		t.Fatalf("a job nobody had is cancelled at once, but it is %s", j.State)
	}
	j = queued(true)
	j.lease("agent_1", 7, epoch, defaultTerms)
	j.end(ended{how: EndLost, outcome: reeve.OutcomeUncertain, class: reeve.ClassUnknownOutcome}, epoch, 0, defaultTerms)
	j.release(j.NotBefore)
	j.cancel("me", j.NotBefore)
	if j.State != StateUncertain {
		t.Fatalf("a job whose change may have happened is not cancelled but uncertain; it is %s", j.State)
	}
}

func TestFiveDeliveriesThenTheDeadLetter(t *testing.T) {
	t.Parallel()
	j := queued(true)
	now := epoch
	for n := uint64(1); n <= MaxDeliveries; n++ {
		if !j.ready(now) {
			t.Fatalf("not ready for delivery %d: %s", n, j.State)
		}
		j.lease("agent_1", n, now, defaultTerms)
		j.end(ended{how: EndReported, outcome: reeve.NotDone, class: reeve.ClassUnreachable, message: "no route"}, now, 0.9, defaultTerms)
		now = j.NotBefore
	}
	if j.State != StateDead || j.Failure != "no route" {
		t.Fatalf("after %d deliveries: %s, %q", MaxDeliveries, j.State, j.Failure)
	}
	j.retry(now)
	if !j.ready(now) || j.exhausted() || !j.Deadline.Equal(now.Add(time.Hour)) {
		t.Fatalf("a retried job starts anew: %+v", j)
	}
	j.lease("agent_1", 99, now, defaultTerms)
	j.giveBack(now)
	if j.strikes().deliveries != 0 || !j.ready(now) {
		t.Fatalf("a delivery that reached nobody does not count: %+v", j.strikes())
	}
}

func TestPoisonIsDeadAtOnce(t *testing.T) {
	t.Parallel()
	crash := ended{how: EndReported, outcome: reeve.NotDone, class: reeve.ClassInternal, message: "the connector crashed"}
	j := queued(true)
	j.lease("agent_1", 1, epoch, defaultTerms)
	j.end(crash, epoch, 0, defaultTerms)
	if j.State != StateQueued {
		t.Fatalf("after one crash: %s", j.State)
	}
	j.lease("agent_1", 2, epoch, defaultTerms)
	j.end(crash, epoch, 0, defaultTerms)
	if j.State != StateDead {
		t.Fatalf("after two crashes: %s", j.State)
	}
	j = queued(false)
	lost := ended{how: EndLost, outcome: reeve.OutcomeUncertain, class: reeve.ClassUnknownOutcome}
	j.lease("agent_1", 1, epoch, defaultTerms)
	j.end(lost, epoch, 0, defaultTerms)
	j.lease("agent_1", 2, epoch, defaultTerms)
	j.end(lost, epoch, 0, defaultTerms)
	if j.State != StateQueued {
		t.Fatalf("lost twice by one agent: %s", j.State)
	}
	j.lease("agent_2", 3, epoch, defaultTerms)
	j.end(lost, epoch, 0, defaultTerms)
	if j.State != StateDead {
		t.Fatalf("lost by two agents: %s", j.State)
	}
}

func TestBackoffIsFullJitterUpToFifteenMinutes(t *testing.T) {
	t.Parallel()
	for n, ceiling := range map[uint32]time.Duration{1: time.Second, 2: 20 * time.Second, 3: 40 * time.Second,
		4: 80 * time.Second, 7: 640 * time.Second, 8: 15 * time.Minute, 4_000_000_000: 15 * time.Minute} {
		if got := Backoff(n, 0); got != 0 {
			t.Errorf("delivery %d, least: %s", n, got)
		}
		if got := Backoff(n, 0.5); got != ceiling/2 {
			t.Errorf("delivery %d, middle: %s, want %s", n, got, ceiling/2)
		}
	}
}

// The log's head, whatever arrives: what is taken is contiguous in sequence and offset,
// nothing is taken twice, and a repeated chunk is acknowledged (J5).
func TestLogHeadTakesOnlyContinuations_J5(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := &logHead{}
		var sequence, offset uint64
		for range rapid.IntRange(1, 50).Draw(t, "chunks") {
			c := drawChunk(t, h)
			before := *h
			switch h.receive(c) {
			case received:
				if c.GetSequence() != sequence+1 || c.GetOffset() != offset || before.Last {
					t.Fatalf("took %v after sequence %d, offset %d", c, sequence, offset)
				}
				sequence, offset = c.GetSequence(), offset+uint64(len(c.GetData()))+c.GetGapBytes()
			case repeated:
				if c.GetSequence() > sequence {
					t.Fatalf("%d was called repeated, but only %d are there", c.GetSequence(), sequence)
				}
			case ahead, malformed:
			}
			if h.Sequence != sequence || h.Offset != offset {
				t.Fatalf("head is at %d/%d, want %d/%d", h.Sequence, h.Offset, sequence, offset)
			}
		}
	})
}
