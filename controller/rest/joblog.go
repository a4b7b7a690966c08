package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// heartbeat is how often a live log that has nothing to say shows that it is alive, so
// that a reader who is gone without a word is noticed.
const heartbeat = 15 * time.Second

// GetJobLog implements the contract.
func (s *Server) GetJobLog(ctx context.Context, r GetJobLogRequestObject) (GetJobLogResponseObject, error) {
	from, err := jobs.ParseLogPosition(value(r.Params.LastEventID))
	if err != nil {
		return nil, err
	}
	if _, err := s.job(ctx, r.Job); err != nil {
		return nil, err
	}
	return jobLog{ctx: ginContext(ctx).Request.Context(), s: s, show: func() (client.Job, error) { return s.job(ctx, r.Job) },
		job: reeve.JobID(r.Job), from: from, follow: r.Params.Follow == nil || *r.Params.Follow}, nil
}

// jobLog streams the log of one job as server-sent events.
type jobLog struct {
	ctx    context.Context
	s      *Server
	show   func() (client.Job, error)
	job    reeve.JobID
	from   jobs.LogPosition
	follow bool
}

// VisitGetJobLogResponse implements GetJobLogResponseObject.
func (l jobLog) VisitGetJobLogResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	_ = out.Flush()
	whole, err := l.stream(w, out)
	if err != nil {
		return nil //nolint:nilerr // the reader has gone
	}
	if !whole || !l.follow {
		return nil // a reader that sees no end event comes back
	}
	j, err := l.show()
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	body, err := json.Marshal(j)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(w, "event: end\ndata: %s\n\n", body)
	return nil
}

// stream writes the events as they come, with heartbeats between them. whole says that
// the log is over; the error is that of writing.
func (l jobLog) stream(w http.ResponseWriter, out *http.ResponseController) (whole bool, err error) {
	type piece struct {
		event jobs.LogEvent
		err   error
	}
	ctx, stop := context.WithCancel(l.ctx)
	pieces := make(chan piece)
	go func() {
		defer close(pieces)
		for e, err := range l.events(ctx) {
			select {
			case pieces <- piece{e, err}:
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { // joined before the handler returns
		stop()
		for range pieces { //nolint:revive // until it is closed
		}
	}()
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		text := []byte(":\n\n")
		select {
		case p, more := <-pieces:
			switch {
			case !more:
				return l.ctx.Err() == nil, nil
			case p.err != nil:
				if !errors.Is(p.err, context.Canceled) {
					l.s.log.WarnContext(l.ctx, "live log broke off", "job", l.job, "error", p.err)
				}
				return false, nil
			}
			text = renderEvent(p.event, l.from)
		case <-beat.C:
		}
		if l.ctx.Err() != nil {
			return false, nil
		}
		if _, err := w.Write(text); err != nil {
			return false, err
		}
		if err := out.Flush(); err != nil {
			return false, err
		}
	}
}

func (l jobLog) events(ctx context.Context) iter.Seq2[jobs.LogEvent, error] {
	if l.follow {
		return l.s.Broker.TailLog(ctx, l.job, l.from)
	}
	return l.s.Broker.ReadLog(ctx, l.job, l.from)
}

// renderEvent writes one event per log line. Each carries the place after it, also in
// the middle of a chunk: a reader that was cut off there gets the chunk again, without
// the lines up to from.
func renderEvent(e jobs.LogEvent, from jobs.LogPosition) []byte {
	var b bytes.Buffer
	if e.Gap > 0 {
		fmt.Fprintf(&b, "event: gap\nid: %s\ndata: %d\n\n", e.Position, e.Gap)
		return b.Bytes()
	}
	at := jobs.LogPosition{Attempt: e.Position.Attempt, Sequence: e.Position.Sequence - 1, Offset: e.Position.Offset - uint64(len(e.Data))}
	for line := range bytes.Lines(e.Data) {
		at.Offset += uint64(len(line))
		if at.Offset == e.Position.Offset {
			at = e.Position
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 || (at.Attempt == from.Attempt && at.Offset <= from.Offset) {
			continue
		}
		// A carriage return ends a line for readers of events too: an agent must not be
		// able to make events of its own.
		line = bytes.ReplaceAll(line, []byte("\r"), []byte(`\r`))
		fmt.Fprintf(&b, "event: log\nid: %s\ndata: %s\n\n", at, line)
	}
	return b.Bytes()
}
