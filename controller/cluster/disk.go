package cluster

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/hashicorp/raft"
)

// logStore is the log on a disk that may fail. The log is read through a memory map, so
// a disk that cannot be read shows itself as a memory fault; here it becomes an error.
type logStore struct{ raft.LogStore }

func (s logStore) FirstIndex() (index uint64, err error) {
	defer catchFault(debug.SetPanicOnFault(true), &err)
	return s.LogStore.FirstIndex()
}

func (s logStore) LastIndex() (index uint64, err error) {
	defer catchFault(debug.SetPanicOnFault(true), &err)
	return s.LogStore.LastIndex()
}

func (s logStore) GetLog(index uint64, into *raft.Log) (err error) {
	defer catchFault(debug.SetPanicOnFault(true), &err)
	return s.LogStore.GetLog(index, into)
}

func (s logStore) StoreLog(l *raft.Log) (err error) {
	defer catchFault(debug.SetPanicOnFault(true), &err)
	return s.LogStore.StoreLog(l)
}

func (s logStore) StoreLogs(logs []*raft.Log) (err error) {
	defer catchFault(debug.SetPanicOnFault(true), &err)
	return s.LogStore.StoreLogs(logs)
}

func (s logStore) DeleteRange(from, to uint64) (err error) {
	defer catchFault(debug.SetPanicOnFault(true), &err)
	return s.LogStore.DeleteRange(from, to)
}

// termStore keeps the term and the vote. raft panics when a term cannot be kept, so a
// disk that fails here ends the process in a way that says what to do.
type termStore struct {
	raft.StableStore
	n *Node
}

func (s termStore) Set(key, value []byte) (err error) {
	defer s.orFence(&err)
	defer catchFault(debug.SetPanicOnFault(true), &err)
	return s.StableStore.Set(key, value)
}

func (s termStore) SetUint64(key []byte, value uint64) (err error) {
	defer s.orFence(&err)
	defer catchFault(debug.SetPanicOnFault(true), &err)
	return s.StableStore.SetUint64(key, value)
}

func (s termStore) orFence(err *error) {
	switch {
	case *err == nil:
	case s.n.released.Load():
		*err = nil // this node has stopped, and has no connection on which to say what it did not keep
	default:
		s.n.fence("this node cannot write its term or its vote", "error", *err)
	}
}

// catchFault makes a failed read of a memory map an error. Every other panic goes on.
func catchFault(before bool, err *error) {
	debug.SetPanicOnFault(before)
	switch fault := recover().(type) {
	case nil:
	case interface {
		runtime.Error
		Addr() uintptr
	}:
		*err = fmt.Errorf("the disk failed under a memory map: %w", fault)
	default:
		panic(fault)
	}
}
