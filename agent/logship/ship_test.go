package logship

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/agent/agenttest"
	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/redact/redacttest"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// bench is a shipper with a controller to ship to.
type bench struct {
	c    *agenttest.Controller
	s    *Shipper
	path string
	stop func()
}

// newBench starts a shipper on the spool at path; Ship is called again whenever its
// stream breaks.
func newBench(t *testing.T, c *agenttest.Controller, path string, limit int) *bench {
	t.Helper()
	s, err := Open(Config{Path: path, Limit: limit, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{c: c, s: s, path: path}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 2)
	go func() { ran <- s.Run(ctx) }()
	go func() {
		conn, err := grpc.NewClient("passthrough:///"+c.Address, grpc.WithTransportCredentials(credentials.NewTLS(c.Client(t))))
		if err != nil {
			ran <- err
			return
		}
		defer func() { _ = conn.Close() }()
		for ctx.Err() == nil {
			_ = s.Ship(ctx, agentv1.NewAgentServiceClient(conn))
		}
		ran <- nil
	}()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 2 {
			if err := <-ran; err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(b.stop)
	return b
}

func attempt(job string) Attempt { return Attempt{Job: reeve.JobID(job), Attempt: 1, Fence: 7} }

// joined checks the chunks of a log for order and returns the messages in it and the
// bytes of its gaps.
func joined(t testing.TB, chunks []*agentv1.LogChunk) (messages []string, gap uint64) {
	t.Helper()
	var offset uint64
	for i, ch := range chunks {
		if ch.Sequence != uint64(i)+1 || ch.Offset != offset || ch.Last != (i == len(chunks)-1) {
			t.Fatalf("chunk %d: sequence %d, offset %d (want %d), last %v", i, ch.Sequence, ch.Offset, offset, ch.Last)
		}
		offset += uint64(len(ch.Data)) + ch.GapBytes
		gap += ch.GapBytes
		for line := range bytes.Lines(ch.Data) {
			var l Line
			if err := json.Unmarshal(line, &l); err != nil {
				t.Fatalf("not a JSON line: %q", line)
			}
			messages = append(messages, l.Message)
		}
	}
	return messages, gap
}

func complete(key string) func(*agenttest.State) bool {
	return func(s *agenttest.State) bool {
		n := len(s.Logs[key])
		return n > 0 && s.Logs[key][n-1].Last
	}
}

// The stream is cut again and again, before or after the controller has
// stored it; what arrives is the log, byte for byte.
func TestLogSurvivesEveryCutOfTheStream_J5(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	n := 0
	cut := func(m string) error {
		if m != "chunk" {
			return nil
		}
		if n++; n%5 == 0 {
			return status.Error(codes.Unavailable, "cut")
		}
		return nil
	}
	c.With(func(s *agenttest.State) { s.Before, s.After = cut, cut })
	b := newBench(t, c, filepath.Join(t.TempDir(), "logs.db"), 0)
	l := b.s.Begin(attempt("job_1"), 0, redact.New())
	var want []string
	for i := range 2000 {
		m := fmt.Sprintf("line %d %s", i, strings.Repeat("x", 100))
		want = append(want, m)
		l.Write(Info, "step", "info", m)
	}
	l.Close()
	c.Wait(t, "whole log", complete("job_1/1"))
	c.With(func(s *agenttest.State) {
		got, gap := joined(t, s.Logs["job_1/1"])
		if gap != 0 || strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%d of %d lines, gap %d", len(got), len(want), gap)
		}
	})
}

// A log over its limit keeps its head and its tail, and says how much is missing.
func TestLogOverItsLimitHasAnHonestGap_J5(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	b := newBench(t, c, filepath.Join(t.TempDir(), "logs.db"), 0)
	l := b.s.Begin(attempt("job_1"), 8<<10, redact.New())
	for i := range 1000 {
		l.Write(Info, "", "", fmt.Sprintf("line %03d", i))
	}
	l.Close()
	c.Wait(t, "whole log", complete("job_1/1"))
	c.With(func(s *agenttest.State) {
		chunks := s.Logs["job_1/1"]
		got, gap := joined(t, chunks)
		size := uint64(0)
		for _, ch := range chunks {
			size += uint64(len(ch.Data))
		}
		line := size / uint64(len(got))
		if len(got) < 20 || got[0] != "line 000" || got[len(got)-1] != "line 999" || size > 8<<10 {
			t.Errorf("head and tail were not kept: %d lines, %d bytes", len(got), size)
		}
		if missing := uint64(1000-len(got)) * line; gap < missing*9/10 || gap > missing*11/10 {
			t.Errorf("the gap is %d bytes, %d lines of about %d bytes are missing", gap, 1000-len(got), line)
		}
	})
}

// What was spooled when the agent died is shipped by the next one, and the log says
// that it was cut.
func TestSpoolOutlivesTheAgent_J5(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	c.With(func(s *agenttest.State) {
		s.Before = func(m string) error {
			if m == "StreamLogs" {
				return status.Error(codes.Unavailable, "down")
			}
			return nil
		}
	})
	path := filepath.Join(t.TempDir(), "logs.db")
	b := newBench(t, c, path, 0)
	l := b.s.Begin(attempt("job_1"), 0, redact.New())
	l.Write(Info, "", "", "before the end")
	b.stop() // without Close of the log: the agent was killed
	c.With(func(s *agenttest.State) { s.Before = nil })
	newBench(t, c, path, 0)
	c.Wait(t, "whole log", complete("job_1/1"))
	c.With(func(s *agenttest.State) {
		got, _ := joined(t, s.Logs["job_1/1"])
		if len(got) != 2 || got[0] != "before the end" || !strings.Contains(got[1], "agent stopped here") {
			t.Errorf("got %q", got)
		}
	})
}

// When the spool is full, logs get gaps; nothing blocks and nothing is lost silently.
func TestFullSpoolMakesGaps(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	c.With(func(s *agenttest.State) {
		s.Before = func(m string) error {
			if m == "StreamLogs" {
				return status.Error(codes.Unavailable, "down")
			}
			return nil
		}
	})
	b := newBench(t, c, filepath.Join(t.TempDir(), "logs.db"), 32<<10)
	for j := range 4 {
		l := b.s.Begin(attempt(fmt.Sprintf("job_%d", j)), 20<<10, redact.New())
		for range 500 {
			l.Write(Info, "", "", strings.Repeat("x", 100))
		}
		l.Close()
	}
	c.With(func(s *agenttest.State) { s.Before = nil })
	for j := range 4 {
		c.Wait(t, "whole log", complete(fmt.Sprintf("job_%d/1", j)))
	}
	c.With(func(s *agenttest.State) {
		for key, chunks := range s.Logs {
			got, gap := joined(t, chunks)
			if gap == 0 || len(got) == 0 {
				t.Errorf("%s: %d lines and a gap of %d", key, len(got), gap)
			}
		}
	})
}

// No secret of the job is in the spool file or on the wire.
func TestSecretsReachNeitherDiskNorWire_J6(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	path := filepath.Join(t.TempDir(), "logs.db")
	b := newBench(t, c, path, 0)
	const canary = "c4nary-Secret'\"$"
	l := b.s.Begin(attempt("job_1"), 0, redact.New(reeve.SecretString(canary)))
	for name, form := range redacttest.Forms(canary) {
		l.Write(Info, form, form, name+": "+form)
	}
	l.Close()
	c.Wait(t, "whole log", complete("job_1/1"))
	b.stop()
	disk, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c.With(func(s *agenttest.State) {
		for _, ch := range s.Logs["job_1/1"] {
			disk = append(disk, ch.Data...)
		}
	})
	for name, form := range redacttest.Forms(canary) {
		quoted, _ := json.Marshal(form)
		if bytes.Contains(disk, []byte(form)) || bytes.Contains(disk, quoted[1:len(quoted)-1]) {
			t.Errorf("%s form found", name)
		}
	}
	if !bytes.Contains(disk, []byte(reeve.Redacted)) {
		t.Error("nothing was redacted: the test is blind")
	}
}

func TestLogLineShowsNoControlSequences(t *testing.T) {
	t.Parallel()
	if got := clean("a\x1b[31mred\x1b[0m\r\nb\x07\x00c\xff"); got != "ared bc\uFFFD" {
		t.Errorf("got %q", got)
	}
}

func BenchmarkShip(b *testing.B) {
	s, err := Open(Config{Path: filepath.Join(b.TempDir(), "logs.db"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	l := s.Begin(attempt("job_1"), 1<<30, redact.New(reeve.SecretString("correct horse")))
	began := time.Now()
	for b.Loop() {
		l.Write(Info, "create", "done", "the account was created")
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "lines/s")
}

// However long and however full of quotes, a line fits into a chunk that controllers
// take.
func TestLongestLineFitsIntoAChunk(t *testing.T) {
	t.Parallel()
	c := agenttest.NewController(t)
	b := newBench(t, c, filepath.Join(t.TempDir(), "logs.db"), 0)
	l := b.s.Begin(attempt("job_1"), 0, redact.New())
	for _, s := range []string{`"`, "<", "é", "\u2028", "\xff"} {
		long := strings.Repeat(s, 1<<20)
		l.Write(Info, long, long, long)
	}
	l.Close()
	c.Wait(t, "whole log", complete("job_1/1"))
	c.With(func(s *agenttest.State) {
		if got, _ := joined(t, s.Logs["job_1/1"]); len(got) != 5 {
			t.Errorf("%d lines", len(got))
		}
		for _, ch := range s.Logs["job_1/1"] {
			if len(ch.Data) > 64<<10 {
				t.Errorf("a chunk of %d bytes", len(ch.Data))
			}
		}
	})
}
