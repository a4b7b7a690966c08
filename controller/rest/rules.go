package rest

import (
	"fmt"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/controller/identity"
)

// rule declares an operation of the contract: what it needs, how its object is found,
// and what it records. An operation without one fails the server's start: nothing is
// allowed by oversight.
type rule struct {
	access  access
	needs   identity.Privilege
	kind    *kind  // of the object, for named
	records string // the action in the audit trail; "" for what only reads
	stepUp  bool   // who signed in must have proved who they are within the last minutes
	session bool   // only for somebody who signed in: no token does it, be it root's
}

// access is how it is decided whether a call is allowed.
type access string

const (
	// open calls need no token. Each proves itself otherwise: a share, a join token, a node
	// certificate, or nothing worth hiding.
	open access = "open"
	// own calls are for every principal, about itself.
	own access = "own"
	// whole calls are about the installation, or something in it that lies in no site.
	whole access = "whole"
	// named calls are about the object that the path names.
	named access = "named"
	// filtered calls are lists: they need the privilege somewhere, and show what it covers.
	filtered access = "filtered"
	// within calls name objects in their body: they need the privilege somewhere, and the
	// handler asks for each object.
	within access = "within"
)

// rules has one entry for each operation.
var rules = map[string]rule{
	"GetStatus": {access: open}, "UnsealNode": {access: open}, "JoinCluster": {access: open}, "RenewNode": {access: open},
	"SignIn": {access: open, records: "session.begin"}, "BeginSignIn": {access: open}, "AcceptInvitation": {access: open, records: "invitation.accept"},
	"BeginOIDC": {access: open}, "FinishOIDC": {access: open, records: "session.begin"},
	"SignInBrowser": {access: open, records: "session.begin"}, "BeginOIDCBrowser": {access: open},
	"CallbackOIDC": {access: open, records: "session.begin"}, "FinishOIDCBrowser": {access: open, records: "session.begin"},
	"Unwrap": {access: open, records: "wrap.open"}, "LookUpWrap": {access: open},

	"SealNode":            {access: whole, needs: identity.SealManage, records: "node.seal"},
	"GetSeal":             {access: whole, needs: identity.ClusterRead},
	"RotateKeys":          {access: whole, needs: identity.SealManage, records: "seal.rotate"},
	"StartRekey":          {access: whole, needs: identity.SealManage, records: "seal.rekey_start", stepUp: true},
	"ProveRekey":          {access: whole, needs: identity.SealManage, records: "seal.rekey_prove"},
	"CancelRekey":         {access: whole, needs: identity.SealManage, records: "seal.rekey_cancel"},
	"GetCluster":          {access: whole, needs: identity.ClusterRead},
	"CreateNodeJoinToken": {access: whole, needs: identity.ClusterManage, records: "join_token.create"},
	"RemoveNode":          {access: whole, needs: identity.ClusterManage, records: "node.remove"},
	"TransferLeadership":  {access: whole, needs: identity.ClusterManage, records: "cluster.transfer"},
	"AcceptClock":         {access: whole, needs: identity.ClusterManage, records: "cluster.accept_clock"},
	"SaveSnapshot":        {access: whole, needs: identity.ClusterManage, records: "cluster.save_snapshot", stepUp: true},
	"RestoreSnapshot":     {access: whole, needs: identity.ClusterRestore, records: "cluster.restore_snapshot", stepUp: true},

	"Whoami":      {access: own},
	"ListTokens":  {access: own},
	"CreateToken": {access: own, records: "token.create", stepUp: true},
	"RevokeToken": {access: own, records: "token.revoke"},
	"Can":         {access: own},

	"ListSessions":   {access: own},
	"StepUp":         {access: own, records: "session.step_up", session: true},
	"EndSession":     {access: own, records: "session.end"},
	"ChangePassword": {access: own, records: "password.change", session: true},

	// What these begin is recorded when it is finished.
	"BeginStepUp":        {access: own, records: "session.step_up", session: true},
	"BeginStepUpOIDC":    {access: own, records: "session.step_up", session: true},
	"BeginStepUpBrowser": {access: own, records: "session.step_up", session: true},
	"FinishStepUpOIDC":   {access: own, records: "session.step_up", session: true},

	"ListFactors":           {access: own},
	"AddFactor":             {access: own, records: "factor.add", stepUp: true, session: true},
	"ConfirmFactor":         {access: own, records: "factor.confirm", session: true},
	"RemoveFactor":          {access: own, records: "factor.remove", stepUp: true, session: true},
	"MakeRecoveryCodes":     {access: own, records: "recovery_code.create", stepUp: true, session: true},
	"GetSecurityKeys":       {access: own},
	"ConfigureSecurityKeys": {access: whole, needs: identity.IdentityManage, records: "security_keys.configure", stepUp: true},
	"ResetFactors":          {access: whole, needs: identity.IdentityManage, records: "factor.reset", stepUp: true, session: true},

	"ListUsers":   {access: whole, needs: identity.IdentityRead},
	"GetUser":     {access: whole, needs: identity.IdentityRead},
	"AddUser":     {access: whole, needs: identity.IdentityManage, records: "principal.create"},
	"EditUser":    {access: whole, needs: identity.IdentityManage, records: "principal.edit", stepUp: true},
	"DisableUser": {access: whole, needs: identity.IdentityManage, records: "principal.disable"},
	"EnableUser":  {access: whole, needs: identity.IdentityManage, records: "principal.enable", stepUp: true},
	"InviteUser":  {access: whole, needs: identity.IdentityManage, records: "invitation.create", stepUp: true},
	"UnlockUser":  {access: whole, needs: identity.IdentityManage, records: "principal.unlock"},
	"RemoveUser":  {access: whole, needs: identity.IdentityManage, records: "principal.remove"},

	"ListDirectories": {access: whole, needs: identity.IdentityRead},
	"AddDirectory":    {access: whole, needs: identity.IdentityManage, records: "directory.add", stepUp: true},
	"TestDirectory":   {access: whole, needs: identity.IdentityManage, records: "directory.test"},
	"RenewDirectory":  {access: whole, needs: identity.IdentityManage, records: "directory.renew", stepUp: true},
	"RemoveDirectory": {access: whole, needs: identity.IdentityManage, records: "directory.remove"},

	"ListOIDCProviders":  {access: whole, needs: identity.IdentityRead},
	"AddOIDCProvider":    {access: whole, needs: identity.IdentityManage, records: "oidc.add_provider", stepUp: true},
	"RemoveOIDCProvider": {access: whole, needs: identity.IdentityManage, records: "oidc.remove_provider"},

	"ListGroups":        {access: whole, needs: identity.IdentityRead},
	"GetGroup":          {access: whole, needs: identity.IdentityRead},
	"AddGroup":          {access: whole, needs: identity.IdentityManage, records: "group.create"},
	"RemoveGroup":       {access: whole, needs: identity.IdentityManage, records: "group.remove"},
	"AddGroupMember":    {access: whole, needs: identity.IdentityManage, records: "group.add_member", stepUp: true},
	"RemoveGroupMember": {access: whole, needs: identity.IdentityManage, records: "group.remove_member"},

	"ListPrivileges": {access: own},
	"ListPAMRoles":   {access: whole, needs: identity.IdentityRead},
	"GetPAMRole":     {access: whole, needs: identity.IdentityRead},
	"AddPAMRole":     {access: whole, needs: identity.AccessGrant, records: "pam_role.create", stepUp: true},
	"EditPAMRole":    {access: whole, needs: identity.AccessGrant, records: "pam_role.edit", stepUp: true},
	"DeletePAMRole":  {access: whole, needs: identity.AccessGrant, records: "pam_role.delete", stepUp: true},

	"ListAssignments":  {access: whole, needs: identity.IdentityRead},
	"AddAssignment":    {access: whole, needs: identity.AccessGrant, records: "assignment.create", stepUp: true},
	"DeleteAssignment": {access: whole, needs: identity.AccessGrant, records: "assignment.delete", stepUp: true},

	"ListAssetGroups":    {access: whole, needs: identity.AssetGroupRead},
	"GetAssetGroup":      {access: whole, needs: identity.AssetGroupRead},
	"CreateAssetGroup":   {access: whole, needs: identity.AssetGroupManage, records: "asset_group.create"},
	"EditAssetGroup":     {access: whole, needs: identity.AssetGroupManage, records: "asset_group.edit", stepUp: true},
	"DeleteAssetGroup":   {access: whole, needs: identity.AssetGroupManage, records: "asset_group.delete"},
	"AddGroupedAsset":    {access: named, needs: identity.AssetGroupManage, kind: assetKind, records: "asset_group.add_asset", stepUp: true},
	"RemoveGroupedAsset": {access: named, needs: identity.AssetGroupManage, kind: assetKind, records: "asset_group.remove_asset"},

	"ListAccessPolicies": {access: whole, needs: identity.IdentityRead},
	"GetAccessPolicy":    {access: whole, needs: identity.IdentityRead},
	"CreateAccessPolicy": {access: whole, needs: identity.AccessGrant, records: "access_policy.create", stepUp: true},
	"EditAccessPolicy":   {access: whole, needs: identity.AccessGrant, records: "access_policy.edit", stepUp: true},
	"DeleteAccessPolicy": {access: whole, needs: identity.AccessGrant, records: "access_policy.delete", stepUp: true},

	"ListSites":  {access: filtered, needs: identity.SiteRead},
	"GetSite":    {access: named, needs: identity.SiteRead, kind: siteKind},
	"AddSite":    {access: whole, needs: identity.SiteManage, records: "site.add"},
	"RetireSite": {access: named, needs: identity.SiteManage, kind: siteKind, records: "site.retire"},

	"ListAgents":           {access: filtered, needs: identity.AgentRead},
	"GetAgent":             {access: named, needs: identity.AgentRead, kind: agentKind},
	"CreateAgentJoinToken": {access: within, needs: identity.AgentManage, records: "join_token.create"},
	"BanAgent":             {access: named, needs: identity.AgentManage, kind: agentKind, records: "agent.ban"},
	"UnbanAgent":           {access: named, needs: identity.AgentManage, kind: agentKind, records: "agent.unban"},

	"ListConnectors":        {access: whole, needs: identity.ConnectorRead},
	"GetConnector":          {access: whole, needs: identity.ConnectorRead},
	"RegisterConnector":     {access: whole, needs: identity.ConnectorManage, records: "connector.register"},
	"RevokeConnectorDigest": {access: whole, needs: identity.ConnectorManage, records: "connector.revoke"},

	"ListRoles":  {access: whole, needs: identity.RoleRead},
	"GetRole":    {access: whole, needs: identity.RoleRead},
	"AddRole":    {access: whole, needs: identity.RoleManage, records: "role.add"},
	"CloneRole":  {access: whole, needs: identity.RoleManage, records: "role.clone"},
	"EditRole":   {access: whole, needs: identity.RoleManage, records: "role.edit"},
	"RetireRole": {access: whole, needs: identity.RoleManage, records: "role.retire"},

	"ListAssets":           {access: filtered, needs: identity.AssetRead},
	"GetAsset":             {access: named, needs: identity.AssetRead, kind: assetKind},
	"AddAsset":             {access: within, needs: identity.AssetManage, records: "asset.add"},
	"LabelAsset":           {access: named, needs: identity.AssetManage, kind: assetKind, records: "asset.label", stepUp: true},
	"RetireAsset":          {access: named, needs: identity.AssetManage, kind: assetKind, records: "asset.retire"},
	"TrustAsset":           {access: named, needs: identity.AssetManage, kind: assetKind, records: "asset.trust"},
	"SetManagementAccount": {access: named, needs: identity.LifecycleConfigure, kind: assetKind, records: "asset.set_management"},
	"VerifyAsset":          {access: named, needs: identity.LifecycleConfigure, kind: assetKind, records: "job.enqueue"},
	"CheckRights":          {access: named, needs: identity.LifecycleConfigure, kind: assetKind, records: "job.enqueue"},

	"ListAccounts":      {access: filtered, needs: identity.LifecycleView},
	"GetAccount":        {access: named, needs: identity.LifecycleView, kind: accountKind},
	"ProvisionAccounts": {access: within, needs: identity.LifecycleProvision, records: "account.provision"},
	"ActOnAccount":      {access: named, needs: identity.LifecycleManage, kind: accountKind, records: "account.act"},
	"RevealSecret":      {access: named, needs: identity.VaultReveal, kind: accountKind, records: "secret.reveal", stepUp: true},
	"WrapSecret":        {access: named, needs: identity.VaultReveal, kind: accountKind, records: "wrap.create", stepUp: true},

	"ListWraps":  {access: own},
	"RevokeWrap": {access: own, records: "wrap.revoke"},

	"ListJobs":  {access: filtered, needs: identity.JobRead},
	"GetJob":    {access: named, needs: identity.JobRead, kind: jobKind},
	"GetJobLog": {access: named, needs: identity.JobRead, kind: jobKind},
	"CancelJob": {access: named, needs: identity.JobManage, kind: jobKind, records: "job.cancel"},
	"RetryJob":  {access: named, needs: identity.JobManage, kind: jobKind, records: "job.retry"},

	"ListAudit":            {access: whole, needs: identity.AuditRead},
	"ListAuditCheckpoints": {access: whole, needs: identity.AuditRead},
	"ExportAudit":          {access: whole, needs: identity.AuditExport, records: "audit.export", stepUp: true},
	"RotateAuditKey":       {access: whole, needs: identity.AuditConfigure, records: "audit_key.rotate", stepUp: true},

	"ListAuditSinks":  {access: whole, needs: identity.AuditRead},
	"AddAuditSink":    {access: whole, needs: identity.AuditConfigure, records: "audit_sink.add", stepUp: true},
	"EditAuditSink":   {access: whole, needs: identity.AuditConfigure, records: "audit_sink.edit", stepUp: true},
	"TestAuditSink":   {access: whole, needs: identity.AuditConfigure, records: "audit_sink.test"},
	"RemoveAuditSink": {access: whole, needs: identity.AuditConfigure, records: "audit_sink.remove", stepUp: true},

	"ListServices":   {access: whole, needs: identity.ClusterRead},
	"EnableService":  {access: whole, needs: identity.ClusterManage, records: "service.enable"},
	"DisableService": {access: whole, needs: identity.ClusterManage, records: "service.disable", stepUp: true},
}

// needs is the privilege a call needs. Of an action on an account the action decides:
// to deprovision is as much as to provision.
func (r rule) privilege(c *gin.Context) identity.Privilege {
	if r.records == "account.act" && c.Param("action") == "deprovision" {
		return identity.LifecycleProvision
	}
	return r.needs
}

// checkRules refuses a contract and rules that do not fit together.
func (ct *contract) checkRules() error {
	for key, r := range ct.routes {
		name := r.Operation.OperationID
		declared, known := rules[name]
		switch {
		case !known:
			return fmt.Errorf("rest: declare in rules what %s (%s) needs", name, key)
		case declared.access != open && declared.access != own && identity.CheckPrivilege(declared.needs) != nil:
			return fmt.Errorf("rest: %s (%s) names no privilege", name, key)
		case declared.access == named && (declared.kind == nil || r.Operation.Parameters.GetByInAndName("path", declared.kind.param) == nil && r.PathItem.Parameters.GetByInAndName("path", declared.kind.param) == nil):
			return fmt.Errorf("rest: the path of %s (%s) does not name its object", name, key)
		case declared.records == "" && r.Method != "GET" && declared.access != open:
			return fmt.Errorf("rest: say in rules what %s (%s) records", name, key)
		}
	}
	if len(rules) != len(ct.routes) {
		return fmt.Errorf("rest: %d rules for %d operations", len(rules), len(ct.routes))
	}
	return nil
}
