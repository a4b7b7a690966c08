package identity

import (
	"slices"

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
}

// holding is a PAM role that a principal has somewhere.
type holding struct {
	assignment *Assignment
	role       *PAMRole
	group      string // "" if it is the principal's own
}

// holdings are all PAM roles of a principal, its own before those of its groups.
func holdings(tx *store.Tx, id reeve.PrincipalID) ([]holding, error) {
	out, err := directHoldings(tx, string(id), "")
	if err != nil {
		return nil, err
	}
	for m, err := range memberships.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
		if err != nil {
			return nil, err
		}
		g, err := groups.Get(tx, string(m.Group))
		if err != nil {
			return nil, err
		}
		more, err := directHoldings(tx, string(g.ID), g.Name)
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

// Sight is what a principal may do, read once and asked for many objects.
type Sight struct {
	who  Caller
	held []holding
}

// Look reads what a principal may do. It is as new as the transaction.
func Look(tx *store.Tx, who Caller) (Sight, error) {
	if who.Kind == Root {
		return Sight{who: who}, nil
	}
	now, err := GetPrincipal(tx, who.ID)
	if reeve.KindOf(err) == reeve.NotFound {
		return Sight{who: who}, nil // holds nothing
	}
	if err != nil || !now.Active() {
		return Sight{who: who}, err
	}
	held, err := holdings(tx, who.ID)
	return Sight{who, held}, err
}

// Can reports whether the principal holds the privilege for the object.
func (s Sight) Can(p Privilege, o Object) bool { return s.Decide(p, o).Allowed }

// Anywhere reports whether the principal holds the privilege for anything at all.
func (s Sight) Anywhere(p Privilege) bool {
	if !s.who.Token.allows(p) {
		return false
	}
	return s.who.Kind == Root || slices.ContainsFunc(s.held, func(h holding) bool { return slices.Contains(h.role.Privileges, p) })
}

// holds reports whether the principal has the privilege in all of the scope, by one
// assignment. Privileges that no token carries can be given away with one.
func (s Sight) holds(p Privilege, in Scope) bool {
	if t := s.who.Token; !t.gives(p) || !t.reachesAll(in) {
		return false
	}
	return s.who.Kind == Root || slices.ContainsFunc(s.held, func(h holding) bool { return slices.Contains(h.role.Privileges, p) && h.assignment.Scope.Contains(in) })
}

// gives reports whether the principal has the privilege for the object, to give it away.
func (s Sight) gives(p Privilege, o Object) bool {
	if !s.who.Token.gives(p) || !s.reaches(o) {
		return false
	}
	return s.who.Kind == Root || slices.ContainsFunc(s.held, func(h holding) bool { return slices.Contains(h.role.Privileges, p) && h.assignment.Scope.Covers(o) })
}

// reaches reports whether the token, if it is one, can be used on the object.
func (s Sight) reaches(o Object) bool {
	t := s.who.Token
	return t == nil || t.Scope == nil || t.Scope.Covers(o)
}

// Decide says whether the principal may do what the privilege stands for to the object,
// and why. Nothing is allowed but by an assignment; root alone needs none.
func (s Sight) Decide(p Privilege, o Object) Decision {
	if !s.who.Token.allows(p) {
		return Decision{Because: "the token does not carry " + string(p)}
	}
	info, known := infoOf(p)
	if !info.Catalogue && !s.reaches(o) {
		return Decision{Because: "the token can be used only in " + s.who.Token.Scope.String()}
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
		if h.assignment.Scope.Covers(o) || info.Catalogue {
			return Decision{Allowed: true, Assignment: h.assignment, Group: h.group, Because: "PAM role " + h.role.Name + h.through() + " in " + h.assignment.Scope.String()}
		}
		elsewhere = "PAM role " + h.role.Name + h.through() + " holds " + string(p) + ", but only in " + h.assignment.Scope.String()
	}
	if elsewhere != "" {
		return Decision{Because: elsewhere}
	}
	return Decision{Because: "no assignment gives " + string(p)}
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
