package auditchain_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/internal/auditchain"
)

// chain makes n records and their lines.
func chain(tb testing.TB, n int) ([]auditchain.Record, [][]byte) {
	tb.Helper()
	var head auditchain.Head
	records, lines := make([]auditchain.Record, n), make([][]byte, n)
	for i := range n {
		r := auditchain.Record{
			Time: time.Unix(1_700_000_000, int64(i/2)), Revision: uint64(i) + 10,
			Actor:  auditchain.Actor{Kind: "user", ID: "prin_1", Name: "ada <&>", From: "192.0.2.1", Node: "node_1"},
			Action: "account.provision", Object: fmt.Sprintf("acct_%d", i), Outcome: "ok",
			Details: map[string]string{"b": "2", "a": "1"}, After: map[string]string{"state": "active"},
		}
		head = auditchain.Chain(head, &r)
		records[i], lines[i] = r, encode(tb, &r)
	}
	return records, lines
}

func encode(tb testing.TB, r *auditchain.Record) []byte {
	tb.Helper()
	line, err := auditchain.Encode(r)
	if err != nil {
		tb.Fatal(err)
	}
	return line
}

func join(lines [][]byte) *bytes.Reader { return bytes.NewReader(slices.Concat(lines...)) }

func TestAnUntouchedChainVerifies(t *testing.T) {
	t.Parallel()
	records, lines := chain(t, 20)
	last := records[19]
	head := auditchain.Head{Sequence: 20, Hash: last.Hash}
	got, err := auditchain.Verify(join(lines), auditchain.Options{Expect: &auditchain.Head{Sequence: 7, Hash: records[6].Hash}})
	if err != nil {
		t.Fatal(err)
	}
	want := auditchain.Report{Records: 20, First: 1, Head: head, Begin: records[0].Time, End: last.Time, MatchedHead: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if _, err := auditchain.Verify(join(lines[5:]), auditchain.Options{Partial: true, Expect: &head}); err != nil {
		t.Fatalf("partial: %v", err)
	}
	if got, err := auditchain.Verify(strings.NewReader(""), auditchain.Options{}); err != nil || got.Records != 0 {
		t.Fatalf("empty: %+v %v", got, err)
	}
}

// The hash of a known record never changes: exports of old versions stay verifiable.
func TestTheEncodingIsFrozen(t *testing.T) {
	t.Parallel()
	records, _ := chain(t, 2)
	const want = "ac5afa41eafeb21253c66b67c6cf9e40d907c2a57e49f05b22f25fda9ef0940c"
	if records[1].Hash != want {
		t.Fatalf("hash of the second record = %s", records[1].Hash)
	}
}

// An export of a release that knew no sessions verifies as it did then.
func TestATrailFromBeforeSessionsVerifies(t *testing.T) {
	t.Parallel()
	old, err := os.ReadFile("testdata/v1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	const want = "8bc0bf08a9c69faa6a5bcae3e9d62b314c375b7d85090154d49dd244cb4f0631"
	report, err := auditchain.Verify(bytes.NewReader(old), auditchain.Options{Expect: &auditchain.Head{Sequence: 12, Hash: want}})
	if err != nil || !report.MatchedHead {
		t.Fatalf("%+v %v", report, err)
	}
	// It goes on with records that name the session, whose form is frozen as well.
	r := auditchain.Record{Time: report.End, Revision: 99, Action: "secret.reveal", Outcome: "ok",
		Actor: auditchain.Actor{Kind: "user", ID: "prin_1", Name: "ada", From: "192.0.2.1", Node: "node_1", Session: "sess_1"}}
	const next = "7b91dd18793fdc336b7f1e3483f3d35a69ebe793628c52f87c32e3160e3e546f"
	if head := auditchain.Chain(report.Head, &r); head.Hash != next {
		t.Fatalf("hash of the record with a session = %s", head.Hash)
	}
	both := append(old, encode(t, &r)...)
	if _, err := auditchain.Verify(bytes.NewReader(both), auditchain.Options{}); err != nil {
		t.Fatal(err)
	}
	for was, is := range map[string]string{`"session":"sess_1"`: `"session":"sess_2"`, `,"session":"sess_1"`: ""} {
		_, err := auditchain.Verify(bytes.NewReader(bytes.Replace(both, []byte(was), []byte(is), 1)), auditchain.Options{})
		if broken, ok := errors.AsType[*auditchain.BrokenError](err); !ok || broken.Sequence != 13 || broken.Reason != auditchain.Edited {
			t.Errorf("%s became %q: %v", was, is, err)
		}
	}
}

func TestTamperingIsNamed_U2(t *testing.T) {
	t.Parallel()
	const n = 9
	_, original := chain(t, n)
	records, _ := chain(t, n)
	head := auditchain.Head{Sequence: n, Hash: records[n-1].Hash}
	replace := func(i int, old, repl string) func([][]byte) [][]byte {
		return func(l [][]byte) [][]byte {
			if !bytes.Contains(l[i], []byte(old)) {
				t.Errorf("%q is not in line %d", old, i)
			}
			l[i] = bytes.Replace(l[i], []byte(old), []byte(repl), 1)
			return l
		}
	}
	tests := map[string]struct {
		tamper   func([][]byte) [][]byte
		sequence uint64
		reason   auditchain.Reason
	}{
		"edit object":        {replace(4, "acct_4", "acct_5"), 5, auditchain.Edited},
		"edit detail":        {replace(4, `"a":"1"`, `"a":"9"`), 5, auditchain.Edited},
		"edit actor":         {replace(0, "prin_1", "prin_2"), 1, auditchain.Edited},
		"edit time":          {replace(3, `"time":"2023-`, `"time":"2024-`), 4, auditchain.Edited},
		"other zone":         {replace(3, `00001Z"`, `00001+00:00"`), 4, auditchain.Malformed},
		"move between maps":  {replace(3, `"after"`, `"before"`), 4, auditchain.Edited},
		"field twice":        {replace(2, `"outcome":"ok"`, `"outcome":"denied","outcome":"ok"`), 3, auditchain.Malformed},
		"field added":        {replace(2, `"outcome"`, `"note":"x","outcome"`), 3, auditchain.Malformed},
		"field case changed": {replace(2, `"outcome"`, `"Outcome"`), 3, auditchain.Malformed},
		"delete first":       {func(l [][]byte) [][]byte { return l[1:] }, 2, auditchain.Missing},
		"delete middle":      {func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) }, 6, auditchain.Missing},
		"repeat":             {func(l [][]byte) [][]byte { return slices.Insert(l, 5, l[4]) }, 5, auditchain.Reordered},
		"swap":               {func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l }, 5, auditchain.Missing},
		"truncate":           {func(l [][]byte) [][]byte { return l[:6] }, 7, auditchain.Truncated},
		"truncate all":       {func([][]byte) [][]byte { return nil }, 1, auditchain.Truncated},
		"cut in a line":      {func(l [][]byte) [][]byte { l[8] = l[8][:40]; return l }, 9, auditchain.Malformed},
		"blank line":         {func(l [][]byte) [][]byte { return slices.Insert(l, 2, []byte("\n")) }, 3, auditchain.Malformed},
		"long line":          {func(l [][]byte) [][]byte { return slices.Insert(l, 2, bytes.Repeat([]byte("x"), auditchain.MaxLine+2)) }, 3, auditchain.Malformed},
		"rehash one record": {func(l [][]byte) [][]byte {
			r := records[4]
			r.Outcome = "denied"
			auditchain.Chain(auditchain.Head{Sequence: 4, Hash: records[3].Hash}, &r)
			l[4] = encode(t, &r)
			return l
		}, 6, auditchain.Unlinked},
		"rewrite the rest": {func(l [][]byte) [][]byte {
			at := auditchain.Head{Sequence: 4, Hash: records[3].Hash}
			for i := 4; i < n; i++ {
				r := records[i]
				r.Actor.Name = "mallory"
				at = auditchain.Chain(at, &r)
				l[i] = encode(t, &r)
			}
			return l
		}, n, auditchain.OtherHead},
		"clock back": {func(l [][]byte) [][]byte {
			r := records[8]
			r.Time = time.Unix(1, 0)
			auditchain.Chain(auditchain.Head{Sequence: 8, Hash: records[7].Hash}, &r)
			l[8] = encode(t, &r)
			return l
		}, 9, auditchain.ClockBack},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lines := make([][]byte, n)
			for i := range original {
				lines[i] = bytes.Clone(original[i])
			}
			got, err := auditchain.Verify(join(tt.tamper(lines)), auditchain.Options{Expect: &head})
			broken, ok := errors.AsType[*auditchain.BrokenError](err)
			if !ok {
				t.Fatalf("err = %v", err)
			}
			if broken.Sequence != tt.sequence || broken.Reason != tt.reason {
				t.Fatalf("named record %d as %s, want %d as %s", broken.Sequence, broken.Reason, tt.sequence, tt.reason)
			}
			if got.MatchedHead {
				t.Fatal("the noted head was reported as matched")
			}
		})
	}
}

// Whatever single byte of an export is changed, it no longer verifies.
func TestAnyChangedByteIsDetected_U2(t *testing.T) {
	t.Parallel()
	records, lines := chain(t, 3)
	export := slices.Concat(lines...)
	head := auditchain.Head{Sequence: 3, Hash: records[2].Hash}
	rapid.Check(t, func(t *rapid.T) {
		changed := bytes.Clone(export)
		at := rapid.IntRange(0, len(changed)-2).Draw(t, "at") // the very last newline may be missing
		changed[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "xor"))
		if _, err := auditchain.Verify(bytes.NewReader(changed), auditchain.Options{Expect: &head}); err == nil {
			t.Fatalf("byte %d changed unnoticed", at)
		}
	})
}

// Two records with different content have different hashes, however the content is
// spread over fields.
func TestTheHashIsInjective(t *testing.T) {
	t.Parallel()
	text := rapid.StringMatching(`[a-c\x00]{0,3}`)
	record := rapid.Custom(func(t *rapid.T) auditchain.Record {
		return auditchain.Record{
			Actor:  auditchain.Actor{Kind: text.Draw(t, "kind"), ID: text.Draw(t, "id"), Name: text.Draw(t, "name"), Session: text.Draw(t, "session")},
			Action: text.Draw(t, "action"), Object: text.Draw(t, "object"), Outcome: text.Draw(t, "outcome"),
			Details: rapid.MapOfN(text, text, 1, 2).Draw(t, "details"), After: rapid.MapOfN(text, text, 1, 2).Draw(t, "after"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := record.Draw(t, "a"), record.Draw(t, "b")
		same := cmp.Equal(a, b)
		ha, hb := auditchain.Chain(auditchain.Head{}, &a), auditchain.Chain(auditchain.Head{}, &b)
		if same != (ha == hb) {
			t.Fatalf("same content: %v, same hash: %v", same, ha == hb)
		}
	})
}

func TestAFailingReaderIsNotABrokenChain(t *testing.T) {
	t.Parallel()
	_, err := auditchain.Verify(failing{}, auditchain.Options{})
	if _, broken := errors.AsType[*auditchain.BrokenError](err); err == nil || broken {
		t.Fatalf("err = %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("disk on fire") }

func FuzzVerify(f *testing.F) {
	_, lines := chain(f, 2)
	f.Add(slices.Concat(lines...), true)
	f.Add(lines[1], false)
	f.Add([]byte("{}\n"), true)
	f.Add([]byte("null"), false)
	f.Fuzz(func(t *testing.T, in []byte, partial bool) {
		report, err := auditchain.Verify(bytes.NewReader(in), auditchain.Options{Partial: partial})
		if err != nil {
			if _, ok := errors.AsType[*auditchain.BrokenError](err); !ok {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		if lines := uint64(bytes.Count(append(bytes.TrimSuffix(in, []byte("\n")), '\n'), []byte("\n"))); len(in) > 0 && report.Records != lines {
			t.Fatalf("%d lines, %d records", lines, report.Records)
		}
	})
}
