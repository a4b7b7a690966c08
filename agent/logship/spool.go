package logship

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// entry is a log in the spool. Its chunks lie in a bucket of its own, under their
// sequence numbers. Everything here is guarded by Shipper.mu.
type entry struct {
	key      []byte
	attempt  Attempt
	log      *Log   // nil once all of it is in the spool
	next     uint64 // sequence of the next chunk to write
	offset   uint64 // bytes before it
	sent     uint64 // on the present stream
	acked    uint64 // durable at the controller
	deleted  uint64 // gone from the spool
	complete bool   // the last chunk is in the spool
	refused  bool   // the controller wants no more of it
}

func newEntry(a Attempt) *entry {
	return &entry{key: fmt.Appendf(nil, "%s/%d/%d", a.Job, a.Attempt, a.Fence), attempt: a, next: 1}
}

func seqKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// load reads the logs an earlier process left in the spool. One that was not ended
// gets a last line that says so.
func (s *Shipper) load() error {
	return s.db.Update(func(tx *bolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
			_, last := b.Cursor().Last()
			var c agentv1.LogChunk
			if last == nil || proto.Unmarshal(last, &c) != nil {
				return tx.DeleteBucket(name)
			}
			e := newEntry(Attempt{Job: reeve.JobID(c.Job), Attempt: c.Attempt, Fence: c.Fence})
			e.next, e.offset = c.Sequence+1, c.Offset+uint64(len(c.Data))+c.GapBytes
			first, _ := b.Cursor().First()
			e.acked = binary.BigEndian.Uint64(first) - 1
			e.deleted, e.complete = e.acked, c.Last
			if err := b.ForEach(func(_, v []byte) error { s.used.Add(chunkData(v)); return nil }); err != nil {
				return err
			}
			if !c.Last {
				line := fmt.Appendf(nil, `{"time":%q,"level":"warn","message":"the agent stopped here; its last lines may be missing"}`+"\n",
					s.now().UTC().Format(time.RFC3339Nano))
				if err := s.put(tx, e, piece{data: line}, true); err != nil {
					return err
				}
			}
			s.entries = append(s.entries, e)
			return nil
		})
	})
}

// put writes a chunk and counts it.
func (s *Shipper) put(tx *bolt.Tx, e *entry, p piece, last bool) error {
	b, err := tx.CreateBucketIfNotExists(e.key)
	if err != nil {
		return err
	}
	raw, err := proto.Marshal(&agentv1.LogChunk{Job: string(e.attempt.Job), Attempt: e.attempt.Attempt, Fence: e.attempt.Fence,
		Sequence: e.next, Offset: e.offset, Data: p.data, GapBytes: p.gap, Last: last})
	if err != nil {
		return err
	}
	if err := b.Put(seqKey(e.next), raw); err != nil {
		return err
	}
	e.next++
	e.offset += uint64(len(p.data)) + p.gap
	e.complete = e.complete || last
	return nil
}

// flush brings the spool up to date: new chunks in, acknowledged ones out, one
// transaction for all. The next one is to wait a little, and longer when many jobs write
// at a time: then a write, and all that follows until the controllers have what was
// written, is for many lines, and nobody reads along with that many.
func (s *Shipper) flush() (next time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = min(max(settle*time.Duration(len(s.entries)), settle), settleMost)
	err = s.db.Update(func(tx *bolt.Tx) error {
		for _, e := range s.entries {
			if err := s.flushEntry(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return next, reeve.Errorf(reeve.Internal, "log_spool_failed", "the log spool cannot be written").
			WithFix("free space on the disk of the agent's data directory").Wrap(err)
	}
	left := s.entries[:0]
	for _, e := range s.entries {
		if !e.finished() {
			left = append(left, e)
		}
	}
	clear(s.entries[len(left):])
	s.entries = left
	return next, nil
}

// finished reports whether nothing of the log is left to be done.
func (e *entry) finished() bool { return e.complete && (e.refused || e.deleted == e.next-1) }

func (s *Shipper) flushEntry(tx *bolt.Tx, e *entry) error {
	if e.log != nil {
		pieces, last := e.log.take()
		for i, p := range pieces {
			if e.refused {
				s.used.Add(-int64(len(p.data)))
				continue
			}
			if err := s.put(tx, e, p, last && i == len(pieces)-1); err != nil {
				return err
			}
		}
		if last {
			if !e.complete && !e.refused { // nothing was pending: an empty chunk ends the log
				if err := s.put(tx, e, piece{}, true); err != nil {
					return err
				}
			}
			e.complete, e.log = true, nil
		}
	}
	b := tx.Bucket(e.key)
	if b == nil {
		return nil
	}
	if e.refused {
		e.acked = e.next - 1
	}
	for n := e.deleted + 1; n <= e.acked; n++ {
		s.used.Add(-chunkData(b.Get(seqKey(n))))
		if err := b.Delete(seqKey(n)); err != nil {
			return err
		}
	}
	e.deleted = e.acked
	if e.finished() {
		return tx.DeleteBucket(e.key)
	}
	return nil
}

// chunk reads one chunk from the spool.
func (s *Shipper) chunk(e *entry, seq uint64) (*agentv1.LogChunk, error) {
	var c agentv1.LogChunk
	err := s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(e.key)
		if b == nil {
			return errGone
		}
		raw := b.Get(seqKey(seq))
		if raw == nil {
			return errGone
		}
		return proto.Unmarshal(raw, &c)
	})
	if err != nil {
		return nil, err
	}
	return &c, nil
}

// chunkData is how many bytes of log a stored chunk holds.
func chunkData(raw []byte) int64 {
	var c agentv1.LogChunk
	if proto.Unmarshal(raw, &c) != nil {
		return 0
	}
	return int64(len(c.Data))
}

// errGone says that a chunk was acknowledged and removed meanwhile.
var errGone = errors.New("logship: no such chunk")
