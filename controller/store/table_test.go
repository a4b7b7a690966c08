package store_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// TestTablesMatchAModel compares a table to a map over random transactions, some of
// which fail, with the state spread over disk, memory, flight and the transaction.
func TestTablesMatchAModel(t *testing.T) {
	t.Parallel()
	// Few short strings, of those bytes on which the key encoding turns.
	word := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 2, 'a', 0xfe, 0xff}), 0, 2),
		func(b []byte) string { return string(b) })
	id := rapid.Map(word, func(s string) string { return "i" + s })
	s := storetest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		model := map[string]host{}
		err := s.Update(t.Context(), func(tx *store.Tx) error { // the store is shared: start empty
			for h, err := range hosts.List(tx, "") {
				if err := errors.Join(err, hosts.Delete(tx, h.ID)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(1, 5).Draw(rt, "transactions") {
			next := maps.Clone(model)
			abort := rapid.Bool().Draw(rt, "abort")
			sentinel := errors.New("abort")
			err := s.Update(t.Context(), func(tx *store.Tx) error {
				for range rapid.IntRange(0, 6).Draw(rt, "steps") {
					step(rt, tx, next, word, id)
				}
				checkTable(rt, tx, next, word, id)
				if abort {
					return sentinel
				}
				return nil
			})
			switch {
			case abort && !errors.Is(err, sentinel), !abort && err != nil:
				rt.Fatal(err)
			case !abort:
				model = next
			}
			if err := s.View(t.Context(), func(tx *store.Tx) error {
				checkTable(rt, tx, model, word, id)
				return nil
			}); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

func step(rt *rapid.T, tx *store.Tx, model map[string]host, word, id *rapid.Generator[string]) {
	h := host{ID: id.Draw(rt, "id"), Name: word.Draw(rt, "name"), Site: word.Draw(rt, "site")}
	old, exists := model[h.ID]
	taken := false
	for _, o := range model {
		taken = taken || o.ID != h.ID && h.Name != "" && o.Name == h.Name
	}
	want, change := "", h
	var err error
	switch rapid.SampledFrom([]string{"insert", "put", "delete"}).Draw(rt, "op") {
	case "insert":
		if exists {
			want = "host_exists"
		} else if taken {
			want = "host_name_taken"
		}
		err = hosts.Insert(tx, &h)
	case "put":
		if taken {
			want = "host_name_taken"
		}
		err = hosts.Put(tx, &h)
	case "delete":
		if !exists {
			want = "host_not_found"
		}
		change = host{}
		err = hosts.Delete(tx, h.ID)
	}
	if reeve.CodeOf(err) != want {
		rt.Fatalf("%+v over %+v: got %v, want code %q", h, old, err, want)
	}
	switch {
	case want != "":
	case change.ID == "":
		delete(model, h.ID)
	default:
		model[h.ID] = change
	}
}

func checkTable(rt *rapid.T, tx *store.Tx, model map[string]host, word, id *rapid.Generator[string]) {
	collect := func(seq func(func(*host, error) bool)) []host {
		got := []host{}
		for h, err := range seq {
			if err != nil {
				rt.Fatal(err)
			}
			got = append(got, *h)
		}
		return got
	}
	expect := func(what string, got []host, keep func(host) bool, less func(a, b host) int) {
		want := []host{}
		for _, h := range model {
			if keep(h) {
				want = append(want, h)
			}
		}
		slices.SortFunc(want, less)
		if d := cmp.Diff(want, got); d != "" {
			rt.Fatalf("%s: %s", what, d)
		}
	}
	byID := func(a, b host) int { return slices.Compare([]string{a.ID}, []string{b.ID}) }
	bySite := func(a, b host) int {
		return slices.Compare([]string{a.Site, a.Name, a.ID}, []string{b.Site, b.Name, b.ID})
	}
	after := id.Draw(rt, "after")
	expect("all", collect(hosts.List(tx, "")), func(host) bool { return true }, byID)
	expect("after", collect(hosts.List(tx, after)), func(h host) bool { return h.ID > after }, byID)
	expect("all down", collect(hosts.ListDesc(tx, "")), func(host) bool { return true }, down(byID))
	expect("before", collect(hosts.ListDesc(tx, after)), func(h host) bool { return h.ID < after }, down(byID))
	expect("scan", collect(hosts.Scan(tx, "site", store.Range{})), func(host) bool { return true }, bySite)
	expect("scan down", collect(hosts.ScanDesc(tx, "site", store.Range{})), func(host) bool { return true }, down(bySite))

	site, from, to := word.Draw(rt, "in"), word.Draw(rt, "from"), word.Draw(rt, "to")
	expect("site", collect(hosts.Scan(tx, "site", store.Range{Prefix: []string{site}})),
		func(h host) bool { return h.Site == site }, bySite)
	expect("site range", collect(hosts.Scan(tx, "site", store.Range{Prefix: []string{site}, From: from, To: to})),
		func(h host) bool { return h.Site == site && h.Name >= from && (to == "" || h.Name < to) }, bySite)
	expect("site range down", collect(hosts.ScanDesc(tx, "site", store.Range{Prefix: []string{site}, From: from, To: to})),
		func(h host) bool { return h.Site == site && h.Name >= from && (to == "" || h.Name < to) }, down(bySite))
	expect("range", collect(hosts.Scan(tx, "site", store.Range{From: from, To: to})),
		func(h host) bool { return h.Site >= from && (to == "" || h.Site < to) }, bySite)

	name := word.Draw(rt, "find")
	got, err := hosts.Find(tx, "name", name)
	if err != nil && reeve.CodeOf(err) != "host_not_found" {
		rt.Fatal(err)
	}
	found := []host{}
	if got != nil {
		found = append(found, *got)
	}
	expect("find", found, func(h host) bool { return name != "" && h.Name == name }, byID)
}

func down(less func(a, b host) int) func(a, b host) int {
	return func(a, b host) int { return less(b, a) }
}

func TestIterationSeesTheStateOfItsBeginning(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		for i := range 5 {
			if err := hosts.Insert(tx, &host{ID: fmt.Sprint(i), Site: "a"}); err != nil {
				return err
			}
		}
		n := 0
		for h, err := range hosts.Scan(tx, "site", store.Range{Prefix: []string{"a"}}) {
			n++
			if err := errors.Join(err, hosts.Delete(tx, h.ID)); err != nil {
				return err
			}
			if err := hosts.Insert(tx, &host{ID: "x" + h.ID, Site: "a"}); err != nil {
				return err
			}
		}
		if n != 5 {
			t.Errorf("%d iterations, want 5", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"x0", "x1", "x2", "x3", "x4"}, ids(t, s)); d != "" {
		t.Error(d)
	}
}

func TestSecretInARecordIsRefused(t *testing.T) {
	t.Parallel()
	type bad struct {
		ID     string       `cbor:"1,keyasint,omitempty"`
		Secret reeve.Secret `cbor:"2,keyasint,omitempty"`
	}
	table := store.NewTable("bad", store.Key(func(b *bad) string { return b.ID }))
	err := storetest.New(t).Update(t.Context(), func(tx *store.Tx) error {
		return table.Insert(tx, &bad{"a", reeve.SecretString("canary-51d27f3a9c")})
	})
	wantKind(t, err, reeve.Internal, "record_encode_failed")
}

func TestTransactionIsUselessAfterItsEndAndViewCannotWrite(t *testing.T) {
	t.Parallel()
	s := storetest.New(t)
	var kept *store.Tx
	err := s.View(t.Context(), func(tx *store.Tx) error {
		kept = tx
		return hosts.Put(tx, &host{ID: "a"})
	})
	wantKind(t, err, reeve.Internal, "tx_read_only")
	_, err = hosts.Get(kept, "a")
	wantKind(t, err, reeve.Internal, "tx_ended")
	wantKind(t, hosts.Insert(kept, &host{ID: "a"}), reeve.Internal, "tx_ended")
	for _, err := range hosts.List(kept, "") {
		wantKind(t, err, reeve.Internal, "tx_ended")
	}
	for _, err := range hosts.Scan(kept, "site", store.Range{}) {
		wantKind(t, err, reeve.Internal, "tx_ended")
	}
}

// sealed is the cipher of a node that is sealed.
type sealed struct{}

var errSealed = reeve.Errorf(reeve.Sealed, "sealed", "the node is sealed")

func (sealed) Seal(_, _ []byte) ([]byte, error) { return nil, errSealed }
func (sealed) Open(_, _ []byte) ([]byte, error) { return nil, errSealed }

func TestSealedNodeServesPlainTablesOnly(t *testing.T) {
	t.Parallel()
	s, ctx := storetest.New(t, storetest.WithCipher(sealed{})), t.Context()
	wantKind(t, put(ctx, s, host{ID: "a"}), reeve.Sealed, "sealed")
	err := s.Update(ctx, func(tx *store.Tx) error { return blobs.Put(tx, &blob{ID: "a", Data: "x"}) })
	if err != nil {
		t.Error(err)
	}
}

func TestTimePartSortsAsTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		draw := func(name string) time.Time {
			zone := time.FixedZone("", rapid.IntRange(-12, 12).Draw(rt, "zone")*3600)
			return time.Unix(rapid.Int64Range(0, 1<<36).Draw(rt, name), rapid.Int64Range(0, 999_999_999).Draw(rt, "ns")).In(zone)
		}
		a, b := draw("a"), draw("b")
		if a.Before(b) != (store.TimePart(a) < store.TimePart(b)) {
			rt.Fatalf("%v %v: %s %s", a, b, store.TimePart(a), store.TimePart(b))
		}
	})
}
