package identity

import (
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Decision is what Decide found.
type Decision struct {
	Allowed bool
	// Because says which assignment allows it, or why none does.
	Because    string
	Assignment *Assignment // that allows it; nil for root and for what is denied
	Group      string      // name of the group through which the assignment came
	// Policies are the access policy that shows the object, or all that apply and hide it.
	Policies []*AccessPolicy
}

// holding is a PAM role that a principal has somewhere.
type holding struct {
	assignment *Assignment
	role       *PAMRole
	group      string // "" if it is the principal's own
}

// holder is what assignments and access policies name: a principal, or a group it is in.
type holder struct {
	id    string
	group string // name of the group; "" if it is the principal itself
}

// subjectsOf is the principal itself, and then its groups.
func subjectsOf(tx *store.Tx, id reeve.PrincipalID) ([]holder, error) {
	out := []holder{{id: string(id)}}
	for m, err := range memberships.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
		if err != nil {
			return nil, err
		}
		g, err := groups.Get(tx, string(m.Group))
		if err != nil {
			return nil, err
		}
		out = append(out, holder{string(g.ID), g.Name})
	}
	return out, nil
}

// holdings are all PAM roles of some holders, in their order.
func holdings(tx *store.Tx, all []holder) ([]holding, error) {
	var out []holding
	for _, s := range all {
		more, err := directHoldings(tx, s.id, s.group)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

func directHoldings(tx *store.Tx, subject, group string) ([]holding, error) {
	var out []holding
	for a, err := range assignments.Scan(tx, "subject", store.Range{Prefix: []string{subject}}) {
		if err != nil {
			return nil, err
		}
		role, err := GetPAMRole(tx, a.Role)
		if err != nil {
			return nil, err
		}
		out = append(out, holding{a, role, group})
	}
	return out, nil
}

// Sight is what a principal may do, read once and asked for many objects. It is good for
// as long as the transaction it was read in.
type Sight struct {
	who    Caller
	held   []holding
	limits []*AccessPolicy // that apply; none: what is held is seen
	in     *groupings
}

// Look reads what a principal may do. It is as new as the transaction.
func Look(tx *store.Tx, who Caller) (Sight, error) {
	s := Sight{who: who, in: newGroupings(tx)}
	if who.Kind == Root {
		return s, nil
	}
	now, err := GetPrincipal(tx, who.ID)
	if reeve.KindOf(err) == reeve.NotFound {
		return s, nil // holds nothing
	}
	if err != nil || !now.Active() {
		return s, err
	}
	all, err := subjectsOf(tx, who.ID)
	if err != nil {
		return s, err
	}
	if s.limits, err = policiesFor(tx, now, all); err != nil {
		return s, err
	}
	s.held, err = holdings(tx, all)
	return s, err
}

// Can reports whether the principal holds the privilege for the object.
func (s Sight) Can(p Privilege, o Object) bool { return s.Decide(p, o).Allowed }

// Everywhere reports whether the principal holds the privilege for everything there is, so
// that nothing need be kept from it.
func (s Sight) Everywhere(p Privilege) bool { return s.Can(p, Installation) && s.unlimited() }

// unlimited reports whether access policies keep nothing from the principal.
func (s Sight) unlimited() bool { return s.shows(Scope{Everything: true}) }

// shows reports whether access policies keep nothing in the scope from the principal.
func (s Sight) shows(in Scope) bool {
	return len(s.limits) == 0 || slices.ContainsFunc(s.limits, func(l *AccessPolicy) bool { return l.Scope.Contains(in) })
}

// Anywhere reports whether the principal holds the privilege for anything at all.
func (s Sight) Anywhere(p Privilege) bool {
	if !s.who.Token.allows(p) {
		return false
	}
	return s.who.Kind == Root || slices.ContainsFunc(s.held, func(h holding) bool { return slices.Contains(h.role.Privileges, p) })
}

// holds reports whether the principal has the privilege in all of the scope, by one
// assignment, and sees all of it. Privileges that no token carries can be given away with
// one.
func (s Sight) holds(p Privilege, in Scope) bool {
	if t := s.who.Token; !t.gives(p) || !t.reachesAll(in) {
		return false
	}
	return s.who.Kind == Root || s.shows(in) && slices.ContainsFunc(s.held, func(h holding) bool { return slices.Contains(h.role.Privileges, p) && h.assignment.Scope.Contains(in) })
}

// gives reports whether the principal has the privilege for the object, to give it away.
func (s Sight) gives(p Privilege, o Object) bool {
	if !s.who.Token.gives(p) || !s.reaches(o) {
		return false
	}
	_, hidden := s.limit(o)
	return s.who.Kind == Root || !hidden && slices.ContainsFunc(s.held, func(h holding) bool {
		return slices.Contains(h.role.Privileges, p) && s.in.covers(h.assignment.Scope, o)
	})
}

// limit returns the access policy that shows the object. hidden says that policies apply
// and none does.
func (s Sight) limit(o Object) (by *AccessPolicy, hidden bool) {
	for _, l := range s.limits {
		if s.in.covers(l.Scope, o) {
			return l, false
		}
	}
	return nil, len(s.limits) > 0
}

// reaches reports whether the token, if it is one, can be used on the object.
func (s Sight) reaches(o Object) bool {
	t := s.who.Token
	return t == nil || t.Scope == nil || s.in.covers(*t.Scope, o)
}

// Decide says whether the principal may do what the privilege stands for to the object,
// and why. Nothing is allowed but by an assignment, and nothing that access policies hide;
// root alone needs none.
func (s Sight) Decide(p Privilege, o Object) Decision {
	if !s.who.Token.allows(p) {
		return Decision{Because: "the token does not carry " + string(p)}
	}
	info, known := infoOf(p)
	if !info.Catalogue && !s.reaches(o) {
		return Decision{Because: "the token can be used only in " + s.in.text(*s.who.Token.Scope)}
	}
	if s.who.Kind == Root {
		return Decision{Allowed: true, Because: "root may do everything"}
	}
	if !known {
		return Decision{Because: "there is no such privilege"}
	}
	elsewhere := ""
	for _, h := range s.held {
		if !slices.Contains(h.role.Privileges, p) {
			continue
		}
		if info.Catalogue || s.in.covers(h.assignment.Scope, o) {
			d := Decision{Allowed: true, Assignment: h.assignment, Group: h.group, Because: "PAM role " + h.role.Name + h.through() + " in " + s.in.text(h.assignment.Scope)}
			if !info.Catalogue && (o.Placed || info.ShowsAll) {
				s.narrow(&d, o)
			}
			return d
		}
		elsewhere = "PAM role " + h.role.Name + h.through() + " holds " + string(p) + ", but only in " + s.in.text(h.assignment.Scope)
	}
	if elsewhere != "" {
		return Decision{Because: elsewhere}
	}
	return Decision{Because: "no assignment gives " + string(p)}
}

// narrow applies the access policies to what an assignment allows.
func (s Sight) narrow(d *Decision, o Object) {
	by, hidden := s.limit(o)
	switch {
	case hidden:
		d.Allowed, d.Assignment, d.Group = false, nil, ""
		d.Because += ", but what may be seen is limited by " + s.policies(s.limits...)
		d.Policies = s.limits
	case by != nil:
		d.Because += ", shown by access policy " + by.Name
		d.Policies = []*AccessPolicy{by}
	}
}

func (s Sight) policies(all ...*AccessPolicy) string {
	var words []string
	for _, l := range all {
		words = append(words, "access policy "+l.Name+" to "+s.in.text(l.Scope))
	}
	return strings.Join(words, " and by ")
}

func (h holding) through() string {
	if h.group == "" {
		return ""
	}
	return " of group " + h.group
}

// Authorize fails with Denied "not_permitted" unless the principal may do what the
// privilege stands for to the object.
func (s Sight) Authorize(p Privilege, o Object) error {
	if s.Can(p, o) {
		return nil
	}
	return reeve.Errorf(reeve.Denied, "not_permitted", "you may not do this: it needs the privilege %s", p).
		WithFix("ask an administrator; reeve can %s %s says what is missing", s.who.Name, p)
}
