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

	AssetGroupRead   Privilege = "asset-group.read"
	AssetGroupManage Privilege = "asset-group.manage"

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
	// ShowsAll marks what belongs to the installation and yet shows what lies in sites: to
	// whom an access policy applies has it only if a policy shows everything.
	ShowsAll bool
}

var privileges = []PrivilegeInfo{
	{Privilege: ClusterRead, Help: "see controllers, leadership and the state of the seal"},
	{Privilege: ClusterManage, Help: "add and remove controllers, move leadership, save snapshots, accept a clock"},
	{Privilege: ClusterRestore, Help: "replace all state by a snapshot"},
	{Privilege: SealManage, Help: "seal, rotate keys, change the seal key"},
	{Privilege: IdentityRead, Help: "see users, groups, PAM roles and assignments, and explain decisions"},
	{Privilege: IdentityManage, Help: "add, change, disable and remove users, service accounts and groups"},
	{Privilege: AccessGrant, Help: "write PAM roles and access policies and assign PAM roles, never more than one holds"},
	{Privilege: TokenManage, Help: "see and revoke everybody's tokens; make tokens for service accounts"},
	{Privilege: SiteRead, Help: "see sites"},
	{Privilege: SiteManage, Help: "add and retire sites"},
	{Privilege: AgentRead, Help: "see agents"},
	{Privilege: AgentManage, Help: "let agents join, ban them and let them back in"},
	{Privilege: ConnectorRead, Help: "see connectors", Catalogue: true},
	{Privilege: ConnectorManage, Help: "register builds of connectors and forbid them"},
	{Privilege: RoleRead, Help: "see the role catalogue", Catalogue: true},
	{Privilege: RoleManage, Help: "write custom roles"},
	{Privilege: AssetRead, Help: "see assets"},
	{Privilege: AssetManage, Help: "add, label and retire assets, approve their identity"},
	{Privilege: AssetGroupRead, Help: "see asset groups"},
	{Privilege: AssetGroupManage, Help: "write asset groups, put assets into them and take them out"},
	{Privilege: LifecycleView, Help: "see accounts, their plans and facts"},
	{Privilege: LifecycleProvision, Help: "provision and deprovision accounts"},
	{Privilege: LifecycleManage, Help: "verify, inspect, rotate, reconcile, disable and enable accounts"},
	{Privilege: LifecycleConfigure, Help: "set and verify management accounts, check their rights"},
	{Privilege: VaultReveal, Help: "see passwords"},
	{Privilege: JobRead, Help: "see jobs and their logs"},
	{Privilege: JobManage, Help: "cancel jobs and try them again"},
	{Privilege: AuditRead, Help: "read the audit trail", ShowsAll: true},
	{Privilege: AuditExport, Help: "export the audit trail", ShowsAll: true},
	{Privilege: AuditConfigure, Help: "say where the audit trail goes outside the cluster", ShowsAll: true},
	{Privilege: WorkflowRequest, Help: "request the use of accounts"},
	{Privilege: WorkflowApprove, Help: "decide about requests"},
	{Privilege: WorkflowConfigure, Help: "write rules of approval"},
	{Privilege: TaskAuthor, Help: "write privileged tasks"},
	{Privilege: TaskRun, Help: "run privileged tasks"},
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
