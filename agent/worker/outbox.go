package worker

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

var (
	bucketBegun    = []byte("begun")    // jobs that were begun: a ReportOutcomeRequest with the answer if nothing follows
	bucketOutcomes = []byte("outcomes") // ReportOutcomeRequests to be reported
)

const (
	openTimeout   = 5 * time.Second  // waiting for another process to let go of the outbox
	reportTimeout = 20 * time.Second // of one report
)

// outbox keeps what has to be reported, on the disk before anybody is told.
type outbox struct {
	db *bolt.DB

	mu      sync.Mutex
	waiting []*write // for the transaction after the one at work
	writing bool
	claimed map[string]bool // outcomes being reported, by key
}

// write is a change that waits for the disk.
type write struct {
	do   func(*bolt.Tx) error
	done chan error
}

// update makes a change durable. Changes that come while another is being written share
// the next transaction, and its fate.
func (o *outbox) update(do func(*bolt.Tx) error) error {
	mine := &write{do: do, done: make(chan error, 1)}
	o.mu.Lock()
	o.waiting = append(o.waiting, mine)
	if o.writing {
		o.mu.Unlock()
		return <-mine.done
	}
	o.writing = true
	for len(o.waiting) > 0 {
		batch := o.waiting
		o.waiting = nil
		o.mu.Unlock()
		err := o.db.Update(func(tx *bolt.Tx) error {
			for _, w := range batch {
				if err := w.do(tx); err != nil {
					return err
				}
			}
			return nil
		})
		for _, w := range batch {
			w.done <- err
		}
		o.mu.Lock()
	}
	o.writing = false
	o.mu.Unlock()
	return <-mine.done
}

func openOutbox(path string) (*outbox, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: openTimeout, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error {
			if _, err := tx.CreateBucketIfNotExists(bucketBegun); err != nil {
				return err
			}
			_, err := tx.CreateBucketIfNotExists(bucketOutcomes)
			return err
		})
	}
	if err != nil {
		return nil, outboxFailed(err)
	}
	return &outbox{db: db, claimed: map[string]bool{}}, nil
}

func outboxFailed(err error) *reeve.Error {
	return reeve.Errorf(reeve.Internal, "outbox_failed", "the agent's outbox cannot be written").
		WithFix("check free space and permissions of the data directory, and that no other agent runs on it").Wrap(err)
}

// outcomeKey orders by job, and within a job by fence.
func outcomeKey(job string, fence uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(job+"/"), fence)
}

// begin notes that a job is begun, with what is to be reported if the agent dies now.
func (o *outbox) begin(j *agentv1.Job, ifLost *agentv1.Result) error {
	return o.put(bucketBegun, &agentv1.ReportOutcomeRequest{Job: j.Id, Fence: j.Fence, Attempt: j.Attempt, Result: ifLost}, nil)
}

// finish replaces the note of begin by the outcome.
func (o *outbox) finish(r *agentv1.ReportOutcomeRequest) error {
	return o.put(bucketOutcomes, r, bucketBegun)
}

func (o *outbox) put(bucket []byte, r *agentv1.ReportOutcomeRequest, instead []byte) error {
	raw, err := proto.Marshal(r)
	if err != nil {
		return outboxFailed(err)
	}
	key := outcomeKey(r.Job, r.Fence)
	err = o.update(func(tx *bolt.Tx) error {
		if instead != nil {
			if err := tx.Bucket(instead).Delete(key); err != nil {
				return err
			}
		}
		return tx.Bucket(bucket).Put(key, raw)
	})
	if err != nil {
		return outboxFailed(err)
	}
	return nil
}

// recover turns jobs that an earlier process began and did not finish into outcomes.
func (o *outbox) recover(now time.Time) error {
	err := o.db.Update(func(tx *bolt.Tx) error {
		begun, outcomes := tx.Bucket(bucketBegun), tx.Bucket(bucketOutcomes)
		c := begun.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			var r agentv1.ReportOutcomeRequest
			if err := proto.Unmarshal(v, &r); err != nil {
				return err
			}
			r.Result.FinishedAt = timestamppb.New(now)
			raw, err := proto.Marshal(&r)
			if err != nil {
				return err
			}
			if err := outcomes.Put(k, raw); err != nil {
				return err
			}
		}
		if err := tx.DeleteBucket(bucketBegun); err != nil {
			return err
		}
		_, err := tx.CreateBucket(bucketBegun)
		return err
	})
	if err != nil {
		return outboxFailed(err)
	}
	return nil
}

// has reports whether the delivery was begun or finished here before.
func (o *outbox) has(job string, fence uint64) (bool, error) {
	var found bool
	err := o.db.View(func(tx *bolt.Tx) error {
		k := outcomeKey(job, fence)
		found = tx.Bucket(bucketBegun).Get(k) != nil || tx.Bucket(bucketOutcomes).Get(k) != nil
		return nil
	})
	return found, err
}

// claim returns an outcome to be reported that nobody is reporting, nil when there is
// none. It is the caller's until settled.
func (o *outbox) claim() (*agentv1.ReportOutcomeRequest, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var r *agentv1.ReportOutcomeRequest
	err := o.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket(bucketOutcomes).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if !o.claimed[string(k)] {
				r = &agentv1.ReportOutcomeRequest{}
				o.claimed[string(k)] = true
				return proto.Unmarshal(v, r)
			}
		}
		return nil
	})
	if err != nil {
		return nil, outboxFailed(err)
	}
	return r, nil
}

// settle ends a claim; an outcome that was taken, or refused for good, is removed.
func (o *outbox) settle(r *agentv1.ReportOutcomeRequest, remove bool) (err error) {
	key := outcomeKey(r.Job, r.Fence)
	if remove {
		if err = o.update(func(tx *bolt.Tx) error { return tx.Bucket(bucketOutcomes).Delete(key) }); err != nil {
			err = outboxFailed(err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.claimed, string(key))
	return err
}

// drain reports what the outbox holds and nobody else is reporting. An outcome leaves
// the outbox when the controller has it, has declared it stale, or has refused it for
// good.
func (w *Worker) drain(ctx context.Context, c agentv1.AgentServiceClient) error {
	for {
		r, err := w.outbox.claim()
		if err != nil || r == nil {
			return err
		}
		err = w.report(ctx, c, r)
		if unsettled := w.outbox.settle(r, err == nil); err == nil {
			err = unsettled
		}
		if err != nil {
			return err
		}
	}
}

func (w *Worker) report(ctx context.Context, c agentv1.AgentServiceClient, r *agentv1.ReportOutcomeRequest) error {
	if err := w.at("before-report"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	res, err := c.ReportOutcome(ctx, r)
	switch code := status.Code(err); {
	case code == codes.InvalidArgument, code == codes.NotFound, code == codes.OutOfRange:
		w.log.Error("controller refuses an outcome", "job", r.Job, "fence", r.Fence, "outcome", r.Result.GetOutcome(), "error", err)
	case err != nil:
		return err
	case res.Stale:
		w.log.Warn("outcome is stale", "job", r.Job, "fence", r.Fence, "outcome", r.Result.GetOutcome())
	}
	return w.at("after-report")
}
