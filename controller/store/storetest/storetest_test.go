package storetest_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

type item struct {
	ID string `cbor:"1,keyasint,omitempty"`
}

var items = store.NewTable("item", store.Key(func(i *item) string { return i.ID }))

func insert(ctx context.Context, s *store.Store, id string) error {
	return s.Update(ctx, func(tx *store.Tx) error { return items.Insert(tx, &item{id}) })
}

func has(t *testing.T, s *store.Store, id string) bool {
	t.Helper()
	err := s.View(t.Context(), func(tx *store.Tx) error {
		_, err := items.Get(tx, id)
		return err
	})
	if err != nil && reeve.KindOf(err) != reeve.NotFound {
		t.Error(err)
	}
	return err == nil
}

func TestFaultsDecideTheFateOfEntries(t *testing.T) {
	t.Parallel()
	f := new(storetest.Faults)
	s := storetest.New(t, storetest.WithFaults(f))
	f.Next(storetest.CommitUnknown, storetest.Lose, storetest.Refuse)
	for _, c := range []struct {
		id   string
		kind reeve.Kind
		made bool
	}{
		{"a", reeve.OutcomeUnknown, true},
		{"b", reeve.OutcomeUnknown, false},
		{"c", reeve.Unavailable, false},
		{"d", "", true},
	} {
		err := insert(t.Context(), s, c.id)
		if reeve.KindOf(err) != c.kind || has(t, s, c.id) != c.made {
			t.Errorf("%s: %v, made %v", c.id, err, has(t, s, c.id))
		}
	}
}

func TestHeldEntryCommitsAtRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := new(storetest.Faults)
		s := storetest.New(t, storetest.WithFaults(f))
		release := f.Hold()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := insert(ctx, s, "a"); reeve.KindOf(err) != reeve.OutcomeUnknown {
			t.Error(err)
		}
		if has(t, s, "a") {
			t.Error("committed while held")
		}
		release()
		synctest.Wait()
		if !has(t, s, "a") {
			t.Error("not committed after the release")
		}
	})
}

func TestStateOutlivesANode(t *testing.T) {
	t.Parallel()
	path, c := filepath.Join(t.TempDir(), "state.db"), storetest.NewCipher()
	for _, id := range []string{"a", "b"} {
		n := storetest.Start(t, storetest.WithPath(path), storetest.WithCipher(c))
		if err := insert(t.Context(), n.Store, id); err != nil {
			t.Fatal(err)
		}
		if !has(t, n.Store, "a") {
			t.Error("a is gone")
		}
		n.Stop()
	}
}

func TestCipherBindsTheAdditionalData(t *testing.T) {
	t.Parallel()
	c := storetest.NewCipher()
	sealed, err := c.Seal([]byte("here"), []byte("canary"))
	if err != nil || bytes.Contains(sealed, []byte("canary")) {
		t.Fatal("not sealed", err)
	}
	if b, err := c.Open([]byte("here"), sealed); err != nil || string(b) != "canary" {
		t.Error(err)
	}
	if _, err := c.Open([]byte("there"), sealed); err == nil {
		t.Error("opened with other additional data")
	}
}
