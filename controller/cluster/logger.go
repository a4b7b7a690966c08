package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// newHCLog returns what hashicorp's libraries log to, as a front of log.
func newHCLog(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(&slogSink{log: log})
	return l
}

// slogSink implements hclog.SinkAdapter. raft complains about an absent peer several
// times a second, for as long as it is absent: of equal complaints about the same thing
// one a minute is passed on.
type slogSink struct {
	log      *slog.Logger
	repeated repeats
}

// Accept implements hclog.SinkAdapter.
func (s *slogSink) Accept(name string, level hclog.Level, msg string, args ...any) {
	l := slogLevel(level)
	if slices.ContainsFunc(args, closedHere) {
		l = slog.LevelDebug
	}
	if !s.log.Enabled(context.Background(), l) {
		return
	}
	args = slices.Clone(args)
	for i, a := range args {
		switch v := a.(type) {
		case hclog.Format:
			args[i] = fmt.Sprintf(v[0].(string), v[1:]...)
		case slog.LogValuer, error, string:
		case fmt.Stringer:
			args[i] = v.String()
		}
	}
	if level >= hclog.Warn && !s.repeated.first(fmt.Sprint(msg, args[:min(2, len(args))]), time.Now()) {
		return
	}
	r := slog.NewRecord(time.Now(), l, msg, 0)
	r.Add("logger", name)
	r.Add(args...)
	_ = s.log.Handler().Handle(context.Background(), r) // as slog itself does
}

// closedHere reports whether arg is the error of using what this very node has closed:
// that is how connections end when it stops, and nothing to complain about.
func closedHere(arg any) bool {
	err, ok := arg.(error)
	return ok && errors.Is(err, net.ErrClosed)
}

func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Trace, hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	default:
		return slog.LevelInfo
	}
}

// repeats tells what was not said within the last minute.
type repeats struct {
	mu   sync.Mutex
	last map[string]time.Time
}

const (
	repeatAfter = time.Minute
	maxRepeats  = 1000 // things remembered; then it starts afresh
)

func (r *repeats) first(what string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if last, said := r.last[what]; said && now.Sub(last) < repeatAfter {
		return false
	}
	if r.last == nil || len(r.last) >= maxRepeats {
		r.last = map[string]time.Time{}
	}
	r.last[what] = now
	return true
}
