//go:build linux

package sink_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/audit/sink"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/internal/testlab"
)

func (r *rig) edit(name string, ch sink.Change) {
	r.Helper()
	if err := r.update(func(tx *store.Tx) error { _, err := sink.Edit(tx, alice, name, ch); return err }); err != nil {
		r.Fatal(err)
	}
}

// firsts are the numbers of the records in JSON lines, in the order in which each came
// first; lines that are none, such as one that a full disk cut off, count nothing.
func firsts(in []byte) (numbers []uint64) {
	seen := map[uint64]bool{}
	lines := bufio.NewScanner(bytes.NewReader(in))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e audit.Entry
		if json.Unmarshal(lines.Bytes(), &e) == nil && !seen[e.Sequence] {
			seen[e.Sequence] = true
			numbers = append(numbers, e.Sequence)
		}
	}
	return numbers
}

// counted are the numbers from one to another.
func counted(from, to uint64) (numbers []uint64) {
	for n := from; n <= to; n++ {
		numbers = append(numbers, n)
	}
	return numbers
}

func (x *receiver) received() []byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	return bytes.Clone(x.body.Bytes())
}

func (r *rig) newest() *audit.Entry {
	r.Helper()
	var page []*audit.Entry
	if err := r.st.View(r.Context(), func(tx *store.Tx) (err error) {
		head, err := audit.Head(tx)
		if err == nil {
			page, err = audit.List(tx, head.Sequence-1, 1, audit.Filter{})
		}
		return err
	}); err != nil {
		r.Fatal(err)
	}
	return page[0]
}

// A sink that is paused, moved and resumed goes on from the record it has: the old place and
// the new one together have every record, in order (U4).
func TestASinkThatIsMovedGoesOnFromTheRecordItHas_U4(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	one, two := newReceiver(t, http.StatusNoContent), newReceiver(t, http.StatusNoContent)
	r.add(one.sink("hook"))
	r.add(sink.New{Name: "local", Kind: sink.File, File: "before"})
	r.add(sink.New{Name: "other", Kind: sink.File, File: "other"})
	r.work(10)
	r.deliver()
	for _, name := range []string{"hook", "local", "other"} {
		r.has(name, 13)
	}
	for _, name := range []string{"hook", "local"} {
		r.edit(name, sink.Change{Paused: new(true)})
	}
	r.eventually("they are paused", func() (bool, string) {
		return strings.Count(r.logged(), "delivery to an audit sink ends") == 2, r.logged()
	})
	paused := firsts(one.received())
	r.work(10)
	r.has("other", 25)
	if p := r.progress("local"); p.Sequence > 15 || p.Records < 10 {
		t.Errorf("while it is paused: %+v", p)
	}
	if got := firsts(one.received()); len(got) != len(paused) {
		t.Errorf("a paused sink got %v", got)
	}
	moved := two.sink("hook")
	r.edit("hook", sink.Change{URL: &moved.URL, CA: &moved.CA, Secret: reeve.SecretString("whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("new"), 10))), Paused: new(false)})
	change := r.newest()
	if want := map[string]string{"to": one.URL, "paused": "true"}; !maps.Equal(change.Before, want) {
		t.Errorf("before: %v", change.Before)
	}
	if want := map[string]string{"to": two.URL, "secret": "changed"}; !maps.Equal(change.After, want) || change.Action != "audit_sink.edit" {
		t.Errorf("after: %v", change.After)
	}
	after := "after"
	r.edit("local", sink.Change{File: &after})
	if p := r.progress("local"); p.Records < 10 {
		t.Errorf("moved, and still paused: %+v", p)
	}
	r.edit("local", sink.Change{Paused: new(false)})
	r.has("local", 28)
	r.has("hook", 28)
	third := newReceiver(t, http.StatusNoContent)
	r.edit("hook", sink.Change{URL: &third.URL}) // at work, not paused
	r.eventually("the third gets the next records", func() (bool, string) {
		r.work(1)
		return len(third.received()) > 0, ""
	})
	end := r.newest().Sequence
	r.has("hook", end)
	r.has("local", end)
	var files []byte
	for _, name := range []string{"before", "after"} {
		raw, err := os.ReadFile(filepath.Join(r.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, raw...)
	}
	for name, got := range map[string][]byte{"local": files, "hook": slices.Concat(one.received(), two.received(), third.received())} {
		if diff := cmp.Diff(counted(1, end), firsts(got)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestAChangeThatCannotBeIsRefusedAndChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.add(sink.New{Name: "local", Kind: sink.File, File: "a"})
	r.add(sink.New{Name: "taken", Kind: sink.File, File: "b"})
	r.add(sink.New{Name: "siem", Kind: sink.Syslog, Address: "siem.example:6514", MaxAge: time.Minute})
	r.add(sink.New{Name: "hook", Kind: sink.HTTPS, URL: "https://siem.example/x", Secret: reeve.SecretString(whsec)})
	shown := func() (out []string) {
		for s, err := range r.all() {
			out = append(out, fmt.Sprintf("%+v %v", s, err))
		}
		return out
	}
	before := shown()
	text := func(s string) *string { return &s }
	kind := func(k sink.Kind) *sink.Kind { return &k }
	for name, tt := range map[string]struct {
		of   string
		ch   sink.Change
		code string
	}{
		"unknown":       {"nobody", sink.Change{Paused: new(true)}, "audit_sink_not_found"},
		"file taken":    {"local", sink.Change{File: text("b")}, "audit_sink_file_taken"},
		"path":          {"local", sink.Change{File: text("../b")}, "audit_sink_invalid"},
		"file to url":   {"local", sink.Change{URL: text("https://siem.example/x")}, "audit_sink_invalid"},
		"file to https": {"local", sink.Change{Kind: kind(sink.HTTPS)}, "audit_sink_invalid"},
		"https to cef":  {"hook", sink.Change{Kind: kind(sink.CEF)}, "audit_sink_invalid"},
		"no port":       {"siem", sink.Change{Address: text("siem.example")}, "audit_sink_invalid"},
		"local address": {"siem", sink.Change{Address: text("127.0.0.1:6514")}, "audit_sink_invalid"},
		"short secret":  {"hook", sink.Change{Secret: reeve.SecretString("whsec_eA==")}, "audit_sink_invalid"},
		"needless":      {"siem", sink.Change{Secret: reeve.SecretString(whsec)}, "audit_sink_invalid"},
		"no authority":  {"siem", sink.Change{CA: text("nonsense")}, "audit_sink_invalid"},
	} {
		if err := r.update(func(tx *store.Tx) error { _, err := sink.Edit(tx, alice, tt.of, tt.ch); return err }); reeve.CodeOf(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	if diff := cmp.Diff(before, shown()); diff != "" {
		t.Error(diff)
	}
	r.edit("siem", sink.Change{Kind: kind(sink.CEF), MaxAge: new(time.Duration(0)), MaxRecords: new(uint64(7))})
	if e := r.newest(); !maps.Equal(e.Before, map[string]string{"kind": "syslog", "max_lag": "1m0s"}) || !maps.Equal(e.After, map[string]string{"kind": "cef", "max_lag_records": "7"}) {
		t.Errorf("%v, then %v", e.Before, e.After)
	}
	r.edit("hook", sink.Change{AllowLocal: new(true)})
	if e := r.newest(); len(e.Before) != 0 || !maps.Equal(e.After, map[string]string{"allow_local": "true"}) {
		t.Errorf("the key, which was not given, changed: %v, then %v", e.Before, e.After)
	}
}

// all are the sinks there are.
func (r *rig) all() func(yield func(sink.Sink, error) bool) {
	return func(yield func(sink.Sink, error) bool) {
		_ = r.st.View(r.Context(), func(tx *store.Tx) error {
			for s, err := range sink.List(tx) {
				if !yield(*s, err) {
					break
				}
			}
			return nil
		})
	}
}

// A disk that is full holds up nobody; when there is space again the file has every record,
// in order (U4), and a test of the sink says what is wrong meanwhile.
func TestAFullDiskLosesNoRecord_U4(t *testing.T) {
	t.Parallel()
	testlab.New(t) // may mount
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	r := newRig(t)
	r.dir = filepath.Join(disk, "audit-files")
	r.add(sink.New{Name: "local", Kind: sink.File, File: "trail.jsonl"})
	r.add(sink.New{Name: "limited", Kind: sink.File, File: "limited.jsonl", MaxRecords: 5})
	r.work(5)
	stop := r.deliver()
	r.has("local", 7)
	r.has("limited", 7)
	if err := r.probe("local"); err != nil {
		t.Error(err)
	}
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	r.work(40) // more than what is left of a page
	r.eventually("the file says why", func() (bool, string) {
		p := r.progress("local")
		return strings.Contains(p.Error, "no space left") && p.Records >= 20, fmt.Sprintf("%+v", p)
	})
	if err := r.probe("local"); reeve.CodeOf(err) != "audit_sink_failed" || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("a test while the disk is full: %v", err)
	}
	r.eventually("the alarm is in the log", func() (bool, string) {
		return strings.Contains(r.logged(), "reveals and exports are refused"), r.logged()
	})
	if code := reeve.CodeOf(r.st.View(t.Context(), sink.CheckLag)); code != "audit_lag" {
		t.Errorf("over the limit: %q", code)
	}
	stop() // the leader changes, with the disk still full
	stop = r.deliver()
	r.work(5)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.has("local", 54)
	r.has("limited", 54)
	r.eventually("the end of the alarm is in the log", func() (bool, string) {
		return strings.Contains(r.logged(), "within its limit again"), r.logged()
	})
	stop()
	if n := strings.Count(r.logged(), "reveals and exports are refused"); n != 2 { // once for each leader
		t.Errorf("%d alarms", n)
	}
	for _, name := range []string{"trail.jsonl", "limited.jsonl"} {
		raw, err := os.ReadFile(filepath.Join(r.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(counted(1, 54), firsts(raw)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if left, err := filepath.Glob(filepath.Join(r.dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("tests left %v (%v)", left, err)
	}
}

// probe tests a sink as an administrator does.
func (r *rig) probe(name string) error {
	r.Helper()
	var s *sink.Sink
	if err := r.update(func(tx *store.Tx) (err error) { s, err = sink.RecordTest(tx, alice, name); return err }); err != nil {
		return err
	}
	d := sink.NewDelivery(sink.Config{Store: r.st, Node: "c0", Dir: r.dir, Pulse: &service.Pulse{}, Log: slog.New(slog.DiscardHandler)})
	return d.Probe(r.Context(), s, alice)
}

// A test sends one signed record that is not of the trail, also to a paused sink, moves no
// cursor, and says what was wrong.
func TestATestOfASinkSaysWhatHappened(t *testing.T) {
	t.Parallel()
	r := newRig(t, storetest.WithClock(storetest.NewClock(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)).Now))
	x := newReceiver(t, http.StatusNoContent)
	r.add(x.sink("hook"))
	r.edit("hook", sink.Change{Paused: new(true)})
	for range 2 {
		if err := r.probe("hook"); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(string(x.received())), "\n")
	var e audit.Entry
	if err := json.Unmarshal([]byte(lines[0]), &e); err != nil || len(lines) != 2 || lines[0] == lines[1] || e.Sequence != 0 || e.Action != "audit_sink.test" || e.Outcome != "test" || e.Object != "hook" || e.Actor != alice {
		t.Errorf("%q %v", lines, err)
	}
	if p := r.progress("hook"); p.Sequence != 0 || p.Records != 4 || p.Error != "" {
		t.Errorf("%+v", p)
	}
	x.answer(http.StatusFound)
	if err := r.probe("hook"); reeve.CodeOf(err) != "audit_sink_failed" || !strings.Contains(err.Error(), "answered 302") {
		t.Errorf("%v", err)
	}
	if err := r.probe("nobody"); reeve.CodeOf(err) != "audit_sink_not_found" {
		t.Errorf("%v", err)
	}
	r.add(sink.New{Name: "siem", Kind: sink.CEF, Address: "127.0.0.1:1", AllowLocal: true})
	if err := r.probe("siem"); reeve.CodeOf(err) != "audit_sink_failed" || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v", err)
	}
	if got := r.newest(); got.Action != "audit_sink.test" || got.Object != "siem" || got.Details["to"] != "127.0.0.1:1" {
		t.Errorf("%+v", got)
	}
}
