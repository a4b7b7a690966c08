package identity

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Assignment gives a PAM role to a principal or a group, within a scope.
type Assignment struct {
	ID        reeve.AssignmentID `cbor:"1,keyasint"`
	Role      string             `cbor:"2,keyasint"`
	Subject   string             `cbor:"3,keyasint"` // id of a principal or a group
	Scope     Scope              `cbor:"4,keyasint"`
	CreatedAt time.Time          `cbor:"5,keyasint"`
}

var assignments = store.NewTable("assignment",
	store.Key(func(a *Assignment) string { return string(a.ID) }),
	store.Index("subject", func(a *Assignment) []string { return []string{a.Subject} }),
	store.Index("role", func(a *Assignment) []string { return []string{a.Role} }),
	store.Index("tag", func(a *Assignment) []string {
		for _, k := range slices.Sorted(maps.Keys(a.Scope.Tags)) { // its first tag; an object that it covers has them all
			return []string{k, a.Scope.Tags[k]}
		}
		return nil
	}),
)

// NewAssignment is what Assign is asked for.
type NewAssignment struct {
	Role    string
	Subject string // name or id of a user or service account; or of a group, if Group
	Group   bool
	Scope   Scope
}

// Assign gives a PAM role to a principal or a group. The grantor must hold all of it in
// all of the scope: code grant_exceeds.
func Assign(tx *store.Tx, by audit.Actor, grantor Caller, in NewAssignment) (*Assignment, error) {
	role, err := GetPAMRole(tx, in.Role)
	if err != nil {
		return nil, invalid(err, "/role")
	}
	if err := in.Scope.check(tx); err != nil {
		return nil, err
	}
	subject, name, err := subjectOf(tx, in.Subject, in.Group)
	if err != nil {
		return nil, invalid(err, "/subject")
	}
	if err := mayGrant(tx, grantor, role.Privileges, in.Scope); err != nil {
		return nil, err
	}
	for have, err := range assignments.Scan(tx, "subject", store.Range{Prefix: []string{subject}}) {
		if err != nil {
			return nil, err
		}
		if have.Role == role.Name && have.Scope.Contains(in.Scope) && in.Scope.Contains(have.Scope) {
			return nil, reeve.Errorf(reeve.Conflict, "assignment_exists", "%s has PAM role %q there already (%s)", name, role.Name, have.ID)
		}
	}
	a := &Assignment{ID: reeve.NewAssignmentID(), Role: role.Name, Subject: subject, Scope: in.Scope, CreatedAt: tx.Now()}
	if err := assignments.Insert(tx, a); err != nil {
		return nil, err
	}
	if err := noteUses(tx, string(a.ID), Scope{}, a.Scope); err != nil {
		return nil, err
	}
	return a, audit.Record(tx, audit.Event{By: by, Action: "assignment.create", Object: string(a.ID), After: a.audited(name)})
}

func subjectOf(tx *store.Tx, ref string, group bool) (id, name string, err error) {
	if group {
		g, err := FindGroup(tx, ref)
		if err != nil {
			return "", "", err
		}
		return string(g.ID), g.Name, nil
	}
	p, err := FindPrincipal(tx, ref)
	if err != nil {
		return "", "", err
	}
	if p.Removed() {
		return "", "", principalRemoved(p)
	}
	return string(p.ID), p.Name, nil
}

// Unassign takes an assignment back. Only who could give it may: codes
// assignment_not_found, grant_exceeds.
func Unassign(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.AssignmentID) error {
	a, err := GetAssignment(tx, id)
	if err != nil {
		return err
	}
	role, err := GetPAMRole(tx, a.Role)
	if err == nil {
		err = mayGrant(tx, grantor, role.Privileges, a.Scope)
	}
	if err != nil {
		return err
	}
	return unassign(tx, by, a)
}

func unassign(tx *store.Tx, by audit.Actor, a *Assignment) error {
	if err := assignments.Delete(tx, string(a.ID)); err != nil {
		return err
	}
	if err := noteUses(tx, string(a.ID), a.Scope, Scope{}); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "assignment.delete", Object: string(a.ID), Before: a.audited(SubjectName(tx, a.Subject))})
}

// GetAssignment returns an assignment; code assignment_not_found.
func GetAssignment(tx *store.Tx, id reeve.AssignmentID) (*Assignment, error) {
	return assignments.Get(tx, string(id))
}

// AssignmentsOf yields the assignments of a principal or a group itself.
func AssignmentsOf(tx *store.Tx, subject string) iter.Seq2[*Assignment, error] {
	return assignments.Scan(tx, "subject", store.Range{Prefix: []string{subject}})
}

// AssignmentFilter narrows ListAssignments. Empty fields do not narrow.
type AssignmentFilter struct{ Role, Subject string }

// ListAssignments yields the assignments, oldest first, those after the id given only.
func ListAssignments(tx *store.Tx, after string, f AssignmentFilter) iter.Seq2[*Assignment, error] {
	return func(yield func(*Assignment, error) bool) {
		for a, err := range assignments.List(tx, after) {
			if err == nil && (f.Role != "" && a.Role != f.Role || f.Subject != "" && a.Subject != f.Subject) {
				continue
			}
			if !yield(a, err) || err != nil {
				return
			}
		}
	}
}

// SubjectName is the name of a principal or a group, or the id if there is none.
func SubjectName(tx *store.Tx, subject string) string {
	if p, err := principals.Get(tx, subject); err == nil {
		return p.Name
	}
	if g, err := groups.Get(tx, subject); err == nil {
		return g.Name
	}
	return subject
}

func (a *Assignment) audited(subject string) map[string]string {
	return map[string]string{"role": a.Role, "subject": a.Subject, "name": subject, "scope": a.Scope.String()}
}

// mayGrant fails with Denied "grant_exceeds" unless the grantor holds each of the
// privileges in all of the scope (nobody gives more than they have).
func mayGrant(tx *store.Tx, grantor Caller, privileges []Privilege, in Scope) error {
	sight, err := Look(tx, grantor)
	if err != nil {
		return err
	}
	for _, p := range privileges {
		if !sight.holds(p, in) {
			return reeve.Errorf(reeve.Denied, "grant_exceeds", "you would give %s in %s, which you do not hold yourself", p, in).
				WithFix("have it done by somebody who holds it")
		}
	}
	return nil
}

// mayActFor fails with Denied "grant_exceeds" unless the grantor holds all that the
// subject holds: who controls a principal, or who is in a group, can use its privileges.
func mayActFor(tx *store.Tx, grantor Caller, subject string) error {
	held, err := directHoldings(tx, subject, "")
	if p, perr := principals.Get(tx, subject); perr == nil {
		if p.Kind == Root && grantor.Kind != Root {
			return reeve.Errorf(reeve.Denied, "grant_exceeds", "only root may do this to root")
		}
		var all []holder
		if all, err = subjectsOf(tx, p.ID); err == nil {
			held, err = holdings(tx, all)
		}
	}
	if err != nil {
		return err
	}
	for _, h := range held {
		if err := mayGrant(tx, grantor, h.role.Privileges, h.assignment.Scope); err != nil {
			return err
		}
	}
	return nil
}

// invalid turns a NotFound about a field of the request into Invalid: the call was
// understood, its content names nothing.
func invalid(err error, field string) error {
	if reeve.KindOf(err) != reeve.NotFound {
		return err
	}
	return reeve.Errorf(reeve.Invalid, reeve.CodeOf(err), "%s", err.Error()).WithField(field)
}

// MayActFor fails with Denied "grant_exceeds" unless the grantor holds all that the
// principal holds: making a token for it is to become it.
func MayActFor(tx *store.Tx, grantor Caller, id reeve.PrincipalID) error {
	if grantor.ID == id {
		return nil
	}
	return mayActFor(tx, grantor, string(id))
}

// MayMove fails with Denied "grant_exceeds" if an asset that becomes another, by its tags,
// comes into scopes of assignments whose privileges the grantor does not hold for it as it
// is, or into those of access policies without access.grant for it: tags decide who may do
// what, so to set them is to grant.
func MayMove(tx *store.Tx, grantor Caller, from, to Object) error {
	m, err := newMove(tx, grantor, from, to)
	if err != nil {
		return err
	}
	for k, v := range to.Tags {
		for a, err := range assignments.Scan(tx, "tag", store.Range{Prefix: []string{k, v}}) {
			if err == nil {
				err = m.held(a)
			}
			if err != nil {
				return err
			}
		}
	}
	for g, err := range assetGroups.List(tx, "") {
		if err == nil && m.comesInto(g.Rule) {
			err = m.into(g.ID)
		}
		if err != nil {
			return err
		}
	}
	for p, err := range accessPolicies.List(tx, "") {
		if err == nil {
			err = m.shown(p)
		}
		if err != nil {
			return err
		}
	}
	return m.in.err
}

// move is an asset that becomes another, by its tags or by an asset group it is put into.
type move struct {
	tx       *store.Tx
	sight    Sight // of who moves it
	in       *groupings
	from, to Object
}

func newMove(tx *store.Tx, grantor Caller, from, to Object) (*move, error) {
	sight, err := Look(tx, grantor)
	return &move{tx, sight, newGroupings(tx), from, to}, err
}

// comesInto reports whether the scope covers the asset, and did not.
func (m *move) comesInto(s Scope) bool { return m.in.covers(s, m.to) && !m.in.covers(s, m.from) }

// into fails unless the asset may come into the scopes that name the group.
func (m *move) into(group reeve.AssetGroupID) error {
	held, shown, err := usesOf(m.tx, group)
	for _, a := range held {
		if err == nil {
			err = m.held(a)
		}
	}
	for _, p := range shown {
		if err == nil {
			err = m.shown(p)
		}
	}
	if err == nil {
		err = m.in.err
	}
	return err
}

// held fails if others come to hold by an assignment what the grantor does not hold.
func (m *move) held(a *Assignment) error {
	if !m.comesInto(a.Scope) {
		return nil
	}
	role, err := GetPAMRole(m.tx, a.Role)
	if err != nil {
		return err
	}
	for _, p := range role.Privileges {
		if !m.sight.gives(p, m.from) {
			return reeve.Errorf(reeve.Denied, "grant_exceeds", "by this PAM role %s would give %s to others (%s), which you do not hold yourself", role.Name, p, m.in.text(a.Scope)).
				WithFix("have it done by somebody who holds it")
		}
	}
	return nil
}

// shown fails if an access policy shows the asset to others by this, and the grantor may
// not write policies for it.
func (m *move) shown(p *AccessPolicy) error {
	if !m.comesInto(p.Scope) || m.sight.gives(AccessGrant, m.from) {
		return nil
	}
	return reeve.Errorf(reeve.Denied, "grant_exceeds", "by this access policy %s would show the asset to others (%s): that takes %s", p.Name, m.in.text(p.Scope), AccessGrant).
		WithFix("have it done by somebody who holds it")
}
