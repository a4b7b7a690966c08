// Package audit owns the hash-chained record of every change and every reveal. A
// record is written by the transaction that makes the change, so neither exists
// without the other, and the chain is in commit order. Whatever changes state in
// the controller imports it; it imports the store and the form of the chain
// (internal/auditchain), nothing above.
package audit

import (
	"fmt"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Actor is who did it. Kinds: user, service, root, agent, node, system.
type Actor = auditchain.Actor

// Entry is a record as it stands in the chain.
type Entry = auditchain.Record

// System is the actor of what the controller does by itself, such as an expiry.
// The name says which part of it.
func System(name string) Actor { return Actor{Kind: "system", Name: name} }

// The outcomes most records have.
const (
	OK     = "ok"
	Denied = "denied" // somebody asked for what they may not have; nothing else changed
	Failed = "failed"
)

// Event is what a caller records. It must not hold a secret: put in Details, Before
// and After only fields chosen by name, never a whole object.
type Event struct {
	By      Actor
	Action  string // noun.verb: account.provision
	Object  string // id of what it was done to
	Outcome string // OK if empty
	Details map[string]string
	Before  map[string]string // changed fields only
	After   map[string]string
}

// The sizes a record may have; over them Record fails rather than cut.
const (
	maxFields = 64
	maxBytes  = 64 << 10
)

var entries = store.NewTable("audit",
	store.Key(func(e *Entry) string { return key(e.Sequence) }),
	store.Index("object", func(e *Entry) []string { return indexed(e.Object, e.Sequence) }),
	store.Index("actor", func(e *Entry) []string { return indexed(e.Actor.ID, e.Sequence) }),
)

// head is where the chain ends, in a table of one row.
type head struct {
	Sequence uint64    `cbor:"1,keyasint,omitempty"`
	Hash     string    `cbor:"2,keyasint,omitempty"`
	Time     time.Time `cbor:"3,keyasint,omitempty"`
}

const headKey = "head"

var heads = store.NewTable("audit_head", store.Key(func(*head) string { return headKey }))

// key orders records by sequence, which is also the order of time.
func key(sequence uint64) string { return fmt.Sprintf("%020d", sequence) }

func indexed(part string, sequence uint64) []string {
	if part == "" {
		return nil
	}
	return []string{part, key(sequence)}
}

// Record appends an event to the chain as part of tx. Call it once for each thing
// that changes, after the change has been checked. It fails with code
// audit_event_invalid when actor or action is missing or the event is too big,
// which is a defect of the caller.
func Record(tx *store.Tx, e Event) error {
	if err := check(e); err != nil {
		return err
	}
	h, err := readHead(tx)
	if err != nil {
		return err
	}
	at := tx.Now().UTC()
	if at.Before(h.Time) {
		at = h.Time
	}
	entry := Entry{
		Time: at, Revision: tx.Revision(), Actor: e.By, Action: e.Action, Object: e.Object, Outcome: e.Outcome,
		Details: e.Details, Before: e.Before, After: e.After,
	}
	if entry.Outcome == "" {
		entry.Outcome = OK
	}
	next := auditchain.Chain(auditchain.Head{Sequence: h.Sequence, Hash: h.Hash}, &entry)
	if err := entries.Insert(tx, &entry); err != nil {
		return err
	}
	return heads.Put(tx, &head{Sequence: next.Sequence, Hash: next.Hash, Time: at})
}

// Head is the newest position of the chain, zero while nothing is recorded. Note it
// outside the cluster to prove later that nothing before it was cut off or rewritten.
func Head(tx *store.Tx) (auditchain.Head, error) {
	h, err := readHead(tx)
	return auditchain.Head{Sequence: h.Sequence, Hash: h.Hash}, err
}

func readHead(tx *store.Tx) (head, error) {
	h, err := heads.Get(tx, headKey)
	if reeve.KindOf(err) == reeve.NotFound {
		return head{}, nil
	}
	if err != nil {
		return head{}, err
	}
	return *h, nil
}

func check(e Event) error {
	fields, size := 0, len(e.Action)+len(e.Object)+len(e.Outcome)
	for _, m := range []map[string]string{e.Details, e.Before, e.After} {
		fields += len(m)
		for k, v := range m {
			size += len(k) + len(v)
		}
	}
	switch {
	case e.By.Kind == "" || e.Action == "":
		return reeve.Errorf(reeve.Internal, "audit_event_invalid", "an audit event needs an actor and an action (action %q)", e.Action)
	case fields > maxFields || size > maxBytes:
		return reeve.Errorf(reeve.Internal, "audit_event_invalid", "the audit event %q has %d fields and %d bytes, over the limit", e.Action, fields, size)
	}
	return nil
}
