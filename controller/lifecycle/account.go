// Package lifecycle owns accounts: provisioning, verifying, rotating, disabling,
// removing, what a target says about them, and how their passwords are never lost. It
// decides; agents do. Every decision is taken in the transaction that accepts an
// agent's report, from what logins showed and never from an exit status alone
// (DESIGN.md).
//
// controller/rest asks for work, controller/jobs delivers results, and Engine.Run on
// the leader starts what is due. It imports jobs, vault, inventory and audit.
package lifecycle

import (
	"iter"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// State is where an account is in its life.
type State string

// The states (architecture §9). Planned and Failed are ends of a request that never
// had an effect on the target; they do not keep the name taken.
const (
	Planned        State = "planned"        // dry run: only the plans exist
	Scheduled      State = "scheduled"      // starts at StartAt; the target is untouched
	Provisioning   State = "provisioning"   // being made
	Active         State = "active"         // made, and a login with its password has worked
	Disabled       State = "disabled"       // locked on the target
	Deprovisioning State = "deprovisioning" // being removed, or removing it is stuck
	Removed        State = "removed"        // gone from the target; history is kept
	Partial        State = "partial"        // neither made nor cleaned up; Residue and LastError say what is left
	Failed         State = "failed"         // could not be made; proven that nothing is left
)

// gone reports whether nothing of the account is, or will be, on the target.
func (s State) gone() bool { return s == Planned || s == Removed || s == Failed }

// Sync is whether the vault's current password opens the account.
type Sync string

// The sync states.
const (
	Unproven    Sync = ""            // no login was made yet
	InSync      Sync = "in_sync"     // it did when last tried
	OutOfSync   Sync = "out_of_sync" // it does not; healing is at work, or not allowed
	Unreachable Sync = "unreachable" // the target could not be asked
	Uncertain   Sync = "uncertain"   // a change may have happened; a probe will tell
	Stranded    Sync = "stranded"    // no kept password works and Reeve cannot set one: a person must act
)

// PasswordMode is where an account's first password came from.
type PasswordMode string

// The modes.
const (
	Static    PasswordMode = "static"    // given with the request
	Generated PasswordMode = "generated" // made by Reeve
)

// The operations of a job, and of them the actions that change an account.
const (
	opProbe       = "probe"
	opPlan        = "plan"
	opProvision   = "provision"
	opRotate      = "rotate"
	opDisable     = "disable"
	opEnable      = "enable"
	opDeprovision = "deprovision"
	opVerify      = "verify"
	opInspect     = "inspect"
	opRights      = "rights"
)

// actions are planned together, in this order.
var actions = []string{opProvision, opRotate, opDisable, opEnable, opDeprovision}

// Plan is a frozen plan: what an agent may do for one action, and nothing else.
type Plan struct {
	Action string                           `cbor:"1,keyasint"`
	Hash   string                           `cbor:"2,keyasint"`
	Plan   store.Message[*connectorv1.Plan] `cbor:"3,keyasint"`
}

// Rotation is a password change that is under way or has stopped half-way. All its
// attempts set the same candidate, so a late duplicate is harmless; only a candidate
// the target proved to refuse is replaced.
type Rotation struct {
	ID        reeve.RotationID `cbor:"1,keyasint"`
	Candidate uint32           `cbor:"2,keyasint"` // version of the account's secret
	Attempt   int              `cbor:"3,keyasint"` // candidates so far, this one included
	Phase     Phase            `cbor:"4,keyasint"`
	Reconcile bool             `cbor:"5,keyasint,omitempty"` // no kept password worked; the management account sets one
	StartedAt time.Time        `cbor:"6,keyasint"`
}

// Phase is how far a rotation is.
type Phase string

// The phases.
const (
	Rotating Phase = "rotating" // a job sets the candidate
	Checking Phase = "checking" // the target refused it; a fresh login with the current password decides
	Stopped  Phase = "stopped"  // waits for a probe or a person; the candidate is kept
)

// Account is a privileged account on an asset.
type Account struct {
	ID        reeve.AccountID `cbor:"1,keyasint"`
	Name      string          `cbor:"2,keyasint"` // on the target: Prefix and the name asked for
	Prefix    string          `cbor:"3,keyasint,omitempty"`
	AssetID   reeve.AssetID   `cbor:"4,keyasint"`
	AssetName string          `cbor:"5,keyasint"`
	SiteID    reeve.SiteID    `cbor:"6,keyasint"`
	Connector string          `cbor:"7,keyasint"`

	// Role is frozen: later edits of the catalogue change neither what the account
	// got nor how it is removed (C14).
	Role       inventory.RoleKey                `cbor:"8,keyasint"`
	RoleFrozen store.Message[*connectorv1.Role] `cbor:"9,keyasint"`
	Params     map[string]string                `cbor:"10,keyasint,omitempty"`

	Owner        string            `cbor:"11,keyasint,omitempty"`
	Custodian    string            `cbor:"12,keyasint,omitempty"`
	UserIdentity string            `cbor:"13,keyasint,omitempty"` // who will use it
	Description  string            `cbor:"14,keyasint,omitempty"`
	Tags         map[string]string `cbor:"15,keyasint,omitempty"`
	Comment      string            `cbor:"16,keyasint"` // written on the target, traceable to people
	RequestedBy  string            `cbor:"17,keyasint,omitempty"`
	Batch        reeve.BatchID     `cbor:"18,keyasint"`

	StartAt         time.Time    `cbor:"19,keyasint,omitzero"`
	ExpiresAt       time.Time    `cbor:"20,keyasint,omitzero"` // zero: never
	RotationEnabled bool         `cbor:"21,keyasint,omitempty"`
	PasswordMode    PasswordMode `cbor:"22,keyasint"`

	State    State              `cbor:"23,keyasint"`
	Sync     Sync               `cbor:"24,keyasint,omitempty"`
	SecretID reeve.SecretID     `cbor:"25,keyasint,omitempty"`
	Identity string             `cbor:"26,keyasint,omitempty"` // uid, user@host, …, as read when it was made
	Facts    *Snapshot          `cbor:"27,keyasint,omitempty"` // the latest; FactHistory has all
	Plans    store.Lazy[[]Plan] `cbor:"28,keyasint,omitzero"`  // frozen
	Residue  []string           `cbor:"29,keyasint,omitempty"` // what could not be cleaned up

	Doing     string             `cbor:"30,keyasint,omitempty"` // the operation at work, "" when idle
	Job       reeve.JobID        `cbor:"31,keyasint,omitempty"` // at work on it, or the last one
	LastError *inventory.Failure `cbor:"32,keyasint,omitempty"` // of the last operation; nil when it worked
	Replanned bool               `cbor:"33,keyasint,omitempty"` // the operation at work was planned again already
	Rotation  *Rotation          `cbor:"34,keyasint,omitempty"`
	Rejected  int                `cbor:"35,keyasint,omitempty"` // passwords the target refused while provisioning
	Tried     []uint32           `cbor:"36,keyasint,omitempty"` // versions that did not log in since the last that did

	RequestedAt time.Time `cbor:"37,keyasint"`
	ExecutedAt  time.Time `cbor:"38,keyasint,omitzero"` // made on the target
	VerifiedAt  time.Time `cbor:"39,keyasint,omitzero"` // last login that worked
	RotatedAt   time.Time `cbor:"40,keyasint,omitzero"`
	RemovedAt   time.Time `cbor:"41,keyasint,omitzero"`

	ProbeAt time.Time `cbor:"42,keyasint,omitzero"` // when Reeve tries logins again by itself
	Probes  int       `cbor:"43,keyasint,omitempty"`
	RetryAt time.Time `cbor:"44,keyasint,omitzero"` // what was due was refused; not before this
}

// Snapshot is what a target said about an account at one time.
type Snapshot struct {
	AccountID reeve.AccountID                   `cbor:"1,keyasint"`
	Job       reeve.JobID                       `cbor:"2,keyasint"`
	At        time.Time                         `cbor:"3,keyasint"`
	Facts     store.Message[*connectorv1.Facts] `cbor:"4,keyasint"`
	Changes   []Difference                      `cbor:"5,keyasint,omitempty"` // against the one before
}

// Difference is one fact that changed.
type Difference struct {
	Fact   string `cbor:"1,keyasint"`
	Before string `cbor:"2,keyasint,omitempty"`
	After  string `cbor:"3,keyasint,omitempty"`
}

var (
	accounts = store.NewTable("account",
		store.Key(func(a *Account) string { return string(a.ID) }),
		store.Unique("name", func(a *Account) []string {
			if a.State.gone() {
				return nil
			}
			return []string{string(a.AssetID), a.Name}
		}),
		store.Index("asset", func(a *Account) []string { return []string{string(a.AssetID), string(a.ID)} }),
		store.Index("batch", func(a *Account) []string { return []string{string(a.Batch), string(a.ID)} }),
		store.Index("due", func(a *Account) []string {
			if at := a.due(); !at.IsZero() {
				return []string{store.TimePart(at)}
			}
			return nil
		}))
	snapshots = store.NewTable("account_fact",
		store.Key(func(s *Snapshot) string {
			return string(s.AccountID) + " " + store.TimePart(s.At) + " " + string(s.Job)
		}),
		store.Index("account", func(s *Snapshot) []string { return []string{string(s.AccountID), store.TimePart(s.At)} }))
)

// due is when Engine.Tick must look at the account; zero: never.
func (a *Account) due() time.Time {
	var at time.Time
	consider := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	switch a.State {
	case Scheduled:
		consider(a.StartAt)
	case Active:
		consider(a.ExpiresAt)
		consider(a.ProbeAt)
	case Partial, Disabled, Deprovisioning:
		consider(a.ProbeAt)
	}
	if !at.IsZero() && at.Before(a.RetryAt) {
		at = a.RetryAt
	}
	return at
}

// Get finds an account by id, or as name@asset (asset by name or id) among those that
// are, or will be, on a target.
func Get(tx *store.Tx, ref string) (*Account, error) {
	if reeve.ValidID("acct", ref) {
		return accounts.Get(tx, ref)
	}
	at := strings.LastIndexByte(ref, '@')
	if at < 0 {
		return nil, reeve.Errorf(reeve.NotFound, "account_not_found", "there is no account %q", ref).
			WithFix("give an id, or name@asset")
	}
	asset, err := inventory.GetAsset(tx, ref[at+1:])
	if err != nil {
		return nil, err
	}
	a, err := accounts.Find(tx, "name", string(asset.ID), ref[:at])
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, reeve.Errorf(reeve.NotFound, "account_not_found", "there is no account %q on asset %q", ref[:at], asset.Name)
	}
	return a, err
}

// Filter picks accounts; empty fields match all.
type Filter struct {
	Asset reeve.AssetID
	Batch reeve.BatchID
}

// List yields accounts with an id after the given one, oldest first, without dry runs
// unless their batch is asked for.
func List(tx *store.Tx, after string, f Filter) iter.Seq2[*Account, error] {
	var all iter.Seq2[*Account, error]
	from := ""
	if after != "" {
		from = after + "\x00" // the part after the prefix is the id
	}
	switch {
	case f.Batch != "":
		all = accounts.Scan(tx, "batch", store.Range{Prefix: []string{string(f.Batch)}, From: from})
	case f.Asset != "":
		all = accounts.Scan(tx, "asset", store.Range{Prefix: []string{string(f.Asset)}, From: from})
	default:
		all = accounts.List(tx, after)
	}
	return func(yield func(*Account, error) bool) {
		for a, err := range all {
			if err == nil && (f.Asset != "" && a.AssetID != f.Asset || f.Batch == "" && a.State == Planned) {
				continue
			}
			if !yield(a, err) {
				return
			}
		}
	}
}

// FactHistory yields what the target said about an account, oldest first.
func FactHistory(tx *store.Tx, id reeve.AccountID) iter.Seq2[*Snapshot, error] {
	return snapshots.Scan(tx, "account", store.Range{Prefix: []string{string(id)}})
}

// plan is the frozen plan for an action, nil if there is none.
func (a *Account) plan(action string) (*Plan, error) {
	plans, err := a.Plans.Get()
	return planFor(plans, action), err
}

func planFor(plans []Plan, action string) *Plan {
	for i := range plans {
		if plans[i].Action == action {
			return &plans[i]
		}
	}
	return nil
}

// freeze takes the plans an agent made. An answer that is not one plan per action, for
// this account, is refused.
func (a *Account) freeze(planned []*agentv1.PlannedAction) error {
	var plans []Plan
	for _, p := range planned {
		if p.GetHash() == "" || p.GetPlan().GetAccount() != a.Name {
			break
		}
		plans = append(plans, Plan{Action: p.GetPlan().GetAction(), Hash: p.GetHash(), Plan: store.Wrap(p.GetPlan())})
	}
	for _, action := range actions {
		if planFor(plans, action) == nil || len(plans) != len(actions) {
			return reeve.Errorf(reeve.Invalid, "plan_invalid", "the agent did not answer with one plan per action for account %q", a.Name)
		}
	}
	return a.Plans.Put(plans)
}
