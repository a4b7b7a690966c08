package lifecycle

import (
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// report is what became of a job, read once.
type report struct {
	job     *jobs.Job
	res     *agentv1.Result
	ending  ending
	failure *inventory.Failure // nil when done
	logins  *agentv1.Observation
	sight   sight
}

func newReport(j *jobs.Job, res *agentv1.Result, now time.Time) *report {
	r := &report{job: j, res: res, ending: endingOf(j), logins: trusted(j, res.GetObservation())}
	r.sight = see(r.logins)
	if r.ending != done {
		r.failure = &inventory.Failure{Class: reeve.Class(res.GetClass()), Message: res.GetMessage(), Fix: res.GetFix(), At: now}
	}
	return r
}

// trusted drops the logins of an observation that are not with a secret the job was
// given in that slot: an agent proves nothing about any other.
func trusted(j *jobs.Job, o *agentv1.Observation) *agentv1.Observation {
	out := &agentv1.Observation{}
	for _, l := range o.GetLogins() {
		given := slices.ContainsFunc(j.Secrets, func(s jobs.SecretRef) bool {
			return s.Slot == l.GetSlot() && string(s.Secret) == l.GetSecret() && s.Version == l.GetVersion()
		})
		if given {
			out.Logins = append(out.Logins, l)
		}
	}
	return out
}

func (r *report) class() reeve.Class {
	if r.failure == nil {
		return ""
	}
	return r.failure.Class
}

// fail turns a report that says done into one that is not believed.
func (r *report) fail(c reeve.Class, message, fix string) {
	if r.ending == done {
		r.ending = refused
	}
	r.failure = &inventory.Failure{Class: c, Message: message, Fix: fix, At: r.res.GetFinishedAt().AsTime()}
}

// mayHaveSet reports whether the job may have set a version, whatever logins with it showed before.
func (r *report) mayHaveSet(version uint32) bool {
	return r.job.Mutates && r.ending != refused && slices.ContainsFunc(r.job.Secrets, func(s jobs.SecretRef) bool {
		return s.Slot == slotCandidate && s.Version == version
	})
}

// actor is who reported: the agent of the lease, or the controller by itself.
func (r *report) actor() audit.Actor {
	if r.job.Lease.Agent == "" {
		return system
	}
	return audit.Actor{Kind: "agent", ID: string(r.job.Lease.Agent)}
}

// accountResult takes the results of all jobs on accounts. It runs in the transaction
// that accepts the report.
func (e *Engine) accountResult(tx *store.Tx, j *jobs.Job, res *agentv1.Result) error {
	a, err := accounts.Get(tx, string(j.AccountID))
	if err != nil {
		return err
	}
	r := newReport(j, res, tx.Now())
	if r.failure != nil && stopsAsset(j.Operation, reeve.Outcome(res.GetOutcome()), r.class(), r.sight) {
		if err := inventory.RecordAlarm(tx, r.actor(), j.AssetID, r.failure, res.GetDetails()["host_key"]); err != nil {
			return err
		}
	}
	if err := recordFacts(tx, a, r); err != nil {
		return err
	}
	switch {
	case r.sight.worked != nil:
		a.Tried, a.Probes, a.ProbeAt = nil, 0, time.Time{}
	case j.Operation == opDisable || a.State == Disabled:
		// The account is locked: targets refuse the right password as they do a wrong one.
	default:
		for _, v := range r.sight.bad {
			if !slices.Contains(a.Tried, v) {
				a.Tried = append(a.Tried, v)
			}
		}
		a.Tried = slices.DeleteFunc(a.Tried, r.mayHaveSet)
	}
	before := a.LastError
	a.LastError = r.failure
	if err := e.take(tx, a, r, before); err != nil {
		return err
	}
	return e.save(tx, r.actor(), a, "account."+j.Operation, outcome(a, r), map[string]string{"job": string(j.ID), "class": string(r.class())})
}

// take lets the operation's rule decide what the report means for the account.
func (e *Engine) take(tx *store.Tx, a *Account, r *report, before *inventory.Failure) error {
	switch {
	case r.job.ID != a.Job || a.State == Removed || a.State == Failed:
		return e.late(tx, a, r)
	case another(a, r.res.GetFacts()):
		a.Sync, a.LastError = OutOfSync, &inventory.Failure{Class: reeve.ClassExists, At: tx.Now(),
			Message: "the target's account has identity " + r.res.GetFacts().GetIdentity() + ", Reeve made " + a.Identity,
			Fix:     "somebody replaced the account; find out who, then deprovision this record"}
		return nil
	}
	switch r.job.Operation {
	case opPlan:
		return e.planned(tx, a, r)
	case opProvision:
		return e.provisioned(tx, a, r)
	case opRotate:
		return e.rotated(tx, a, r)
	case opVerify:
		return e.verified(tx, a, r, before)
	case opDisable:
		return e.disabled(tx, a, r)
	case opEnable:
		return e.enabled(tx, a, r)
	case opDeprovision:
		return e.deprovisioned(tx, a, r)
	case opInspect:
		return e.inspected(tx, a, r)
	}
	return reeve.Errorf(reeve.Internal, "operation_unknown", "no rule for the result of %q", r.job.Operation)
}

// another reports whether the facts are those of an account that has our name but is
// not the one that was made (C9).
func another(a *Account, f *connectorv1.Facts) bool {
	return a.Identity != "" && f.GetExists() && f.GetIdentity() != "" && f.GetIdentity() != a.Identity
}

// late takes a result of a job that is no longer the account's. A login that worked is
// still a proof; anything it may have changed is found out by a probe.
func (e *Engine) late(tx *store.Tx, a *Account, r *report) error {
	if a.State.gone() {
		return nil
	}
	if r.sight.worked != nil {
		return e.adopt(tx, a, r)
	}
	if r.job.Mutates && r.ending != refused {
		a.Sync, a.ProbeAt = Uncertain, tx.Now()
	}
	return nil
}

func outcome(a *Account, r *report) string {
	switch {
	case r.ending == again || r.ending == unknown:
		return "unknown"
	case a.LastError != nil:
		return audit.Failed
	default:
		return audit.OK
	}
}

// adopt makes the version that logged in the current one, with the proof of the live
// fence (R4), and ends the rotation if it was its candidate.
func (e *Engine) adopt(tx *store.Tx, a *Account, r *report) error {
	proof, err := vault.NewProof(r.job.ID, r.job.Lease.Fence, r.sight.worked)
	if err != nil {
		return err
	}
	s, err := e.Vault.Get(tx, a.SecretID)
	if err != nil {
		return err
	}
	version := r.sight.worked.GetVersion()
	if version != s.Current {
		a.RotatedAt = tx.Now()
	}
	if err := e.Vault.Promote(tx, proof); err != nil {
		return err
	}
	if a.Rotation != nil && a.Rotation.Candidate == version {
		a.Rotation = nil
	}
	a.Sync, a.VerifiedAt, a.LastError = InSync, tx.Now(), nil
	return nil
}

// doubt notes that a change may have happened.
func (r *report) doubt(a *Account) {
	if r.failure != nil && r.class() == reeve.ClassUnreachable && reeve.Outcome(r.res.GetOutcome()) == reeve.NotDone && !r.job.Doubtful {
		return // nothing was sent
	}
	a.Sync = Uncertain
	if a.LastError == nil {
		a.LastError = &inventory.Failure{Class: reeve.ClassUnknownOutcome, At: r.res.GetFinishedAt().AsTime(),
			Message: "the agent reported success without a login that proves it"}
	}
}

// notDone takes an operation that did not have its effect. A changed plan is made again
// once; a password that the target refused while making an account is replaced.
func (e *Engine) notDone(tx *store.Tx, a *Account, r *report) error {
	switch {
	case r.class() == reeve.ClassPlanChanged && r.ending == refused && !a.Replanned && a.State != Planned:
		a.Replanned = true
		return e.redo(tx, a, opPlan)
	case r.class() == reeve.ClassPolicyRejected && r.job.Operation == opProvision && len(r.res.GetResidue()) == 0:
		if more, err := e.anotherPassword(tx, a); err != nil || more {
			if err != nil {
				return err
			}
			return e.redo(tx, a, opProvision)
		}
	}
	// A dead job may be retried by its owner: the account waits with it.
	if r.job.State != jobs.StateDead {
		return e.unmade(tx, a, r)
	}
	return nil
}

// probeLater has the logins tried again by Tick, each time after twice the wait.
func (e *Engine) probeLater(tx *store.Tx, a *Account) error {
	wait := min(probeFirst<<min(a.Probes, 10), probeAtMost)
	a.Probes++
	a.ProbeAt = tx.Now().Add(wait)
	return nil
}

// recordFacts keeps what the target said, with what differs from the time before.
func recordFacts(tx *store.Tx, a *Account, r *report) error {
	f := r.res.GetFacts()
	if f == nil {
		return nil
	}
	s := &Snapshot{AccountID: a.ID, Job: r.job.ID, At: tx.Now(), Facts: store.Wrap(f)}
	if a.Facts != nil {
		s.Changes = differences(a.Facts.Facts.M, f)
	}
	a.Facts = s
	return snapshots.Put(tx, s)
}

// differences lists the facts that changed, by name; the time of reading is none.
func differences(before, after *connectorv1.Facts) []Difference {
	if proto.Equal(before, after) {
		return nil
	}
	old, fresh := facts(before), facts(after)
	var names []string
	for n := range old {
		names = append(names, n)
	}
	for n := range fresh {
		if _, both := old[n]; !both {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var out []Difference
	for _, n := range names {
		if old[n] != fresh[n] {
			out = append(out, Difference{Fact: n, Before: old[n], After: fresh[n]})
		}
	}
	return out
}

func facts(f *connectorv1.Facts) map[string]string {
	yes := map[bool]string{true: "yes", false: "no"}
	out := map[string]string{"exists": yes[f.GetExists()], "identity": f.GetIdentity(), "locked": yes[f.GetLocked()],
		"has_password": yes[f.GetHasPassword()], "groups": strings.Join(f.GetGroups(), " "),
		"grants": strings.Join(f.GetGrants(), "\n"), "expires_at": stamp(f.GetExpiresAt()),
		"password_changed_at": stamp(f.GetPasswordChangedAt())}
	for k, v := range f.GetAttributes() {
		out["attribute."+k] = v
	}
	return out
}

func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.RFC3339)
}

func errorOf(err error) (*reeve.Error, bool) { return errors.AsType[*reeve.Error](err) }
