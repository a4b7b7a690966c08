package lifecycle

import (
	"slices"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// CheckRights queues a job that finds out which rights the asset's management account
// needs for a role, and which it lacks; its result holds the answer. An account that
// lacks rights, which is when one asks, is good enough.
func (e *Engine) CheckRights(tx *store.Tx, by audit.Actor, id reeve.AssetID, role string, params map[string]string) (*jobs.Job, error) {
	asset, err := inventory.GetAsset(tx, string(id))
	if err != nil {
		return nil, err
	}
	if err := e.workable(tx, asset, true); err != nil && reeve.CodeOf(err) != "management_rights" {
		return nil, err
	}
	if err := e.workable(tx, asset, false); err != nil { // what is behind that refusal
		return nil, err
	}
	connector, err := inventory.GetConnector(tx, asset.Connector)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(connector.Description.M.GetPowers(), opRights) {
		return nil, reeve.Errorf(reeve.Precondition, "rights_unsupported", "connector %s %s cannot tell which rights a role needs", connector.Name, connector.Description.M.GetVersion()).
			WithFix("see the connector's page for them, and what of them is missing with: reeve asset verify %s; a later version of the connector may know more", asset.Name)
	}
	r, err := inventory.CurrentRole(tx, asset.Connector, role)
	if err != nil {
		return nil, err
	}
	if err := r.CheckParams(params); err != nil {
		return nil, err
	}
	work := &agentv1.Work{Operation: opRights, Target: target(asset), Intents: []*connectorv1.Intent{{Role: r.Role.M, Params: params}}}
	return jobs.Enqueue(tx, by, jobs.Spec{SiteID: asset.SiteID, AssetID: asset.ID, Connector: asset.Connector, Class: classes[opRights],
		Work: work, Secrets: []jobs.SecretRef{managementRef(asset)}, Handler: handlerRights})
}

// rightsResult takes the results of such jobs: the answer stays with the job. A target
// that is not who it was, or shuts the management account out, stops the asset as ever.
func (e *Engine) rightsResult(tx *store.Tx, j *jobs.Job, res *agentv1.Result) error {
	r := newReport(j, res, tx.Now())
	if r.failure != nil && stopsAsset(j.Operation, reeve.Outcome(res.GetOutcome()), r.class(), r.sight) {
		return inventory.RecordAlarm(tx, r.actor(), j.AssetID, r.failure, res.GetDetails()["host_key"])
	}
	return nil
}
