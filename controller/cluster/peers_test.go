package cluster

import (
	"testing"
	"time"
)

func (l *ledger) Now() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Unix(int64(l.Index), 0) //nolint:gosec // small
}

// A new leader asks its fellows for the time; who does not answer does not hold it up.
func TestPeerTimesAreThoseOfAMajority(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3)
	l.mustPut("a")
	lead := l.leader()
	want := lead.ledger().Now()
	for _, m := range l.members {
		until(t, "all have applied it", func() bool { return m.ledger().Now().Equal(want) })
	}
	if got := lead.PeerTimes(); len(got) != 1 || !got[0].Equal(want) {
		t.Errorf("%v, want one answer, %v", got, want)
	}
	l.net.Isolate(lead.cfg.ID)
	began := time.Now()
	if got := lead.PeerTimes(); len(got) != 0 {
		t.Errorf("cut off, it was told %v", got)
	}
	if took := time.Since(began); took > 10*peerPatience {
		t.Errorf("it waited for %s", took)
	}

	alone := newLab(t)
	alone.cluster(1)
	if got := alone.leader().PeerTimes(); got != nil {
		t.Errorf("alone, it was told %v", got)
	}
}
