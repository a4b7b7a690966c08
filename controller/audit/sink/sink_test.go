package sink_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/audit/sink"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/reeve"
)

var alice = audit.Actor{Kind: "user", ID: "prin_alice", Name: "alice"}

var whsec = "whsec_" + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("canary!!"), 4))

type rig struct {
	*testing.T
	st  *store.Store
	dir string
	log logbook
}

// logbook is a log that may be read while it is written.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (r *rig) logged() string { r.log.mu.Lock(); defer r.log.mu.Unlock(); return r.log.text.String() }

func newRig(t *testing.T, opts ...storetest.Option) *rig {
	t.Helper()
	return &rig{T: t, st: storetest.New(t, opts...), dir: filepath.Join(t.TempDir(), "audit-files")}
}

func (r *rig) update(fn func(tx *store.Tx) error) error { return r.st.Update(r.Context(), fn) }

func (r *rig) add(in sink.New) {
	r.Helper()
	if err := r.update(func(tx *store.Tx) error { _, err := sink.Add(tx, alice, in); return err }); err != nil {
		r.Fatal(err)
	}
}

// work makes n records.
func (r *rig) work(n int) {
	r.Helper()
	for i := range n {
		if err := r.update(func(tx *store.Tx) error {
			return audit.Record(tx, audit.Event{By: alice, Action: "site.add", Object: fmt.Sprint(i)})
		}); err != nil {
			r.Fatal(err)
		}
	}
}

func (r *rig) progress(name string) (p sink.Progress) {
	r.Helper()
	if err := r.st.View(r.Context(), func(tx *store.Tx) error {
		for s, err := range sink.List(tx) {
			if err != nil {
				return err
			}
			if s.Name == name {
				if p, err = sink.ProgressOf(tx, s); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		r.Fatal(err)
	}
	return p
}

// deliver runs a delivery, as a new leader does, until stop is called.
func (r *rig) deliver() (stop func()) {
	ctx, cancel := context.WithCancel(r.Context())
	done := make(chan error, 1)
	d := sink.NewDelivery(sink.Config{Store: r.st, Node: "c0", Dir: r.dir, Pulse: &service.Pulse{}, Log: slog.New(slog.NewTextHandler(&r.log, nil))})
	go func() { done <- d.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.Error(err)
		}
	})
	r.Cleanup(stop)
	return stop
}

func (r *rig) eventually(what string, ok func() (bool, string)) {
	r.Helper()
	why := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		done := false
		if done, why = ok(); done {
			return
		}
	}
	r.Fatalf("%s: %s", what, why)
}

func (r *rig) has(name string, sequence uint64) {
	r.Helper()
	r.eventually(name+" has everything", func() (bool, string) {
		p := r.progress(name)
		return p.Sequence >= sequence, fmt.Sprintf("%+v", p)
	})
}

func TestAFileHasTheWholeTrailAcrossLeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.work(1200) // more than two batches
	r.add(sink.New{Name: "local", Kind: sink.File, File: "trail.jsonl"})
	stop := r.deliver()
	r.has("local", 1201)
	stop()
	r.work(10)
	path := filepath.Join(r.dir, "trail.jsonl")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"sequence":1202,"ti`); err != nil { // a leader died over it
		t.Fatal(err)
	}
	_ = f.Close()
	r.deliver()
	r.has("local", 1211)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.Replace(string(raw), `{"sequence":1202,"ti`+"\n", "", 1)
	if rep, err := auditchain.Verify(strings.NewReader(whole), auditchain.Options{}); err != nil || rep.Records != 1211 {
		t.Errorf("%+v %v", rep, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

// CVE-2025-6000: an audit file in a directory of plugins was run as one. A sink writes one file, in a directory that no caller chooses,
// which nobody may run; what is there already under its name and is no file, or leads elsewhere, is left alone.
func TestASinkWritesItsOwnFileAndNoOther_CVE_2025_6000(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	outside := filepath.Join(t.TempDir(), "plugin")
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func(path string) error{
		"link":       func(path string) error { return os.Symlink(outside, path) },
		"relative":   func(path string) error { return os.Symlink("../plugin", path) },
		"directory":  func(path string) error { return os.Mkdir(path, 0o700) },
		"executable": func(path string) error { return os.WriteFile(path, nil, 0o755) }, //nolint:gosec // that is it
	} {
		if err := plant(filepath.Join(r.dir, name)); err != nil {
			t.Fatal(err)
		}
		r.add(sink.New{Name: name, Kind: sink.File, File: name})
	}
	r.deliver()
	r.has("executable", 4)
	for _, name := range []string{"link", "relative", "directory"} {
		r.eventually(name+" is refused", func() (bool, string) {
			p := r.progress(name)
			return p.Error != "" && p.Sequence == 0, fmt.Sprintf("%+v", p)
		})
	}
	for _, path := range []string{outside, filepath.Join(r.dir, "..", "plugin")} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if st, err := os.Stat(filepath.Join(r.dir, "executable")); err != nil || st.Mode() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
}

// receiver answers with status until it is set to another, and hangs while that is 0.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	body   bytes.Buffer
}

func (x *receiver) answer(status int) { x.mu.Lock(); x.status = status; x.mu.Unlock() }

func newReceiver(t *testing.T, status int) *receiver {
	t.Helper()
	x := &receiver{status: status}
	x.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.mu.Lock()
		status := x.status
		x.mu.Unlock()
		raw, _ := io.ReadAll(r.Body) // until then the server does not see that the client is gone
		if status == 0 {
			<-r.Context().Done()
			return
		}
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		if status == http.StatusNoContent {
			x.mu.Lock()
			x.body.Write(raw)
			x.mu.Unlock()
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(x.Close)
	return x
}

func (x *receiver) sink(name string) sink.New {
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x.Certificate().Raw}))
	return sink.New{Name: name, Kind: sink.HTTPS, URL: x.URL, CA: ca, Secret: reeve.SecretString(whsec), AllowLocal: true}
}

// One receiver hangs, one redirects, one is not whom we trust, one is this machine: none
// holds up the others, each says why, and one that heals gets everything (U4).
func TestASinkThatFailsHoldsUpNobodyAndLosesNothing_U4(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	hangs, redirects, stranger, good := newReceiver(t, 0), newReceiver(t, http.StatusFound), newReceiver(t, 204), newReceiver(t, 204)
	r.add(hangs.sink("hangs"))
	r.add(redirects.sink("redirects"))
	untrusted := stranger.sink("untrusted")
	untrusted.CA = ""
	r.add(untrusted)
	_, port, _ := net.SplitHostPort(good.Listener.Addr().String())
	r.add(sink.New{Name: "inside", Kind: sink.HTTPS, URL: "https://localhost:" + port, Secret: reeve.SecretString(whsec)})
	r.add(good.sink("good"))
	r.work(20)
	stop := r.deliver()
	r.has("good", 25)
	for name, why := range map[string]string{"redirects": "answered 302", "untrusted": "certificate", "inside": "loopback"} {
		r.eventually(name+" says why", func() (bool, string) {
			p := r.progress(name)
			return strings.Contains(p.Error, why) && p.Records == 25 && p.Sequence == 0, fmt.Sprintf("%+v", p)
		})
	}
	redirects.answer(http.StatusNoContent)
	r.has("redirects", 25)
	if p := r.progress("redirects"); p.Error != "" || p.Records != 0 {
		t.Errorf("healed: %+v", p)
	}
	if rep, err := auditchain.Verify(bytes.NewReader(redirects.body.Bytes()), auditchain.Options{}); err != nil || rep.Records != 25 {
		t.Errorf("%+v %v", rep, err)
	}
	stop() // at once, though one hangs
	if stranger.body.Len() > 0 {
		t.Error("records went to a stranger")
	}
	if strings.Contains(r.logged(), "canary!!") || strings.Contains(r.logged(), whsec) {
		t.Errorf("the log shows the key: %s", r.logged())
	}
}

func TestASinkThatCannotBeIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	key := reeve.SecretString(whsec)
	r.add(sink.New{Name: "taken", Kind: sink.File, File: "taken"})
	for name, tt := range map[string]struct {
		in   sink.New
		code string
	}{
		"path":       {sink.New{Name: "x", Kind: sink.File, File: "../x"}, "audit_sink_invalid"},
		"absolute":   {sink.New{Name: "x", Kind: sink.File, File: "/etc/x"}, "audit_sink_invalid"},
		"hidden":     {sink.New{Name: "x", Kind: sink.File, File: ".x"}, "audit_sink_invalid"},
		"same file":  {sink.New{Name: "x", Kind: sink.File, File: "taken"}, "audit_sink_file_taken"},
		"same name":  {sink.New{Name: "taken", Kind: sink.File, File: "x"}, "audit_sink_name_taken"},
		"kind":       {sink.New{Name: "x", Kind: "carrier-pigeon"}, "audit_sink_invalid"},
		"two":        {sink.New{Name: "x", Kind: sink.File, File: "x", URL: "https://x"}, "audit_sink_invalid"},
		"http":       {sink.New{Name: "x", Kind: sink.HTTPS, URL: "http://siem.example", Secret: key}, "audit_sink_invalid"},
		"credential": {sink.New{Name: "x", Kind: sink.HTTPS, URL: "https://a:b@siem.example", Secret: key}, "audit_sink_invalid"},
		"no key":     {sink.New{Name: "x", Kind: sink.HTTPS, URL: "https://siem.example"}, "audit_sink_invalid"},
		"short key":  {sink.New{Name: "x", Kind: sink.HTTPS, URL: "https://siem.example", Secret: reeve.SecretString("whsec_eA==")}, "audit_sink_invalid"},
		"metadata":   {sink.New{Name: "x", Kind: sink.HTTPS, URL: "https://169.254.169.254/latest", Secret: key}, "audit_sink_invalid"},
		"mapped":     {sink.New{Name: "x", Kind: sink.Syslog, Address: "[::ffff:127.0.0.1]:6514"}, "audit_sink_invalid"},
		"no port":    {sink.New{Name: "x", Kind: sink.Syslog, Address: "siem.example"}, "audit_sink_invalid"},
		"CA":         {sink.New{Name: "x", Kind: sink.Syslog, Address: "siem.example:6514", CA: "nonsense"}, "audit_sink_invalid"},
	} {
		if err := r.update(func(tx *store.Tx) error { _, err := sink.Add(tx, alice, tt.in); return err }); reeve.CodeOf(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Beyond a sink's limit, in records or in time, reveals are refused; at it they are not.
func TestRevealsAreRefusedBeyondTheLagThatIsAllowed(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	r := newRig(t, storetest.WithClock(clock.Now), storetest.WithSteady(func() time.Duration { return clock.Now().Sub(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)) }))
	check := func() string {
		return reeve.CodeOf(r.st.View(t.Context(), sink.CheckLag))
	}
	r.add(sink.New{Name: "free", Kind: sink.File, File: "free"})
	r.work(50)
	if code := check(); code != "" {
		t.Errorf("without a limit: %s", code)
	}
	r.add(sink.New{Name: "records", Kind: sink.File, File: "records", MaxRecords: 52})
	if code := check(); code != "" {
		t.Errorf("at the limit: %s", code)
	}
	r.work(1)
	if code := check(); code != "audit_lag" {
		t.Errorf("beyond the limit: %q", code)
	}
	if err := r.update(func(tx *store.Tx) error { return sink.Remove(tx, alice, "records") }); err != nil {
		t.Fatal(err)
	}
	r.add(sink.New{Name: "time", Kind: sink.File, File: "time", MaxAge: time.Minute})
	clock.Advance(50 * time.Second)
	if code := check(); code != "" {
		t.Errorf("within the time: %s", code)
	}
	clock.Advance(20 * time.Second)
	if code := check(); code != "audit_lag" {
		t.Errorf("after the time: %q", code)
	}
	r.deliver()
	r.eventually("the lag is gone", func() (bool, string) { return check() == "", fmt.Sprintf("%+v", r.progress("time")) })
}

// While the service is off nothing is delivered; switched on, it goes on where it was.
func TestDeliveryCanBeSwitchedOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	set := func(on bool) {
		t.Helper()
		if err := r.update(func(tx *store.Tx) error { return service.Set(tx, alice, service.AuditSinks, on) }); err != nil {
			t.Fatal(err)
		}
	}
	set(false)
	r.add(sink.New{Name: "local", Kind: sink.File, File: "trail.jsonl"})
	stop := r.deliver()
	time.Sleep(1200 * time.Millisecond) // twice as long as delivery takes to look
	if _, err := os.Stat(r.dir); err == nil {
		t.Error("delivered though the service is off")
	}
	set(true)
	r.has("local", 3)
	stop()
}
