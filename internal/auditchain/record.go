// Package auditchain is the form of Reeve's audit trail: what a record holds, how it
// is encoded and chained, and how a chain is verified without a controller. The
// controller writes with it, the command line verifies with it; it imports the
// standard library only.
//
// The hash of a record is SHA-256 over the hash of the record before it and the
// record's canonical encoding, so any edit, removal, insertion or exchange of
// records changes every later hash. Cutting records off the end cannot be seen in
// the chain itself: compare with a head noted earlier.
package auditchain

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Actor is who did it.
type Actor struct {
	Kind string `json:"kind" cbor:"1,keyasint,omitempty"`           // user, service, root, agent, node, system
	ID   string `json:"id,omitempty" cbor:"2,keyasint,omitempty"`   // of its own type: prin_…, agent_…, node_…
	Name string `json:"name,omitempty" cbor:"3,keyasint,omitempty"` // for people
	From string `json:"from,omitempty" cbor:"4,keyasint,omitempty"` // remote address
	Node string `json:"node,omitempty" cbor:"5,keyasint,omitempty"` // controller that took the call
	// Session is the id of the session or token the call was made with: sess_…, tok_….
	Session string `json:"session,omitempty" cbor:"6,keyasint,omitempty"`
}

// Record is one link of the chain. It holds no secret: Details, Before and After
// are allow-lists written by hand where the action happens.
type Record struct {
	Sequence uint64 `json:"sequence" cbor:"1,keyasint,omitempty"` // 1, 2, 3, … without gaps
	// Time is the leader's time in UTC. It never goes backwards along the chain.
	Time     time.Time         `json:"time" cbor:"2,keyasint,omitempty"`
	Revision uint64            `json:"revision" cbor:"3,keyasint,omitempty"` // the store transaction it is part of
	Actor    Actor             `json:"actor" cbor:"4,keyasint,omitempty"`
	Action   string            `json:"action" cbor:"5,keyasint,omitempty"`            // account.provision, …
	Object   string            `json:"object,omitempty" cbor:"6,keyasint,omitempty"`  // id of what it was done to
	Outcome  string            `json:"outcome" cbor:"7,keyasint,omitempty"`           // ok, denied, failed, …
	Details  map[string]string `json:"details,omitempty" cbor:"8,keyasint,omitempty"` // what else matters
	Before   map[string]string `json:"before,omitempty" cbor:"9,keyasint,omitempty"`  // changed fields, old values
	After    map[string]string `json:"after,omitempty" cbor:"10,keyasint,omitempty"`  // changed fields, new values
	Prev     string            `json:"prev" cbor:"11,keyasint,omitempty"`             // hash of the record before; Genesis for the first
	Hash     string            `json:"hash" cbor:"12,keyasint,omitempty"`             // of this record: 64 hex digits
}

// Head is a position in the chain: the last record before it is compared.
type Head struct {
	Sequence uint64 `json:"sequence"`
	Hash     string `json:"hash"`
}

// Genesis stands for the hash before the first record.
var Genesis = strings.Repeat("0", sha256.Size*2)

// Chain sets the record's Sequence, Prev and Hash to follow head. The zero Head is
// the empty chain. It returns the new head.
func Chain(head Head, r *Record) Head {
	r.Time = r.Time.UTC()
	r.Sequence, r.Prev = head.Sequence+1, head.Hash
	if head.Sequence == 0 {
		r.Prev = Genesis
	}
	r.Hash = hash(r)
	return Head{Sequence: r.Sequence, Hash: r.Hash}
}

// Follows fails with a *BrokenError unless the record follows head and its content gives
// its hash.
func Follows(head Head, r *Record) error {
	want := *r
	Chain(head, &want)
	why := Edited
	switch {
	case r.Sequence > want.Sequence:
		why = Missing
	case r.Sequence < want.Sequence:
		why = Reordered
	case r.Prev != want.Prev:
		why = Unlinked
	case r.Hash == want.Hash:
		return nil
	}
	return &BrokenError{Sequence: r.Sequence, Reason: why, Message: fmt.Sprintf("it does not follow record %d", head.Sequence)}
}

// Encode returns the record as one canonical JSON line with its newline. Verify
// accepts exactly these bytes.
func Encode(r *Record) ([]byte, error) {
	utc := *r
	utc.Time = r.Time.UTC()
	line, err := json.Marshal(&utc)
	if err != nil {
		return nil, fmt.Errorf("auditchain: %w", err)
	}
	return append(line, '\n'), nil
}

// hash is SHA-256(prev ‖ canonical(record)).
func hash(r *Record) string {
	sum := sha256.New()
	prev, err := hex.DecodeString(r.Prev)
	if err != nil || len(prev) != sha256.Size { // not a hash at all: stay injective
		prev = []byte("not a hash: " + r.Prev)
	}
	sum.Write(prev)
	sum.Write(canonical(r))
	return hex.EncodeToString(sum.Sum(nil))
}

// canonical encodes everything but Prev and Hash, injectively: numbers as eight
// bytes, texts and maps behind their length, maps sorted by key. A record without a
// session has the form it has always had, so that old trails verify.
func canonical(r *Record) []byte {
	var b []byte
	if r.Actor.Session == "" {
		b = text(b, "reeve/audit/v1")
	} else {
		b = text(text(b, "reeve/audit/v2"), r.Actor.Session)
	}
	b = binary.BigEndian.AppendUint64(b, r.Sequence)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time.Unix()))       //nolint:gosec // two's complement is injective
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time.Nanosecond())) //nolint:gosec // never negative
	b = binary.BigEndian.AppendUint64(b, r.Revision)
	for _, s := range []string{r.Actor.Kind, r.Actor.ID, r.Actor.Name, r.Actor.From, r.Actor.Node, r.Action, r.Object, r.Outcome} {
		b = text(b, s)
	}
	for _, m := range []map[string]string{r.Details, r.Before, r.After} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(m)))
		for _, k := range slices.Sorted(maps.Keys(m)) {
			b = text(text(b, k), m[k])
		}
	}
	return b
}

func text(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint64(b, uint64(len(s))), s...)
}
