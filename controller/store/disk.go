package store

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// The file: bucket "state" holds the key space, bucket "meta" the format and the
// position, which is written in the same bbolt transaction as the state it describes.
var (
	bucketState = []byte("state")
	bucketMeta  = []byte("meta")
	keyFormat   = []byte("format")
	keyPosition = []byte("position")
	stateFormat = []byte("1")
)

// boltOptions: a freelist written with every commit is what slows large files down, so
// it is rebuilt at open instead. Mapping address space ahead keeps a growing file from
// waiting for readers; it costs no memory.
func boltOptions() *bbolt.Options {
	return &bbolt.Options{
		Timeout:         time.Second,
		NoFreelistSync:  true,
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: 8 << 30,
	}
}

func openState(path string) (*bbolt.DB, position, error) {
	// What a Restore that did not finish left behind was never part of the state.
	if err := os.Remove(restorePath(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, position{}, errDisk("cannot remove an unfinished restore", err)
	}
	db, err := bbolt.Open(path, 0o600, boltOptions())
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, position{}, reeve.Errorf(reeve.Precondition, "state_in_use",
			"another process has the state file open").WithFix("stop it first").Wrap(err)
	}
	if err != nil {
		return nil, position{}, errDisk("cannot open the state file", err)
	}
	at, err := initState(db)
	if err != nil {
		_ = db.Close() // the error that led here says more
		return nil, position{}, err
	}
	return db, at, nil
}

// initState makes the buckets of a new file and reads the position.
func initState(db *bbolt.DB) (position, error) {
	var at position
	err := db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(bucketState); err != nil {
			return err
		}
		meta, err := tx.CreateBucketIfNotExists(bucketMeta)
		if err != nil {
			return err
		}
		switch f := meta.Get(keyFormat); {
		case f == nil:
			if err := meta.Put(keyFormat, stateFormat); err != nil {
				return err
			}
			return putPosition(tx, at)
		case string(f) != string(stateFormat):
			return reeve.Errorf(reeve.Precondition, "state_format_unknown",
				"the state file has format %q, this release knows %q", f, stateFormat).
				WithFix("run the release that wrote it, or a newer one")
		}
		return decMode.Unmarshal(meta.Get(keyPosition), &at)
	})
	if err != nil {
		if _, ok := errors.AsType[*reeve.Error](err); ok {
			return at, err
		}
		return at, errDisk("cannot read the state file", err)
	}
	return at, nil
}

func putPosition(tx *bbolt.Tx, at position) error {
	b, err := encMode.Marshal(at)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketMeta).Put(keyPosition, b)
}

// Flush makes everything applied durable. It returns at once if it is already.
func (s *Store) Flush() error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	return s.flushLocked()
}

// flushLocked moves the memory layer to disk. Readers see the same state before,
// during and after: until the layer is dropped it merely repeats what the disk says.
func (s *Store) flushLocked() error {
	s.mu.Lock()
	if s.failure != nil {
		defer s.mu.Unlock()
		return s.failure
	}
	at := s.applied
	if at.Index == s.durable.Load() && s.active.empty() {
		s.mu.Unlock()
		return nil
	}
	s.flushing, s.active = s.active, layer{}
	changes, db := s.flushing, s.db
	s.mu.Unlock()

	err := db.Update(func(tx *bbolt.Tx) error {
		if err := writeLayer(tx.Bucket(bucketState), changes); err != nil {
			return err
		}
		return putPosition(tx, at)
	})
	if err != nil {
		return s.fail(errDisk("cannot write the state file", err))
	}
	s.mu.Lock()
	s.flushing = layer{}
	s.mu.Unlock()
	s.durable.Store(at.Index)
	return nil
}

func writeLayer(b *bbolt.Bucket, l layer) error {
	if l.empty() {
		return nil
	}
	var err error
	l.m.Scan(func(key string, c cell) bool {
		if c.gone {
			err = b.Delete([]byte(key))
		} else {
			err = b.Put([]byte(key), c.value)
		}
		return err == nil
	})
	return err
}

func errDisk(what string, err error) error {
	return reeve.Errorf(reeve.Internal, "state_io_failed", "%s", what).
		WithFix("check the disk, its free space and the file's permissions").Wrap(err)
}
