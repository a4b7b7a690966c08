package linearize

import (
	"context"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// A job is leased to one agent at a time, under a fence that grows; only the holder of
// the live fence ends it.

// terms are the broker's, short. A lease must outlast the time a frozen leader believes
// that it leads: it goes on renewing from memory, as a real one does for ten seconds of
// the sixty.
var terms = jobs.Terms{Lease: 2 * time.Second, KillGrace: 50 * time.Millisecond, DriftMargin: 50 * time.Millisecond, Work: 100 * time.Millisecond}

type jobOp struct {
	Do    string // lease, renew, done, retry (an outcome after which it is given again), read
	Fence uint64
	Call  int64 // of a lease
	Back  int64 // when the lease was seen
}

type jobAnswer struct {
	Fence uint64 // lease
	What  string // accepted, stale; held, lost; done, open
}

const reportsKept = 6

type jobState struct {
	Fence    uint64 // of the last lease
	Since    int64  // no earlier was it given
	Live     bool
	Done     bool
	Reported [reportsKept]uint64 // fences under which a report was accepted
}

func (s jobState) accepted(fence uint64) bool { return slices.Contains(s.Reported[:], fence) }

var jobModel = model(func(s jobState, in jobOp, out *jobAnswer) (bool, jobState) {
	switch in.Do {
	case "lease":
		// One holder at a time: the lease before must have been able to run out.
		ok := !s.Done && out.Fence > s.Fence && (!s.Live || in.Back-s.Since >= int64(terms.Lease))
		s.Fence, s.Since, s.Live = out.Fence, in.Call, true
		return ok, s
	case "renew":
		return out == nil || out.What == "lost" || s.Live && s.Fence == in.Fence, s
	case "read":
		return out == nil || (out.What == "done") == s.Done, s
	}
	live := s.Live && s.Fence == in.Fence
	if out != nil && out.What == "stale" {
		// It ran out, perhaps unseen by the model; from now on it is dead.
		ok := !s.accepted(in.Fence)
		if live {
			s.Live = false
		}
		return ok, s
	}
	if s.accepted(in.Fence) {
		return true, s // a report that is repeated is acknowledged and has no effect
	}
	if live {
		s.Live, s.Done = false, in.Do == "done"
		copy(s.Reported[1:], s.Reported[:])
		s.Reported[0] = in.Fence
	}
	return out == nil || live, s
})

const jobSite = reeve.SiteID("site_linearize")

func newJob(ctx context.Context, n *parts) (id reeve.JobID, err error) {
	err = n.store.Update(ctx, func(tx *store.Tx) error {
		j, err := jobs.Enqueue(tx, audit.System("linearize"), jobs.Spec{SiteID: jobSite, Connector: "ssh", Class: jobs.ClassApproved,
			AccountID: reeve.NewAccountID(), Mutates: true, Work: &agentv1.Work{Operation: "verify"}, Handler: "linearize"})
		if err == nil {
			id = j.ID
		}
		return err
	})
	return id, err
}

// holding is a job an agent was given.
type holding struct {
	job   reeve.JobID
	fence uint64
	seen  time.Time
}

func jobKey(id reeve.JobID) string { return "job/" + string(id) }

// job lets the client be an agent: it takes what there is, and renews, ends or forgets
// what it has. What it forgets it ends later, when somebody else has it.
func (c *client) job(ctx context.Context) {
	_, _ = once(ctx, c, c.key("job", 6), newJob)
	switch {
	case len(c.holdings) < 4:
		c.take(ctx)
	case c.rand.IntN(5) == 0:
		c.readJob(ctx)
	default:
		c.workOn(ctx)
	}
}

func (c *client) take(ctx context.Context) {
	n := c.pick()
	call := c.history.now()
	p, err := n.broker.Attach(jobs.Puller{ID: c.agent, SiteID: jobSite, Connectors: []string{"ssh"}})
	if err != nil {
		if len(c.holdings) > 0 {
			c.workOn(ctx)
		}
		return
	}
	defer p.Close()
	p.AddCredits(1)
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	m, err := p.Next(ctx)
	if err != nil || m.GetJob() == nil {
		if len(c.holdings) > 0 {
			c.workOn(context.WithoutCancel(ctx))
		}
		return
	}
	id, fence := reeve.JobID(m.GetJob().GetId()), m.GetJob().GetFence()
	c.note(jobKey(id), jobModel, call, jobOp{Do: "lease", Call: call, Back: c.history.now()}, jobAnswer{Fence: fence}, answered)
	c.holdings = append(c.holdings, holding{id, fence, time.Now()})
	c.shared.Store(fenceOf(id), fence)
}

// fenceOf is the key under which clients share the newest fence of a job.
func fenceOf(id reeve.JobID) string { return "fence/" + string(id) }

func (c *client) workOn(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	i := c.rand.IntN(len(c.holdings))
	h := c.holdings[i]
	n := c.pick()
	call := c.history.now()
	zombie := h.fence%3 == 0 // forgotten, and ended when somebody else has the job
	newest, _ := c.shared.Load(fenceOf(h.job))
	switch {
	case zombie && newest == h.fence && time.Since(h.seen) < 2*terms.Lease:
		time.Sleep(time.Millisecond)
		return
	case !zombie && c.rand.IntN(3) == 0:
		states, err := n.broker.RenewLeases(c.agent, []*agentv1.LeaseRef{{Job: string(h.job), Fence: h.fence}})
		what := ""
		if err == nil {
			what = states[0].GetState()
		}
		c.note(jobKey(h.job), jobModel, call, jobOp{Do: "renew", Fence: h.fence}, jobAnswer{What: what}, readVerdict(err))
		return
	}
	in := jobOp{Do: "retry", Fence: h.fence}
	res := &agentv1.Result{Outcome: string(reeve.NotDone), Class: string(reeve.ClassBusy), Message: "busy"}
	if zombie || c.rand.IntN(2) == 0 {
		in.Do, res = "done", &agentv1.Result{Outcome: string(reeve.Done)}
	}
	stale, err := n.broker.Report(ctx, c.agent, h.job, h.fence, res)
	out := jobAnswer{What: "accepted"}
	if stale {
		out.What = "stale"
	}
	v := verdictOf(err)
	c.note(jobKey(h.job), jobModel, call, in, out, v)
	if v == answered {
		c.holdings = slices.Delete(c.holdings, i, i+1)
		c.finished = append(c.finished, h.job)
	}
}

func (c *client) readJob(ctx context.Context) {
	if len(c.finished) == 0 {
		return
	}
	id := c.finished[c.rand.IntN(len(c.finished))]
	n := c.pick()
	call := c.history.now()
	what, err := jobDone(ctx, n, id)
	c.note(jobKey(id), jobModel, call, jobOp{Do: "read"}, jobAnswer{What: what}, readVerdict(err))
}

func jobDone(ctx context.Context, n *parts, id reeve.JobID) (what string, err error) {
	what = "open"
	err = n.view(ctx, func(tx *store.Tx) error {
		j, err := jobs.Get(tx, id)
		if err == nil && j.State == jobs.StateDone {
			what = "done"
		}
		return err
	})
	return what, err
}
