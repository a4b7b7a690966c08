package identity

import (
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// PAMRole is a named set of privileges.
type PAMRole struct {
	Name        string      `cbor:"1,keyasint"` // for ever; unique
	Title       string      `cbor:"2,keyasint,omitempty"`
	Description string      `cbor:"3,keyasint,omitempty"`
	Privileges  []Privilege `cbor:"4,keyasint,omitempty"` // sorted
	BuiltIn     bool        `cbor:"-"`
	CreatedAt   time.Time   `cbor:"5,keyasint,omitzero"`
}

var pamRoles = store.NewTable("pam_role", store.Key(func(r *PAMRole) string { return r.Name }))

// builtIn are the PAM roles every installation has. They cannot be changed: clone one
// by writing a PAM role with its privileges.
var builtIn = []PAMRole{
	{Name: "administrator", Title: "Administrator", Description: "everything", Privileges: all()},
	{Name: "approver", Title: "Approver", Description: "decides about requests", Privileges: []Privilege{WorkflowApprove, AssetRead, LifecycleView, SiteRead}},
	{Name: "asset-manager", Title: "Asset Manager", Description: "adds assets and their management accounts",
		Privileges: []Privilege{AgentRead, AssetGroupManage, AssetGroupRead, AssetManage, AssetRead, ConnectorRead, JobRead, LifecycleConfigure, RoleRead, SiteRead}},
	{Name: "auditor", Title: "Auditor", Description: "sees everything but passwords, changes nothing",
		Privileges: []Privilege{AgentRead, AssetGroupRead, AssetRead, AuditExport, AuditRead, ClusterRead, ConnectorRead, IdentityRead, JobRead, LifecycleView, RoleRead, SiteRead}},
	{Name: "lifecycle-operator", Title: "Lifecycle Operator", Description: "provisions accounts and looks after them",
		Privileges: []Privilege{AssetRead, ConnectorRead, JobManage, JobRead, LifecycleManage, LifecycleProvision, LifecycleView, RoleRead, SiteRead}},
	{Name: "task-author", Title: "Task Author", Description: "writes privileged tasks", Privileges: []Privilege{AssetRead, LifecycleView, TaskAuthor, TaskRun}},
	{Name: "task-operator", Title: "Task Operator", Description: "runs privileged tasks", Privileges: []Privilege{TaskRun}},
	{Name: "user", Title: "User", Description: "requests the use of accounts", Privileges: []Privilege{AssetRead, LifecycleView, WorkflowRequest}},
}

func all() []Privilege {
	var out []Privilege
	for _, i := range privileges {
		out = append(out, i.Privilege)
	}
	slices.Sort(out)
	return out
}

// Administrator is the built-in PAM role that holds every privilege.
const Administrator = "administrator"

func findBuiltIn(name string) (*PAMRole, bool) {
	i := slices.IndexFunc(builtIn, func(r PAMRole) bool { return r.Name == name })
	if i < 0 {
		return nil, false
	}
	r := builtIn[i]
	r.BuiltIn = true
	r.Privileges = slices.Clone(r.Privileges)
	return &r, true
}

// GetPAMRole returns a PAM role; code pam_role_not_found.
func GetPAMRole(tx *store.Tx, name string) (*PAMRole, error) {
	if r, ok := findBuiltIn(name); ok {
		return r, nil
	}
	r, err := pamRoles.Get(tx, name)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, reeve.Errorf(reeve.NotFound, "pam_role_not_found", "there is no PAM role %q", name).WithFix("see what there is: reeve pam-role list")
	}
	return r, err
}

// ListPAMRoles yields the PAM roles by name, those after the name given only.
func ListPAMRoles(tx *store.Tx, after string) iter.Seq2[*PAMRole, error] {
	return func(yield func(*PAMRole, error) bool) {
		fixed := builtIn
		for r, err := range pamRoles.List(tx, after) {
			for len(fixed) > 0 && (err == nil && fixed[0].Name < r.Name) {
				if b, _ := findBuiltIn(fixed[0].Name); b.Name > after && !yield(b, nil) {
					return
				}
				fixed = fixed[1:]
			}
			if !yield(r, err) || err != nil {
				return
			}
		}
		for ; len(fixed) > 0; fixed = fixed[1:] {
			if b, _ := findBuiltIn(fixed[0].Name); b.Name > after && !yield(b, nil) {
				return
			}
		}
	}
}

// PAMRoleText is what a PAM role says.
type PAMRoleText struct {
	Title, Description string
	Privileges         []Privilege
}

func (in *PAMRoleText) check() error {
	for _, t := range []string{in.Title, in.Description} {
		if err := checkText(t); err != nil {
			return err
		}
	}
	slices.Sort(in.Privileges)
	in.Privileges = slices.Compact(in.Privileges)
	for _, p := range in.Privileges {
		if err := CheckPrivilege(p); err != nil {
			return err
		}
	}
	return nil
}

// CreatePAMRole adds a PAM role. It may hold nothing that the grantor does not hold
// everywhere: code grant_exceeds. A name in use is Conflict "pam_role_exists".
func CreatePAMRole(tx *store.Tx, by audit.Actor, grantor Caller, name string, in PAMRoleText) (*PAMRole, error) {
	if !validName(name) {
		return nil, reeve.Errorf(reeve.Invalid, "name_invalid", "the name of a PAM role is 1 to 64 of a-z, 0-9, '.', '-', '_' and '@'").WithField("/name")
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	if _, taken := findBuiltIn(name); taken {
		return nil, reeve.Errorf(reeve.Conflict, "pam_role_exists", "there is a built-in PAM role %q", name).WithField("/name")
	}
	if err := mayGrant(tx, grantor, in.Privileges, Scope{Everything: true}); err != nil {
		return nil, err
	}
	r := &PAMRole{Name: name, Title: in.Title, Description: in.Description, Privileges: in.Privileges, CreatedAt: tx.Now()}
	if err := pamRoles.Insert(tx, r); err != nil {
		return nil, err
	}
	return r, audit.Record(tx, audit.Event{By: by, Action: "pam_role.create", Object: name, After: r.audited()})
}

// EditPAMRole changes a PAM role, for everybody who has it, from their next call on. Of
// what is added or taken away the grantor must hold everything everywhere.
func EditPAMRole(tx *store.Tx, by audit.Actor, grantor Caller, name string, in PAMRoleText) (*PAMRole, error) {
	r, err := editable(tx, name)
	if err != nil {
		return nil, err
	}
	if err := in.check(); err != nil {
		return nil, err
	}
	changed := slices.DeleteFunc(slices.Concat(in.Privileges, r.Privileges), func(p Privilege) bool {
		return slices.Contains(r.Privileges, p) && slices.Contains(in.Privileges, p)
	})
	if err := mayGrant(tx, grantor, changed, Scope{Everything: true}); err != nil {
		return nil, err
	}
	before := r.audited()
	r.Title, r.Description, r.Privileges = in.Title, in.Description, in.Privileges
	if err := pamRoles.Put(tx, r); err != nil {
		return nil, err
	}
	return r, audit.Record(tx, audit.Event{By: by, Action: "pam_role.edit", Object: name, Before: before, After: r.audited()})
}

// DeletePAMRole removes a PAM role that nobody has: code pam_role_in_use.
func DeletePAMRole(tx *store.Tx, by audit.Actor, name string) error {
	r, err := editable(tx, name)
	if err != nil {
		return err
	}
	for a, err := range assignments.Scan(tx, "role", store.Range{Prefix: []string{name}}) {
		if err != nil {
			return err
		}
		return reeve.Errorf(reeve.Conflict, "pam_role_in_use", "PAM role %q is assigned (%s)", name, a.ID).
			WithFix("remove its assignments first: reeve assignment list --role %s", name)
	}
	if err := pamRoles.Delete(tx, name); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "pam_role.delete", Object: name, Before: r.audited()})
}

func editable(tx *store.Tx, name string) (*PAMRole, error) {
	r, err := GetPAMRole(tx, name)
	if err == nil && r.BuiltIn {
		return nil, reeve.Errorf(reeve.Conflict, "pam_role_built_in", "PAM role %q is built in and cannot be changed", name).
			WithFix("make one of your own: reeve pam-role add --help")
	}
	return r, err
}

func (r *PAMRole) audited() map[string]string {
	words := make([]string, len(r.Privileges))
	for i, p := range r.Privileges {
		words[i] = string(p)
	}
	return map[string]string{"title": r.Title, "description": r.Description, "privileges": strings.Join(words, " ")}
}
