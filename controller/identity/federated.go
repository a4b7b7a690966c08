package identity

import (
	"net/netip"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// What a provider of identities outside Reeve needs of this package. That somebody is who
// the provider says is the caller's word.

// Network is what counts as one network for the limits of sign-ins: an IPv4 address, or an
// IPv6 /64.
func Network(a netip.Addr) string { return addressKey(a) }

// AdmitSignIn fails with TooMany "sign_ins_too_many" if too many sign-ins have failed from
// a network lately.
func AdmitSignIn(tx *store.Tx, from netip.Addr) error { return admitAddress(tx, from) }

// RefuseSignIn counts and records a sign-in that failed, of a principal ("" if it is not
// known whose).
func RefuseSignIn(tx *store.Tx, by audit.Actor, id reeve.PrincipalID, from netip.Addr, details map[string]string) error {
	if err := noteFailure(tx, id, from); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "session.refuse", Object: string(id), Outcome: audit.Denied, Details: details})
}

// Canonical is the one spelling of a user name, and whether it can be one.
func Canonical(name string) (string, bool) {
	name = canonical(name)
	return name, validName(name)
}

// Check fails unless the profile can be a principal's: codes text_invalid, email_invalid.
func (f Profile) Check() error { return f.check() }

// BeginFederatedSession begins a session for a person whom a provider has identified.
// Service accounts, root, and who is disabled, removed or locked are refused as with a
// password: code sign_in_failed.
func BeginFederatedSession(tx *store.Tx, in NewSession, node string) (*Session, reeve.Secret, error) {
	p, err := GetPrincipal(tx, in.Principal)
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	locked, err := throttled(tx, p.ID)
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	if locked || !p.Active() || p.Kind != User {
		return nil, reeve.Secret{}, signInFailed()
	}
	if err := forgetFailures(tx, p.ID); err != nil {
		return nil, reeve.Secret{}, err
	}
	return BeginSession(tx, p.Actor(in.From.String(), node), in)
}

// MayActForAll fails with Denied "grant_exceeds" unless the grantor holds everything: who
// decides what identifies people can become any of them.
func MayActForAll(tx *store.Tx, grantor Caller) error {
	return mayGrant(tx, grantor, all(), Scope{Everything: true})
}

// Join puts a principal into a group on the word of a provider, and reports whether it was
// not in it before. Groups of a directory follow that alone.
func Join(tx *store.Tx, by audit.Actor, g *Group, p *Principal) (bool, error) {
	if g.Directory != "" {
		return false, nil
	}
	key := membershipKey(g.ID, p.ID)
	switch _, err := memberships.Get(tx, key); {
	case err == nil:
		return false, nil
	case reeve.KindOf(err) != reeve.NotFound:
		return false, err
	}
	if err := memberships.Insert(tx, &membership{Group: g.ID, Principal: p.ID, Since: tx.Now()}); err != nil {
		return false, err
	}
	return true, audit.Record(tx, audit.Event{By: by, Action: "group.add_member", Object: string(g.ID), Details: map[string]string{"group": g.Name, "principal": string(p.ID), "name": p.Name}})
}

// Leave takes a principal out of a group on the word of a provider; not being in it is no
// error.
func Leave(tx *store.Tx, by audit.Actor, group reeve.GroupID, p *Principal) error {
	err := memberships.Delete(tx, membershipKey(group, p.ID))
	if reeve.KindOf(err) == reeve.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "group.remove_member", Object: string(group), Details: map[string]string{"group": SubjectName(tx, string(group)), "principal": string(p.ID), "name": p.Name}})
}
