package store

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// The log of a cluster outlives releases: what is written by hand is, byte by byte, what the
// codec of records makes of the same entry, which wrote the logs of the first ones.
func TestEntriesAreDeterministicCBOR(t *testing.T) {
	t.Parallel()
	key := rapid.Custom(func(rt *rapid.T) string {
		return recordPrefix("host") + rapid.StringN(0, 300, 600).Draw(rt, "id")
	})
	change := rapid.Custom(func(rt *rapid.T) cell {
		if rapid.Bool().Draw(rt, "gone") {
			return cell{gone: true}
		}
		return cell{value: rapid.SliceOfN(rapid.Byte(), 0, 70_000).Draw(rt, "value")}
	})
	rapid.Check(t, func(rt *rapid.T) {
		e := entry{Term: rapid.Uint64().Draw(rt, "term"), Proposal: rapid.Uint64().Draw(rt, "proposal"),
			Base: rapid.Uint64().Draw(rt, "base"), Time: rapid.Int64().Draw(rt, "time"), Sets: []writeSet{}}
		var sets [][]byte
		for range rapid.IntRange(0, 3).Draw(rt, "sets") {
			var writes layer
			w := writeSet{Puts: []put{}, Deletes: [][]byte{}}
			for k, c := range rapid.MapOfN(key, change, 1, 30).Draw(rt, "changes") {
				writes.set(k, c)
			}
			writes.m.Scan(func(k string, c cell) bool {
				if c.gone {
					w.Deletes = append(w.Deletes, []byte(k))
				} else {
					w.Puts = append(w.Puts, put{Key: []byte(k), Value: c.value})
				}
				return true
			})
			e.Sets, sets = append(e.Sets, w), append(sets, encodeWrites(writes))
		}
		want, err := encMode.Marshal(&e)
		if err != nil {
			rt.Fatal(err)
		}
		got := encodeEntry(&e, sets)
		if !bytes.Equal(got[1:], want) {
			rt.Fatalf("%x is written, %x is right", got[1:], want)
		}
		back, err := decodeEntry(got)
		if err != nil {
			rt.Fatal(err)
		}
		if d := cmp.Diff(&e, back, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(entry{}, writeSet{}, put{})); d != "" {
			rt.Fatal(d)
		}
	})
}

// Earlier releases wrote null for a write set without puts or without deletes.
func TestEntriesOfEarlierReleasesAreRead(t *testing.T) {
	t.Parallel()
	for name, e := range map[string]entry{
		"no deletes": {Term: 1, Sets: []writeSet{{Puts: []put{{Key: []byte(recordPrefix("host") + "a"), Value: []byte("x")}}}}},
		"no puts":    {Term: 1, Sets: []writeSet{{Deletes: [][]byte{[]byte(recordPrefix("host") + "a")}}}},
		"no sets":    {Term: 1},
	} {
		old, err := encMode.Marshal(&e)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(old, []byte{null}) {
			t.Fatalf("%s: %x has no null", name, old)
		}
		got, err := decodeEntry(append([]byte{entryVersion}, old...))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(&e, got, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(entry{}, writeSet{}, put{})); d != "" {
			t.Error(d)
		}
	}
}
