package identity

import (
	"errors"
	"net/netip"
	"time"

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

// Federated is what a provider has shown about somebody.
type Federated struct {
	Principal reeve.PrincipalID
	Provider  string
	MFA       bool      // it says that it has asked for more than one factor
	ProvedAt  time.Time // when they proved to it who they are
	// Second is the second factor they show here; nil: none is asked for.
	Second *Attempt
	From   netip.Addr
	Client string
	Node   string
}

// BeginFederatedSession begins a session for a person whom a provider has identified. Their
// tokens are good for another [TokensUnvouched]. Service accounts, root, and who is
// disabled, removed, shut out or locked are refused as with a password: code sign_in_failed. Codes of
// a second factor are those of [SignIn].
func BeginFederatedSession(tx *store.Tx, in Federated) (*Session, reeve.Secret, error) {
	p, methods, err := admitFederated(tx, in)
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	return BeginSession(tx, p.Actor(in.From.String(), in.Node), NewSession{Principal: p.ID, From: in.From, Client: in.Client, Methods: methods,
		Provider: in.Provider, ProvedAt: in.ProvedAt})
}

// ProveFederated notes that a provider has identified the owner of a session anew, when it
// says.
// Codes as [BeginFederatedSession], and session_ended, step_up_other_user.
func ProveFederated(tx *store.Tx, id reeve.SessionID, in Federated) (*Session, error) {
	s, err := sessions.Get(tx, string(id))
	if reeve.KindOf(err) == reeve.NotFound || err == nil && !tx.Now().Before(s.Ends()) {
		return nil, ended(nil, "session_ended", "this session has ended", "sign in again: reeve login")
	}
	if err != nil {
		return nil, err
	}
	if s.Principal != in.Principal {
		return nil, reeve.Errorf(reeve.Unauthenticated, "step_up_other_user", "who signed in at the OpenID provider is not whose session it is").
			WithFix("sign in there as the same user")
	}
	p, methods, err := admitFederated(tx, in)
	if err != nil {
		return nil, err
	}
	by := p.Actor(in.From.String(), in.Node)
	by.Session = string(id)
	if s, err = prove(tx, by, id, methods); err != nil {
		return nil, err
	}
	s.ProvedAt = in.ProvedAt
	return s, sessions.Put(tx, s)
}

// admitFederated lets somebody in whom a provider has identified, and says what they have
// shown.
func admitFederated(tx *store.Tx, in Federated) (p *Principal, methods []string, err error) {
	if p, err = GetPrincipal(tx, in.Principal); err != nil {
		return nil, nil, err
	}
	locked, err := throttled(tx, p.ID)
	if err != nil {
		return nil, nil, err
	}
	if locked || !p.Active() || !p.ShutOut.IsZero() || p.Kind != User {
		return nil, nil, signInFailed()
	}
	methods = []string{"oidc"}
	if in.MFA {
		methods = append(methods, "mfa")
	}
	if in.Second != nil {
		second, err := useSecondFactor(tx, p, *in.Second)
		if err != nil {
			return nil, nil, err
		}
		methods = append(methods, second...)
	}
	p.Vouched = tx.Now()
	return p, methods, errors.Join(forgetFailures(tx, p.ID), principals.Put(tx, p))
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
