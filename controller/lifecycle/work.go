package lifecycle

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// classes of urgency of the operations.
var classes = map[string]jobs.Class{
	opProbe: jobs.ClassApproved, opRights: jobs.ClassApproved, opPlan: jobs.ClassApproved, opProvision: jobs.ClassApproved, opEnable: jobs.ClassApproved,
	opRotate: jobs.ClassRotation, opVerify: jobs.ClassRotation, opInspect: jobs.ClassDiscovery,
	opDisable: jobs.ClassRevoke, opDeprovision: jobs.ClassRevoke,
}

// workable refuses work that could only fail: the service is off, the asset's site has
// no agent, no build of its connector may run, what it shows is not trusted, or, if it
// is needed, its management account is not verified or lacks rights.
func (e *Engine) workable(tx *store.Tx, asset *inventory.Asset, management bool) error {
	if err := service.Require(tx, service.Lifecycle); err != nil {
		return err
	}
	if err := asset.Ready(); err != nil && (management || !managementOnly(err)) {
		return err
	}
	if _, err := inventory.ConnectorDigests(tx, asset.Connector); err != nil {
		return err
	}
	n, err := e.AgentsIn(tx, asset.SiteID)
	if err != nil {
		return err
	}
	if n == 0 {
		site, err := inventory.GetSite(tx, string(asset.SiteID))
		if err != nil {
			return err
		}
		return reeve.Errorf(reeve.Precondition, "site_without_agents", "asset %q is in site %q, which has no agent", asset.Name, site.Name).
			WithFix("enrol one: reeve agent join-token NAME --site %s", site.Name)
	}
	return nil
}

// managementOnly reports whether a refusal of Asset.Ready is about the management
// account, which a login as the account itself does not need.
func managementOnly(err error) bool {
	switch reeve.CodeOf(err) {
	case "management_missing", "management_unverified", "management_rights":
		return true
	default:
		return false
	}
}

func target(asset *inventory.Asset) *connectorv1.Target {
	t := &connectorv1.Target{Address: asset.Address, Port: asset.Port, Options: asset.Options, Trust: asset.Trust.Proto(),
		Fingerprint: asset.Fingerprint.M}
	if asset.Management != nil {
		t.Management = &connectorv1.Credential{Username: asset.Management.Username}
	}
	return t
}

func managementRef(asset *inventory.Asset) jobs.SecretRef {
	m := asset.Management
	return jobs.SecretRef{Slot: slotManagement, Kind: m.Kind, Secret: m.SecretID, Version: m.Version}
}

func (a *Account) ref(slot string, version uint32) jobs.SecretRef {
	return jobs.SecretRef{Slot: slot, Kind: string(vault.Password), Secret: a.SecretID, Version: version}
}

func (a *Account) intent(action string) *connectorv1.Intent {
	in := &connectorv1.Intent{Action: action, Account: a.Name, AccountId: string(a.ID), Comment: a.Comment,
		Role: a.RoleFrozen.M, Params: a.Params, Identity: a.Identity}
	if !a.ExpiresAt.IsZero() {
		in.ExpiresAt = timestamppb.New(a.ExpiresAt)
	}
	return in
}

// intents are those of all actions.
func (a *Account) intents() []*connectorv1.Intent {
	out := make([]*connectorv1.Intent, len(actions))
	for i, action := range actions {
		out[i] = a.intent(action)
	}
	return out
}

// dispatch queues one job for an account and notes it there. The caller saves the
// account, and has noted in Doing what is to be done: without a frozen plan for it, the
// job plans first.
func (e *Engine) dispatch(tx *store.Tx, by audit.Actor, a *Account, asset *inventory.Asset, operation string) (*jobs.Job, error) {
	work := &agentv1.Work{Operation: operation, Target: target(asset), AccountUsername: a.Name, LoginBudget: loginBudget}
	refs := []jobs.SecretRef{}
	switch operation {
	case opPlan:
		work.Intents = a.intents()
	case opVerify, opInspect:
	default:
		p, err := a.plan(operation)
		if err != nil {
			return nil, err
		}
		switch {
		case p != nil:
			work.Intents, work.PlanHash = []*connectorv1.Intent{a.intent(operation)}, p.Hash
		case operation == opProvision:
			work.Intents, work.PlanFirst = a.intents(), true
		default: // the report with the plans never came; planned goes on with what is to be done
			return e.dispatch(tx, by, a, asset, opPlan)
		}
	}
	managed := operation != opVerify
	if !managed {
		var err error
		if managed, err = explains(tx, asset); err != nil {
			return nil, err
		}
	}
	if managed {
		refs = append(refs, managementRef(asset))
	}
	own, err := e.ownRefs(tx, a, operation)
	if err != nil {
		return nil, err
	}
	mutates := operation != opPlan && operation != opVerify && operation != opInspect
	j, err := jobs.Enqueue(tx, by, jobs.Spec{SiteID: a.SiteID, AssetID: a.AssetID, AccountID: a.ID, Connector: a.Connector,
		Class: classes[operation], Mutates: mutates, Work: work, Secrets: append(refs, own...), Handler: handlerAccount,
		Ref: string(a.Batch), Owner: a.Owner})
	if err != nil {
		return nil, err
	}
	a.Job = j.ID
	return j, nil
}

// explains reports whether a login as the account itself gets the management account, to
// find out why it was refused. Connectors of protocol 1 cannot do that.
func explains(tx *store.Tx, asset *inventory.Asset) (bool, error) {
	if !asset.Management.Verified() {
		return false, nil
	}
	c, err := inventory.GetConnector(tx, asset.Connector)
	return err == nil && c.Description.M.GetProtocol() >= 2, err
}

// ownRefs are the versions of the account's own secret that an operation needs.
func (e *Engine) ownRefs(tx *store.Tx, a *Account, operation string) ([]jobs.SecretRef, error) {
	if a.SecretID == "" || operation == opPlan || operation == opInspect || operation == opDeprovision {
		return nil, nil
	}
	if operation == opVerify {
		return e.logins(tx, a)
	}
	s, err := e.Vault.Get(tx, a.SecretID)
	if err != nil {
		return nil, err
	}
	var refs []jobs.SecretRef
	if s.Candidate != 0 && (operation == opProvision || operation == opRotate) {
		refs = append(refs, a.ref(slotCandidate, s.Candidate))
	}
	// A version that is known not to work would only cost a failed login.
	if s.Current != 0 && operation != opProvision && !slices.Contains(a.Tried, s.Current) {
		refs = append(refs, a.ref(slotCurrent, s.Current))
	}
	return refs, nil
}

// logins are the versions to look for one that works with: current, candidate, history
// from the newest (C13), without those the target has refused since one last worked,
// and no more than may fail in one job. An agent tries the candidate first and stops at
// the first that works.
func (e *Engine) logins(tx *store.Tx, a *Account) ([]jobs.SecretRef, error) {
	s, err := e.Vault.Get(tx, a.SecretID)
	if err != nil {
		return nil, err
	}
	history, err := e.Vault.History(tx, a.SecretID)
	if err != nil {
		return nil, err
	}
	var refs []jobs.SecretRef
	wanted := func(version uint32) bool {
		return version != 0 && !slices.Contains(a.Tried, version) && len(refs) < loginBudget
	}
	if wanted(s.Current) {
		refs = append(refs, a.ref(slotCurrent, s.Current))
	}
	if wanted(s.Candidate) {
		refs = append(refs, a.ref(slotCandidate, s.Candidate))
	}
	n := 0
	for _, v := range history {
		if wanted(v.Number) {
			n++ // slots are numbered without gaps in each job
			refs = append(refs, a.ref(slotHistory+strconv.Itoa(n), v.Number))
		}
	}
	return refs, nil
}

// idle refuses a second operation while one is at work on the account.
func idle(tx *store.Tx, a *Account) error {
	if a.Job == "" {
		return nil
	}
	j, err := jobs.Get(tx, a.Job)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil // finished, and expired with its log
	}
	if err != nil || j.State.Final() {
		return err
	}
	return reeve.Errorf(reeve.Conflict, "account_busy", "job %s (%s) is at work on account %q", j.ID, j.Operation, a.Name).
		WithFix("wait for it, or cancel it: reeve job cancel %s", j.ID)
}

// save stores the account with the one audit record of the change.
func (e *Engine) save(tx *store.Tx, by audit.Actor, a *Account, action, outcome string, more map[string]string) error {
	if err := accounts.Put(tx, a); err != nil {
		return err
	}
	details := map[string]string{"name": a.Name, "asset": a.AssetName, "role": a.Role.String(), "state": string(a.State),
		"sync": string(a.Sync), "job": string(a.Job)}
	if a.LastError != nil && outcome != audit.OK {
		details["class"], details["message"] = string(a.LastError.Class), a.LastError.Message
	}
	if a.Rotation != nil {
		details["rotation"], details["attempt"] = string(a.Rotation.ID), fmt.Sprint(a.Rotation.Attempt)
	}
	maps.Copy(details, more)
	return audit.Record(tx, audit.Event{By: by, Action: action, Object: string(a.ID), Outcome: outcome, Details: details})
}
