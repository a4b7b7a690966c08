package link

import (
	"context"
	"crypto/tls"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

func noTLS() (*tls.Config, error) { return &tls.Config{MinVersion: tls.VersionTLS13}, nil }

func answer(t testing.TB, leader string) error {
	t.Helper()
	s, err := status.New(codes.FailedPrecondition, "not the leader").WithDetails(
		&agentv1.NotLeader{LeaderAddress: leader, Addresses: []string{"a:1", "b:1", "c:1"}})
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}

// A thousand agents whose leader dies do not come back as one: the first try of each is
// within a second, no tenth of a second has more than double its share of them, and
// further tries are fewer and fewer.
func TestACrowdThatLostItsLeaderIsSpread_C65(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const agents = 1000
		lost := status.Error(codes.Unavailable, "lost")
		tries := make(chan time.Duration, agents*100)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for range agents {
			d := newDialer([]string{"a:1", "b:1"}, quiet, func() (*tls.Config, error) {
				tries <- time.Since(began) // each connection begins with this
				return nil, lost           // and goes no further
			})
			go func() { _ = d.call(ctx, nil) }()
		}
		<-ctx.Done()
		synctest.Wait()
		close(tries)
		var tenths [600]int
		for at := range tries {
			if at > 0 { // the first, which failed
				tenths[min(int(at/(100*time.Millisecond)), len(tenths)-1)]++
			}
		}
		first, last := 0, 0
		for i, n := range tenths {
			if i < 10 {
				first += n
			}
			if i >= 590 {
				last += n
			}
			if n > agents/10*2 {
				t.Errorf("%d tries in tenth %d", n, i)
			}
		}
		if first < agents {
			t.Errorf("%d tries in the first second", first)
		}
		if last > agents/4 {
			t.Errorf("%d tries in the sixtieth second", last)
		}
	})
}

// Where no leader is known yet, the same controller is asked again on the connection
// there is; only one that never learns is left.
func TestAFollowerIsAskedAgainBeforeOthers(t *testing.T) {
	t.Parallel()
	d := newDialer([]string{"a:1", "b:1", "c:1"}, quiet, noTLS)
	t.Cleanup(d.close)
	d.address = "a:1"
	for tries := 1; tries <= moveEvery; tries++ {
		conn, err := d.connection()
		if err != nil || conn.address != "a:1" {
			t.Fatalf("try %d goes to %s, %v", tries, conn.target(), err)
		}
		if wait, hinted := d.failed(conn, answer(t, ""), tries, false); hinted || wait == 0 {
			t.Errorf("try %d: waits %s, hinted %t", tries, wait, hinted)
		}
	}
	if conn, err := d.connection(); err != nil || conn.address != "b:1" {
		t.Errorf("then it goes to %s, %v", conn.target(), err)
	}
}

// A hint is followed at once, at whichever try; two controllers that each name the other
// are not asked in a tight loop.
func TestAHintIsFollowedAtOnceButNotForEver(t *testing.T) {
	t.Parallel()
	d := newDialer([]string{"a:1", "b:1", "c:1"}, quiet, noTLS)
	t.Cleanup(d.close)
	d.rand = func() float64 { return 1 }
	d.address = "a:1"
	hinted := false
	for i, want := range []time.Duration{0, 8 * backoffBase, backoffMax} {
		conn, err := d.connection()
		if err != nil {
			t.Fatal(err)
		}
		var wait time.Duration
		if wait, hinted = d.failed(conn, answer(t, "c:1"), i+3, hinted); wait != want || !hinted || d.address != "c:1" {
			t.Errorf("hint %d: waits %s for %s", i+1, wait, d.address)
		}
	}
}

// Who was served by a controller that is gone goes to the one that leads next, if the
// election goes as it should, and then through all of them.
func TestTheSuccessorIsAskedFirst(t *testing.T) {
	t.Parallel()
	lost := status.Error(codes.Unavailable, "lost")
	for _, tt := range []struct{ gone, first, second string }{{"a:1", "b:1", "c:1"}, {"b:1", "a:1", "b:1"}, {"c:1", "a:1", "b:1"}} {
		d := newDialer([]string{"a:1", "b:1", "c:1"}, quiet, noTLS)
		t.Cleanup(d.close)
		d.address = tt.gone
		for i, want := range []string{tt.first, tt.second} {
			conn, err := d.connection()
			if err != nil {
				t.Fatal(err)
			}
			d.failed(conn, lost, i+1, false)
			if d.address != want {
				t.Errorf("%s is gone: try %d goes to %s instead of %s", tt.gone, i+1, d.address, want)
			}
		}
	}
}
