package cluster

import (
	"context"
	"io"

	"github.com/hashicorp/raft"
)

// Restore replaces the state of the whole cluster by a snapshot stream of size bytes,
// taken at log index. Proposals under way get outcome unknown. The caller has
// verified the stream: one that the state refuses ends this node. Only the leader can.
func (n *Node) Restore(ctx context.Context, snapshot io.Reader, size int64, index uint64) error {
	return n.call(ctx, func(r *raft.Raft) raft.Future {
		meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: index, Size: size}
		if err := r.Restore(meta, snapshot, 0); err != nil {
			return answered{err}
		}
		// raft ends with a no-op, which the FSM never sees; read barriers would wait for it.
		barrier := r.Barrier(0)
		if err := barrier.Error(); err != nil {
			return answered{err}
		}
		n.fsm.Load().advance(barrier.(raft.IndexFuture).Index())
		return barrier
	})
}

// answered is a future that is over.
type answered struct{ err error }

// Error implements raft.Future.
func (a answered) Error() error { return a.err }
