package cluster

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func newPlain(t *testing.T) *raft.NetworkTransport {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test's
	if err != nil {
		t.Fatal(err)
	}
	trans := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: plain{l.(*net.TCPListener)}, MaxPool: 1, Timeout: 10 * time.Second})
	t.Cleanup(func() { _ = trans.Close(); trans.CloseStreams() })
	return trans
}

// A follower that refuses entries, because its disk fails or its term is newer, must not
// leave the leader's replication waiting for ever: it would get nothing any more, and the
// leader could not be stopped. The reader of answers leaves at the first refusal, as
// raft's does; what the sender does after that must end.
func TestASenderDoesNotWaitForAPipelineThatFailed(t *testing.T) {
	t.Parallel()
	follower, leader := newPlain(t), transport{newPlain(t)}
	ended := make(chan struct{})
	t.Cleanup(func() { close(ended) })
	go func() {
		for {
			select {
			case rpc := <-follower.Consumer():
				rpc.Respond(&raft.AppendEntriesResponse{Success: false}, nil)
			case <-ended:
				return
			}
		}
	}()
	p, err := leader.AppendEntriesPipeline("f", follower.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	sent := make(chan error, 1)
	go func() {
		for range 10 {
			if _, err := p.AppendEntries(&raft.AppendEntriesRequest{Term: 1, LeaderCommitIndex: 1}, &raft.AppendEntriesResponse{}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	if answer := <-p.Consumer(); answer.Response().Success {
		t.Fatal("the follower took the entries")
	}
	select {
	case err := <-sent:
		if err == nil {
			t.Error("a pipeline that had failed took all requests")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the sender waits for ever")
	}
}

// refusing is a log that fails to store while it is told to.
type refusing struct {
	raft.LogStore
	now *atomic.Bool
}

func (l refusing) StoreLogs(logs []*raft.Log) error {
	if l.now.Load() {
		return errors.New("made to fail")
	}
	return l.LogStore.StoreLogs(logs)
}

func (l refusing) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// A follower whose disk fails for a moment, again and again under load, catches up each
// time, and the leader it happened to can be stopped.
func TestAFollowerThatRefusedEntriesCatchesUp_O6(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	var refuses [3]atomic.Bool
	next := 0
	l.cluster(3, func(c *Config) {
		now := &refuses[next]
		next++
		c.WrapLogs = func(logs raft.LogStore) raft.LogStore { return refusing{logs, now} }
	})
	leader := l.leader()
	victim := 0
	for l.members[victim] == leader {
		victim++
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					_ = leader.put(fmt.Sprintf("%d/%d", w, i))
				}
			}
		})
	}
	for range 20 {
		refuses[victim].Store(true)
		from := len(leader.ledger().entries())
		until(t, "writes go on without the follower", func() bool { return len(leader.ledger().entries()) > from+20 })
		refuses[victim].Store(false)
		want := len(leader.ledger().entries())
		until(t, "the follower catches up", func() bool { return len(l.members[victim].ledger().entries()) >= want })
	}
	close(stop)
	writers.Wait()
	for _, m := range l.members {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
	}
}
