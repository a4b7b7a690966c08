package store

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// entryVersion is the first byte of a log entry. A node that meets another one stops:
// going on would make it differ from the others in silence.
const entryVersion = 1

// entry is what follows the version byte, as CBOR arrays.
type entry struct {
	_        struct{}   `cbor:",toarray"`
	Term     uint64     // leadership in which the write sets were computed
	Proposal uint64     // number of the entry within the process that made it
	Base     uint64     // revision on which the first write set stands
	Time     int64      // leader's clock, ns since 1970, of the last write set
	Sets     []writeSet // when decoded, parts of the bytes it was decoded from
}

// writeSet is what one transaction changes. A key occurs once.
type writeSet struct {
	_       struct{} `cbor:",toarray"`
	Puts    []put
	Deletes [][]byte
}

type put struct {
	_     struct{} `cbor:",toarray"`
	Key   []byte
	Value []byte
}

// position is how far the state has come. It is part of the state on disk.
type position struct {
	_        struct{} `cbor:",toarray"`
	Index    uint64   // last log entry applied
	Revision uint64   // last transaction applied
	Time     int64    // leader's clock of that transaction, ns since 1970
}

var encMode, decMode = func() (cbor.UserBufferEncMode, cbor.DecMode) {
	e := cbor.CoreDetEncOptions()
	e.Time = cbor.TimeRFC3339NanoUTC
	e.TimeTag = cbor.EncTagRequired
	enc, err := e.UserBufferEncMode()
	if err != nil {
		panic(err)
	}
	// What can be encoded within maxSetBytes must be readable again, so the limits are
	// beyond it and strings may hold any bytes.
	dec, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		MaxArrayElements: maxSetBytes,
		MaxMapPairs:      maxSetBytes,
		UTF8:             cbor.UTF8DecodeInvalid,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return enc, dec
}()

// decodeEntry decodes an entry and its write sets completely, so that Apply either
// does all of it or nothing. The entry refers to b.
func decodeEntry(b []byte) (*entry, error) {
	if len(b) == 0 {
		return nil, errEntry(errors.New("empty"))
	}
	if b[0] != entryVersion {
		return nil, reeve.Errorf(reeve.Internal, "entry_version_unknown",
			"log entry version %d is not known to this release", b[0]).
			WithFix("upgrade this node to the release of the others")
	}
	e, err := readEntry(b[1:])
	if err != nil {
		return nil, errEntry(err)
	}
	for i := range e.Sets {
		if err := e.Sets[i].check(); err != nil {
			return nil, errEntry(err)
		}
	}
	return e, nil
}

func errEntry(err error) error {
	return reeve.Errorf(reeve.Internal, "entry_corrupt", "a log entry cannot be decoded").Wrap(err)
}

// check refuses keys the state could not hold.
func (w *writeSet) check() error {
	for i := range w.Puts {
		if err := checkKey(w.Puts[i].Key); err != nil {
			return err
		}
		if len(w.Puts[i].Value) > maxSetBytes {
			return fmt.Errorf("value of %d bytes", len(w.Puts[i].Value))
		}
	}
	for _, k := range w.Deletes {
		if err := checkKey(k); err != nil {
			return err
		}
	}
	return nil
}

func checkKey(k []byte) error {
	if len(k) > maxKeyBytes {
		return fmt.Errorf("key of %d bytes", len(k))
	}
	if !ours(k) {
		return fmt.Errorf("malformed key %q", k)
	}
	return nil
}
