package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/reeve-pam/reeve/internal/reeve"
)

func sampleEntry(tb testing.TB) []byte {
	tb.Helper()
	var writes layer
	writes.set(recordPrefix("host")+"a", cell{value: []byte("sealed")})
	writes.set(tuple(indexPrefix("host", "name"), []string{"db"}, tupleEnd)+"a", cell{value: []byte{}})
	writes.set(recordPrefix("host")+"b", cell{gone: true})
	set := encodeWrites(writes)
	return encodeEntry(&entry{Term: 3, Proposal: 9, Time: 1}, [][]byte{set, set})
}

// FuzzEntry: whatever decodes holds only keys that the state can take and that this
// package could have made, and decodes to the same again after encoding.
func FuzzEntry(f *testing.F) {
	f.Add(sampleEntry(f))
	f.Add([]byte{})
	f.Add([]byte{2})
	f.Add([]byte{1, 0x85, 1, 1, 1, 1, 0x81, 0x82, 0x81, 0x82, 0x40, 0x40, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			if reeve.KindOf(err) != reeve.Internal || reeve.CodeOf(err) == "internal" {
				t.Fatalf("not an error of ours: %v", err)
			}
			return
		}
		again, err := encMode.Marshal(e) // by the codec of records, which knows the shape from its tags
		if err != nil {
			t.Fatal(err)
		}
		e2, err := decodeEntry(append([]byte{entryVersion}, again...))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, e2, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(entry{}, writeSet{}, put{})); d != "" {
			t.Fatal(d)
		}
	})
}

// FuzzWriteSet: a write set that passes the check can be merged and written to disk.
func FuzzWriteSet(f *testing.F) {
	e, err := decodeEntry(sampleEntry(f))
	if err != nil {
		f.Fatal(err)
	}
	set, err := encMode.Marshal(&e.Sets[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(set)
	f.Add([]byte{0x82, 0x80, 0x81, 0x41, 0x00})
	path := f.TempDir() + "/state.db"
	s, err := Open(Config{Path: path, Cipher: noCipher{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		r := reader{b: b}
		w := r.set()
		if r.err != nil || w.check() != nil {
			return
		}
		s.mu.Lock()
		s.mergeLocked(&w)
		s.mu.Unlock()
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	})
}

type noCipher struct{}

func (noCipher) Seal(_, b []byte) ([]byte, error) { return bytes.Clone(b), nil }
func (noCipher) Open(_, b []byte) ([]byte, error) { return bytes.Clone(b), nil }

// FuzzSnapshot: a stream that is accepted, also with a checksum that somebody made fit,
// holds keys the state can take in order, and is written and read again unchanged.
func FuzzSnapshot(f *testing.F) {
	s, err := Open(Config{Path: f.TempDir() + "/state.db", Cipher: noCipher{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	nothing, err := s.beginLocked()
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(nothing.end)
	if err := s.Apply(1, 3, sampleEntry(f)); err != nil {
		f.Fatal(err)
	}
	sn, err := s.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	defer sn.Release()
	var full bytes.Buffer
	if _, err := sn.WriteTo(&full); err != nil {
		f.Fatal(err)
	}
	f.Add(full.Bytes())
	f.Add(full.Bytes()[:full.Len()-sha256.Size])
	f.Add([]byte(snapshotMagic))
	f.Add(append([]byte(snapshotMagic), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f))
	read := func(b []byte) (layer, position, error) {
		var state layer
		at, err := readStream(bytes.NewReader(b), func(k, v []byte) error {
			state.set(string(k), cell{value: v})
			return nil
		})
		return state, at, err
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := sha256.Sum256(b)
		for _, stream := range [][]byte{b, append(bytes.Clone(b), sum[:]...)} {
			state, at, err := read(stream)
			if err != nil {
				continue
			}
			empty := snapshot{tx: nothing.snap.tx, state: nothing.snap.state}
			empty.layers = []layer{state}
			var again bytes.Buffer
			if _, _, err := writeStream(&again, &empty, at); err != nil {
				t.Fatal(err)
			}
			state2, at2, err := read(again.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if at2 != at || !slices.Equal(state.keys(), state2.keys()) {
				t.Fatalf("position %v keys %q, read again %v %q", at, state.keys(), at2, state2.keys())
			}
		}
	})
}

func (l *layer) keys() []string {
	if l.empty() {
		return nil
	}
	return l.m.Keys()
}

type fuzzRecord struct {
	ID    string            `cbor:"1,keyasint,omitempty"`
	At    time.Time         `cbor:"2,keyasint,omitempty"`
	Parts []string          `cbor:"3,keyasint,omitempty"`
	Facts map[string]string `cbor:"4,keyasint,omitempty"`
	Raw   []byte            `cbor:"5,keyasint,omitempty"`
	N     int64             `cbor:"6,keyasint,omitempty"`
}

// FuzzRecord: a record that can be read can be written and read again, unchanged.
func FuzzRecord(f *testing.F) {
	table := NewTable("fuzz", Key(func(r *fuzzRecord) string { return r.ID }), Plain[fuzzRecord]())
	at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	b, err := table.encode(&Tx{}, "a", &fuzzRecord{"a", at, []string{"x"}, map[string]string{"k": "v"}, []byte{0}, -1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa1, 0x02, 0xc0, 0x60})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := table.decode(&Tx{}, "a", b)
		if err != nil {
			if reeve.CodeOf(err) != "record_unreadable" {
				t.Fatal(err)
			}
			return
		}
		again, err := table.encode(&Tx{}, "a", r)
		if err != nil {
			t.Fatal(err)
		}
		r2, err := table.decode(&Tx{}, "a", again)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, r2, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}

func TestBrokenDiskStopsTheNode(t *testing.T) {
	t.Parallel()
	s, err := Open(Config{Path: t.TempDir() + "/state.db", Cipher: noCipher{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.db.Close(); err != nil { // every later write to the file fails
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	entry := encodeEntry(&entry{Term: 1}, nil)
	if err := s.Apply(1, 1, entry); err != nil {
		t.Fatal(err)
	}
	if err := <-done; reeve.CodeOf(err) != "state_io_failed" {
		t.Errorf("Run: %v", err)
	}
	if err := s.Apply(2, 1, entry); reeve.CodeOf(err) != "state_io_failed" {
		t.Errorf("Apply: %v", err)
	}
	if s.AppliedIndex() != 0 {
		t.Errorf("index %d is called durable", s.AppliedIndex())
	}
}

type shortWriter struct{ n int }

var errShort = errors.New("disk full")

func (w *shortWriter) Write(p []byte) (int, error) {
	if w.n -= len(p); w.n < 0 {
		return 0, errShort
	}
	return len(p), nil
}

func TestSnapshotThatCannotBeWrittenIsAnError(t *testing.T) {
	t.Parallel()
	s, err := Open(Config{Path: t.TempDir() + "/state.db", Cipher: noCipher{}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Apply(1, 3, sampleEntry(t)); err != nil {
		t.Fatal(err)
	}
	sn, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer sn.Release()
	total, err := sn.WriteTo(new(bytes.Buffer))
	if err != nil {
		t.Fatal(err)
	}
	for n := range int(total) {
		if _, err := sn.WriteTo(&shortWriter{n}); !errors.Is(err, errShort) {
			t.Fatalf("after %d of %d bytes: %v", n, total, err)
		}
	}
}
