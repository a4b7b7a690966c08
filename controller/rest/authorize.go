package rest

import (
	"fmt"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/controller/identity"
)

// actions are what identity.Authorize is asked for each operation of the contract, in
// the words of the audit trail; "" for those that a token does not open (see open). An
// operation that is missing fails the server's start: nothing is allowed by oversight.
var actions = map[string]string{ //nolint:gosec // G101: names of actions, no credentials
	"GetStatus": "", "UnsealNode": "", "JoinCluster": "", "RenewNode": "",
	"SealNode": "node.seal", "GetSeal": "seal.read", "RotateKeys": "seal.rotate", "StartRekey": "seal.rekey", "ProveRekey": "seal.rekey", "CancelRekey": "seal.rekey",
	"GetCluster": "cluster.read", "CreateNodeJoinToken": "join_token.create", "RemoveNode": "node.remove",
	"TransferLeadership": "cluster.transfer", "AcceptClock": "cluster.accept_clock", "SaveSnapshot": "cluster.save_snapshot", "RestoreSnapshot": "cluster.restore_snapshot",
	"Whoami": "principal.read", "ListTokens": "token.read", "CreateToken": "token.create", "RevokeToken": "token.revoke",
	"ListSites": "site.read", "GetSite": "site.read", "AddSite": "site.create", "RetireSite": "site.retire",
	"ListAgents": "agent.read", "GetAgent": "agent.read", "CreateAgentJoinToken": "join_token.create", "BanAgent": "agent.ban", "UnbanAgent": "agent.unban",
	"ListConnectors": "connector.read", "GetConnector": "connector.read", "ListRoles": "role.read", "GetRole": "role.read",
	"AddRole": "role.add", "CloneRole": "role.clone", "EditRole": "role.edit", "RetireRole": "role.retire",
	"RegisterConnector": "connector.register", "RevokeConnectorDigest": "connector.revoke",
	"ListAssets": "asset.read", "GetAsset": "asset.read", "AddAsset": "asset.create", "RetireAsset": "asset.retire",
	"SetManagementAccount": "asset.management.set", "VerifyAsset": "asset.verify", "TrustAsset": "asset.trust", "CheckRights": "asset.rights",
	"ListAccounts": "account.read", "GetAccount": "account.read", "ProvisionAccounts": "account.provision", "ActOnAccount": "account.act",
	"RevealSecret": "secret.reveal",
	"ListJobs":     "job.read", "GetJob": "job.read", "GetJobLog": "job.read", "CancelJob": "job.cancel", "RetryJob": "job.retry",
	"ListAudit": "audit.read", "ExportAudit": "audit.export",
}

// checkActions refuses a contract of which an operation has no action, or is open to
// everybody by mistake.
func (ct *contract) checkActions() error {
	for key, r := range ct.routes {
		action, known := actions[r.Operation.OperationID]
		if !known || open[key] != (action == "") {
			return fmt.Errorf("rest: say in actions what may be done with %s (%s)", r.Operation.OperationID, key)
		}
	}
	return nil
}

// authorize asks whether the principal may do what the request is for. Of an action on
// an account the action's own name is part: account.rotate, account.disable, ….
func (s *Server) authorize(c *gin.Context) {
	who, ok := c.Value(principalKey).(identity.Principal)
	if !ok {
		return // authenticate has let it through without a token
	}
	r, ok := s.contract.routes[route(c)]
	if !ok {
		return // validate refuses it
	}
	action, object := actions[r.Operation.OperationID], ""
	for _, p := range c.Params {
		if p.Key == "action" {
			action = "account." + p.Value
			continue
		}
		object = p.Value
	}
	if err := identity.Authorize(who, action, object); err != nil {
		s.fail(c, err)
	}
}
