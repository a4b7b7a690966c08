package sink

import (
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// cursor is how far a sink is, as it was a few seconds ago at most.
type cursor struct {
	Sink     string    `cbor:"1,keyasint,omitempty"`
	Sequence uint64    `cbor:"2,keyasint,omitempty"` // the last record the sink has for certain
	SentAt   time.Time `cbor:"3,keyasint,omitzero"`
	Error    string    `cbor:"4,keyasint,omitempty"` // of the last attempt; "" if it worked
	ErrorAt  time.Time `cbor:"5,keyasint,omitzero"`  // since when it fails like that
}

var cursors = store.NewTable("audit_sink_cursor", store.Key(func(c *cursor) string { return c.Sink }))

func readCursor(tx *store.Tx, name string) (cursor, error) {
	c, err := cursors.Get(tx, name)
	if reeve.KindOf(err) == reeve.NotFound {
		return cursor{Sink: name}, nil
	}
	if err != nil {
		return cursor{}, err
	}
	return *c, nil
}

// Progress is how far a sink is behind the trail.
type Progress struct {
	Sequence uint64 // the last record it has
	SentAt   time.Time
	Records  uint64        // that it does not have
	Age      time.Duration // of the oldest of them
	Error    string        // why the last attempt failed; "" if it worked
	ErrorAt  time.Time     // since when it fails like that
}

// ProgressOf tells how far a sink is, as of a few seconds ago at most.
func ProgressOf(tx *store.Tx, s *Sink) (Progress, error) {
	c, err := readCursor(tx, s.Name)
	if err != nil {
		return Progress{}, err
	}
	p := Progress{Sequence: c.Sequence, SentAt: c.SentAt, Error: c.Error, ErrorAt: c.ErrorAt}
	head, err := audit.Head(tx)
	if err != nil || head.Sequence <= c.Sequence {
		return p, err
	}
	p.Records = head.Sequence - c.Sequence
	next, err := audit.List(tx, c.Sequence, 1, audit.Filter{})
	if err != nil || len(next) == 0 {
		return p, err
	}
	p.Age = max(tx.Now().Sub(next[0].Time), 0)
	return p, nil
}

// CheckLag fails with Precondition "audit_lag" while a sink that has a limit is further
// behind than that: what is let out then would leave no trace outside the cluster. Every
// transaction that lets out a password or the trail itself calls it.
func CheckLag(tx *store.Tx) error {
	late, err := overLimit(tx)
	if err != nil || len(late) == 0 {
		return err
	}
	one := late[0]
	return reeve.Errorf(reeve.Precondition, "audit_lag", "audit sink %q lacks %d records, the oldest of them %s old: over its limit, reveals and exports are refused",
		one.Name, one.Records, one.Age.Round(time.Second)).WithFix("repair the sink: reeve audit sink list shows its error")
}

// behind is a sink with how far it is.
type behind struct {
	*Sink
	Progress
}

// overLimit finds the sinks that are further behind than their limits.
func overLimit(tx *store.Tx) (late []behind, err error) {
	for s, err := range sinks.List(tx, "") {
		if err != nil {
			return nil, err
		}
		if s.MaxRecords == 0 && s.MaxAge == 0 {
			continue
		}
		p, err := ProgressOf(tx, s)
		if err != nil {
			return nil, err
		}
		if s.Exceeded(p) {
			late = append(late, behind{s, p})
		}
	}
	return late, nil
}

// Exceeded reports whether the sink has a limit and is further behind.
func (s *Sink) Exceeded(p Progress) bool {
	return s.MaxRecords > 0 && p.Records > s.MaxRecords || s.MaxAge > 0 && p.Age > s.MaxAge
}
