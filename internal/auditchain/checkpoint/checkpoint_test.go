package checkpoint_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/auditchain/checkpoint"
)

func key(tb testing.TB, cluster string) (signing checkpoint.Key, verifying string) {
	tb.Helper()
	signing = checkpoint.NewKey()
	verifying, err := signing.Verifying(cluster)
	if err != nil {
		tb.Fatal(err)
	}
	return signing, verifying
}

// record is the n-th of a trail, unchained.
func record(n int) auditchain.Record {
	return auditchain.Record{Time: time.Unix(1_700_000_000+int64(n), 0), Actor: auditchain.Actor{Kind: "user", ID: "prin_1", Session: "sess_1"},
		Action: "account.provision", Object: fmt.Sprintf("acct_%d", n), Outcome: "ok"}
}

// chained chains records anew from number from on, and returns all of them as an export.
func chained(tb testing.TB, records []auditchain.Record, from int) []byte {
	tb.Helper()
	var out []byte
	var head auditchain.Head
	for i := range records {
		if i+1 >= from {
			head = auditchain.Chain(head, &records[i])
		} else {
			head = auditchain.Head{Sequence: records[i].Sequence, Hash: records[i].Hash}
		}
		line, err := auditchain.Encode(&records[i])
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, line...)
	}
	return out
}

// at is the checkpoint of the first n records, signed and opened again.
func at(tb testing.TB, records []auditchain.Record, n int, signing checkpoint.Key, verifying string) *checkpoint.Checkpoint {
	tb.Helper()
	var tree checkpoint.Tree
	for _, r := range records[:n] {
		if err := tree.Append(r.Hash); err != nil {
			tb.Fatal(err)
		}
	}
	last := records[n-1]
	signed, err := signing.Sign(checkpoint.Checkpoint{Cluster: "example", Head: auditchain.Head{Sequence: last.Sequence, Hash: last.Hash},
		Root: tree.Root(), Time: last.Time.Add(time.Second / 2), Edge: tree.Edge})
	if err != nil {
		tb.Fatal(err)
	}
	c, err := checkpoint.Open(signed, verifying)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// The root is the one the library computes from all hashes of the tree.
func TestTheTreeIsThatOfTheStandard(t *testing.T) {
	t.Parallel()
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, _ error) {
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	var tree checkpoint.Tree
	for n := range int64(200) {
		leaf := bytes.Repeat([]byte{byte(n)}, 32)
		more, err := tlog.StoredHashes(n, leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, more...)
		if err := tree.Append(fmt.Sprintf("%x", leaf)); err != nil {
			t.Fatal(err)
		}
		want, err := tlog.TreeHash(n+1, reader)
		if err != nil || tree.Root() != want || tree.Size != uint64(n+1) {
			t.Fatalf("of %d records: %s, want %s (%v)", n+1, tree.Root(), want, err)
		}
	}
	if err := tree.Append("no hash"); err == nil || tree.Size != 200 {
		t.Fatalf("%v", err)
	}
}

func TestACheckpointOpensAsItWasSigned(t *testing.T) {
	t.Parallel()
	signing, verifying := key(t, "example")
	want := checkpoint.Checkpoint{Cluster: "example", Head: auditchain.Head{Sequence: 7, Hash: strings.Repeat("ab", 32)}, Root: tlog.Hash{1, 2},
		Time: time.Date(2026, 11, 30, 19, 0, 0, 5, time.UTC)}
	signed, err := signing.Sign(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := checkpoint.Open(signed, verifying)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, *got); diff != "" {
		t.Fatal(diff)
	}
	for _, shown := range []string{string(signed), fmt.Sprint(signing), fmt.Sprintf("%x %v %+v %#v %q", signing, &signing, signing, signing, signing)} {
		for _, form := range []string{string(signing[:]), fmt.Sprintf("%x", signing[:]), strings.Trim(fmt.Sprintf("%d", signing[:4]), "[]"), base64.StdEncoding.EncodeToString(signing[:])} {
			if strings.Contains(shown, form) {
				t.Errorf("the key is in %q", shown)
			}
		}
	}

	_, other := key(t, "example")
	if _, err := checkpoint.Open(signed, other); err == nil {
		t.Error("another key opened it")
	}
	if _, err := checkpoint.Open(signed, "nonsense"); err == nil {
		t.Error("no key opened it")
	}
	// What a key signs for one cluster is not of another.
	want.Cluster = "elsewhere"
	if signed, err = signing.Sign(want); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Open(signed, verifying); err == nil {
		t.Error("a checkpoint of another cluster opened")
	}
}

// Whatever byte of a checkpoint is changed, it no longer opens.
func TestAnyChangedByteOfACheckpointIsDetected_U2(t *testing.T) {
	t.Parallel()
	signing, verifying := key(t, "example")
	for at := range int64(6) { // the last character of a signature has bits that mean nothing in some
		signed, err := signing.Sign(checkpoint.Checkpoint{Cluster: "example", Head: auditchain.Head{Sequence: 7, Hash: "x"}, Time: time.Unix(at, 0)})
		if err != nil {
			t.Fatal(err)
		}
		for i := range signed {
			for _, x := range []byte{1, 0x20, 0x80} {
				changed := bytes.Clone(signed)
				changed[i] ^= x
				if _, err := checkpoint.Open(changed, verifying); err == nil {
					t.Fatalf("byte %d changed unnoticed: %q", i, changed)
				}
			}
		}
	}
}

// However a trail is changed up to the later of two checkpoints, also by somebody who
// computes all hashes anew, it is found, and the first wrong record is named: exactly if
// the hashes were left as they were, else as the stretch between two checkpoints.
func TestEveryTamperingBeforeACheckpointIsFound_U2(t *testing.T) {
	t.Parallel()
	signing, verifying := key(t, "example")
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(3, 40).Draw(rt, "records")
		records := make([]auditchain.Record, n)
		for i := range records {
			records[i] = record(i)
		}
		whole := chained(t, records, 1)
		early := rapid.IntRange(1, n-1).Draw(rt, "early")
		late := rapid.IntRange(early+1, n).Draw(rt, "late")
		points := []*checkpoint.Checkpoint{at(t, records, late, signing, verifying), at(t, records, early, signing, verifying)}
		rep, err := checkpoint.Verify(bytes.NewReader(whole), points, auditchain.Options{})
		if err != nil || rep.Records != uint64(n) || !slices.Equal(rep.Checkpoints, []uint64{uint64(early), uint64(late)}) {
			rt.Fatalf("untouched: %+v %v", rep, err)
		}

		i := rapid.IntRange(0, late-1).Draw(rt, "victim")
		tampered := slices.Clone(records)
		kind := rapid.SampledFrom([]string{"edit", "remove", "insert", "exchange", "truncate"}).Draw(rt, "kind")
		rewrite := kind != "truncate" && rapid.Bool().Draw(rt, "rewrite")
		exact := uint64(i + 1) // the first record that is not what it was
		switch kind {
		case "edit":
			tampered[i].Outcome = "denied"
		case "remove":
			tampered = slices.Delete(tampered, i, i+1)
			if !rewrite {
				exact++ // the one after it shows that it is missing
			}
		case "insert":
			extra := record(i)
			extra.Object = "acct_forged"
			if !rewrite {
				extra.Sequence, extra.Prev, extra.Hash = records[i].Sequence, records[i].Prev, records[i].Hash
			}
			tampered = slices.Insert(tampered, i, extra)
		case "exchange":
			j := (i + 1) % n
			i = min(i, j)
			j = max(i+1, j)
			tampered[i], tampered[j] = tampered[j], tampered[i]
			tampered[i].Time, tampered[j].Time = records[i].Time, records[j].Time
			exact = uint64(i + 1)
			if !rewrite {
				exact = tampered[i].Sequence
			}
		case "truncate":
			tampered = tampered[:i]
		}
		from := n + 2 // nothing
		if rewrite {
			from = i + 1
		}
		rep, err = checkpoint.Verify(bytes.NewReader(chained(t, tampered, from)), points, auditchain.Options{})
		if kind == "remove" && !rewrite && i == 0 && early == 1 { // what is left is what follows the first checkpoint
			if err != nil || rep.First != 2 {
				rt.Fatalf("what follows the first checkpoint: %+v %v", rep, err)
			}
			return
		}
		broken, ok := errors.AsType[*auditchain.BrokenError](err)
		if !ok {
			rt.Fatalf("%s of record %d unnoticed: %v", kind, i+1, err)
		}
		lost := len(tampered) < late && rewrite // removed, and nothing left where the checkpoint was
		switch {
		case !rewrite && kind == "exchange":
			if broken.Sequence != exact { // its own time was changed too, or it is out of place
				rt.Fatalf("%s: named %d, want %d: %v", kind, broken.Sequence, exact, err)
			}
		case !rewrite && kind == "remove" && i == n-1: // the very last one
			if broken.Sequence != uint64(n) || broken.Reason != auditchain.Truncated {
				rt.Fatalf("%s: %v", kind, err)
			}
		case !rewrite:
			if broken.Sequence != exact {
				rt.Fatalf("%s: named %d, want %d: %v", kind, broken.Sequence, exact, err)
			}
		case lost && broken.Reason == auditchain.Truncated:
		default:
			begin := uint64(1)
			if i >= early {
				begin = uint64(early) + 1
			}
			if broken.Reason != checkpoint.OtherRoot || broken.Sequence != begin {
				rt.Fatalf("%s, rewritten from %d with checkpoints at %d and %d: %v", kind, i+1, early, late, err)
			}
		}
	})
}

func TestCheckpointsThatCannotBothBeTrueAreRefused_U2(t *testing.T) {
	t.Parallel()
	signing, verifying := key(t, "example")
	one, two := []auditchain.Record{record(0), record(1)}, []auditchain.Record{record(0), record(5)}
	trail := chained(t, one, 1)
	chained(t, two, 1)
	a, b := at(t, one, 2, signing, verifying), at(t, two, 2, signing, verifying)
	foreign, late, early := *a, *a, *a
	foreign.Cluster = "elsewhere"
	early.Time = one[1].Time.Add(-1)
	first := at(t, one, 1, signing, verifying)
	first.Time = late.Time.Add(1)
	for name, tt := range map[string]struct {
		points []*checkpoint.Checkpoint
		reason auditchain.Reason
	}{
		"two histories":     {[]*checkpoint.Checkpoint{a, b}, checkpoint.Contradictory},
		"two clusters":      {[]*checkpoint.Checkpoint{a, &foreign}, checkpoint.Contradictory},
		"signed backwards":  {[]*checkpoint.Checkpoint{first, &late}, auditchain.ClockBack},
		"signed before it":  {[]*checkpoint.Checkpoint{&early}, auditchain.ClockBack},
		"the other history": {[]*checkpoint.Checkpoint{b}, checkpoint.OtherRoot},
	} {
		_, err := checkpoint.Verify(bytes.NewReader(trail), tt.points, auditchain.Options{})
		if broken, ok := errors.AsType[*auditchain.BrokenError](err); !ok || broken.Reason != tt.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	if rep, err := checkpoint.Verify(bytes.NewReader(trail), []*checkpoint.Checkpoint{a, a}, auditchain.Options{}); err != nil || len(rep.Checkpoints) != 2 {
		t.Errorf("the same one twice: %+v %v", rep, err)
	}
}

func FuzzOpen(f *testing.F) {
	signing, verifying := key(f, "example")
	c := checkpoint.Checkpoint{Cluster: "example", Head: auditchain.Head{Sequence: 7, Hash: strings.Repeat("ab", 32)}, Time: time.Unix(9, 0)}
	signed, err := signing.Sign(c)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed, verifying)
	f.Add(append(bytes.Clone(signed), signed...), verifying)
	f.Add([]byte("reeve.audit/x\n1\n\nhead \ntime \n\n— x y\n"), "x+1+y")
	f.Fuzz(func(t *testing.T, in []byte, key string) {
		if parts := checkpoint.Split(in); !bytes.Equal(slices.Concat(parts...), in) {
			t.Fatalf("%q was split into %q", in, parts)
		}
		got, err := checkpoint.Open(in, verifying)
		if err == nil && !got.Time.Equal(c.Time) {
			t.Fatalf("%q opened as %+v", in, got)
		}
		_, _ = checkpoint.Open(signed, key)
		all, err := checkpoint.OpenAll(checkpoint.Split(in), verifying)
		for _, one := range all {
			if err == nil && !one.Time.Equal(c.Time) {
				t.Fatalf("%q opened as %+v", in, one)
			}
		}
	})
}

// FuzzSigned is about texts that were really signed: only a checkpoint opens.
func FuzzSigned(f *testing.F) {
	signing, verifying := key(f, "example")
	f.Add("example", uint64(1), "hash", int64(5))
	f.Add("example\n", uint64(1)<<63, "a\nb", int64(-1))
	f.Fuzz(func(t *testing.T, cluster string, n uint64, hash string, at int64) {
		want := checkpoint.Checkpoint{Cluster: cluster, Head: auditchain.Head{Sequence: n, Hash: hash}, Time: time.Unix(at, 0).UTC()}
		signed, err := signing.Sign(want)
		if err != nil {
			return
		}
		got, err := checkpoint.Open(signed, verifying)
		if err == nil && !cmp.Equal(*got, want) {
			t.Fatalf("%+v opened as %+v", want, *got)
		}
	})
}

func TestNotesOfOneFileAreTakenApart(t *testing.T) {
	t.Parallel()
	one, two := "a\n1\n\n— k s\n— l s\n", "b\n2\n\n— k s\n"
	got := checkpoint.Split([]byte(one + two))
	if len(got) != 2 || string(got[0]) != one || string(got[1]) != two {
		t.Fatalf("%q", got)
	}
}
