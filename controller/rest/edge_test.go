package rest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func TestEveryKindOfErrorHasItsStatus(t *testing.T) {
	t.Parallel()
	for _, kind := range []reeve.Kind{reeve.Invalid, reeve.TooLarge, reeve.Unauthenticated, reeve.Denied, reeve.NotFound, reeve.Conflict, reeve.Precondition,
		reeve.TooMany, reeve.Unavailable, reeve.Sealed, reeve.OutcomeUnknown, reeve.Internal, reeve.UnsupportedMedia, methodNotAllowed} {
		p := problemOf(fmt.Errorf("wrapped: %w", reeve.Errorf(kind, "some_code", "what happened").WithFix("do this").WithField("/x").Wrap(errors.New(canary))), "req1")
		if p.Status != status[kind] || p.Status < 400 || p.Code != "some_code" || p.Detail != "what happened" || *p.Fix != "do this" || *p.Field != "/x" || *p.RequestId != "req1" ||
			p.Type != "urn:reeve:problem:some_code" {
			t.Errorf("%s: %+v", kind, p)
		}
	}
	if p := problemOf(reeve.Errorf("unheard_of", "x", "y"), ""); p.Status != http.StatusInternalServerError || p.RequestId != nil {
		t.Errorf("%+v", p)
	}
}

func TestWhatIsNotThereComesWithWhereToLook(t *testing.T) {
	t.Parallel()
	p := problemOf(reeve.Errorf(reeve.NotFound, "asset_not_found", "it is not there"), "")
	if p.Fix == nil || *p.Fix != "see what there is: reeve asset list" {
		t.Errorf("%+v", p)
	}
	if p = problemOf(reeve.Errorf(reeve.NotFound, "account_fact_not_found", "it is not there"), ""); p.Fix != nil {
		t.Errorf("nothing lists these: %q", *p.Fix)
	}
}

func TestOtherErrorsShowNothingOfThemselves_K1(t *testing.T) {
	t.Parallel()
	for err, code := range map[error]string{errors.New(canary): "internal", fmt.Errorf(canary+": %w", context.Canceled): "interrupted"} {
		p := problemOf(err, "req1")
		if p.Code != code || strings.Contains(fmt.Sprint(p.Detail, *p.Fix, p.Title), canary) {
			t.Errorf("%+v", p)
		}
	}
}

func TestOnlyAControllerSpeaksForAnotherCaller(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		tls        *tls.ConnectionState
		from, node string
	}{
		"no TLS":       {nil, "192.0.2.9", ""},
		"no cert":      {&tls.ConnectionState{}, "192.0.2.9", ""},
		"unverified":   {&tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}, "192.0.2.9", ""},
		"a controller": {&tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{}}}}, "203.0.113.7", "node_1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.TLS, r.RemoteAddr = test.tls, "192.0.2.9:1234"
		r.Header.Set("X-Forwarded-For", "203.0.113.7")
		r.Header.Set(forwardedBy, "node_1")
		if got := callerIP(r); got != test.from {
			t.Errorf("%s: %s", name, got)
		}
		if got := forwarderOf(r); string(got) != test.node {
			t.Errorf("%s: forwarded by %q", name, got)
		}
	}
}

func TestMethodsOfCallersDoNotBecomeMetrics(t *testing.T) {
	t.Parallel()
	if got := methodOf(&http.Request{Method: strings.ToUpper(canary)}); got != "other" {
		t.Error(got)
	}
	if got := methodOf(&http.Request{Method: http.MethodPut}); got != "PUT" {
		t.Error(got)
	}
}

func numbers(n int, after string) iter.Seq2[*string, error] {
	return func(yield func(*string, error) bool) {
		for i := range n {
			if s := fmt.Sprintf("%04d", i); s > after && !yield(&s, nil) {
				return
			}
		}
	}
}

func TestPagesShowEverythingOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n, limit := rapid.IntRange(0, 40).Draw(t, "n"), rapid.IntRange(1, 12).Draw(t, "limit")
		var got []string
		var cursor *string
		for pages := 0; ; pages++ {
			after, err := decodeCursor(cursor)
			if err != nil || pages > n {
				t.Fatalf("page %d: %v", pages, err)
			}
			items, next, err := page(numbers(n, after), &limit, func(s *string) string { return *s }, func(s *string) (string, error) { return *s, nil })
			if err != nil || len(items) > limit || items == nil {
				t.Fatalf("%d items of %d, %v", len(items), limit, err)
			}
			got = append(got, items...)
			if cursor = next; cursor == nil {
				break
			}
		}
		var want []string
		for i := range n {
			want = append(want, fmt.Sprintf("%04d", i))
		}
		if !slices.Equal(want, got) {
			t.Fatalf("want %v, got %v", want, got)
		}
	})
	failing := func(yield func(*string, error) bool) { yield(nil, errors.New("broken")) }
	if _, _, err := page(failing, nil, nil, func(*string) (string, error) { return "", nil }); err == nil {
		t.Error("an error was lost")
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add(encodeCursor("site_x"))
	f.Add("!")
	f.Add("YQ\n")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := decodeCursor(&text)
		switch {
		case err != nil && reeve.CodeOf(err) != "cursor_invalid":
			t.Fatal(err)
		case err == nil && encodeCursor(key) != text:
			t.Fatalf("%q is read as %q, which is written %q", text, key, encodeCursor(key))
		}
	})
}

// sent is what a reader of events understands.
type sent struct{ event, id, data string }

func read(stream []byte) (events []sent) {
	var e sent
	stream = bytes.ReplaceAll(stream, []byte("\r"), []byte("\n")) // as the standard says
	for sc := bufio.NewScanner(bytes.NewReader(stream)); sc.Scan(); {
		field, v, _ := strings.Cut(sc.Text(), ": ")
		switch field {
		case "event":
			e.event = v
		case "id":
			e.id = v
		case "data":
			e.data = v
		case "":
			events = append(events, e)
			e = sent{}
		}
	}
	return events
}

// A reader that is cut off after any event and comes back with its id has every line
// once, in order.
func TestLogsResumeWithoutLossOrRepetition(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var chunks []jobs.LogEvent
		var want []string
		at := jobs.LogPosition{Attempt: 1}
		for range rapid.IntRange(1, 5).Draw(t, "chunks") {
			var data []byte
			for range rapid.IntRange(1, 4).Draw(t, "lines") {
				line := fmt.Sprintf(`{"n":%d,"m":%q}`, len(want), rapid.StringMatching("[a-z]{0,5}").Draw(t, "text"))
				want = append(want, line)
				data = append(append(data, line...), '\n')
			}
			at.Sequence++
			at.Offset += uint64(len(data))
			chunks = append(chunks, jobs.LogEvent{Position: at, Data: data})
		}
		var got []string
		from := jobs.LogPosition{}
		for tries := 0; tries <= len(want)+1; tries++ {
			var stream []byte
			for _, c := range chunks { // as the broker does: the chunks after from's
				if c.Position.Sequence > from.Sequence {
					stream = append(stream, renderEvent(c, from)...)
				}
			}
			events := read(stream)
			if len(events) == 0 {
				break
			}
			for _, e := range events[:rapid.IntRange(1, len(events)).Draw(t, "received")] {
				got = append(got, e.data)
				var err error
				if from, err = jobs.ParseLogPosition(e.id); err != nil {
					t.Fatal(err)
				}
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

func TestLogLinesCannotForgeEvents(t *testing.T) {
	t.Parallel()
	evil := "one\r\revent: end\rdata: {}\r\r\nid: 9-9-9\n\n\ntwo\r\n"
	events := read(renderEvent(jobs.LogEvent{Position: jobs.LogPosition{Attempt: 1, Sequence: 3, Offset: 100}, Data: []byte(evil)}, jobs.LogPosition{}))
	for i, e := range events {
		if e.event != "log" {
			t.Errorf("event %d is %+v", i, e)
		}
	}
	if len(events) != 3 || events[2] != (sent{"log", "1-3-100", "two"}) {
		t.Errorf("%+v", events)
	}
	gap := read(renderEvent(jobs.LogEvent{Position: jobs.LogPosition{Attempt: 1, Sequence: 2, Offset: 50}, Gap: 17}, jobs.LogPosition{}))
	if len(gap) != 1 || gap[0] != (sent{"gap", "1-2-50", "17"}) {
		t.Errorf("%+v", gap)
	}
}

// FuzzLastEventID: any header either is a place or is refused, and rendering from it
// does not panic.
func FuzzLastEventID(f *testing.F) {
	f.Add("", []byte("{}\n"))
	f.Add("1-2-3", []byte("a\nb\n"))
	f.Add("4294967295-18446744073709551615-18446744073709551615", []byte("\r\n\n"))
	f.Add("1-2", []byte(nil))
	f.Fuzz(func(t *testing.T, header string, data []byte) {
		from, err := jobs.ParseLogPosition(header)
		if err != nil {
			if reeve.CodeOf(err) != "log_position_invalid" || strings.Contains(err.Error(), canary) {
				t.Fatal(err)
			}
			return
		}
		if header != "" && from.String() != header {
			t.Fatalf("%q is read as %s", header, from)
		}
		for _, e := range read(renderEvent(jobs.LogEvent{Position: jobs.LogPosition{Attempt: 1, Sequence: 2, Offset: uint64(len(data))}, Data: data}, from)) {
			if e.event != "log" {
				t.Fatalf("%+v", e)
			}
		}
	})
}

// A network is one network, written in the one way, and no other text is.
func FuzzNetworks(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24", "192.0.2.1/24", "2001:db8::/32", "0.0.0.0/0", "", "192.0.2.0", "192.0.2.0/024", "::ffff:192.0.2.0/120", "fe80::%eth0/64", "192.0.2.0/24,10.0.0.0/8", "192.0.2.0/24\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := asNetworks([]string{"203.0.113.0/24", s})
		if err != nil {
			if reeve.CodeOf(err) != "network_invalid" || got != nil {
				t.Fatalf("%q: %v %v", s, got, err)
			}
			return
		}
		if len(got) != 2 || !got[1].IsValid() || got[1].Masked() != got[1] || !got[1].Contains(got[1].Addr()) || got[1].Addr().Zone() != "" {
			t.Fatalf("%q is read as %v", s, got)
		}
	})
}
