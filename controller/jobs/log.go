package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// chunk is a stored piece of a job's log. Offset counts the bytes of its attempt's log
// before it; a gap stands for bytes that the agent dropped.
type chunk struct {
	Job      reeve.JobID `cbor:"1,keyasint"`
	Attempt  uint32      `cbor:"2,keyasint"`
	Sequence uint64      `cbor:"3,keyasint"`
	Offset   uint64      `cbor:"4,keyasint,omitempty"`
	Data     []byte      `cbor:"5,keyasint,omitempty"`
	Gap      uint64      `cbor:"6,keyasint,omitempty"`
	At       time.Time   `cbor:"7,keyasint"`
}

// chunkOverhead is what a chunk costs the store beside its data, in bytes, roughly.
const chunkOverhead = 128

func (c *chunk) cost() int { return len(c.Data) + chunkOverhead }

func chunkKey(job reeve.JobID, attempt uint32, sequence uint64) string {
	return fmt.Sprintf("%s/%08x/%016x", job, attempt, sequence)
}

var chunks = store.NewTable("job_log_chunk",
	store.Key(func(c *chunk) string { return chunkKey(c.Job, c.Attempt, c.Sequence) }))

// logHead is how far the log of a job's latest attempt has come, and what is kept.
type logHead struct {
	Job      reeve.JobID `cbor:"1,keyasint"`
	Attempt  uint32      `cbor:"2,keyasint"`
	Sequence uint64      `cbor:"3,keyasint,omitempty"` // of the last chunk taken
	Offset   uint64      `cbor:"4,keyasint,omitempty"` // after it
	Last     bool        `cbor:"5,keyasint,omitempty"` // the attempt's log is complete
	// Kept is the cost of all stored chunks of the job. The first half of LogLimit is
	// never cut; Cut is the key after which chunks are taken away to keep within it.
	Kept int    `cbor:"6,keyasint,omitempty"`
	Cut  string `cbor:"7,keyasint,omitempty"`
	Full bool   `cbor:"8,keyasint,omitempty"` // the first half is complete
}

var logHeads = store.NewTable("job_log", store.Key(func(h *logHead) string { return string(h.Job) }))

// reception is what becomes of a chunk that arrives.
type reception uint8

const (
	received  reception = iota // the next one
	repeated                   // is stored already
	ahead                      // chunks before it are missing: send those first
	malformed                  // not a continuation of this log
)

// receive moves the head over a chunk of its attempt.
func (h *logHead) receive(c *agentv1.LogChunk) reception {
	switch n := uint64(len(c.GetData())); {
	case c.GetSequence() == 0, n > MaxChunk, n > 0 && c.GetGapBytes() > 0,
		n > 0 && c.GetData()[n-1] != '\n', // whole lines, so that no secret lies across two chunks
		n == 0 && c.GetGapBytes() == 0 && !c.GetLast():
		return malformed
	case c.GetSequence() <= h.Sequence:
		return repeated
	case h.Last:
		return malformed
	case c.GetSequence() > h.Sequence+1:
		return ahead
	case c.GetOffset() != h.Offset, h.Offset+n+c.GetGapBytes() < h.Offset:
		return malformed
	default:
		h.Sequence++
		h.Offset += n + c.GetGapBytes()
		h.Last = c.GetLast()
		return received
	}
}

// AppendLog stores log chunks of jobs the agent has or had, all in one transaction,
// and answers each: the sequence up to which its attempt's log is durable, or that the
// log is refused because its fence is stale. It returns when that is durable; sending
// a chunk again is harmless. Secrets of the job that the agent has left in the data are
// overwritten there first (J6).
func (b *Broker) AppendLog(ctx context.Context, agent reeve.AgentID, in ...*agentv1.LogChunk) ([]*agentv1.StreamLogsResponse, error) {
	if err := b.mask(ctx, agent, in); err != nil {
		return nil, err
	}
	var out []*agentv1.StreamLogsResponse
	err := b.store.Update(ctx, func(tx *store.Tx) error {
		out = make([]*agentv1.StreamLogsResponse, 0, len(in))
		heads := map[reeve.JobID]*logHead{}
		for _, c := range in {
			ack, err := appendChunk(tx, agent, c, heads)
			if err != nil {
				return err
			}
			out = append(out, ack)
		}
		for _, h := range heads {
			if err := logHeads.Put(tx, h); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// mask overwrites, in chunks of jobs that are the agent's, the secrets those jobs were
// given. The agent redacts before it sends; this is for an agent that does not.
func (b *Broker) mask(ctx context.Context, agent reeve.AgentID, in []*agentv1.LogChunk) error {
	redactors := map[reeve.JobID]*redact.Redactor{}
	defer func() {
		for _, r := range redactors {
			r.Wipe()
		}
	}()
	err := b.store.View(ctx, func(tx *store.Tx) error {
		for _, c := range in {
			id := reeve.JobID(c.GetJob())
			if redactors[id] != nil || len(c.GetData()) == 0 {
				continue
			}
			j, err := owned(tx, agent, id)
			if reeve.KindOf(err) == reeve.NotFound {
				continue // refused later
			}
			if err != nil {
				return err
			}
			if redactors[id], err = b.redactor(tx, j); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range in {
		if r := redactors[reeve.JobID(c.GetJob())]; r != nil && r.Mask(c.GetData()) {
			b.log.Warn("an agent sent a secret in a log; it was taken out", "agent", agent, "job", c.GetJob())
		}
	}
	return nil
}

// redactor knows the secrets of a job. One that is gone by now is nobody's any more.
func (b *Broker) redactor(tx *store.Tx, j *Job) (*redact.Redactor, error) {
	var secrets []reeve.Secret
	defer func() {
		for _, s := range secrets {
			s.Wipe()
		}
	}()
	for _, ref := range j.Secrets {
		_, s, err := b.vault.Open(tx, ref.Secret, ref.Version)
		if reeve.KindOf(err) == reeve.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, s)
	}
	return b.cfg.Redactor(secrets...), nil
}

func appendChunk(tx *store.Tx, agent reeve.AgentID, c *agentv1.LogChunk, heads map[reeve.JobID]*logHead) (*agentv1.StreamLogsResponse, error) {
	ack := &agentv1.StreamLogsResponse{Job: c.GetJob(), Attempt: c.GetAttempt()}
	id := reeve.JobID(c.GetJob())
	h, ok := heads[id]
	if !ok || h.Attempt != c.GetAttempt() {
		var err error
		if h, err = openLog(tx, agent, c); err != nil {
			return nil, err
		}
		if h == nil {
			ack.Refused = true
			return ack, nil
		}
	}
	start := h.Offset
	switch h.receive(c) {
	case malformed:
		ack.Refused = true
		return ack, nil
	case received:
		heads[id] = h
		if err := h.store(tx, &chunk{Job: id, Attempt: h.Attempt, Sequence: h.Sequence, Offset: start,
			Data: c.GetData(), Gap: c.GetGapBytes(), At: tx.Now()}); err != nil {
			return nil, err
		}
	case repeated, ahead:
	}
	ack.Sequence = h.Sequence
	return ack, nil
}

// openLog loads the head for a chunk of the latest delivery of a job; nil when the
// chunk's agent, attempt and fence are not those.
func openLog(tx *store.Tx, agent reeve.AgentID, c *agentv1.LogChunk) (*logHead, error) {
	j, err := owned(tx, agent, reeve.JobID(c.GetJob()))
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, nil //nolint:nilnil // refused
	}
	if err != nil {
		return nil, err
	}
	if l := j.Lease; l.Agent != agent || l.Fence != c.GetFence() || j.Attempt != c.GetAttempt() {
		return nil, nil //nolint:nilnil // refused
	}
	h, err := logHeads.Get(tx, string(j.ID))
	if reeve.KindOf(err) == reeve.NotFound {
		return &logHead{Job: j.ID, Attempt: j.Attempt, Cut: string(j.ID) + "/"}, nil
	}
	if err != nil {
		return nil, err
	}
	if h.Attempt != j.Attempt {
		h.Attempt, h.Sequence, h.Offset, h.Last = j.Attempt, 0, 0, false
	}
	return h, nil
}

// store adds a chunk and keeps the log within LogLimit: its first half stays, of the
// rest the newest.
func (h *logHead) store(tx *store.Tx, c *chunk) error {
	if err := chunks.Put(tx, c); err != nil {
		return err
	}
	h.Kept += c.cost()
	key := chunkKey(c.Job, c.Attempt, c.Sequence)
	if !h.Full && h.Kept <= LogLimit/2 {
		h.Cut = key
		return nil
	}
	h.Full = true
	for h.Kept > LogLimit {
		oldest, err := h.firstAfterCut(tx)
		if err != nil {
			return err
		}
		if err := chunks.Delete(tx, chunkKey(oldest.Job, oldest.Attempt, oldest.Sequence)); err != nil {
			return err
		}
		h.Kept -= oldest.cost()
		h.Cut = chunkKey(oldest.Job, oldest.Attempt, oldest.Sequence)
	}
	return nil
}

func (h *logHead) firstAfterCut(tx *store.Tx) (*chunk, error) {
	for c, err := range chunks.List(tx, h.Cut) {
		if err != nil {
			return nil, err
		}
		if c.Job == h.Job {
			return c, nil
		}
		break
	}
	return nil, reeve.Errorf(reeve.Internal, "job_log_corrupt", "the log of %s has no chunk after %s", h.Job, h.Cut)
}
