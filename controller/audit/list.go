package audit

import (
	"context"
	"io"
	"sort"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/auditchain"
)

// MaxPage is the most entries List returns at once.
const MaxPage = 1000

// Filter narrows List. Empty fields do not narrow. All match exactly.
type Filter struct {
	Object  string
	Actor   string // id or name; by id it is found faster
	Action  string
	Outcome string
	Since   time.Time // inclusive
	Until   time.Time // exclusive
	Through uint64    // the last record looked at; 0: all there are
}

func (f Filter) matches(e *Entry) bool {
	return (f.Object == "" || e.Object == f.Object) &&
		(f.Actor == "" || e.Actor.ID == f.Actor || e.Actor.Name == f.Actor) &&
		(f.Action == "" || e.Action == f.Action) &&
		(f.Outcome == "" || e.Outcome == f.Outcome) &&
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
	if !f.Since.IsZero() {
		before, err := lastBefore(tx, f.Since)
		if err != nil {
			return nil, err
		}
		after = max(after, before)
	}
	seq := entries.List(tx, key(after))
	from := store.Range{From: key(after + 1)}
	switch {
	case f.Object != "":
		from.Prefix = []string{f.Object}
		seq = entries.Scan(tx, "object", from)
	case f.Actor != "" && isID(tx, f.Actor):
		from.Prefix = []string{f.Actor}
		seq = entries.Scan(tx, "actor", from)
	}
	var page []*Entry
	for e, err := range seq {
		if err != nil {
			return nil, err
		}
		if !f.Until.IsZero() && !e.Time.Before(f.Until) || f.Through > 0 && e.Sequence > f.Through {
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

// isID reports whether anything was done by an actor with the id.
func isID(tx *store.Tx, actor string) bool {
	for _, err := range entries.Scan(tx, "actor", store.Range{Prefix: []string{actor}}) {
		return err == nil // List meets the error again
	}
	return false
}

// lastBefore is the number of the last record before a time, 0 if there is none. Time
// never goes backwards along the chain, so it need not look at all of them.
func lastBefore(tx *store.Tx, at time.Time) (uint64, error) {
	h, err := readHead(tx)
	if err != nil {
		return 0, err
	}
	n := sort.Search(int(h.Sequence), func(i int) bool {
		if err != nil {
			return true
		}
		var e *Entry
		if e, err = entries.Get(tx, key(uint64(i)+1)); err != nil {
			return true
		}
		return !e.Time.Before(at)
	})
	return uint64(n), err
}

// Export writes the entries after the one numbered after that the filter lets through, to
// the end of the chain, as lines that auditchain.Verify reads if they are all there are. It takes a page per View, so a long export
// holds up nobody; entries are never changed, so the pages fit together. It returns
// the position of the last one written.
func Export(ctx context.Context, st *store.Store, after uint64, f Filter, w io.Writer) (auditchain.Head, error) {
	last := auditchain.Head{Sequence: after}
	err := walk(ctx, st, after, f, func(e *Entry) error {
		line, err := auditchain.Encode(e)
		if err != nil {
			return err
		}
		if _, err := w.Write(line); err != nil {
			return err
		}
		last = auditchain.Head{Sequence: e.Sequence, Hash: e.Hash}
		return nil
	})
	return last, err
}

// walk visits the entries after the one numbered after that the filter lets through.
func walk(ctx context.Context, st *store.Store, after uint64, f Filter, visit func(*Entry) error) error {
	for {
		var page []*Entry
		err := st.View(ctx, func(tx *store.Tx) (err error) {
			page, err = List(tx, after, MaxPage, f)
			return err
		})
		if err != nil {
			return err
		}
		for _, e := range page {
			if err := visit(e); err != nil {
				return err
			}
			after = e.Sequence
		}
		if len(page) < MaxPage {
			return nil
		}
	}
}
