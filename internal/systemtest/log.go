package systemtest

import (
	"bytes"
	"log/slog"
	"sync"
)

// Log is everything a cluster and its agents logged, at every level. It may be used from
// any goroutine.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// Bytes is a copy of all that was logged so far.
func (l *Log) Bytes() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.buf.Bytes())
}

func (l *Log) logger(attrs ...any) *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug})).With(attrs...)
}

// tail is the end of what was logged, without the chatter.
func (l *Log) tail(lines int) []byte {
	var kept [][]byte
	for _, line := range bytes.Split(bytes.TrimSpace(l.Bytes()), []byte("\n")) {
		if !bytes.Contains(line, []byte("level=DEBUG")) {
			kept = append(kept, line)
		}
	}
	return bytes.Join(kept[max(0, len(kept)-lines):], []byte("\n"))
}
