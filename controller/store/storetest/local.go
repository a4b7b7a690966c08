package storetest

import (
	"context"
	"sync"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// local is the replicated log of a cluster of one. An entry is committed once its
// effects are on disk: it applies what is queued, flushes once, and answers. It needs no
// log file, because nothing is ever acknowledged that would have to be replayed.
type local struct {
	state  *store.Store
	faults *Faults
	index  uint64 // used by run alone
	wake   chan struct{}

	mu      sync.Mutex
	queue   []*proposal
	stopped bool
}

type proposal struct {
	entry []byte
	fate  Fate
	done  chan struct{}
	err   error
}

// Wait implements store.Proposal.
func (p *proposal) Wait() error {
	<-p.done
	return p.err
}

func (p *proposal) resolve(err error) {
	p.err = err
	close(p.done)
}

// Propose implements store.Replicator.
func (l *local) Propose(entry []byte) store.Proposal {
	p := &proposal{entry: entry, done: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		p.resolve(errRefused)
		return p
	}
	p.fate = l.faults.next()
	l.queue = append(l.queue, p)
	l.signal()
	return p
}

func (l *local) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *local) run(ctx context.Context) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.stopped = true
		for _, p := range l.queue {
			p.resolve(errRefused)
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-l.faults.open():
		}
		l.mu.Lock()
		batch := l.queue
		l.queue = nil
		l.mu.Unlock()
		l.commit(batch)
	}
}

func (l *local) commit(batch []*proposal) {
	var err error
	for _, p := range batch {
		if p.fate == Commit || p.fate == CommitUnknown {
			l.index++
			if err == nil {
				err = l.state.Apply(l.index, Term, p.entry)
			}
		}
	}
	if err == nil {
		err = l.state.Flush()
	}
	for _, p := range batch {
		switch p.fate {
		case Refuse:
			p.resolve(errRefused)
		case Lose, CommitUnknown:
			p.resolve(errUnknown)
		default:
			p.resolve(err)
		}
	}
}

var (
	errRefused = reeve.Errorf(reeve.Unavailable, "not_leader", "the log did not take the entry")
	errUnknown = reeve.Errorf(reeve.OutcomeUnknown, "leadership_lost", "leadership was lost while waiting")
)
