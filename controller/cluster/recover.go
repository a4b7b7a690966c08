package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Recover makes a node that does not run the only member of its cluster, after a majority
// was lost for good. All that its log holds becomes part of the state, also what was
// never committed; what only the lost nodes had is lost. st is the node's state, opened
// without a replicator; amend may change it before it becomes the new beginning. addr is
// where peers will dial this node.
//
// Errors: Conflict "data_dir_in_use" while the node runs, Precondition "nothing_to_recover".
func Recover(dataDir string, id reeve.NodeID, addr string, st *store.Store, amend func() error, log *slog.Logger) (err error) {
	n := &Node{cfg: Config{ID: id, DataDir: dataDir}, log: log, hclog: newHCLog(log)}
	dir := filepath.Join(dataDir, "raft")
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path:                    logPath(dataDir),
		BoltOptions:             &bbolt.Options{Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
		MsgpackUseNewTimeFormat: true,
	})
	if errors.Is(err, berrors.ErrTimeout) {
		return reeve.Errorf(reeve.Conflict, "data_dir_in_use", "another process uses %s", dir).WithFix("stop the controller first").Wrap(err)
	}
	if err != nil {
		return reeve.Errorf(reeve.Internal, "data_dir_unusable", "cannot open the log in %s", dir).Wrap(err)
	}
	defer func() { err = errors.Join(err, bolt.Close()) }()
	snaps, err := raft.NewFileSnapshotStoreWithLogger(dir, keepSnapshots, n.hclog.Named("snapshot"))
	if err != nil {
		return reeve.Errorf(reeve.Internal, "data_dir_unusable", "cannot open the snapshots in %s", dir).Wrap(err)
	}
	if some, err := raft.HasExistingState(bolt, bolt, snaps); err != nil || !some {
		return reeve.Errorf(reeve.Precondition, "nothing_to_recover", "%s holds no cluster's log", dir).
			WithFix("give the configuration of a controller that survived").Wrap(err)
	}
	beginning := &amended{replica: replica{st}, amend: amend, release: func() {}}
	defer func() { beginning.release() }()
	f := newFSM(beginning)
	_, transport := raft.NewInmemTransport(raft.ServerAddress(addr)) // only encodes the address
	only := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(id), Address: raft.ServerAddress(addr), Suffrage: raft.Voter}}}
	if err := raft.RecoverCluster(n.raftConfig(), f, bolt, bolt, snaps, transport, only); err != nil {
		return reeve.Errorf(reeve.Internal, "recovery_failed", "the log in %s could not become the new beginning", dir).
			WithFix("keep a copy of the data directory and try again").Wrap(errors.Join(err, f.cause))
	}
	if f.hasFailed() {
		return fmt.Errorf("cluster: recover: %w", f.cause)
	}
	return nil
}

// amended is a state that is changed once more before it is captured.
type amended struct {
	replica
	amend   func() error
	release func()
}

func (a *amended) Snapshot() (snapshot, error) {
	if err := a.amend(); err != nil {
		return nil, err
	}
	s, err := a.replica.Snapshot()
	if err == nil {
		a.release = s.Release // raft does not, where it recovers
	}
	return s, err
}
