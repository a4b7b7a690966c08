package identity

import (
	"iter"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Group is a set of principals that PAM roles can be assigned to.
type Group struct {
	ID          reeve.GroupID `cbor:"1,keyasint"`
	Name        string        `cbor:"2,keyasint"` // unique
	Description string        `cbor:"3,keyasint,omitempty"`
	CreatedAt   time.Time     `cbor:"4,keyasint"`
	RemovedAt   time.Time     `cbor:"5,keyasint,omitzero"`   // kept, so that old records keep its name
	Directory   string        `cbor:"10,keyasint,omitempty"` // that says who is in it; "": people do
	External    string        `cbor:"11,keyasint,omitempty"` // what the directory calls it
}

// Removed reports whether the group was removed.
func (g *Group) Removed() bool { return !g.RemovedAt.IsZero() }

type membership struct {
	Group     reeve.GroupID     `cbor:"1,keyasint"`
	Principal reeve.PrincipalID `cbor:"2,keyasint"`
	Since     time.Time         `cbor:"3,keyasint"`
}

var groups = store.NewTable("group",
	store.Key(func(g *Group) string { return string(g.ID) }),
	store.Unique("name", func(g *Group) []string { return []string{g.Name} }),
)

var memberships = store.NewTable("membership",
	store.Key(func(m *membership) string { return membershipKey(m.Group, m.Principal) }),
	store.Index("principal", func(m *membership) []string { return []string{string(m.Principal)} }),
	store.Index("group", func(m *membership) []string { return []string{string(m.Group)} }),
)

func membershipKey(g reeve.GroupID, p reeve.PrincipalID) string { return string(g) + "/" + string(p) }

// CreateGroup adds a group without members: codes name_invalid, group_name_taken. The
// name of a group that was removed stays taken, so that old records mean what they say.
func CreateGroup(tx *store.Tx, by audit.Actor, name, description string) (*Group, error) {
	if !validName(name) {
		return nil, reeve.Errorf(reeve.Invalid, "name_invalid", "the name of a group is 1 to 64 of a-z, 0-9, '.', '-', '_' and '@'").WithField("/name")
	}
	if err := checkText(description); err != nil {
		return nil, err
	}
	g := &Group{ID: reeve.NewGroupID(), Name: name, Description: description, CreatedAt: tx.Now()}
	if err := groups.Insert(tx, g); err != nil {
		return nil, err
	}
	return g, audit.Record(tx, audit.Event{By: by, Action: "group.create", Object: string(g.ID), After: map[string]string{"name": name, "description": description}})
}

// FindGroup returns a group that was not removed, by id or name; code group_not_found.
func FindGroup(tx *store.Tx, ref string) (*Group, error) {
	var g *Group
	var err error
	if reeve.ValidID("grp", ref) {
		g, err = groups.Get(tx, ref)
	} else {
		g, err = groups.Find(tx, "name", ref)
	}
	if reeve.KindOf(err) == reeve.NotFound || err == nil && g.Removed() {
		return nil, reeve.Errorf(reeve.NotFound, "group_not_found", "there is no group %q", ref)
	}
	return g, err
}

// ListGroups yields the groups that were not removed, oldest first, after the id given.
func ListGroups(tx *store.Tx, after string) iter.Seq2[*Group, error] {
	return func(yield func(*Group, error) bool) {
		for g, err := range groups.List(tx, after) {
			if err == nil && g.Removed() {
				continue
			}
			if !yield(g, err) || err != nil {
				return
			}
		}
	}
}

// RemoveGroup takes everything from a group: its members, its assignments and its place
// in lists. Its name stays for old records. The grantor must hold all that the group
// holds: code grant_exceeds. While access policies name it, it stays: code group_in_use.
func RemoveGroup(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.GroupID) error {
	g, err := FindGroup(tx, string(id))
	if err == nil {
		err = mayActFor(tx, grantor, string(id))
	}
	if err != nil {
		return err
	}
	if limited, err := limits(tx, id); err != nil || limited {
		return groupInUse(err, g)
	}
	for p, err := range Members(tx, id, "") {
		if err == nil {
			err = memberships.Delete(tx, membershipKey(id, p.ID))
		}
		if err != nil {
			return err
		}
	}
	if err := dropAssignments(tx, by, string(id)); err != nil {
		return err
	}
	g.RemovedAt = tx.Now()
	if err := groups.Put(tx, g); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "group.remove", Object: string(id), Before: map[string]string{"name": g.Name}})
}

// groupInUse is the refusal to remove a group that access policies limit, unless finding
// that out failed already: its members would see more.
func groupInUse(err error, g *Group) error {
	if err != nil {
		return err
	}
	return reeve.Errorf(reeve.Conflict, "group_in_use", "access policies name group %q", g.Name).
		WithFix("take it out of them first; see reeve access-policy list")
}

func dropAssignments(tx *store.Tx, by audit.Actor, subject string) error {
	for a, err := range assignments.Scan(tx, "subject", store.Range{Prefix: []string{subject}}) {
		if err == nil {
			err = unassign(tx, by, a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Members yields the members of a group, oldest principal first, after the id given.
func Members(tx *store.Tx, group reeve.GroupID, after string) iter.Seq2[*Principal, error] {
	return func(yield func(*Principal, error) bool) {
		for m, err := range memberships.Scan(tx, "group", store.Range{Prefix: []string{string(group)}}) {
			if err == nil && string(m.Principal) <= after {
				continue
			}
			var p *Principal
			if err == nil {
				p, err = GetPrincipal(tx, m.Principal)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// GroupsOf are the groups a principal is in.
func GroupsOf(tx *store.Tx, id reeve.PrincipalID) ([]*Group, error) {
	var out []*Group
	for m, err := range memberships.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
		if err != nil {
			return nil, err
		}
		g, err := groups.Get(tx, string(m.Group))
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

// AddMember puts a principal into a group; once is enough. The grantor must hold all that
// the group holds: code grant_exceeds.
func AddMember(tx *store.Tx, by audit.Actor, grantor Caller, group reeve.GroupID, principal reeve.PrincipalID) error {
	g, err := FindGroup(tx, string(group))
	if err != nil {
		return err
	}
	p, err := GetPrincipal(tx, principal)
	if err != nil {
		return err
	}
	if p.Removed() {
		return principalRemoved(p)
	}
	if err := g.byHand(); err != nil {
		return err
	}
	if err := mayChangeMember(tx, grantor, group, principal); err != nil {
		return err
	}
	return join(tx, by, g, p)
}

// mayChangeMember fails with Denied "grant_exceeds" unless the grantor holds all that the
// group holds. Where access policies name the group, the principal sees more or less from
// now on: the grantor must hold all that it holds as well, also if that is themselves.
func mayChangeMember(tx *store.Tx, grantor Caller, group reeve.GroupID, principal reeve.PrincipalID) error {
	if err := mayActFor(tx, grantor, string(group)); err != nil {
		return err
	}
	limited, err := limits(tx, group)
	if err != nil || !limited {
		return err
	}
	return mayActFor(tx, grantor, string(principal))
}

// join puts a principal into a group.
func join(tx *store.Tx, by audit.Actor, g *Group, p *Principal) error {
	group, principal := g.ID, p.ID
	switch _, err := memberships.Get(tx, membershipKey(group, principal)); {
	case err == nil:
		return nil
	case reeve.KindOf(err) != reeve.NotFound:
		return err
	}
	if err := memberships.Insert(tx, &membership{Group: group, Principal: principal, Since: tx.Now()}); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "group.add_member", Object: string(group), Details: map[string]string{"group": g.Name, "principal": string(principal), "name": p.Name}})
}

// RemoveMember takes a principal out of a group; not being in it is no error. The grantor
// must hold all that the group holds: code grant_exceeds.
func RemoveMember(tx *store.Tx, by audit.Actor, grantor Caller, group reeve.GroupID, principal reeve.PrincipalID) error {
	g, err := FindGroup(tx, string(group))
	if err != nil {
		return err
	}
	p, err := GetPrincipal(tx, principal)
	if err == nil {
		err = g.byHand()
	}
	if err == nil {
		err = mayChangeMember(tx, grantor, group, principal)
	}
	if err != nil {
		return err
	}
	return leave(tx, by, g, p)
}

// leave takes a principal out of a group.
func leave(tx *store.Tx, by audit.Actor, g *Group, p *Principal) error {
	group, principal := g.ID, p.ID
	err := memberships.Delete(tx, membershipKey(group, principal))
	if reeve.KindOf(err) == reeve.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "group.remove_member", Object: string(group), Details: map[string]string{"group": g.Name, "principal": string(principal), "name": p.Name}})
}
