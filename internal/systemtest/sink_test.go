package systemtest_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/systemtest"
	"github.com/reeve-pam/reeve/internal/testlab"
)

func addSink(t *testing.T, c *systemtest.Cluster, in client.AuditSinkRequest) {
	t.Helper()
	key := "add-sink-" + in.Name
	systemtest.Call[client.AuditSink](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAuditSink(t.Context(), &client.AddAuditSinkParams{IdempotencyKey: &key}, in)
	})
}

func syslogSink(name, kind string, s *testlab.SyslogServer) client.AuditSinkRequest {
	local := true
	return client.AuditSinkRequest{Name: name, Kind: client.AuditSinkRequestKind(kind), Address: &s.Addr, Ca: &s.CAPEM, AllowLocal: &local}
}

func sinkNow(t *testing.T, c *systemtest.Cluster, name string) client.AuditSink {
	t.Helper()
	for _, s := range systemtest.Call[client.AuditSinkList](c, func(api *client.Client) (*http.Response, error) { return api.ListAuditSinks(t.Context()) }).Items {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no sink %s", name)
	return client.AuditSink{}
}

// work makes records.
func work(t *testing.T, c *systemtest.Cluster, what string, n int) {
	t.Helper()
	for i := range n {
		c.AddSite(fmt.Sprintf("%s-%d", what, i))
	}
}

// missing compares what a sink has with the trail: every record must be there, as it was
// exported.
func missing(got map[string]bool, trail []byte) (out []string) {
	for line := range strings.Lines(string(trail)) {
		if line = strings.TrimSuffix(line, "\n"); !got[line] {
			out = append(out, line)
		}
	}
	return out
}

func received(t *testing.T, s *testlab.SyslogServer) map[string]bool {
	t.Helper()
	all, err := s.Received()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, m := range all {
		got[strings.TrimPrefix(m.Message, " ")] = true
		if m.App != "reeve" || !strings.HasPrefix(m.Structured, "[reeve@32473 sequence=") || m.ID == "" {
			t.Fatalf("rsyslog understood %+v", m)
		}
	}
	return got
}

// A real syslog server is down for a while, and leaders change: it holds up nobody, its lag
// and its error show, and in the end it has every record as it was exported (U4).
func TestASyslogServerThatIsDownAndLeadersThatChangeLoseNoRecord_U4(t *testing.T) {
	t.Parallel()
	server := testlab.NewSyslog(t, testlab.New(t))
	c := systemtest.Start(t, systemtest.Options{Nodes: 3, Terms: terms})
	addSink(t, c, syslogSink("siem", "syslog", server))
	work(t, c, "before", 5)
	caughtUp := func() {
		t.Helper()
		c.Eventually("the sink has everything", func() (bool, string) {
			trail := exportAudit(t, c)
			absent := missing(received(t, server), trail[:bytes.LastIndexByte(trail[:len(trail)-1], '\n')+1]) // without the record of this export
			return len(absent) == 0, fmt.Sprintf("%d records are missing", len(absent))
		})
	}
	caughtUp()

	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	work(t, c, "while-down", 20)
	c.Eventually("the lag shows", func() (bool, string) {
		s := sinkNow(t, c, "siem")
		return s.LastError != nil && strings.Contains(*s.LastError, "refused") && s.LagRecords >= 20, fmt.Sprintf("%+v", s)
	})
	old := c.Leader()
	c.Stop(old)
	work(t, c, "next-leader", 5)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	caughtUp()
	c.Restart(old)
	c.AwaitVoters(3)
	for i := range 2 { // with the server up
		c.Kill(c.Leader())
		work(t, c, fmt.Sprintf("killed-%d", i), 3)
		for n := range c.Nodes() {
			if _, err := c.Status(n); err != nil {
				c.Restart(n)
			}
		}
		c.AwaitVoters(3)
	}
	caughtUp()
	inOrder(t, server)
	c.Eventually("nothing is wrong any more", func() (bool, string) {
		s := sinkNow(t, c, "siem")
		return s.LastError == nil && s.Sequence > 40, fmt.Sprintf("%+v", s)
	})
}

// inOrder: each record came for the first time after those before it.
func inOrder(t *testing.T, s *testlab.SyslogServer) {
	t.Helper()
	all, err := s.Received()
	if err != nil {
		t.Fatal(err)
	}
	last := uint64(0)
	for _, m := range all {
		var r auditchain.Record
		if err := json.Unmarshal([]byte(m.Message), &r); err != nil {
			t.Fatal(err)
		}
		if r.Sequence > last+1 {
			t.Errorf("record %d came before record %d", r.Sequence, last+1)
		}
		last = max(last, r.Sequence)
	}
}

// hook is a receiver of signed batches.
type hook struct {
	*httptest.Server
	secret string
	mu     sync.Mutex
	bodies bytes.Buffer
	faults []string
}

func newHook(t *testing.T) *hook {
	t.Helper()
	raw := make([]byte, 32)
	_, _ = rand.Read(raw)
	h := &hook{secret: "whsec_" + base64.StdEncoding.EncodeToString(raw)}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, raw)
		fmt.Fprintf(mac, "%s.%s.%s", r.Header.Get("Webhook-Id"), r.Header.Get("Webhook-Timestamp"), body)
		h.mu.Lock()
		defer h.mu.Unlock()
		if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); err != nil || r.Header.Get("Webhook-Signature") != want {
			h.faults = append(h.faults, fmt.Sprint(err, r.Header))
		}
		h.bodies.Write(body)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hook) request(name string) client.AuditSinkRequest {
	url, local := h.URL+"/reeve", true
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw}))
	return client.AuditSinkRequest{Name: name, Kind: "https", Url: &url, Ca: &ca, Secret: &h.secret, AllowLocal: &local}
}

func (h *hook) received(t *testing.T) []byte {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.faults) > 0 {
		t.Errorf("badly signed: %v", h.faults)
	}
	seen := map[string]bool{}
	var once []byte
	for line := range strings.Lines(h.bodies.String()) { // at least once means that some come again
		if !seen[line] && !strings.HasPrefix(line, `{"sequence":0,`) { // a test
			seen[line], once = true, append(once, line...)
		}
	}
	return once
}

// everySink sends the trail to a sink of each kind, and returns what awaits that they have
// it and writes what they got below the cluster's directory, where it is scanned (U5).
func everySink(t *testing.T, c *systemtest.Cluster, lab *testlab.Lab) (secrets []string, collect func()) {
	t.Helper()
	server, h := testlab.NewSyslog(t, lab), newHook(t)
	addSink(t, c, syslogSink("plain", "syslog", server))
	addSink(t, c, syslogSink("arcsight", "cef", server))
	elsewhere, here := h.request("hook"), h.request("hook")
	old := "whsec_" + base64.StdEncoding.EncodeToString([]byte("canary of a key that was changed"))
	elsewhere.Url, elsewhere.Secret = new("https://127.0.0.1:1/"), &old
	addSink(t, c, elsewhere)
	systemtest.Call[client.AuditSink](c, func(api *client.Client) (*http.Response, error) {
		return api.EditAuditSink(t.Context(), "hook", nil, client.AuditSinkChange{Url: here.Url, Secret: here.Secret})
	})
	file := "trail.jsonl"
	addSink(t, c, client.AuditSinkRequest{Name: "local", Kind: "file", File: &file})
	for _, name := range []string{"plain", "arcsight", "hook", "local"} {
		systemtest.Call[client.AuditSinkTest](c, func(api *client.Client) (*http.Response, error) { return api.TestAuditSink(t.Context(), name) })
	}
	return []string{h.secret, strings.TrimPrefix(h.secret, "whsec_"), old, strings.TrimPrefix(old, "whsec_")}, func() {
		t.Helper()
		head := verifyAudit(t, c)
		last := int64(head[len(head)-1].Sequence) //nolint:gosec // counts records
		for _, name := range []string{"plain", "arcsight", "hook", "local"} {
			c.Eventually("sink "+name+" has everything", func() (bool, string) {
				s := sinkNow(t, c, name)
				return s.Sequence >= last, fmt.Sprintf("%+v", s)
			})
		}
		all, err := server.Received()
		if err != nil {
			t.Fatal(err)
		}
		cef := 0
		for _, m := range all {
			if strings.HasPrefix(strings.TrimPrefix(m.Message, " "), "CEF:0|Reeve|Reeve|") {
				cef++
			}
		}
		if cef < len(head) || len(all) < 2*len(head) {
			t.Errorf("of %d records, %d messages arrived, %d of them CEF", len(head), len(all), cef)
		}
		text, _ := json.Marshal(all)
		files, _ := filepath.Glob(filepath.Join(c.Dir, "*", "audit-files", file))
		if len(files) == 0 {
			t.Error("there is no file")
		}
		for _, f := range files {
			if st, err := os.Stat(f); err != nil || st.Mode() != 0o600 {
				t.Errorf("%s: %v %v", f, st.Mode(), err)
			}
		}
		got := h.received(t)
		if _, err := auditchain.Verify(bytes.NewReader(got), auditchain.Options{}); err != nil {
			t.Errorf("what the hook got: %v", err)
		}
		for name, data := range map[string][]byte{"syslog.json": text, "hook.jsonl": got} {
			if err := os.WriteFile(filepath.Join(c.Dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}
