package store

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/reeve-pam/reeve/internal/reeve"
)

type part2 struct {
	Name string    `cbor:"1,keyasint,omitempty"`
	Seen []uint32  `cbor:"2,keyasint,omitempty"`
	At   time.Time `cbor:"3,keyasint,omitzero"`
}

// everything has a field of each kind that records have.
type everything struct {
	ID      string                   `cbor:"1,keyasint"`
	Bytes   []byte                   `cbor:"2,keyasint,omitempty"`
	Parts   []part2                  `cbor:"3,keyasint,omitempty"`
	One     *part2                   `cbor:"4,keyasint,omitempty"`
	Words   map[string]string        `cbor:"5,keyasint,omitempty"`
	Lists   map[string][]string      `cbor:"6,keyasint,omitempty"`
	Message Message[*structpb.Value] `cbor:"7,keyasint,omitzero"`
	Lazy    Lazy[[]string]           `cbor:"8,keyasint,omitzero"`
	At      time.Time                `cbor:"9,keyasint,omitzero"`
	Empty   []string                 `cbor:"10,keyasint"`
}

// What a transaction was given is its own: whatever it does to it, the next one sees what
// is stored.
func TestARecordThatWasReadCannotSpoilTheNextRead(t *testing.T) {
	t.Parallel()
	table := NewTable("everything", Key(func(r *everything) string { return r.ID }), Plain[everything]())
	if table.memo == nil {
		t.Fatal("records of this kind are not remembered")
	}
	made := &everything{ID: "a", Bytes: []byte{1, 2}, Parts: []part2{{Name: "p", Seen: []uint32{1}}}, One: &part2{Name: "o", Seen: []uint32{2}},
		Words: map[string]string{"k": "v"}, Lists: map[string][]string{"l": {"x"}}, Message: Wrap(structpb.NewStringValue("m")),
		At: time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC), Empty: []string{}}
	if err := made.Lazy.Put([]string{"lazy"}); err != nil {
		t.Fatal(err)
	}
	tx := &Tx{}
	encoded, err := table.encode(tx, "a", made)
	if err != nil {
		t.Fatal(err)
	}
	var want everything
	if err := decMode.Unmarshal(encoded, &want); err != nil {
		t.Fatal(err)
	}
	for turn := range 3 {
		got, err := table.decode(tx, "a", encoded)
		if err != nil {
			t.Fatal(err)
		}
		same := cmp.Comparer(func(a, b Message[*structpb.Value]) bool { return proto.Equal(a.M, b.M) })
		if d := cmp.Diff(&want, got, same, cmp.AllowUnexported(Lazy[[]string]{})); d != "" {
			t.Fatalf("read %d: %s", turn+1, d)
		}
		got.Bytes[0], got.Parts[0].Name, got.Parts[0].Seen[0] = 9, "spoilt", 9
		got.One.Name, got.One.Seen[0] = "spoilt", 9
		got.Words["k"], got.Words["new"], got.Lists["l"][0] = "spoilt", "spoilt", "spoilt"
		got.Message.M.Kind = &structpb.Value_BoolValue{BoolValue: true}
		if err := got.Lazy.Put([]string{"spoilt"}); err != nil {
			t.Fatal(err)
		}
		got.Parts = append(got.Parts[:0], part2{Name: "spoilt"})
	}
}

// The bytes decide, not the id, and another state of a record is never mistaken for it.
func TestARecordIsDecodedAnewWhenItHasChanged(t *testing.T) {
	t.Parallel()
	table := NewTable("everything", Key(func(r *everything) string { return r.ID }), Plain[everything]())
	tx := &Tx{}
	for _, name := range []string{"first", "second", "first"} {
		encoded, err := table.encode(tx, "a", &everything{ID: "a", Words: map[string]string{"name": name}})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			r, err := table.decode(tx, "a", encoded)
			if err != nil || r.Words["name"] != name {
				t.Fatalf("%q was stored, %v (%v) is read", name, r.Words, err)
			}
		}
	}
}

// What cannot be copied for certain is not remembered.
func TestRecordsThatCannotBeCopiedAreNotRemembered(t *testing.T) {
	t.Parallel()
	for _, r := range []any{
		struct{ S reeve.Secret }{}, struct{ A any }{}, struct{ F func() }{}, struct{ M map[string]any }{}, struct{ P *struct{ b []byte } }{},
	} {
		if _, ok := copier(reflect.TypeOf(r)); ok {
			t.Errorf("%T is remembered", r)
		}
	}
}
