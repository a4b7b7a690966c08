package store_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

type host struct {
	ID   string `cbor:"1,keyasint,omitempty"`
	Name string `cbor:"2,keyasint,omitempty"`
	Site string `cbor:"3,keyasint,omitempty"`
	N    int    `cbor:"4,keyasint,omitempty"`
}

var hosts = store.NewTable("host",
	store.Key(func(h *host) string { return h.ID }),
	store.Unique("name", func(h *host) []string {
		if h.Name == "" {
			return nil
		}
		return []string{h.Name}
	}),
	store.Index("site", func(h *host) []string { return []string{h.Site, h.Name} }))

func TestInsertGetFind(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	ctx := t.Context()
	want := &host{ID: "h1", Name: "db", Site: "s1", N: 7}
	if err := s.Update(ctx, func(tx *store.Tx) error { return hosts.Insert(tx, want) }); err != nil {
		t.Fatal(err)
	}
	err := s.View(ctx, func(tx *store.Tx) error {
		got, err := hosts.Get(tx, "h1")
		if err != nil {
			return err
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		got, err = hosts.Find(tx, "name", "db")
		if err != nil {
			return err
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(ctx, func(tx *store.Tx) error { return hosts.Insert(tx, &host{ID: "h2", Name: "db"}) })
	if reeve.CodeOf(err) != "host_name_taken" || reeve.KindOf(err) != reeve.Conflict {
		t.Errorf("second db: %v", err)
	}
}
