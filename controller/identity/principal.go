// Package identity owns who may talk to Reeve and what they may do: principals, groups,
// the bearer tokens they show, PAM roles and who has them where. The API's edge imports
// it to turn a token into a principal and to ask what that one may do ([Sight]); it
// imports audit and store.
package identity

import (
	"errors"
	"iter"
	"net/mail"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Kind is what a principal is.
type Kind string

// The kinds.
const (
	User    Kind = "user"    // a person
	Service Kind = "service" // a program
	Root    Kind = "root"    // made at bootstrap, to set everything else up
)

// Principal is somebody who may talk to Reeve. It is never deleted: old records keep
// their names.
type Principal struct {
	ID         reeve.PrincipalID `cbor:"1,keyasint,omitempty"`
	Name       string            `cbor:"2,keyasint,omitempty"` // unique for ever
	Kind       Kind              `cbor:"3,keyasint,omitempty"`
	Created    time.Time         `cbor:"4,keyasint,omitempty"`
	Profile    Profile           `cbor:"5,keyasint,omitzero"`
	DisabledAt time.Time         `cbor:"6,keyasint,omitzero"`
	RemovedAt  time.Time         `cbor:"7,keyasint,omitzero"`
	Directory  string            `cbor:"10,keyasint,omitempty"` // that proves their password; "": Reeve does
	Entry      string            `cbor:"11,keyasint,omitempty"` // their entry there, once they have signed in
	Vouched    time.Time         `cbor:"20,keyasint,omitzero"`  // when a directory or a provider last said that they are who they were
	ShutOut    time.Time         `cbor:"21,keyasint,omitzero"`  // since when their directory lets them in no more; zero: it does
}

// Caller is a principal that calls, and how it proved who it is.
type Caller struct {
	Principal
	Token   *Token   // nil: it was no token
	Session *Session // nil: it was no session
}

// Profile is what is known of a principal besides its name, for people and for rules.
type Profile struct {
	FullName   string `cbor:"1,keyasint,omitempty"`
	Email      string `cbor:"2,keyasint,omitempty"`
	Department string `cbor:"3,keyasint,omitempty"`
	TimeZone   string `cbor:"4,keyasint,omitempty"` // IANA
	Vendor     bool   `cbor:"5,keyasint,omitempty"` // works for another company
}

// Active reports whether the principal may do anything.
func (p Principal) Active() bool { return p.DisabledAt.IsZero() && p.RemovedAt.IsZero() }

// Removed reports whether the principal is only kept for old records.
func (p Principal) Removed() bool { return !p.RemovedAt.IsZero() }

// Status is active, disabled, removed, or shut_out by the principal's directory.
func (p Principal) Status() string {
	switch {
	case p.Removed():
		return "removed"
	case !p.Active():
		return "disabled"
	case !p.ShutOut.IsZero():
		return "shut_out"
	default:
		return "active"
	}
}

// Actor is the principal as audit names it; from is the remote address, node the
// controller that took the call.
func (p Principal) Actor(from, node string) audit.Actor {
	return audit.Actor{Kind: string(p.Kind), ID: string(p.ID), Name: p.Name, From: from, Node: node}
}

var principals = store.NewTable("principal",
	store.Key(func(p *Principal) string { return string(p.ID) }),
	store.Unique("name", func(p *Principal) []string { return []string{p.Name} }),
	store.Index("entry", func(p *Principal) []string {
		if p.Entry == "" {
			return nil
		}
		return []string{p.Directory + "/" + p.Entry}
	}),
)

// CreatePrincipal adds a principal that may do nothing yet. Names are 1 to 64 of a-z,
// 0-9, dot, dash, underscore and @, so that there is one way to spell each, and unique:
// code principal_name_taken, also for one that was removed. Only one root can be made:
// code root_exists.
func CreatePrincipal(tx *store.Tx, by audit.Actor, name string, kind Kind, profile Profile) (*Principal, error) {
	return create(tx, by, &Principal{Name: name, Kind: kind, Profile: profile})
}

func create(tx *store.Tx, by audit.Actor, p *Principal) (*Principal, error) {
	name, kind, profile := p.Name, p.Kind, p.Profile
	if !validName(name) {
		return nil, reeve.Errorf(reeve.Invalid, "name_invalid", "the name of a principal is 1 to 64 of a-z, 0-9, '.', '-', '_' and '@'").WithField("/name")
	}
	if err := profile.check(); err != nil {
		return nil, err
	}
	switch kind {
	case User, Service:
	case Root:
		for p, err := range principals.List(tx, "") {
			if err != nil {
				return nil, err
			}
			if p.Kind == Root {
				return nil, reeve.Errorf(reeve.Conflict, "root_exists", "there is a root principal already")
			}
		}
	default:
		return nil, reeve.Errorf(reeve.Invalid, "principal_kind_invalid", "a principal is a user or a service").WithField("/kind")
	}
	p.ID, p.Created = reeve.NewPrincipalID(), tx.Now()
	if err := principals.Insert(tx, p); err != nil {
		return nil, err
	}
	after := profile.audited()
	after["name"], after["kind"] = name, string(kind)
	if p.Directory != "" {
		after["directory"] = p.Directory
	}
	return p, audit.Record(tx, audit.Event{By: by, Action: "principal.create", Object: string(p.ID), After: after})
}

// GetPrincipal returns a principal, also one that was removed; code principal_not_found.
func GetPrincipal(tx *store.Tx, id reeve.PrincipalID) (*Principal, error) {
	return principals.Get(tx, string(id))
}

// FindPrincipal returns a principal by id or name, also one that was removed; code
// principal_not_found.
func FindPrincipal(tx *store.Tx, ref string) (*Principal, error) {
	var p *Principal
	var err error
	if reeve.ValidID("prin", ref) {
		p, err = principals.Get(tx, ref)
	} else {
		p, err = principals.Find(tx, "name", ref)
	}
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, reeve.Errorf(reeve.NotFound, "principal_not_found", "there is no user or service account %q", ref).
			WithFix("see who there is: reeve user list")
	}
	return p, err
}

// ListPrincipals yields the principals, oldest first, those after the id given only; of
// removed ones only if asked for.
func ListPrincipals(tx *store.Tx, after string, removed bool) iter.Seq2[*Principal, error] {
	return func(yield func(*Principal, error) bool) {
		for p, err := range principals.List(tx, after) {
			if err == nil && p.Removed() && !removed {
				continue
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// EditPrincipal replaces the profile of a principal. The grantor must hold all that the
// principal holds, unless it is the principal: mail goes to the address of a profile.
func EditPrincipal(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.PrincipalID, profile Profile) (*Principal, error) {
	return change(tx, by, grantor, id, "principal.edit", func(p *Principal) (before, after map[string]string, err error) {
		if err := profile.check(); err != nil {
			return nil, nil, err
		}
		if profile.Vendor != p.Profile.Vendor { // other access policies apply, also to oneself
			if err := mayActFor(tx, grantor, string(id)); err != nil {
				return nil, nil, err
			}
		}
		before, after = p.Profile.audited(), profile.audited()
		p.Profile = profile
		return before, after, nil
	})
}

// DisablePrincipal takes everything from a principal until it is enabled again, from its
// next call on. Sessions and invitations end for good; tokens work again when it is
// enabled. Root and oneself cannot be disabled: codes root_needed, oneself.
func DisablePrincipal(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.PrincipalID) (*Principal, error) {
	return change(tx, by, grantor, id, "principal.disable", func(p *Principal) (before, after map[string]string, err error) {
		if err := notOneself(p, grantor); err != nil {
			return nil, nil, err
		}
		before = map[string]string{"status": p.Status()}
		if p.DisabledAt.IsZero() {
			p.DisabledAt = tx.Now()
		}
		return before, map[string]string{"status": p.Status()}, errors.Join(EndSessions(tx, by, id), endInvitations(tx, id))
	})
}

// EnablePrincipal gives a disabled principal back what it may do.
func EnablePrincipal(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.PrincipalID) (*Principal, error) {
	return change(tx, by, grantor, id, "principal.enable", func(p *Principal) (before, after map[string]string, err error) {
		before = map[string]string{"status": p.Status()}
		p.DisabledAt = time.Time{}
		return before, map[string]string{"status": p.Status()}, nil
	})
}

// RemovePrincipal ends a principal for ever: its tokens, its sessions, its password, its
// place in groups, its assignments. Its name stays taken, for old records.
func RemovePrincipal(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.PrincipalID) (*Principal, error) {
	return change(tx, by, grantor, id, "principal.remove", func(p *Principal) (before, after map[string]string, err error) {
		if err := notOneself(p, grantor); err != nil {
			return nil, nil, err
		}
		for t, err := range tokens.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
			if err == nil {
				err = RevokeToken(tx, by, t.ID)
			}
			if err != nil {
				return nil, nil, err
			}
		}
		for m, err := range memberships.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
			if err == nil {
				err = memberships.Delete(tx, membershipKey(m.Group, id))
			}
			if err != nil {
				return nil, nil, err
			}
		}
		if err := errors.Join(dropAssignments(tx, by, string(id)), EndSessions(tx, by, id), endInvitations(tx, id), forgetFailures(tx, id), forgetPassword(tx, id)); err != nil {
			return nil, nil, err
		}
		if err := dropFactors(tx, id); err != nil {
			return nil, nil, err
		}
		p.RemovedAt = tx.Now()
		return map[string]string{"name": p.Name}, nil, nil
	})
}

func change(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.PrincipalID, action string, do func(*Principal) (before, after map[string]string, err error)) (*Principal, error) {
	p, err := GetPrincipal(tx, id)
	if err != nil {
		return nil, err
	}
	if p.Removed() {
		return nil, principalRemoved(p)
	}
	if p.ID != grantor.ID {
		if err := mayActFor(tx, grantor, string(id)); err != nil {
			return nil, err
		}
	}
	before, after, err := do(p)
	if err != nil {
		return nil, err
	}
	if err := principals.Put(tx, p); err != nil {
		return nil, err
	}
	return p, audit.Record(tx, audit.Event{By: by, Action: action, Object: string(id), Before: before, After: after, Details: map[string]string{"principal": p.Name}})
}

func notOneself(p *Principal, grantor Caller) error {
	switch {
	case p.Kind == Root:
		return reeve.Errorf(reeve.Conflict, "root_needed", "root cannot be disabled or removed: it is the way in when nothing else is")
	case p.ID == grantor.ID:
		return reeve.Errorf(reeve.Conflict, "oneself", "nobody can disable or remove themselves").WithFix("have it done by another administrator")
	}
	return nil
}

func principalRemoved(p *Principal) error {
	return reeve.Errorf(reeve.Conflict, "principal_removed", "%s was removed", p.Name).WithFix("add a new one under another name")
}

func (f Profile) check() error {
	for _, s := range []string{f.FullName, f.Email, f.Department, f.TimeZone} {
		if err := checkText(s); err != nil {
			return err
		}
	}
	if f.TimeZone != "" {
		if _, err := time.LoadLocation(f.TimeZone); err != nil || f.TimeZone == "Local" {
			return reeve.Errorf(reeve.Invalid, "time_zone_unknown", "there is no time zone of this name").WithFix("use a name such as Europe/Berlin").WithField("/time_zone")
		}
	}
	if f.Email != "" && !validEmail(f.Email) {
		return reeve.Errorf(reeve.Invalid, "email_invalid", "this is not an e-mail address").WithFix("write name@domain").WithField("/email")
	}
	return nil
}

func (f Profile) audited() map[string]string {
	m := map[string]string{"full_name": f.FullName, "email": f.Email, "department": f.Department, "time_zone": f.TimeZone}
	if f.Vendor {
		m["vendor"] = "true"
	}
	for k, v := range m {
		if v == "" {
			delete(m, k)
		}
	}
	return m
}

// validEmail accepts what net/mail reads as a bare address.
func validEmail(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s && a.Name == ""
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' && c != '@' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 64
}

// checkText refuses text that is too long or holds what does not print: code
// text_invalid.
func checkText(s string) error {
	if len(s) > maxDescription || !utf8.ValidString(s) {
		return reeve.Errorf(reeve.Invalid, "text_invalid", "text has up to %d bytes of UTF-8", maxDescription)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return reeve.Errorf(reeve.Invalid, "text_invalid", "text may hold no control characters")
		}
	}
	return nil
}
