package lifecycle

import (
	"fmt"
	"slices"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// VerifySuperseded makes one login with a password the account no longer has, so that
// somebody can see that it is refused. Nothing follows from it, whatever it shows. The
// version must be one that was replaced: Conflict "password_version_in_use" otherwise.
func (e *Engine) VerifySuperseded(tx *store.Tx, by audit.Actor, id reeve.AccountID, version uint32) (*jobs.Job, error) {
	a, err := accounts.Get(tx, string(id))
	if err != nil {
		return nil, err
	}
	asset, err := e.mayStart(tx, a, opVerify)
	if err != nil {
		return nil, err
	}
	if err := e.superseded(tx, a, version); err != nil {
		return nil, err
	}
	refs := []jobs.SecretRef{a.ref(slotHistory+"1", version)}
	managed, err := explains(tx, asset)
	if err != nil {
		return nil, err
	}
	if managed {
		refs = append(refs, managementRef(asset))
	}
	work := &agentv1.Work{Operation: opVerify, Target: target(asset), AccountUsername: a.Name, LoginBudget: 1}
	j, err := jobs.Enqueue(tx, by, jobs.Spec{SiteID: a.SiteID, AssetID: a.AssetID, AccountID: a.ID, Connector: a.Connector, Class: classes[opVerify],
		Work: work, Secrets: refs, Handler: handlerSuperseded, Owner: a.Owner})
	if err != nil {
		return nil, err
	}
	a.Job = j.ID
	return j, e.save(tx, by, a, "account.verify_superseded", "requested", map[string]string{"version": fmt.Sprint(version)})
}

func (e *Engine) superseded(tx *store.Tx, a *Account, version uint32) error {
	s, err := e.Vault.Get(tx, a.SecretID)
	if err != nil {
		return err
	}
	if version == s.Current || version == s.Candidate {
		return reeve.Errorf(reeve.Conflict, "password_version_in_use", "version %d is not a superseded password of account %q", version, a.Name).
			WithFix("leave the version out to verify the current password").WithField("/password_version")
	}
	history, err := e.Vault.History(tx, a.SecretID)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(history, func(v vault.Version) bool { return v.Number == version }) {
		return reeve.Errorf(reeve.NotFound, "password_version_not_found", "no version %d of the password of account %q was ever on the target, or it is not kept any more", version, a.Name).
			WithFix("the current version is %d; give a smaller one", s.Current).WithField("/password_version")
	}
	return nil
}

// supersededResult takes the results of such jobs: the login stays with the job, and in
// the audit trail. A target that is not who it was stops the asset as ever.
func (e *Engine) supersededResult(tx *store.Tx, j *jobs.Job, res *agentv1.Result) error {
	r := newReport(j, res, tx.Now())
	if r.failure != nil && stopsAsset(j.Operation, reeve.Outcome(res.GetOutcome()), r.class(), r.sight) {
		if err := inventory.RecordAlarm(tx, r.actor(), j.AssetID, r.failure, res.GetDetails()["host_key"]); err != nil {
			return err
		}
	}
	if r.ending == again {
		return nil
	}
	details := map[string]string{"job": string(j.ID), "class": string(r.class())}
	for _, l := range r.logins.GetLogins() {
		details["version"], details["verdict"] = fmt.Sprint(l.GetVersion()), l.GetVerdict()
	}
	return audit.Record(tx, audit.Event{By: r.actor(), Action: "account.verify_superseded", Object: string(j.AccountID), Outcome: audit.OK, Details: details})
}
