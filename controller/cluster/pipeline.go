package cluster

import (
	"sync"

	"github.com/hashicorp/raft"
)

// transport is raft's own with pipelines that can end.
//
// In hashicorp/raft 1.8.0 the reader of a pipeline's answers leaves at the first one that
// is not a success, and only the sender closes the pipeline. A sender that has one more
// request to hand over by then waits for the transport to take it, the transport waits
// for somebody to take the next answer, and nobody does: that replication never ends.
// The follower gets no more entries while its heartbeats look healthy, and Shutdown waits
// for the sender for ever.
type transport struct{ *raft.NetworkTransport }

// AppendEntriesPipeline implements raft.Transport.
func (t transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := t.NetworkTransport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, answers: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.run()
	return p, nil
}

// pipeline passes answers on and closes itself at the first that is not a success, so
// that the sender gets an error in place of waiting.
type pipeline struct {
	raft.AppendPipeline
	answers chan raft.AppendFuture
	closing sync.Once
	closed  chan struct{} // by the sender
}

func (p *pipeline) run() {
	for {
		select {
		case answer := <-p.AppendPipeline.Consumer():
			if !answer.Response().Success {
				_ = p.AppendPipeline.Close() // never fails
			}
			select {
			case p.answers <- answer:
			case <-p.closed:
				return
			}
		case <-p.closed:
			return
		}
	}
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.closing.Do(func() { close(p.closed) })
	return p.AppendPipeline.Close()
}
