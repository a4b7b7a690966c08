package identity

import (
	"slices"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Privilege is a verb on a kind of thing, kind.verb: what a principal may do with Reeve.
// It is never a right on a target; those come from roles of the catalogue.
type Privilege string

// The privileges. Those of workflow and task are here for the built-in PAM roles, which
// people assign before they need them.
const (
	ClusterRead    Privilege = "cluster.read"
	ClusterManage  Privilege = "cluster.manage"
	ClusterRestore Privilege = "cluster.restore"
	SealManage     Privilege = "seal.manage"

	IdentityRead   Privilege = "identity.read"
	IdentityManage Privilege = "identity.manage"
	AccessGrant    Privilege = "access.grant"
	TokenManage    Privilege = "token.manage" //nolint:gosec // G101: the name of a privilege

	SiteRead        Privilege = "site.read"
	SiteManage      Privilege = "site.manage"
	AgentRead       Privilege = "agent.read"
	AgentManage     Privilege = "agent.manage"
	ConnectorRead   Privilege = "connector.read"
	ConnectorManage Privilege = "connector.manage"
	RoleRead        Privilege = "role.read"
	RoleManage      Privilege = "role.manage"
	AssetRead       Privilege = "asset.read"
	AssetManage     Privilege = "asset.manage"

	LifecycleView      Privilege = "lifecycle.view"
	LifecycleProvision Privilege = "lifecycle.provision"
	LifecycleManage    Privilege = "lifecycle.manage"
	LifecycleConfigure Privilege = "lifecycle.configure"
	VaultReveal        Privilege = "vault.reveal"
	JobRead            Privilege = "job.read"
	JobManage          Privilege = "job.manage"

	AuditRead      Privilege = "audit.read"
	AuditExport    Privilege = "audit.export"
	AuditConfigure Privilege = "audit.configure"

	WorkflowRequest   Privilege = "workflow.request"
	WorkflowApprove   Privilege = "workflow.approve"
	WorkflowConfigure Privilege = "workflow.configure"
	TaskAuthor        Privilege = "task.author"
	TaskRun           Privilege = "task.run"
)

// PrivilegeInfo says what a privilege lets somebody do.
type PrivilegeInfo struct {
	Privilege Privilege
	Help      string
	// Catalogue marks what is the same for everybody who may see any of it: reading the
	// catalogue of roles and connectors has no place that a scope could narrow.
	Catalogue bool
}

var privileges = []PrivilegeInfo{
	{ClusterRead, "see controllers, leadership and the state of the seal", false},
	{ClusterManage, "add and remove controllers, move leadership, save snapshots, accept a clock", false},
	{ClusterRestore, "replace all state by a snapshot", false},
	{SealManage, "seal, rotate keys, change the seal key", false},
	{IdentityRead, "see users, groups, PAM roles and assignments, and explain decisions", false},
	{IdentityManage, "add, change, disable and remove users, service accounts and groups", false},
	{AccessGrant, "write PAM roles and assign them, never more than one holds", false},
	{TokenManage, "see and revoke everybody's tokens; make tokens for service accounts", false},
	{SiteRead, "see sites", false},
	{SiteManage, "add and retire sites", false},
	{AgentRead, "see agents", false},
	{AgentManage, "let agents join, ban them and let them back in", false},
	{ConnectorRead, "see connectors", true},
	{ConnectorManage, "register builds of connectors and forbid them", false},
	{RoleRead, "see the role catalogue", true},
	{RoleManage, "write custom roles", false},
	{AssetRead, "see assets", false},
	{AssetManage, "add, label and retire assets, approve their identity", false},
	{LifecycleView, "see accounts, their plans and facts", false},
	{LifecycleProvision, "provision and deprovision accounts", false},
	{LifecycleManage, "verify, inspect, rotate, reconcile, disable and enable accounts", false},
	{LifecycleConfigure, "set and verify management accounts, check their rights", false},
	{VaultReveal, "see passwords", false},
	{JobRead, "see jobs and their logs", false},
	{JobManage, "cancel jobs and try them again", false},
	{AuditRead, "read the audit trail", false},
	{AuditExport, "export the audit trail", false},
	{AuditConfigure, "say where the audit trail goes outside the cluster", false},
	{WorkflowRequest, "request the use of accounts", false},
	{WorkflowApprove, "decide about requests", false},
	{WorkflowConfigure, "write rules of approval", false},
	{TaskAuthor, "write privileged tasks", false},
	{TaskRun, "run privileged tasks", false},
}

// Privileges lists all privileges.
func Privileges() []PrivilegeInfo { return slices.Clone(privileges) }

func infoOf(p Privilege) (PrivilegeInfo, bool) {
	i := slices.IndexFunc(privileges, func(i PrivilegeInfo) bool { return i.Privilege == p })
	if i < 0 {
		return PrivilegeInfo{}, false
	}
	return privileges[i], true
}

// CheckPrivilege fails with code privilege_unknown. Names are exact: there are no
// prefixes and no wildcards.
func CheckPrivilege(p Privilege) error {
	if _, known := infoOf(p); !known {
		return reeve.Errorf(reeve.Invalid, "privilege_unknown", "there is no privilege %q", string(p)).WithFix("see what there is: reeve pam-role privileges")
	}
	return nil
}
