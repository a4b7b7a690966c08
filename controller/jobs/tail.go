package jobs

import (
	"context"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// LogPosition is a place in a job's log: just after a chunk. The zero LogPosition is
// the beginning.
type LogPosition struct {
	Attempt  uint32
	Sequence uint64
	Offset   uint64 // bytes of the attempt's log before this place
}

// String is the position for clients to give back, as ParseLogPosition reads it.
func (p LogPosition) String() string {
	return fmt.Sprintf("%d-%d-%d", p.Attempt, p.Sequence, p.Offset)
}

// ParseLogPosition reads what String wrote; "" is the beginning. Anything else is
// Invalid "log_position_invalid".
func ParseLogPosition(s string) (LogPosition, error) {
	if s == "" {
		return LogPosition{}, nil
	}
	parts := strings.Split(s, "-")
	invalid := reeve.Errorf(reeve.Invalid, "log_position_invalid", "this is not a place in a log").
		WithFix("give the id of the last event received, unchanged, or nothing")
	if len(parts) != 3 {
		return LogPosition{}, invalid
	}
	var n [3]uint64
	for i, bits := range []int{32, 64, 64} {
		v, err := strconv.ParseUint(parts[i], 10, bits)
		if err != nil || strconv.FormatUint(v, 10) != parts[i] {
			return LogPosition{}, invalid
		}
		n[i] = v
	}
	return LogPosition{Attempt: uint32(n[0]), Sequence: n[1], Offset: n[2]}, nil //nolint:gosec // parsed as 32 bits
}

// LogEvent is a piece of a job's log: data, or a gap of so many bytes that are not
// kept. Within an attempt the events are contiguous.
type LogEvent struct {
	Position LogPosition // after the event
	Data     []byte      // whole JSON lines
	Gap      uint64      // bytes; Data is empty
	At       time.Time   // when it became durable; zero for a gap the controller made
}

// logGrace is how long a reader waits for the end of the log of a job that has ended,
// whose agent may be gone.
const logGrace = 5 * time.Second

// tailBatch is how many chunks are read in one transaction.
const tailBatch = 32

// TailLog yields the log of a job from a position on, through all attempts, and
// follows it until the job has ended and its log is complete. It works on every node.
// It ends with an error when ctx ends or the job is unknown ("job_not_found").
func (b *Broker) TailLog(ctx context.Context, id reeve.JobID, from LogPosition) iter.Seq2[LogEvent, error] {
	return func(yield func(LogEvent, error) bool) {
		changed, stop := b.store.Watch("job", "job_log_chunk", "job_log")
		defer stop()
		for {
			events, ended, err := b.readLog(ctx, id, from)
			if err != nil {
				yield(LogEvent{}, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
				from = e.Position
			}
			if len(events) > 0 {
				continue
			}
			var late <-chan time.Time
			if !ended.IsZero() {
				wait := ended.Sub(b.store.Now())
				if wait <= 0 {
					return
				}
				late = time.After(wait)
			}
			select {
			case <-ctx.Done():
				yield(LogEvent{}, ctx.Err())
				return
			case <-changed:
			case <-late:
			}
		}
	}
}

// ReadLog yields what there is of a job's log after a position, and ends there.
func (b *Broker) ReadLog(ctx context.Context, id reeve.JobID, from LogPosition) iter.Seq2[LogEvent, error] {
	return func(yield func(LogEvent, error) bool) {
		for {
			events, _, err := b.readLog(ctx, id, from)
			if err != nil {
				yield(LogEvent{}, err)
				return
			}
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
				from = e.Position
			}
			if len(events) == 0 {
				return
			}
		}
	}
}

// readLog returns the next events after from, and when the log is over at the latest:
// zero while the job goes on.
func (b *Broker) readLog(ctx context.Context, id reeve.JobID, from LogPosition) (events []LogEvent, ended time.Time, err error) {
	err = b.store.View(ctx, func(tx *store.Tx) error {
		j, err := Get(tx, id)
		if err != nil {
			return err
		}
		if ended, err = logEnd(tx, j); err != nil {
			return err
		}
		after := string(id) + "/"
		if from != (LogPosition{}) {
			after = chunkKey(id, from.Attempt, from.Sequence)
		}
		at, read := from, 0
		for c, err := range chunks.List(tx, after) {
			if err != nil {
				return err
			}
			if c.Job != id || read == tailBatch {
				return nil
			}
			read++
			if c.Attempt != at.Attempt {
				at = LogPosition{Attempt: c.Attempt}
			}
			if c.Offset > at.Offset {
				gap := c.Offset - at.Offset
				at.Sequence, at.Offset = c.Sequence-1, c.Offset
				events = append(events, LogEvent{Position: at, Gap: gap})
			}
			at.Sequence, at.Offset = c.Sequence, c.Offset+uint64(len(c.Data))+c.Gap
			events = append(events, LogEvent{Position: at, Data: c.Data, Gap: c.Gap, At: c.At})
		}
		return nil
	})
	return events, ended, err
}

func logEnd(tx *store.Tx, j *Job) (time.Time, error) {
	if !j.State.Final() {
		return time.Time{}, nil
	}
	h, err := logHeads.Get(tx, string(j.ID))
	switch {
	case reeve.KindOf(err) == reeve.NotFound:
		if j.Attempt == 0 {
			return j.FinishedAt, nil
		}
		return j.FinishedAt.Add(logGrace), nil
	case err != nil:
		return time.Time{}, err
	case h.Last && h.Attempt == j.Attempt:
		return j.FinishedAt, nil
	default:
		return j.FinishedAt.Add(logGrace), nil
	}
}
