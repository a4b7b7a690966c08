package audit

import (
	"context"
	"io"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/auditchain"
)

// MaxPage is the most entries List returns at once.
const MaxPage = 1000

// Filter narrows List. Empty fields do not narrow. Ids and actions match exactly.
type Filter struct {
	Object  string
	ActorID string
	Action  string
	Since   time.Time // inclusive
	Until   time.Time // exclusive
}

func (f Filter) matches(e *Entry) bool {
	return (f.Object == "" || e.Object == f.Object) &&
		(f.ActorID == "" || e.Actor.ID == f.ActorID) &&
		(f.Action == "" || e.Action == f.Action) &&
		(f.Since.IsZero() || !e.Time.Before(f.Since)) &&
		(f.Until.IsZero() || e.Time.Before(f.Until))
}

// List returns entries in order, oldest first: at most limit of them, none numbered
// after or lower. To page on, pass the last Sequence returned; fewer than limit
// means the end. A limit outside 1 to MaxPage means MaxPage.
func List(tx *store.Tx, after uint64, limit int, f Filter) ([]*Entry, error) {
	if limit < 1 || limit > MaxPage {
		limit = MaxPage
	}
	seq := entries.List(tx, key(after))
	from := store.Range{From: key(after + 1)}
	switch {
	case f.Object != "":
		from.Prefix = []string{f.Object}
		seq = entries.Scan(tx, "object", from)
	case f.ActorID != "":
		from.Prefix = []string{f.ActorID}
		seq = entries.Scan(tx, "actor", from)
	}
	var page []*Entry
	for e, err := range seq {
		if err != nil {
			return nil, err
		}
		if !f.Until.IsZero() && !e.Time.Before(f.Until) {
			break // time never goes backwards along the chain
		}
		if !f.matches(e) {
			continue
		}
		if page = append(page, e); len(page) == limit {
			break
		}
	}
	return page, nil
}

// Export writes the entries after the one numbered after, to the end of the chain,
// as lines that auditchain.Verify reads. It takes a page per View, so a long export
// holds up nobody; entries are never changed, so the pages fit together. It returns
// the position of the last one written.
func Export(ctx context.Context, st *store.Store, after uint64, w io.Writer) (auditchain.Head, error) {
	last := auditchain.Head{Sequence: after}
	for {
		var page []*Entry
		err := st.View(ctx, func(tx *store.Tx) (err error) {
			page, err = List(tx, last.Sequence, MaxPage, Filter{})
			return err
		})
		if err != nil {
			return last, err
		}
		for _, e := range page {
			line, err := auditchain.Encode(e)
			if err != nil {
				return last, err
			}
			if _, err := w.Write(line); err != nil {
				return last, err
			}
			last = auditchain.Head{Sequence: e.Sequence, Hash: e.Hash}
		}
		if len(page) < MaxPage {
			return last, nil
		}
	}
}
