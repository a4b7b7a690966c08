package worker

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reeve-pam/reeve/agent/logship"
	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

const (
	defaultTimeout = 5 * time.Minute // of a job that names none
	maxResult      = 900 << 10       // bytes of a result; controllers take 1 MiB
	defaultBudget  = 2               // failed logins per job: below any lockout threshold (security.md §3)
)

// opened is a secret of the job in the clear.
type opened struct {
	sealed *agentv1.SealedSecret
	value  reeve.Secret
}

// run is a job being carried out.
type run struct {
	w       *Worker
	held    *held
	job     *agentv1.Job
	work    *agentv1.Work
	proc    Process
	log     *logship.Log
	redact  *redact.Redactor
	secrets []opened
	target  sdk.Target

	logins  []*agentv1.LoginAttempt
	planned []*agentv1.PlannedAction // kept before the target was touched

	verdict  sdk.Verdict // of the last login
	failed   int         // logins that failed
	impostor error       // the target showed another host key than the trusted one
	touched  bool        // the connector was told to change the target
}

// work carries out one job and reports it.
func (w *Worker) work(ctx context.Context, h *held) {
	j := h.job
	log := w.log.With("job", j.Id, "operation", j.Work.GetOperation(), "attempt", j.Attempt, "fence", j.Fence)
	started := time.Now()
	res, err := w.carryOut(ctx, h)
	if err != nil {
		log.Error("job abandoned", "error", err)
		return // crashed, or the disk failed: the note in the outbox, or the lease, tells
	}
	res.StartedAt, res.FinishedAt = timestamppb.New(started), timestamppb.New(time.Now())
	if err := w.keep(j, res); err != nil {
		log.Error("outcome not kept", "error", err)
		return
	}
	log.Info("job ended", "outcome", res.Outcome, "class", res.Class, "took", time.Since(started))
	notify(w.reports)
}

func (w *Worker) keep(j *agentv1.Job, res *agentv1.Result) error {
	if err := w.at("before-outbox"); err != nil {
		return err
	}
	if proto.Size(res) > maxResult {
		shrink(j, res)
	}
	if err := w.outbox.finish(&agentv1.ReportOutcomeRequest{Job: j.Id, Fence: j.Fence, Attempt: j.Attempt, Result: res}); err != nil {
		return err
	}
	return w.at("after-outbox")
}

// carryOut does the job. An error means that nothing can be said or written any more.
func (w *Worker) carryOut(ctx context.Context, h *held) (res *agentv1.Result, err error) {
	j := h.job
	timeout := j.Timeout.AsDuration()
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errOverrun)
	defer cancel()
	if err := w.at("before-journal"); err != nil {
		return nil, err
	}
	if err := w.outbox.begin(j, ifLost(j)); err != nil {
		return nil, err
	}
	if err := w.at("after-journal"); err != nil {
		return nil, err
	}

	r := &run{w: w, held: h, job: j, work: j.Work, redact: redact.New()} // no secrets yet
	defer r.wipe()                                                       // after everything that redacts
	if r.proc, err = w.acquire(ctx, r); err != nil {
		return r.failure(err), nil
	}
	defer func() { r.proc.Release() }()
	if err := r.open(w); err != nil {
		return r.failure(err), nil
	}
	r.log = w.cfg.Logs.Begin(logship.Attempt{Job: reeve.JobID(j.Id), Attempt: j.Attempt, Fence: j.Fence}, j.LogLimit, r.redact)
	defer r.log.Close()
	r.log.Write(logship.Info, "", "started", fmt.Sprintf("%s on %s, attempt %d", r.work.GetOperation(), r.target.Address, j.Attempt))
	if res, err = r.procedure(ctx); err != nil {
		return nil, err
	}
	if len(r.logins) > 0 {
		res.Observation = &agentv1.Observation{Logins: r.logins}
	}
	res.Plans = append(res.Plans, r.planned...)
	r.clean(res)
	level := logship.Info
	if res.Outcome != string(reeve.Done) {
		level = logship.Error
	}
	r.log.Write(level, "", res.Outcome, closing(res))
	return res, nil
}

func closing(res *agentv1.Result) string {
	if res.Outcome == string(reeve.Done) {
		return "done"
	}
	s := res.Class + ": " + res.Message
	if res.Fix != "" {
		s += " (" + res.Fix + ")"
	}
	return s
}

// ifLost is what is reported when the agent dies over the job.
func ifLost(j *agentv1.Job) *agentv1.Result {
	res := &agentv1.Result{StartedAt: timestamppb.Now(), Message: "the agent stopped while it worked on this job"}
	if changes(j.Work.GetOperation()) {
		res.Outcome, res.Class = string(reeve.OutcomeUncertain), string(reeve.ClassUnknownOutcome)
	} else {
		res.Outcome, res.Class = string(reeve.NotDone), string(reeve.ClassInternal)
	}
	return res
}

// open opens the job's secrets and completes the target with the management account.
func (r *run) open(w *Worker) error {
	id := w.cfg.Link.Identity()
	b := envelope.Binding{Cluster: id.Cluster, Site: id.Site, Agent: id.Agent, Job: reeve.JobID(r.job.Id),
		Fence: r.job.Fence, Connector: r.job.Connector}
	for _, s := range r.job.Secrets {
		v, err := w.cfg.Link.OpenSecret(b, envelope.Ref{Slot: s.Slot, Secret: reeve.SecretID(s.Secret), Version: s.Version}, s.Enc, s.Ciphertext)
		if err != nil {
			return sdk.Errorf(sdk.ClassInternal, "the secret in slot %s does not open with this agent's key", s.Slot).
				WithFix("the job is tried again; if this stays so, enrol the agent anew").Wrap(err)
		}
		r.secrets = append(r.secrets, opened{sealed: s, value: v})
	}
	values := make([]reeve.Secret, len(r.secrets))
	for i, s := range r.secrets {
		values[i] = s.value
	}
	r.redact = w.cfg.Redactor(values...)
	r.proc.Protect(r.guard())
	r.target = sdk.TargetFromProto(r.work.GetTarget())
	if m := r.slot("management"); m != nil {
		r.target.Management = m.credential(r.target.Management.Username)
	}
	return nil
}

// acquire gets a process of the job's connector.
func (w *Worker) acquire(ctx context.Context, r *run) (Process, error) {
	return w.cfg.Host.Acquire(ctx, r.job.Connector, r.job.ConnectorSha256)
}

// guard keeps the job's secrets out of what a process prints. It is the process's: it
// outlives the job a little.
func (r *run) guard() pluginhost.Guard { return r.redact.Share() }

// call calls the connector, in a new process if the one before has ended.
func (r *run) call(ctx context.Context, fn func(context.Context, Connector) error) error {
	if r.proc.Exited() {
		p, err := r.w.acquire(ctx, r)
		if err != nil {
			return err
		}
		r.proc.Release()
		r.proc = p
		p.Protect(r.guard())
	}
	return r.proc.Call(ctx, fn)
}

// wipe overwrites the secrets; the process no longer holds them, as far as Go allows.
func (r *run) wipe() {
	for _, s := range r.secrets {
		s.value.Wipe()
	}
	r.redact.Wipe()
}

// slot is the secret for a use, nil if the job has none.
func (r *run) slot(name string) *opened {
	for i := range r.secrets {
		if r.secrets[i].sealed.Slot == name {
			return &r.secrets[i]
		}
	}
	return nil
}

// fresh reports whether the secret in the slot cannot be live on the target: until now
// it never left the controllers. A login with it would only count against the account.
func (r *run) fresh(name string) bool {
	o := r.slot(name)
	return o != nil && o.sealed.GetFresh()
}

func (o *opened) credential(username string) sdk.Credential {
	c := sdk.Credential{Username: username}
	if o.sealed.Kind == "ssh_key" {
		c.PrivateKey = o.value
	} else {
		c.Password = o.value
	}
	return c
}
