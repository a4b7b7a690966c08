package checkpoint_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/auditchain/checkpoint"
)

// trail is n records in their chain.
func trail(tb testing.TB, n int) []auditchain.Record {
	tb.Helper()
	records := make([]auditchain.Record, n)
	for i := range records {
		records[i] = record(i)
	}
	chained(tb, records, 1)
	return records
}

// What lies between two checkpoints is proven without what was before: whatever is done to
// it, also with all hashes computed anew, is found, and the first wrong record is named,
// or the stretch it is in.
func TestTheRecordsBetweenTwoCheckpointsAreProvenWithoutThoseBefore_U2(t *testing.T) {
	t.Parallel()
	signing, verifying := key(t, "example")
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(3, 40).Draw(rt, "records")
		early := rapid.IntRange(1, n-2).Draw(rt, "early")
		late := rapid.IntRange(early+2, n).Draw(rt, "late")
		records := trail(t, n)
		points := []*checkpoint.Checkpoint{at(t, records, late, signing, verifying), at(t, records, early, signing, verifying)}
		rep, err := checkpoint.Verify(bytes.NewReader(lines(t, records[early:late])), points, auditchain.Options{})
		if err != nil || rep.First != uint64(early)+1 || rep.Signed() != uint64(late) || !slices.Equal(rep.Checkpoints, []uint64{uint64(early), uint64(late)}) {
			rt.Fatalf("untouched: %+v %v", rep, err)
		}

		i := rapid.IntRange(early, late-1).Draw(rt, "victim")
		kind := rapid.SampledFrom([]string{"edit", "remove", "insert", "exchange", "truncate", "behead"}).Draw(rt, "kind")
		tampered := slices.Clone(records[:late])
		exact := uint64(i) + 1
		switch kind {
		case "edit":
			tampered[i].Outcome = "denied"
		case "remove":
			tampered = slices.Delete(tampered, i, i+1)
			exact++
		case "insert":
			forged := tampered[i]
			forged.Object = "acct_forged"
			tampered = slices.Insert(tampered, i, forged)
		case "exchange":
			i = min(i, late-2)
			tampered[i], tampered[i+1] = tampered[i+1], tampered[i]
			exact = tampered[i].Sequence
			if i == early {
				exact = uint64(i) + 2 // the first there is says that one is missing
			}
		case "truncate":
			tampered = tampered[:i]
		case "behead":
			tampered = slices.Delete(tampered, early, i+1)
			exact = uint64(i) + 2
		}
		rewrite := (kind == "edit" || kind == "insert" || kind == "remove") && rapid.Bool().Draw(rt, "rewrite")
		if rewrite {
			chained(t, tampered, i+1)
		}
		_, err = checkpoint.Verify(bytes.NewReader(lines(t, tampered[early:])), points, auditchain.Options{})
		broken, ok := errors.AsType[*auditchain.BrokenError](err)
		switch {
		case !ok:
			rt.Fatalf("%s of record %d unnoticed: %v", kind, i+1, err)
		case rewrite && broken.Reason == auditchain.Truncated && len(tampered) < late: // nothing is left where the later checkpoint was
		case rewrite:
			if broken.Reason != checkpoint.OtherRoot || broken.Sequence != uint64(early)+1 {
				rt.Fatalf("%s of record %d, rewritten: %v", kind, i+1, err)
			}
		case len(tampered) == early || broken.Reason == auditchain.Truncated: // cut off at the end
			if want := uint64(len(tampered)) + 1; len(tampered) > early && broken.Sequence != want {
				rt.Fatalf("%s from record %d on: named %d, want %d: %v", kind, i+1, broken.Sequence, want, err)
			}
		case broken.Sequence != exact:
			rt.Fatalf("%s of record %d: named %d, want %d: %v", kind, i+1, broken.Sequence, exact, err)
		}
	})
}

// lines is records as an export, with the hashes they have.
func lines(tb testing.TB, records []auditchain.Record) (out []byte) {
	tb.Helper()
	for i := range records {
		line, err := auditchain.Encode(&records[i])
		if err != nil {
			tb.Fatal(err)
		}
		out = append(out, line...)
	}
	return out
}

// Every byte of the records between two checkpoints counts, and every line, but for the end
// of the last line.
func TestEveryByteBetweenTwoCheckpointsCounts_U2(t *testing.T) {
	t.Parallel()
	signing, verifying := key(t, "example")
	records := trail(t, 8)
	points := []*checkpoint.Checkpoint{at(t, records, 5, signing, verifying), at(t, records, 8, signing, verifying)}
	whole := lines(t, records[5:])
	found := func(what string, in []byte) {
		t.Helper()
		if rep, err := checkpoint.Verify(bytes.NewReader(in), points, auditchain.Options{}); err == nil {
			t.Errorf("%s unnoticed: %+v", what, rep)
		}
	}
	for i := range whole {
		for _, x := range []byte{1, 0x20, 0x80} {
			changed := bytes.Clone(whole)
			changed[i] ^= x
			found(fmt.Sprintf("byte %d ^ %x", i, x), changed)
		}
		if i < len(whole)-1 {
			found(fmt.Sprintf("cut off after byte %d", i), whole[:i])
			found(fmt.Sprintf("without byte %d", i), slices.Delete(bytes.Clone(whole), i, i+1))
		}
	}
	each := bytes.SplitAfter(whole, []byte("\n"))
	for i := range 3 {
		found(fmt.Sprintf("without line %d", i+1), bytes.Join(slices.Delete(slices.Clone(each), i, i+1), nil))
		found(fmt.Sprintf("line %d twice", i+1), bytes.Join(slices.Insert(slices.Clone(each), i, each[i]), nil))
	}
	if _, err := checkpoint.Verify(bytes.NewReader(whole[:len(whole)-1]), points, auditchain.Options{}); err != nil {
		t.Errorf("without the end of the last line, which says nothing: %v", err)
	}
}

func TestCheckpointsThatDoNotBelongTogetherProveNothing_U2(t *testing.T) {
	t.Parallel()
	signing, verifying := key(t, "example")
	records, other := trail(t, 9), trail(t, 9)
	other[1].Outcome = "denied"
	chained(t, other, 2)
	early, late := at(t, records, 4, signing, verifying), at(t, records, 9, signing, verifying)
	foreign, backwards, edgeless := *early, *early, *early
	foreign.Cluster = "elsewhere"
	backwards.Time = late.Time.Add(1)
	edgeless.Edge = nil
	segment := lines(t, records[4:])
	for name, tt := range map[string]struct {
		in     []byte
		points []*checkpoint.Checkpoint
		why    string
	}{
		"an earlier history":           {segment, []*checkpoint.Checkpoint{at(t, other, 4, signing, verifying), late}, "unlinked"},
		"a later history":              {segment, []*checkpoint.Checkpoint{early, at(t, other, 9, signing, verifying)}, "other_root"},
		"records of another history":   {lines(t, other[4:]), []*checkpoint.Checkpoint{early, late}, "unlinked"},
		"a fork":                       {segment, []*checkpoint.Checkpoint{early, late, at(t, other, 9, signing, verifying)}, "contradictory"},
		"another cluster's":            {segment, []*checkpoint.Checkpoint{&foreign, late}, "contradictory"},
		"the older signed later":       {segment, []*checkpoint.Checkpoint{&backwards, late}, "clock_back"},
		"records missing before":       {lines(t, records[5:]), []*checkpoint.Checkpoint{early, late}, "record 6 (line 1): missing: record 1 is expected here, or record 5"},
		"records from before it":       {lines(t, records[2:]), []*checkpoint.Checkpoint{early, late}, "record 3 (line 1): missing"},
		"the later alone":              {segment, []*checkpoint.Checkpoint{late}, "record 5 (line 1): missing"},
		"none":                         {segment, nil, "record 5 (line 1): missing"},
		"no edge":                      {segment, []*checkpoint.Checkpoint{&edgeless, late}, "early release"},
		"nothing":                      {nil, []*checkpoint.Checkpoint{early, late}, "truncated"},
		"the earlier one as the later": {lines(t, records[:3]), []*checkpoint.Checkpoint{early}, "record 4: truncated"},
	} {
		if _, err := checkpoint.Verify(bytes.NewReader(tt.in), tt.points, auditchain.Options{}); err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: %v, want %s", name, err, tt.why)
		}
	}
	for name, points := range map[string][]*checkpoint.Checkpoint{"the early one twice": {early, early, late}, "the early one alone": {early}} {
		if rep, err := checkpoint.Verify(bytes.NewReader(segment), points, auditchain.Options{}); err != nil || rep.First != 5 {
			t.Errorf("%s: %+v %v", name, rep, err)
		}
	}
	if rep, err := checkpoint.Verify(bytes.NewReader(lines(t, records)), []*checkpoint.Checkpoint{&edgeless, late}, auditchain.Options{}); err != nil || rep.Signed() != 9 {
		t.Errorf("an edgeless one and the whole trail: %+v %v", rep, err)
	}
	if rep, err := checkpoint.Verify(bytes.NewReader(segment), []*checkpoint.Checkpoint{early}, auditchain.Options{}); err != nil || rep.Signed() != 0 {
		t.Errorf("what no checkpoint covers is said to be signed: %+v %v", rep, err)
	}
}

// An edge that does not give the root is refused though the key signed it.
func TestAForgedEdgeIsRefused_U2(t *testing.T) {
	t.Parallel()
	signing, verifying := key(t, "example")
	records := trail(t, 7)
	good := at(t, records, 7, signing, verifying)
	other := at(t, records, 6, signing, verifying)
	for name, forge := range map[string]func(c *checkpoint.Checkpoint){
		"of another tree": func(c *checkpoint.Checkpoint) { c.Edge = other.Edge },
		"one less":        func(c *checkpoint.Checkpoint) { c.Edge = c.Edge[1:] },
		"turned":          func(c *checkpoint.Checkpoint) { c.Edge = slices.Clone(c.Edge); slices.Reverse(c.Edge) },
		"the root itself": func(c *checkpoint.Checkpoint) { c.Edge = append(c.Edge[:0:0], c.Root) },
	} {
		c := *good
		forge(&c)
		signed, err := signing.Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := checkpoint.Open(signed, verifying); err == nil || !strings.Contains(err.Error(), "edge") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// rotated signs checkpoints of one trail with key after key; notes[i] is of i+1 records.
func rotated(t *testing.T, changes ...int) (notes [][]byte, first string, seeds []checkpoint.Key) {
	t.Helper()
	records := trail(t, 8)
	signing, first := key(t, "example")
	seeds = append(seeds, signing)
	var tree checkpoint.Tree
	for i, r := range records {
		if err := tree.Append(r.Hash); err != nil {
			t.Fatal(err)
		}
		c := checkpoint.Checkpoint{Cluster: "example", Head: auditchain.Head{Sequence: r.Sequence, Hash: r.Hash}, Root: tree.Root(), Time: r.Time, Edge: tree.Edge}
		with := signing
		if slices.Contains(changes, i+1) {
			signing, c.Next = key(t, "example")
			seeds = append(seeds, signing)
		}
		signed, err := with.Sign(c)
		if err != nil {
			t.Fatal(err)
		}
		notes = append(notes, signed)
	}
	return notes, first, seeds
}

// Who knows the first key learns the others from the checkpoints that name them, and takes
// none without.
func TestAKeyIsFollowedToTheOneAfterIt(t *testing.T) {
	t.Parallel()
	notes, first, seeds := rotated(t, 3, 5)
	backwards := slices.Clone(notes)
	slices.Reverse(backwards)
	for name, in := range map[string][][]byte{"in order": notes, "backwards": backwards, "only what is needed": {notes[7], notes[2], notes[4]},
		"some twice": {notes[2], notes[2], notes[4], notes[4], notes[6]}} {
		all, err := checkpoint.OpenAll(in, first)
		if err != nil || len(all) != len(in) || !slices.IsSortedFunc(all, func(a, b *checkpoint.Checkpoint) int { return int(a.Head.Sequence) - int(b.Head.Sequence) }) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, err := checkpoint.Unproven(notes[6])
	if err != nil {
		t.Fatal(err)
	}
	late, err := seeds[0].Sign(*c) // by somebody who found the first key
	if err != nil {
		t.Fatal(err)
	}
	c, err = checkpoint.Unproven(notes[4])
	if err != nil {
		t.Fatal(err)
	}
	_, c.Next = key(t, "example")
	twice, err := seeds[1].Sign(*c)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		in    [][]byte
		place string
	}{
		"an announcement is missing": {[][]byte{notes[0], notes[2], notes[5]}, "checkpoint 3"},
		"the old key goes on":        {append(slices.Clone(notes), late), "checkpoint 9"},
		"two keys follow":            {[][]byte{notes[2], notes[4], twice}, "two histories"},
		"not a note":                 {[][]byte{notes[0], []byte("nonsense")}, "checkpoint 2"},
	} {
		if _, err := checkpoint.OpenAll(tt.in, first); err == nil || !strings.Contains(err.Error(), tt.place) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzVerify is about a file that claims to be the records between two checkpoints: only
// they are taken for them.
func FuzzVerify(f *testing.F) {
	signing, verifying := key(f, "example")
	records := trail(f, 6)
	points := []*checkpoint.Checkpoint{at(f, records, 2, signing, verifying), at(f, records, 5, signing, verifying)}
	want := lines(f, records[2:5])
	f.Add(want)
	f.Add(lines(f, records))
	f.Add(lines(f, records[1:]))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		rep, err := checkpoint.Verify(bytes.NewReader(in), points, auditchain.Options{})
		if err == nil && !bytes.Contains(append(bytes.Clone(in), '\n'), want) {
			t.Fatalf("%q was taken for the records: %+v", in, rep)
		}
	})
}

// BenchmarkVerify says how many records a second are proven.
func BenchmarkVerify(b *testing.B) {
	const n = 1_000_000
	signing, verifying := key(b, "example")
	records := trail(b, n)
	points := []*checkpoint.Checkpoint{at(b, records, 1000, signing, verifying), at(b, records, n, signing, verifying)}
	in := lines(b, records)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		begin := time.Now()
		if rep, err := checkpoint.Verify(bytes.NewReader(in), points, auditchain.Options{}); err != nil || rep.Signed() != n {
			b.Fatalf("%+v %v", rep, err)
		}
		b.ReportMetric(n/time.Since(begin).Seconds(), "records/s")
	}
}
