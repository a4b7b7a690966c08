package worker

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reeve-pam/reeve/agent/logship"
	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// silence is how long a controller may say nothing before its stream is given up: it
// sends a heartbeat every 10 s.
const silence = 35 * time.Second

// reporters is how many outcomes are reported at a time: each waits for a commit.
const reporters = 16

// Config is what a Worker needs. All but Crash, Uptime and Redactor are required.
type Config struct {
	Link        Link
	Host        Host
	Logs        *logship.Shipper
	Outbox      string // path of the outbox file
	Concurrency int    // jobs at a time
	Logger      *slog.Logger
	// Crash is for tests: asked at each point of a job's way, it makes the worker stop
	// there as if killed, with nothing further written or sent, when it returns true.
	// The points are before-journal, after-journal, before-plan, before-apply,
	// after-apply, before-verify, after-verify, before-outbox, after-outbox,
	// before-report, after-report and before-renew.
	Crash func(point string) bool
	// Uptime is the clock of leases, which goes on while the machine sleeps. Nil: the
	// machine's.
	Uptime func() time.Duration
	// Redactor makes what keeps a job's secrets out of its log. Nil: redact.New.
	Redactor func(secrets ...reeve.Secret) *redact.Redactor
}

// ErrCrashed is what Run returns after Config.Crash has returned true.
var ErrCrashed = errors.New("worker: crashed on request")

// Worker pulls and does jobs.
type Worker struct {
	cfg    Config
	log    *slog.Logger
	outbox *outbox

	crashed       atomic.Bool
	base          context.Context    // of jobs, which outlive the stream they came by; set by Run
	stop          context.CancelFunc // ends base; set by Run
	leasesChanged chan struct{}
	freed         chan struct{} // a job has ended: there may be credits to give
	reports       chan struct{} // the outbox may hold something

	mu      sync.Mutex
	jobs    map[string]*held // by job
	granted int              // credits the controller has not used, on the present stream
	running sync.WaitGroup
}

// New opens the outbox and turns what an earlier process left half done into outcomes
// to be reported. Code outbox_failed.
func New(cfg Config) (*Worker, error) {
	o, err := openOutbox(cfg.Outbox)
	if err != nil {
		return nil, err
	}
	if err := o.recover(time.Now()); err != nil {
		_ = o.db.Close()
		return nil, err
	}
	if cfg.Uptime == nil {
		cfg.Uptime = uptime
	}
	if cfg.Redactor == nil {
		cfg.Redactor = redact.New
	}
	return &Worker{cfg: cfg, log: cfg.Logger, outbox: o, jobs: map[string]*held{}, leasesChanged: make(chan struct{}, 1),
		freed: make(chan struct{}, 1), reports: make(chan struct{}, reporters)}, nil
}

// Close closes the outbox, after Run has returned.
func (w *Worker) Close() error { return w.outbox.db.Close() }

// Run works until ctx ends, then ends the jobs at hand, keeps their outcomes for the
// next start, and returns when everything it began has ended.
func (w *Worker) Run(ctx context.Context) error {
	ctx, w.stop = context.WithCancel(ctx)
	w.base = ctx
	defer w.stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.keepLeases(ctx) })
	g.Go(func() error { return w.pullForever(ctx) })
	for range reporters {
		g.Go(func() error { return w.reportForever(ctx) })
	}
	err := g.Wait()
	w.running.Wait()
	if w.crashed.Load() {
		return ErrCrashed
	}
	return err
}

// at is a point of a job's way, for tests that crash there. After a crash nothing
// further is written or sent.
func (w *Worker) at(point string) error {
	if w.crashed.Load() {
		return ErrCrashed
	}
	if w.cfg.Crash != nil && w.cfg.Crash(point) {
		w.crashed.Store(true)
		w.stop()
		return ErrCrashed
	}
	return nil
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// reportForever reports outcomes as they come, one at a time, beside others like it.
func (w *Worker) reportForever(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.reports:
		}
		if err := w.cfg.Link.Call(ctx, w.drain); err != nil && ctx.Err() == nil {
			w.log.Error("outcomes not reported", "error", err)
			w.again(ctx, w.reports)
		}
	}
}

// again notifies c a little later: what failed is tried once more.
func (w *Worker) again(ctx context.Context, c chan struct{}) {
	w.pause(ctx, 5*time.Second)
	if ctx.Err() == nil {
		notify(c)
	}
}

func (w *Worker) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// pullForever keeps a stream of jobs open.
func (w *Worker) pullForever(ctx context.Context) error {
	for ctx.Err() == nil {
		err := w.cfg.Link.Call(ctx, func(ctx context.Context, c agentv1.AgentServiceClient) error {
			if err := w.drain(ctx, c); err != nil { // first what is known, then more work
				return err
			}
			return w.pull(ctx, c)
		})
		if err != nil && ctx.Err() == nil {
			w.log.Error("no jobs can be pulled", "error", err)
			w.again(ctx, w.freed)
		}
	}
	return nil
}

// pull takes jobs from one stream until it breaks.
func (w *Worker) pull(ctx context.Context, c agentv1.AgentServiceClient) error {
	parent := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := c.PullJobs(ctx)
	if err != nil {
		return err
	}
	connectors, err := w.connectors()
	if err != nil {
		return err
	}
	if err := stream.Send(&agentv1.PullJobsRequest{Credits: w.firstCredits(), Connectors: connectors}); err != nil {
		_, err = stream.Recv() // has the reason
		return err
	}
	var sender sync.WaitGroup
	sender.Go(func() { w.giveCredits(ctx, stream) })
	defer sender.Wait()
	defer cancel(nil)

	watchdog := time.AfterFunc(silence, func() {
		cancel(reeve.Errorf(reeve.Unavailable, "controller_silent", "the controller has been silent for %s", silence))
	})
	defer watchdog.Stop()
	for {
		m, err := stream.Recv()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil && parent.Err() == nil {
				return cause
			}
			return err
		}
		watchdog.Reset(silence)
		switch m := m.Message.(type) {
		case *agentv1.PullJobsResponse_Job:
			w.accept(m.Job)
		case *agentv1.PullJobsResponse_Cancel:
			w.cancelled(m.Cancel)
		case *agentv1.PullJobsResponse_Heartbeat:
			w.cfg.Link.SetAddresses(m.Heartbeat.Addresses)
		}
	}
}

// connectors says what can be run here. Their versions are known to the controllers by
// digest; nothing is run to ask.
func (w *Worker) connectors() ([]*agentv1.ConnectorInfo, error) {
	installed, err := w.cfg.Host.List()
	if err != nil {
		return nil, err
	}
	out := make([]*agentv1.ConnectorInfo, len(installed))
	for i, c := range installed {
		out[i] = &agentv1.ConnectorInfo{Name: c.Name, Sha256: c.SHA256}
	}
	return out, nil
}

// giveCredits tells the controller when there is room for more jobs.
func (w *Worker) giveCredits(ctx context.Context, stream agentv1.AgentService_PullJobsClient) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.freed:
		}
		if n := w.moreCredits(); n > 0 && stream.Send(&agentv1.PullJobsRequest{Credits: n}) != nil {
			return // Recv tells why
		}
	}
}

// firstCredits is how many jobs there is room for at the beginning of a stream.
func (w *Worker) firstCredits() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.granted = max(w.cfg.Concurrency-len(w.jobs), 0)
	return uint32(w.granted) //nolint:gosec // small
}

// moreCredits is how much room there is beyond the credits given before.
func (w *Worker) moreCredits() uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := max(w.cfg.Concurrency-len(w.jobs)-w.granted, 0)
	w.granted += n
	return uint32(n) //nolint:gosec // small
}

// accept begins a job, unless this very delivery was seen before.
func (w *Worker) accept(j *agentv1.Job) {
	if run := w.take(j); run != nil {
		w.running.Go(run)
	}
}

// take notes a delivery and returns what does it, nil if it was seen before.
func (w *Worker) take(j *agentv1.Job) func() {
	seen, err := w.outbox.has(j.Id, j.Fence)
	if err != nil {
		w.log.Error("job not begun", "job", j.Id, "error", err)
		return nil // its lease runs out
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.granted = max(w.granted-1, 0)
	old := w.jobs[j.Id]
	if seen || old != nil && old.job.Fence >= j.Fence || w.crashed.Load() {
		notify(w.freed)
		return nil
	}
	if old != nil { // leased anew: the lease in hand is gone
		old.cancel(errLeaseLost)
	}
	ctx, h := w.hold(w.base, j)
	w.jobs[j.Id] = h
	notify(w.leasesChanged)
	return func() {
		defer w.release(h)
		if old != nil {
			<-old.done
		}
		w.work(ctx, h)
	}
}

func (w *Worker) release(h *held) {
	h.cancel(nil)
	w.mu.Lock()
	h.lease.timer.Stop()
	if w.jobs[h.job.Id] == h {
		delete(w.jobs, h.job.Id)
	}
	w.mu.Unlock()
	close(h.done)
	notify(w.freed)
}
