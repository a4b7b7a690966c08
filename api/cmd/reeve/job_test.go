package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// event is one server-sent event.
func event(id, kind, data string) string {
	return fmt.Sprintf("id: %s\nevent: %s\ndata: %s\n\n", id, kind, data)
}

func logged(step, message string) string {
	return fmt.Sprintf(`{"time":"2026-11-22T15:03:05.299Z","level":"info","step":%q,"state":"done","message":%q}`, step, message)
}

const (
	endDone   = `{"id":"job_1","operation":"rotate","state":"done"}`
	endFailed = `{"id":"job_1","operation":"rotate","state":"failed","error":{"class":"auth_failed","message":"refused","fix":"set another"}}`
)

// logServer serves the n-th stream of a job's log, and notes where readers went on.
func logServer(t *testing.T, streams ...string) (contextPath string, from func() []string) {
	t.Helper()
	var mu sync.Mutex
	var seen []string
	contextPath, _ = served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		n := len(seen)
		seen = append(seen, r.Header.Get("Last-Event-ID"))
		mu.Unlock()
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, streams[min(n, len(streams)-1)])
	}))
	return contextPath, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func TestAFollowedLogGoesOnWhereItBrokeOff(t *testing.T) {
	t.Parallel()
	context, from := logServer(t,
		event("1.0.10", "log", logged("a", "first"))+event("1.0.20", "log", logged("b", "second")),
		"", // a connection that brings nothing
		event("1.0.30", "log", logged("c", "third"))+event("1.0.30", "end", endDone))
	res := invoke(t.Context(), "", "--context", context, "job", "logs", "-f", "job_1")
	if res.status != 0 {
		t.Fatalf("status %d: %s", res.status, res.err)
	}
	var messages []string
	for line := range strings.Lines(res.out) {
		messages = append(messages, strings.Fields(line)[3])
	}
	if diff := cmp.Diff([]string{"first", "second", "third"}, messages); diff != "" {
		t.Errorf("lines: %s", diff)
	}
	if diff := cmp.Diff([]string{"", "1.0.20", "1.0.20"}, from()); diff != "" {
		t.Errorf("went on from: %s", diff)
	}
}

func TestFollowingAJobFailsIfTheJobDoes(t *testing.T) {
	t.Parallel()
	context, _ := logServer(t, event("1", "end", endFailed))
	res := invoke(t.Context(), "", "--context", context, "job", "logs", "-f", "job_1")
	if want := "reeve: job job_1 (rotate) is failed: refused [auth_failed]\n  to do: set another\n"; res.status != 1 || res.err != want {
		t.Errorf("status %d, %q", res.status, res.err)
	}
}

func TestALogThatIsNotFollowedEndsWithItsStream(t *testing.T) {
	t.Parallel()
	context, from := logServer(t, event("1", "log", logged("a", "first")))
	res := invoke(t.Context(), "", "--context", context, "job", "logs", "job_1")
	if res.status != 0 || !strings.Contains(res.out, "first") || len(from()) != 1 {
		t.Errorf("status %d, %d streams, %q", res.status, len(from()), res.out)
	}
}

func TestALogAsJSONIsItsLinesAsTheyAre(t *testing.T) {
	t.Parallel()
	context, _ := logServer(t, event("1", "log", logged("a", "first"))+event("2", "log", logged("b", "second"))+event("3", "end", endDone))
	for _, follow := range []string{"-f", "-f=false"} {
		res := invoke(t.Context(), "", "--context", context, "-o", "json", "job", "logs", follow, "job_1")
		if res.status != 0 || res.out != logged("a", "first")+"\n"+logged("b", "second")+"\n" || res.err != "" {
			t.Errorf("%s: status %d, %q, %q", follow, res.status, res.out, res.err)
		}
	}
}

// Work that waits looks like work that hangs, unless it is said what it waits for.
func TestAWatchedJobSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]string{
		`"state":"queued","not_before":"2099-01-01T10:00:00Z","outcome":"unknown"`:  "attempt 2 begins at 2099-01-01",
		`"state":"queued","not_before":"2026-01-01T10:00:00Z","outcome":"not_done"`: "waits for an agent of site dmz",
		`"state":"leased","agent":"dmz-1"`:                                          "agent dmz-1 is still at work",
	} {
		over := make(chan struct{})
		path, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, "/log") {
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"id":"job_1","operation":"rotate","site":"dmz","attempt":1,`+state+`}`)
				return
			}
			_, _ = io.WriteString(w, event("1", "log", logged("a", "first")))
			_ = http.NewResponseController(w).Flush()
			select {
			case <-over:
				_, _ = io.WriteString(w, event("1", "end", endDone))
			case <-r.Context().Done():
			}
		}))
		time.AfterFunc(pulse+pulse/2, func() { close(over) })
		res := invoke(t.Context(), "", "--context", path, "job", "logs", "-f", "job_1")
		if res.status != 0 || strings.Count(res.err, want) != 1 || strings.Contains(res.out, want) {
			t.Errorf("status %d, want %q once in %q", res.status, want, res.err)
		}
	}
}

func TestAGapInALogIsSaid(t *testing.T) {
	t.Parallel()
	context, _ := logServer(t, event("1", "gap", "4096")+event("2", "end", endDone))
	res := invoke(t.Context(), "", "--context", context, "job", "logs", "-f", "job_1")
	if !strings.Contains(res.out, "4096 bytes were left out here") {
		t.Errorf("%q", res.out)
	}
}

func TestALogThatIsRefusedIsGivenUpWithTheReason(t *testing.T) {
	t.Parallel()
	context, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"code":"job_not_found","status":404,"detail":"there is no job"}`)
	}))
	if res := invoke(t.Context(), "", "--context", context, "job", "logs", "-f", "job_1"); res.status != 1 || !strings.Contains(res.err, "[job_not_found]") {
		t.Errorf("status %d, %q", res.status, res.err)
	}
}

func TestFollowingEndsWhenInterrupted(t *testing.T) {
	t.Parallel()
	streaming := make(chan struct{})
	path, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, event("1", "log", logged("a", "first")))
		_ = http.NewResponseController(w).Flush()
		close(streaming)
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-streaming; cancel() }()
	if res := invoke(ctx, "", "--context", path, "job", "logs", "-f", "job_1"); res.status != 1 || !strings.HasSuffix(res.err, "reeve: interrupted\n") {
		t.Errorf("status %d, %q", res.status, res.err)
	}
}

// A key that is new is compared; one that is not the trusted one is first explained.
func TestVerifyingAnAssetTellsANewKeyFromAChangedOne(t *testing.T) {
	t.Parallel()
	for class, want := range map[string]string{"host_key_unknown": "must be trusted first", "host_key_changed": "somebody may be between"} {
		path, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/verify"):
				_, _ = io.WriteString(w, `{"job":"job_1"}`)
			case strings.HasSuffix(r.URL.Path, "/log"):
				_, _ = io.WriteString(w, event("1", "end", endFailed))
			default:
				_, _ = io.WriteString(w, `{"id":"asset_2","name":"web02",`+assetStart+`,"pending_fingerprint":"SHA256:ccc",
					"management_account":{"username":"root","verified":false,"last_error":{"class":"`+class+`","message":"a key","at":"2026-11-22T15:00:00Z"}}}`)
			}
		}))
		res := invoke(t.Context(), "", "--context", path, "asset", "verify", "web02")
		if res.status != 1 || !strings.Contains(res.err, want) || !strings.Contains(res.err, "reeve asset trust web02 --fingerprint SHA256:ccc") {
			t.Errorf("%s: status %d, %q", class, res.status, res.err)
		}
	}
}

// An account's next job may be over before anybody looks: its log is shown all the same.
func TestEveryJobOfAWatchedAccountIsShown(t *testing.T) {
	t.Parallel()
	account := func(state, job string) string {
		return `{"id":"acct_1","name":"alice","asset":"web01","connector":"ssh","state":"` + state + `","role":"r","password_mode":"generated","rotation_enabled":true,"created_at":"2026-11-22T15:00:00Z","job":"` + job + `"}`
	}
	path, _ := served(t, canary, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/accounts":
			_, _ = io.WriteString(w, `{"id":"batch_1","accounts":[`+account("provisioning", "job_plan")+`]}`)
		case "/v1/jobs/job_plan/log":
			_, _ = io.WriteString(w, event("1", "log", logged("a", "the plan"))+event("2", "end", endDone))
		case "/v1/jobs/job_make/log":
			_, _ = io.WriteString(w, event("1", "log", logged("a", "the making"))+event("2", "end", endDone))
		default:
			_, _ = io.WriteString(w, account("active", "job_make"))
		}
	}))
	res := invoke(t.Context(), "", "--context", path, "account", "provision", "alice", "--role", "r", "--asset", "web01", "--watch")
	if res.status != 0 || !strings.Contains(res.err, "the plan") || !strings.Contains(res.err, "the making") {
		t.Errorf("status %d, %s%s", res.status, res.out, res.err)
	}
}
