package pluginhost

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// What becomes of a process's output. Sizes are in bytes.
const (
	settle     = 100 * time.Millisecond // output that comes this close together is redacted as one text
	linger     = 2 * time.Second        // for how long a released guard still redacts: output is slower than answers
	maxPending = 64 << 10               // of output that waits for the end of its line
	maxLine    = 8 << 10                // of a line that is logged whole
	maxOutput  = 256 << 10              // of output logged in one window
	window     = time.Minute
)

// output puts what a process prints into the agent's log, line by line, without the
// secrets of any job that is or was just in the process.
type output struct {
	log *slog.Logger

	mu      sync.Mutex
	guards  map[Guard]*time.Timer // what wipes it soon; nil while its job is in the process
	pending []byte
	timer   *time.Timer // runs while something is pending
	left    int         // bytes that may still be logged in this window
	fresh   time.Time   // when the next window begins
	closed  bool
}

func newOutput(log *slog.Logger) *output { return &output{log: log, guards: map[Guard]*time.Timer{}} }

// protect redacts with a guard from now on.
func (o *output) protect(g Guard) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.guards[g] = nil
}

// forget gives a guard up, a moment from now.
func (o *output) forget(g Guard) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		o.drop(g)
		return
	}
	o.guards[g] = time.AfterFunc(linger, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if _, ok := o.guards[g]; ok {
			o.flush(true)
			o.drop(g)
		}
	})
}

func (o *output) drop(g Guard) {
	delete(o.guards, g)
	g.Wipe()
}

// Write implements io.Writer and never fails: a connector is not to be stopped by what
// becomes of its output.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return len(p), nil
	}
	now := time.Now()
	if now.After(o.fresh) {
		o.left, o.fresh = maxOutput, now.Add(window)
	}
	if o.left == 0 {
		return len(p), nil
	}
	q := p[:min(len(p), o.left)]
	o.left -= len(q)
	o.pending = append(o.pending, q...)
	if len(o.pending) >= maxPending || o.left == 0 {
		o.flush(o.left == 0)
	}
	if o.left == 0 {
		o.log.Warn("connector output left out", "beyond", maxOutput, "until", o.fresh)
	}
	if len(o.pending) > 0 && o.timer == nil {
		o.timer = time.AfterFunc(settle, func() {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.timer = nil
			o.flush(true)
		})
	}
	return len(p), nil
}

// flush logs what is pending: all, or up to the last end of a line, if there is one.
// o.mu is held.
func (o *output) flush(all bool) {
	n := len(o.pending)
	if i := bytes.LastIndexByte(o.pending, '\n'); !all && i >= 0 {
		n = i + 1
	}
	if n == 0 {
		return
	}
	text := string(o.pending[:n])
	o.pending = slices.Delete(o.pending, 0, n)
	for g := range o.guards {
		text = g.Redact(text)
	}
	for line := range strings.Lines(text) {
		for line = strings.TrimSpace(line); line != ""; line = line[min(len(line), maxLine):] {
			o.log.Info("connector output", "line", line[:min(len(line), maxLine)])
		}
	}
}

// close logs the rest and wipes every guard. The process has ended.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.timer != nil {
		o.timer.Stop()
	}
	o.flush(true)
	o.closed = true
	for g, soon := range o.guards {
		if soon != nil { // else its job still has the share, and gives it back
			soon.Stop()
			o.drop(g)
		}
	}
}
