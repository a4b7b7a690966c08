package jobs

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// State is where a job stands.
type State string

// The states. All but the first two are final.
const (
	StateQueued    State = "queued"    // waiting for an agent, a time, or the end of its quarantine
	StateLeased    State = "leased"    // given to one agent
	StateDone      State = "done"      // the target was read back and is as intended
	StateFailed    State = "failed"    // refused for a reason that trying again does not change
	StateDead      State = "dead"      // given up; its owner decides (Retry)
	StateCancelled State = "cancelled" // cancelled, and proven to have had no effect
	StateUncertain State = "uncertain" // cancelled, but it may have had an effect
)

// Final reports whether the job will never again be given to an agent by itself.
func (s State) Final() bool { return s != StateQueued && s != StateLeased }

// Class is the urgency of a job; lower is served first.
type Class uint8

// The classes of urgency, strictest first. Waiting raises a job by one class every
// AgingStep, so none starves.
const (
	ClassRevoke    Class = iota + 1 // taking access away
	ClassCheckout                   // somebody waits for it
	ClassApproved                   // approved work, provisioning
	ClassRotation                   // scheduled change
	ClassDiscovery                  // reading
)

var classNames = map[Class]string{ClassRevoke: "revoke", ClassCheckout: "checkout", ClassApproved: "approved",
	ClassRotation: "rotation", ClassDiscovery: "discovery"}

// String is the class in the API's words.
func (c Class) String() string {
	if n, ok := classNames[c]; ok {
		return n
	}
	return fmt.Sprintf("class(%d)", uint8(c))
}

// Limits of the queue. Sizes are in bytes.
const (
	LeaseTerm      = 60 * time.Second    // how long a lease lives without renewal
	KillGrace      = 10 * time.Second    // what an agent gets to end a connector after losing a lease
	DriftMargin    = 5 * time.Second     // for clocks that do not run equally fast
	MaxDeliveries  = 5                   // then the dead letter
	AgingStep      = 5 * time.Minute     // of waiting, that raise a job by one class
	PerAsset       = 16                  // jobs at work on one asset; what one agent does at a time by default
	PerAgent       = 32                  // leases of one agent
	PerSite        = 256                 // leases of one site
	LogLimit       = 1 << 20             // of log kept per job, over all its attempts
	MaxChunk       = 256 << 10           // of log data in one chunk; a line is never split
	MaxWork        = 256 << 10           // of one encoded Work
	MaxResult      = 1 << 20             // of one encoded Result
	MaxTimeout     = time.Hour           // for the work itself
	keptDeliveries = 32                  // of one job, the latest
	Retention      = 90 * 24 * time.Hour // of finished jobs and their logs

	defaultTimeout  = 2 * time.Minute
	defaultDeadline = time.Hour // after NotBefore
)

// Terms are the times a broker keeps. Work is the most a job may take, whatever it asks
// for.
type Terms struct{ Lease, KillGrace, DriftMargin, Work time.Duration }

var defaultTerms = Terms{Lease: LeaseTerm, KillGrace: KillGrace, DriftMargin: DriftMargin, Work: MaxTimeout}

// SecretRef names a vaulted secret version a job needs, and what for. It is a
// reference: the queue holds no secret.
type SecretRef struct {
	Slot    string         `cbor:"1,keyasint"` // management, current, candidate, history-1, …
	Kind    string         `cbor:"2,keyasint"` // password, ssh_key
	Secret  reeve.SecretID `cbor:"3,keyasint"`
	Version uint32         `cbor:"4,keyasint"`
}

// Lease is who works on a job, or last did: Job.Live says whether it still counts.
// Until is the end of the term granted first; renewals live in the leader's memory.
type Lease struct {
	Agent reeve.AgentID `cbor:"1,keyasint,omitempty"`
	Fence uint64        `cbor:"2,keyasint,omitempty"`
	Until time.Time     `cbor:"3,keyasint,omitempty"`
}

// Ending is how a delivery ended.
type Ending string

// The endings of a delivery.
const (
	EndReported Ending = "reported" // the agent reported an outcome
	EndLost     Ending = "lost"     // the lease ran out
	EndReturned Ending = "returned" // the job never left the controller; not counted as an attempt
)

// Delivery is one handing out of a job to an agent.
type Delivery struct {
	Attempt uint32        `cbor:"1,keyasint"`
	Agent   reeve.AgentID `cbor:"2,keyasint"`
	Fence   uint64        `cbor:"3,keyasint"`
	At      time.Time     `cbor:"4,keyasint"`
	EndedAt time.Time     `cbor:"5,keyasint,omitempty"`
	Ending  Ending        `cbor:"6,keyasint,omitempty"` // empty while at work
	Outcome reeve.Outcome `cbor:"7,keyasint,omitempty"`
	Class   reeve.Class   `cbor:"8,keyasint,omitempty"`
	Message string        `cbor:"9,keyasint,omitempty"`
}

// Job is one unit of work for an agent.
type Job struct {
	ID        reeve.JobID     `cbor:"1,keyasint"`
	SiteID    reeve.SiteID    `cbor:"2,keyasint"`
	AssetID   reeve.AssetID   `cbor:"3,keyasint,omitempty"`
	AccountID reeve.AccountID `cbor:"4,keyasint,omitempty"`
	Connector string          `cbor:"5,keyasint"`
	Operation string          `cbor:"6,keyasint"`
	Class     Class           `cbor:"7,keyasint"`
	State     State           `cbor:"8,keyasint"`

	// Attempt numbers the deliveries from 1; it is 0 before the first.
	Attempt    uint32     `cbor:"9,keyasint,omitempty"`
	Deliveries []Delivery `cbor:"10,keyasint,omitempty"`
	// Base is the attempt after which a person last retried the job: what came before
	// no longer counts against it.
	Base uint32 `cbor:"11,keyasint,omitempty"`

	CreatedAt  time.Time     `cbor:"13,keyasint"`
	NotBefore  time.Time     `cbor:"14,keyasint"` // of the next delivery; in quarantine, its end
	Deadline   time.Time     `cbor:"15,keyasint"` // never leased beyond it
	Timeout    time.Duration `cbor:"16,keyasint"` // for the work itself
	FinishedAt time.Time     `cbor:"17,keyasint,omitempty"`

	Lease       Lease `cbor:"18,keyasint,omitempty"`
	Quarantined bool  `cbor:"19,keyasint,omitempty"`
	// Doubtful: some delivery may have changed the target and none has settled it yet.
	Doubtful        bool   `cbor:"20,keyasint,omitempty"`
	CancelRequested bool   `cbor:"21,keyasint,omitempty"`
	CancelledBy     string `cbor:"22,keyasint,omitempty"`

	Work    []byte      `cbor:"23,keyasint"` // agentv1.Work
	Secrets []SecretRef `cbor:"24,keyasint,omitempty"`
	Mutates bool        `cbor:"25,keyasint,omitempty"` // changes the target
	Handler string      `cbor:"26,keyasint,omitempty"` // name of the Handler that takes its results
	Ref     string      `cbor:"27,keyasint,omitempty"` // the caller's own: a rotation, a batch, …
	Owner   string      `cbor:"28,keyasint,omitempty"` // who is asked when the job is dead
	Result  []byte      `cbor:"29,keyasint,omitempty"` // agentv1.Result of the last ended delivery
	// Failure is why the job is not done, in words for people; empty when it is.
	Failure  string `cbor:"30,keyasint,omitempty"`
	Revision uint64 `cbor:"31,keyasint"` // of the transaction that last changed it
}

var table = store.NewTable("job",
	store.Key(func(j *Job) string { return string(j.ID) }),
	store.Index("state", func(j *Job) []string { return []string{string(j.State), string(j.ID)} }),
	store.Index("site", func(j *Job) []string { return []string{string(j.SiteID), string(j.ID)} }),
	store.Index("asset", func(j *Job) []string { return optional(string(j.AssetID), j) }),
	store.Index("account", func(j *Job) []string { return optional(string(j.AccountID), j) }),
	store.Index("ref", func(j *Job) []string { return optional(j.Ref, j) }),
	// held: jobs that keep an account to themselves, or share it with other readers.
	store.Index("held", func(j *Job) []string {
		if j.State != StateLeased && !j.Quarantined {
			return nil
		}
		return optional(string(j.AccountID), j)
	}),
	// changed: lets the broker follow the table without reading all of it.
	store.Index("changed", func(j *Job) []string { return []string{revisionPart(j.Revision)} }),
	store.Index("finished", func(j *Job) []string {
		if !j.State.Final() {
			return nil
		}
		return []string{store.TimePart(j.FinishedAt)}
	}),
)

func optional(first string, j *Job) []string {
	if first == "" {
		return nil
	}
	return []string{first, string(j.ID)}
}

func revisionPart(r uint64) string { return fmt.Sprintf("%016x", r) }

// put stores j as changed by this transaction.
func put(tx *store.Tx, j *Job) error {
	j.Revision = tx.Revision()
	return table.Put(tx, j)
}

// Spec is a job to be made. Work is stored as it is and must hold no secret; Secrets
// lists the references the agent will get sealed at its lease.
type Spec struct {
	SiteID    reeve.SiteID
	AssetID   reeve.AssetID
	AccountID reeve.AccountID // empty for work on the asset as a whole
	Connector string
	Class     Class
	Mutates   bool
	Work      *agentv1.Work
	Secrets   []SecretRef
	Handler   string
	Ref       string
	Owner     string        // default: who enqueues
	NotBefore time.Time     // default: now
	Deadline  time.Time     // default: one hour after NotBefore
	Timeout   time.Duration // for the work itself; default 2 min, at most MaxTimeout
}

// Enqueue stores a new job in state queued. A Spec that is not complete, or whose Work
// carries a secret, is a defect of the caller: Invalid "job_invalid".
func Enqueue(tx *store.Tx, by audit.Actor, s Spec) (*Job, error) {
	now := tx.Now()
	j, err := s.job(now, by)
	if err != nil {
		return nil, err
	}
	j.Revision = tx.Revision()
	if err := table.Insert(tx, j); err != nil {
		return nil, err
	}
	return j, audit.Record(tx, audit.Event{By: by, Action: "job.enqueue", Object: string(j.ID), Outcome: "ok",
		Details: map[string]string{"operation": j.Operation, "site": string(j.SiteID), "asset": string(j.AssetID),
			"account": string(j.AccountID), "connector": j.Connector, "class": j.Class.String()}})
}

func (s Spec) job(now time.Time, by audit.Actor) (*Job, error) {
	invalid := func(format string, args ...any) (*Job, error) {
		return nil, reeve.Errorf(reeve.Invalid, "job_invalid", format, args...)
	}
	if s.NotBefore.Before(now) {
		s.NotBefore = now
	}
	if s.Deadline.IsZero() {
		s.Deadline = s.NotBefore.Add(defaultDeadline)
	}
	if s.Timeout == 0 {
		s.Timeout = defaultTimeout
	}
	if s.Owner == "" {
		s.Owner = by.ID
	}
	switch {
	case s.SiteID == "" || s.Connector == "" || s.Work.GetOperation() == "":
		return invalid("a job needs a site, a connector and an operation")
	case classNames[s.Class] == "":
		return invalid("a job needs a class of urgency")
	case s.Mutates && s.AccountID == "":
		return invalid("a job that changes a target names the account it changes")
	case s.Timeout < 0 || s.Timeout > MaxTimeout:
		return invalid("the time limit of a job is between 0 and %s", MaxTimeout)
	case !s.Deadline.After(s.NotBefore):
		return invalid("the deadline of a job lies after its start")
	case carriesSecret(s.Work):
		return invalid("a job's work must not carry a secret; name it in Secrets")
	}
	slots := map[string]bool{}
	for _, r := range s.Secrets {
		if r.Slot == "" || r.Secret == "" || r.Version == 0 || slots[r.Slot] {
			return invalid("the secrets of a job have distinct slots and name a version each")
		}
		slots[r.Slot] = true
	}
	work, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.Work)
	if err != nil {
		return nil, reeve.Errorf(reeve.Invalid, "job_invalid", "the work of a job is not valid text").Wrap(err)
	}
	if len(work) > MaxWork {
		return nil, reeve.Errorf(reeve.TooLarge, "job_too_large", "the work of a job has %d bytes; %d are allowed", len(work), MaxWork)
	}
	return &Job{ID: reeve.NewJobID(), SiteID: s.SiteID, AssetID: s.AssetID, AccountID: s.AccountID,
		Connector: s.Connector, Operation: s.Work.GetOperation(), Class: s.Class, State: StateQueued,
		CreatedAt: now, NotBefore: s.NotBefore.UTC(), Deadline: s.Deadline.UTC(), Timeout: s.Timeout,
		Work: work, Secrets: s.Secrets, Mutates: s.Mutates, Handler: s.Handler, Ref: s.Ref, Owner: s.Owner}, nil
}

func carriesSecret(w *agentv1.Work) bool {
	c := w.GetTarget().GetManagement()
	return len(c.GetPassword()) > 0 || len(c.GetPrivateKey()) > 0
}

// DecodeWork reads the work of the job.
func (j *Job) DecodeWork() (*agentv1.Work, error) { return decodeWork(j.Work) }

func decodeWork(b []byte) (*agentv1.Work, error) {
	w := new(agentv1.Work)
	if err := proto.Unmarshal(b, w); err != nil {
		return nil, reeve.Errorf(reeve.Internal, "job_corrupt", "the stored work of the job cannot be read").Wrap(err)
	}
	return w, nil
}

// DecodeResult reads the result of the last ended delivery; nil if there is none.
func (j *Job) DecodeResult() (*agentv1.Result, error) {
	if len(j.Result) == 0 {
		return nil, nil //nolint:nilnil // no result is an answer
	}
	r := new(agentv1.Result)
	if err := proto.Unmarshal(j.Result, r); err != nil {
		return nil, reeve.Errorf(reeve.Internal, "job_corrupt", "the stored result of the job cannot be read").Wrap(err)
	}
	return r, nil
}

// Get loads a job; NotFound "job_not_found".
func Get(tx *store.Tx, id reeve.JobID) (*Job, error) { return table.Get(tx, string(id)) }

// Filter picks jobs; empty fields match all.
type Filter struct {
	Site    reeve.SiteID
	Asset   reeve.AssetID
	Account reeve.AccountID
	Ref     string
	State   State
	Sees    func(*Job) (bool, error) // leaves out those of which it says no; nil: none
}

func (f Filter) matches(j *Job) bool {
	return (f.Site == "" || f.Site == j.SiteID) && (f.Asset == "" || f.Asset == j.AssetID) &&
		(f.Account == "" || f.Account == j.AccountID) && (f.Ref == "" || f.Ref == j.Ref) &&
		(f.State == "" || f.State == j.State)
}

// index is the narrowest index that serves the filter, and its first part.
func (f Filter) index() (name, first string) {
	switch {
	case f.Ref != "":
		return "ref", f.Ref
	case f.Account != "":
		return "account", string(f.Account)
	case f.Asset != "":
		return "asset", string(f.Asset)
	case f.State != "":
		return "state", string(f.State)
	case f.Site != "":
		return "site", string(f.Site)
	}
	return "", ""
}

// List returns up to limit jobs older than the one with the id before ("" for all),
// newest first, and whether there are more.
func List(tx *store.Tx, f Filter, before reeve.JobID, limit int) (page []*Job, more bool, err error) {
	all := table.ListDesc(tx, string(before))
	if name, first := f.index(); name != "" {
		all = table.ScanDesc(tx, name, store.Range{Prefix: []string{first}, To: string(before)})
	}
	for j, err := range all {
		if err != nil {
			return nil, false, err
		}
		if !f.matches(j) {
			continue
		}
		if f.Sees != nil {
			if sees, err := f.Sees(j); err != nil || !sees {
				if err != nil {
					return nil, false, err
				}
				continue
			}
		}
		if len(page) == limit {
			return page, true, nil
		}
		page = append(page, j)
	}
	return page, false, nil
}
