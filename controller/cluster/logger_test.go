package cluster

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestRaftLogsThroughSlog(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := newHCLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))).Named("transport")
	log.Debug("hidden")
	log.With("id", "x").Info("hello", "servers", hclog.Fmt("%d of %d", 1, 3))
	for range 3 {
		log.Error("failed to heartbeat to", "peer", "a", "error", errors.New("gone"))
	}
	log.Error("failed to heartbeat to", "peer", "b", "error", errors.New("gone"))
	want := `level=INFO msg=hello logger=raft.transport id=x servers="1 of 3"
level=ERROR msg="failed to heartbeat to" logger=raft.transport peer=a error=gone
level=ERROR msg="failed to heartbeat to" logger=raft.transport peer=b error=gone
`
	if out.String() != want {
		t.Fatalf("got:\n%swant:\n%s", out.String(), want)
	}
}

func TestRepeatsAreSaidOnceAMinuteAndBounded(t *testing.T) {
	t.Parallel()
	var r repeats
	now := time.Unix(0, 0)
	if !r.first("a", now) || r.first("a", now.Add(59*time.Second)) || !r.first("a", now.Add(time.Minute)) {
		t.Fatal("not once a minute")
	}
	for i := range 3 * maxRepeats {
		r.first(strings.Repeat("x", i), now)
	}
	if len(r.last) > maxRepeats {
		t.Fatalf("%d remembered", len(r.last))
	}
}
