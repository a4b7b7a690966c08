// Package store owns Reeve's state: typed tables in one transactional, replicated
// key space with one bbolt file per node. Domain code is plain functions over a
// [Tx]; it does not know Raft. See DESIGN.md for why it is built as it is.
//
// Every package of the controller from audit upwards may import it. It imports
// internal/reeve and internal/mutant and nothing else of ours: what it needs from the cluster and the
// seal are the small interfaces [Replicator] and [Cipher].
//
// Update runs on the leader alone, one function at a time; its write set is sealed,
// queued for replication in order, and awaited outside the lock. Apply runs on every
// node and only copies bytes.
package store
