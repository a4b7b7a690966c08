package store_test

import (
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

type envelope struct {
	ID   string                                 `cbor:"1,keyasint,omitempty"`
	Body store.Message[*wrapperspb.StringValue] `cbor:"2,keyasint,omitzero"`
}

func TestMessageKeepsProtobufInARecord(t *testing.T) {
	t.Parallel()
	table := store.NewTable("envelope", store.Key(func(e *envelope) string { return e.ID }))
	raw := store.NewTable("envelope", store.Key(func(e *rawEnvelope) string { return e.ID }))
	s := storetest.New(t)
	want := wrapperspb.String("body")
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		if err := table.Insert(tx, &envelope{ID: "full", Body: store.Wrap(want)}); err != nil {
			return err
		}
		if err := raw.Insert(tx, &rawEnvelope{ID: "bad", Body: []byte{0xff}}); err != nil {
			return err
		}
		return table.Insert(tx, &envelope{ID: "none"})
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(t.Context(), func(tx *store.Tx) error {
		full, err := table.Get(tx, "full")
		if err != nil {
			return err
		}
		if !proto.Equal(full.Body.M, want) {
			t.Errorf("got %v", full.Body.M)
		}
		none, err := table.Get(tx, "none")
		if err == nil && none.Body.M != nil {
			t.Errorf("got %v, want nil", none.Body.M)
		}
		_, bad := table.Get(tx, "bad")
		wantKind(t, bad, reeve.Internal, "record_unreadable")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

type eager struct {
	ID    string   `cbor:"1,keyasint"`
	Parts []string `cbor:"2,keyasint,omitempty"`
}

type lazy struct {
	ID    string               `cbor:"1,keyasint"`
	Parts store.Lazy[[]string] `cbor:"2,keyasint,omitzero"`
}

// A field may become lazy, or stop being it, without any record being written anew.
func TestLazyIsWrittenAsWhatItHolds(t *testing.T) {
	t.Parallel()
	plain := store.NewTable("part", store.Key(func(e *eager) string { return e.ID }))
	table := store.NewTable("part", store.Key(func(e *lazy) string { return e.ID }))
	s := storetest.New(t)
	want := []string{"a", "b"}
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		made := &lazy{ID: "made"}
		if err := made.Parts.Put(want); err != nil {
			return err
		}
		return errors.Join(plain.Insert(tx, &eager{ID: "old", Parts: want}), plain.Insert(tx, &eager{ID: "none"}), table.Insert(tx, made))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		for id, want := range map[string][]string{"old": want, "made": want, "none": nil} {
			l, err := table.Get(tx, id)
			if err != nil {
				return err
			}
			got, err := l.Parts.Get()
			if err != nil || !slices.Equal(got, want) || l.Parts.IsZero() != (want == nil) {
				t.Errorf("%s: read as %q, %v", id, got, err)
			}
			if err := table.Put(tx, l); err != nil {
				return err
			}
			e, err := plain.Get(tx, id)
			if err != nil || !slices.Equal(e.Parts, want) {
				t.Errorf("%s: written as %+v, %v", id, e, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

type rawEnvelope struct {
	ID   string `cbor:"1,keyasint,omitempty"`
	Body []byte `cbor:"2,keyasint,omitempty"`
}
