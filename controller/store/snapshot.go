package store

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// A snapshot stream is
//
//	magic, uvarint length, position (CBOR),
//	for each key in ascending order: uvarint length, key, uvarint length, value,
//	uvarint 0, SHA-256 of everything before.
//
// It depends on the state alone: nodes at the same index write the same bytes.
const snapshotMagic = "reeve-snapshot/1\n"

const maxPositionBytes = 64

// Snapshot is the state at one log index, durable on this node. It pins pages of the
// file: release it soon. It is for one goroutine.
type Snapshot struct {
	snap snapshot
	at   position
}

// Snapshot makes everything applied durable, so that the log may be cut up to
// [Snapshot.Index], and returns the state at that index.
func (s *Store) Snapshot() (*Snapshot, error) {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if !mutant.Is(mutant.SnapshotUnflushed) {
		if err := s.flushLocked(); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	tx, err := s.beginLocked()
	if err != nil {
		return nil, err
	}
	// Entries applied since the flush are in the layers of tx, not on disk. Leave them out.
	sn := &Snapshot{snap: snapshot{tx: tx.snap.tx, state: tx.snap.state}}
	if err := decMode.Unmarshal(sn.snap.tx.Bucket(bucketMeta).Get(keyPosition), &sn.at); err != nil {
		sn.Release()
		return nil, errDisk("cannot read the state file", err)
	}
	return sn, nil
}

// Index is the log index of the last entry in the snapshot.
func (sn *Snapshot) Index() uint64 { return sn.at.Index }

// Revision is that of the newest transaction in the snapshot.
func (sn *Snapshot) Revision() uint64 { return sn.at.Revision }

// Recorded is the time of that transaction.
func (sn *Snapshot) Recorded() time.Time { return time.Unix(0, sn.at.Time).UTC() }

// WriteTo writes the snapshot stream to w. It writes the same each time.
func (sn *Snapshot) WriteTo(w io.Writer) (int64, error) {
	n, _, err := writeStream(w, &sn.snap, sn.at)
	return n, err
}

// Release ends the snapshot. It may be called more than once.
func (sn *Snapshot) Release() {
	_ = sn.snap.tx.Rollback() // of a read transaction: fails only when it has ended
}

// StateHash is the SHA-256 with which the snapshot stream of the state applied now
// ends, and the log index it is for. Nodes at the same index have the same hash.
func (s *Store) StateHash() (index uint64, sum [sha256.Size]byte, err error) {
	s.mu.Lock()
	tx, err := s.beginLocked()
	at := s.applied
	s.mu.Unlock()
	if err != nil {
		return 0, sum, err
	}
	defer tx.end()
	_, sum, err = writeStream(io.Discard, &tx.snap, at)
	return at.Index, sum, err
}

// writeStream writes the stream and returns its length and its final hash.
func writeStream(w io.Writer, sn *snapshot, at position) (n int64, sum [sha256.Size]byte, err error) {
	h := sha256.New()
	buf := bufio.NewWriterSize(io.MultiWriter(w, h), 64<<10)
	put := func(b []byte) {
		var l [binary.MaxVarintLen64]byte
		m, e1 := buf.Write(l[:binary.PutUvarint(l[:], uint64(len(b)))])
		o, e2 := buf.Write(b)
		n += int64(m) + int64(o)
		if err == nil {
			err = errors.Join(e1, e2)
		}
	}
	head, err := encMode.Marshal(at)
	if err != nil {
		return 0, sum, err
	}
	m, err := buf.WriteString(snapshotMagic)
	n += int64(m)
	put(head)
	sn.scan("", "", func(key string, value []byte) bool {
		put([]byte(key))
		put(value)
		return err == nil
	})
	put(nil)
	if err == nil {
		err = buf.Flush()
	}
	if err == nil {
		h.Sum(sum[:0])
		m, err = w.Write(sum[:])
		n += int64(m)
	}
	if err != nil {
		return n, sum, reeve.Errorf(reeve.Internal, "snapshot_write_failed", "cannot write the snapshot").Wrap(err)
	}
	return n, sum, nil
}

// hashReader hashes exactly what is read through it.
type hashReader struct {
	r *bufio.Reader
	h hash.Hash
}

func (r *hashReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	r.h.Write(p[:n])
	return n, err
}

func (r *hashReader) ReadByte() (byte, error) {
	b, err := r.r.ReadByte()
	if err == nil {
		r.h.Write([]byte{b})
	}
	return b, err
}

func (r *hashReader) chunk(limit uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("length %d is over the limit %d", n, limit)
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}

// readStream calls yield for each key and returns the position, having verified all of
// the stream. What yield was given must not be used before that.
func readStream(src io.Reader, yield func(key, value []byte) error) (at position, err error) {
	r := &hashReader{r: bufio.NewReaderSize(src, 64<<10), h: sha256.New()}
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return at, err
	}
	if string(magic) != snapshotMagic {
		return at, errors.New("not a snapshot of this format")
	}
	head, err := r.chunk(maxPositionBytes)
	if err != nil {
		return at, err
	}
	if err := decMode.Unmarshal(head, &at); err != nil {
		return at, err
	}
	for last := ""; ; {
		key, err := r.chunk(maxKeyBytes)
		if err != nil {
			return at, err
		}
		if len(key) == 0 {
			break
		}
		if err := checkKey(key); err != nil {
			return at, err
		}
		if string(key) <= last {
			return at, errors.New("keys are out of order")
		}
		last = string(key)
		value, err := r.chunk(maxSetBytes)
		if err != nil {
			return at, err
		}
		if err := yield(key, value); err != nil {
			return at, err
		}
	}
	want := r.h.Sum(nil)
	got := make([]byte, sha256.Size)
	if _, err := io.ReadFull(r.r, got); err != nil {
		return at, err
	}
	if string(got) != string(want) {
		return at, errors.New("the checksum does not match")
	}
	if _, err := r.r.ReadByte(); !errors.Is(err, io.EOF) {
		return at, errors.New("bytes follow the checksum")
	}
	return at, nil
}

func restorePath(path string) string { return path + ".restore" }

// Restore replaces the whole state by that of a snapshot stream, index and revision
// included. The stream is first read to its end into a file beside and verified; if it
// is damaged the error has code "snapshot_corrupt" and nothing has changed. Call it from
// where Apply is called. Views that are running go on with the old state; Restore waits
// for them.
func (s *Store) Restore(r io.Reader) error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	s.mu.Lock()
	err := s.failure
	s.mu.Unlock()
	if err != nil {
		return err
	}
	db, at, err := buildState(restorePath(s.path), r)
	if err != nil {
		return err
	}
	if err := replaceFile(restorePath(s.path), s.path); err != nil {
		_ = db.Close() // the error that led here says more
		return s.fail(errDisk("cannot replace the state file", err))
	}
	s.mu.Lock()
	old := s.db
	s.db, s.applied = db, at
	s.active, s.flushing = layer{}, layer{}
	s.durable.Store(at.Index)
	if s.lead != nil && len(s.lead.inflight) > 0 {
		s.voidLocked(s.lead)
	}
	for w := range s.watchers {
		signal(w.c)
	}
	s.mu.Unlock()
	s.log.Info("state restored from a snapshot", "index", at.Index, "revision", at.Revision)
	if err := old.Close(); err != nil {
		return s.fail(errDisk("cannot close the replaced state file", err))
	}
	return nil
}

// buildState makes a complete, durable state file from a stream, or leaves nothing.
func buildState(path string, r io.Reader) (_ *bbolt.DB, at position, err error) {
	opts := boltOptions()
	opts.NoSync = true // until it is complete
	if err := os.RemoveAll(path); err != nil {
		return nil, at, errDisk("cannot restore", err)
	}
	db, err := bbolt.Open(path, 0o600, opts)
	if err != nil {
		return nil, at, errDisk("cannot restore", err)
	}
	defer func() {
		if err != nil {
			_ = db.Close() // the error that led here says more
			_ = os.Remove(path)
		}
	}()
	if _, err := initState(db); err != nil {
		return nil, at, err
	}
	var batch layer
	write := func() error {
		l := batch
		batch = layer{}
		return db.Update(func(tx *bbolt.Tx) error { return writeLayer(tx.Bucket(bucketState), l) })
	}
	at, err = readStream(r, func(key, value []byte) error {
		batch.set(string(key), cell{value: value})
		if batch.bytes < maxSetBytes {
			return nil
		}
		return write()
	})
	if err != nil {
		return nil, at, reeve.Errorf(reeve.Invalid, "snapshot_corrupt",
			"the snapshot is damaged or not a snapshot; nothing was changed").
			WithFix("use another copy").Wrap(err)
	}
	err = write()
	if err == nil {
		err = db.Update(func(tx *bbolt.Tx) error { return putPosition(tx, at) })
	}
	if err == nil {
		err = db.Sync()
	}
	if err != nil {
		return nil, at, errDisk("cannot restore", err)
	}
	db.NoSync = false
	return db, at, nil
}

// replaceFile renames and makes the new name durable.
func replaceFile(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(to))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
