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

// AccessPolicy limits what some principals see and work with, whatever their assignments
// give: to whom one or more policies apply, nothing in a site is there that is not in the
// scope of one of these. It gives nothing.
type AccessPolicy struct {
	ID          reeve.AccessPolicyID `cbor:"1,keyasint"`
	Name        string               `cbor:"2,keyasint"` // unique
	Description string               `cbor:"3,keyasint,omitempty"`
	For         Limited              `cbor:"4,keyasint"`
	Scope       Scope                `cbor:"5,keyasint"`
	CreatedAt   time.Time            `cbor:"6,keyasint"`
}

// Limited is to whom an access policy applies: any of them.
type Limited struct {
	Principals []reeve.PrincipalID `cbor:"1,keyasint,omitempty"`
	Groups     []reeve.GroupID     `cbor:"2,keyasint,omitempty"`
	Vendors    bool                `cbor:"3,keyasint,omitempty"` // everybody who works for another company
}

var accessPolicies = store.NewTable("access_policy",
	store.Key(func(p *AccessPolicy) string { return string(p.ID) }),
	store.Unique("name", func(p *AccessPolicy) []string { return []string{p.Name} }),
)

// policySubject says that a policy applies to a principal, a group, or vendors.
type policySubject struct {
	Subject string               `cbor:"1,keyasint"`
	Policy  reeve.AccessPolicyID `cbor:"2,keyasint"`
}

var policySubjects = store.NewTable("access_policy_subject",
	store.Key(func(s *policySubject) string { return s.Subject + "/" + string(s.Policy) }),
	store.Index("subject", func(s *policySubject) []string { return []string{s.Subject} }),
)

// vendors is the subject of policies that apply to all vendors.
const vendors = "vendors"

func (l Limited) subjects() []string {
	out := append(texts(l.Principals), texts(l.Groups)...)
	if l.Vendors {
		out = append(out, vendors)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// AccessPolicyText is what can be changed of an access policy.
type AccessPolicyText struct {
	Description string
	For         Limited
	Scope       Scope
}

const maxLimited = 256

func (in AccessPolicyText) check(tx *store.Tx) error {
	if err := checkText(in.Description); err != nil {
		return err
	}
	switch n := len(in.For.subjects()); {
	case n == 0:
		return reeve.Errorf(reeve.Invalid, "access_policy_for_nobody", "an access policy applies to users, groups or vendors").WithField("/users")
	case n > maxLimited:
		return reeve.Errorf(reeve.Invalid, "access_policy_too_big", "an access policy names up to %d users and groups", maxLimited).WithFix("name groups").WithField("/users")
	}
	for _, id := range in.For.Principals {
		switch p, err := GetPrincipal(tx, id); {
		case err != nil:
			return invalid(err, "/users")
		case p.Kind == Root:
			return reeve.Errorf(reeve.Invalid, "access_policy_for_root", "no access policy applies to root: it is the way in when nothing else is").WithField("/users")
		}
	}
	for _, id := range in.For.Groups {
		if _, err := FindGroup(tx, string(id)); err != nil {
			return invalid(err, "/groups")
		}
	}
	return in.Scope.check(tx)
}

// CreateAccessPolicy adds an access policy: codes name_invalid, access_policy_name_taken,
// access_policy_for_nobody. Policies are written by those who hold access.grant in
// everything and whom no policy limits, now or by this change: codes grant_exceeds,
// access_policy_limits_oneself. So whoever wrote it can take it back.
func CreateAccessPolicy(tx *store.Tx, by audit.Actor, grantor Caller, name string, in AccessPolicyText) (*AccessPolicy, error) {
	if !validName(name) {
		return nil, reeve.Errorf(reeve.Invalid, "name_invalid", "the name of an access policy is 1 to 64 of a-z, 0-9, '.', '-', '_' and '@'").WithField("/name")
	}
	p := &AccessPolicy{ID: reeve.NewAccessPolicyID(), Name: name, CreatedAt: tx.Now()}
	if err := savePolicy(tx, grantor, p, in); err != nil {
		return nil, err
	}
	return p, audit.Record(tx, audit.Event{By: by, Action: "access_policy.create", Object: string(p.ID), After: p.audited(tx)})
}

// EditAccessPolicy replaces what an access policy says, under the conditions of
// CreateAccessPolicy.
func EditAccessPolicy(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.AccessPolicyID, in AccessPolicyText) (*AccessPolicy, error) {
	p, err := FindAccessPolicy(tx, string(id))
	if err != nil {
		return nil, err
	}
	before := p.audited(tx)
	if err := savePolicy(tx, grantor, p, in); err != nil {
		return nil, err
	}
	return p, audit.Record(tx, audit.Event{By: by, Action: "access_policy.edit", Object: string(id), Before: before, After: p.audited(tx)})
}

func savePolicy(tx *store.Tx, grantor Caller, p *AccessPolicy, in AccessPolicyText) error {
	if err := in.check(tx); err != nil {
		return err
	}
	if err := mayWritePolicies(tx, grantor); err != nil {
		return err
	}
	if err := unlink(tx, p); err != nil {
		return err
	}
	if err := noteUses(tx, string(p.ID), p.Scope, in.Scope); err != nil {
		return err
	}
	p.Description, p.For, p.Scope = in.Description, in.For, in.Scope
	for _, s := range p.For.subjects() {
		if err := policySubjects.Put(tx, &policySubject{Subject: s, Policy: p.ID}); err != nil {
			return err
		}
	}
	if err := accessPolicies.Put(tx, p); err != nil {
		return err
	}
	sight, err := Look(tx, grantor)
	if err == nil && !sight.unlimited() {
		return reeve.Errorf(reeve.Conflict, "access_policy_limits_oneself", "this policy would limit you, and you could not take it back").
			WithFix("leave yourself out, or have it done by another administrator")
	}
	return err
}

func mayWritePolicies(tx *store.Tx, grantor Caller) error {
	return mayGrant(tx, grantor, []Privilege{AccessGrant}, Scope{Everything: true})
}

// unlink takes a policy from everybody it applies to.
func unlink(tx *store.Tx, p *AccessPolicy) error {
	for _, s := range p.For.subjects() {
		if err := policySubjects.Delete(tx, s+"/"+string(p.ID)); err != nil {
			return err
		}
	}
	return nil
}

// DeleteAccessPolicy deletes an access policy, under the conditions of CreateAccessPolicy:
// those it applied to see what their assignments give, unless another policy applies.
func DeleteAccessPolicy(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.AccessPolicyID) error {
	p, err := FindAccessPolicy(tx, string(id))
	if err == nil {
		err = mayWritePolicies(tx, grantor)
	}
	if err != nil {
		return err
	}
	before := p.audited(tx)
	if err := unlink(tx, p); err != nil {
		return err
	}
	if err := noteUses(tx, string(p.ID), p.Scope, Scope{}); err != nil {
		return err
	}
	if err := accessPolicies.Delete(tx, string(id)); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "access_policy.delete", Object: string(id), Before: before})
}

// FindAccessPolicy returns an access policy by id or name; code access_policy_not_found.
func FindAccessPolicy(tx *store.Tx, ref string) (*AccessPolicy, error) {
	var p *AccessPolicy
	var err error
	if reeve.ValidID("apol", ref) {
		p, err = accessPolicies.Get(tx, ref)
	} else {
		p, err = accessPolicies.Find(tx, "name", ref)
	}
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, reeve.Errorf(reeve.NotFound, "access_policy_not_found", "there is no access policy %q", ref).WithFix("see what there is: reeve access-policy list")
	}
	return p, err
}

// ListAccessPolicies yields the access policies, oldest first, those after the id given only.
func ListAccessPolicies(tx *store.Tx, after string) iter.Seq2[*AccessPolicy, error] {
	return accessPolicies.List(tx, after)
}

// PoliciesOf are the access policies that apply to a principal.
func PoliciesOf(tx *store.Tx, p *Principal) ([]*AccessPolicy, error) {
	if p.Kind == Root {
		return nil, nil
	}
	all, err := subjectsOf(tx, p.ID)
	if err != nil {
		return nil, err
	}
	return policiesFor(tx, p, all)
}

// policiesFor are the policies that apply to a principal that is known as these holders.
func policiesFor(tx *store.Tx, p *Principal, all []holder) ([]*AccessPolicy, error) {
	var out []*AccessPolicy
	if p.Profile.Vendor {
		all = append(slices.Clone(all), holder{id: vendors})
	}
	for _, s := range all {
		for link, err := range policySubjects.Scan(tx, "subject", store.Range{Prefix: []string{s.id}}) {
			if err != nil {
				return nil, err
			}
			if slices.ContainsFunc(out, func(have *AccessPolicy) bool { return have.ID == link.Policy }) {
				continue
			}
			policy, err := accessPolicies.Get(tx, string(link.Policy))
			if err != nil {
				return nil, err
			}
			out = append(out, policy)
		}
	}
	return out, nil
}

// limits reports whether any access policy names the group.
func limits(tx *store.Tx, group reeve.GroupID) (bool, error) {
	for _, err := range policySubjects.Scan(tx, "subject", store.Range{Prefix: []string{string(group)}}) {
		return err == nil, err
	}
	return false, nil
}

func (p *AccessPolicy) audited(tx *store.Tx) map[string]string {
	m := map[string]string{"name": p.Name, "scope": p.Scope.String()}
	if p.Description != "" {
		m["description"] = p.Description
	}
	var who []string
	for _, s := range p.For.subjects() {
		who = append(who, SubjectName(tx, s))
	}
	m["for"], m["subjects"] = strings.Join(who, " "), strings.Join(p.For.subjects(), " ")
	return m
}
