package identity

import (
	"bytes"
	"context"
	"net/netip"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// canonical is the one spelling of a user name: what people type, folded.
func canonical(name string) string {
	return strings.ToLower(norm.NFKC.String(strings.TrimSpace(name)))
}

// Attempt is a try to sign in with a password.
type Attempt struct {
	Name     string // as typed
	Password reeve.Secret
	From     netip.Addr
	Client   string
	Node     string
}

// signInFailed is the one answer to everything that is wrong, so that nobody learns which
// users there are, or that one is locked.
func signInFailed() error {
	return reeve.Errorf(reeve.Unauthenticated, "sign_in_failed", "the name or the password is wrong, or too many tries were made").
		WithFix("check both; after several failures wait some minutes, or ask an administrator")
}

// SignIn begins a session for somebody who knows the password of an active user. It takes
// as long for a name that nobody has. Codes sign_in_failed, sign_ins_too_many.
func SignIn(ctx context.Context, st *store.Store, in Attempt) (s *Session, secret reeve.Secret, err error) {
	id, err := check(ctx, st, in)
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	err = st.Update(ctx, func(tx *store.Tx) error {
		p, err := stillRight(tx, id.principal, id.password)
		if err != nil {
			return err
		}
		if err := forgetFailures(tx, p.ID); err != nil {
			return err
		}
		s, secret, err = BeginSession(tx, p.Actor(in.From.String(), in.Node), NewSession{Principal: p.ID, From: in.From, Client: in.Client, Methods: []string{"password"}})
		return err
	})
	return s, secret, err
}

// StepUp proves again who the owner of a session is.
func StepUp(ctx context.Context, st *store.Store, who Caller, in Attempt) (s *Session, err error) {
	in.Name = who.Name
	id, err := check(ctx, st, in)
	if err != nil {
		return nil, err
	}
	err = st.Update(ctx, func(tx *store.Tx) error {
		p, err := stillRight(tx, id.principal, id.password)
		if err != nil {
			return err
		}
		if err := forgetFailures(tx, p.ID); err != nil {
			return err
		}
		s, err = prove(tx, who.Actor(in.From.String(), in.Node), who.Session.ID, []string{"password"})
		return err
	})
	return s, err
}

// checked is whose password was right.
type checked struct {
	principal reeve.PrincipalID
	password  *password
}

// check compares a password. A failure is counted and recorded; success is for the caller
// to record, in a transaction that looks with stillRight whether it still is one.
func check(ctx context.Context, st *store.Store, in Attempt) (checked, error) {
	done, err := inHand.take(in.From)
	if err != nil {
		return checked{}, err
	}
	defer done()
	var p *Principal
	var pw *password
	var locked bool
	err = st.View(ctx, func(tx *store.Tx) error {
		if err := admitAddress(tx, in.From); err != nil {
			return err
		}
		found, err := principals.Find(tx, "name", canonical(in.Name))
		if reeve.KindOf(err) == reeve.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		p = found
		if locked, err = throttled(tx, p.ID); err != nil {
			return err
		}
		got, err := passwords.Get(tx, string(p.ID))
		if err == nil {
			pw = got
		}
		if reeve.KindOf(err) == reeve.NotFound {
			return nil
		}
		return err
	})
	if err != nil {
		return checked{}, err
	}
	right, err := pw.matches(ctx, in.Password)
	if err != nil {
		return checked{}, err
	}
	if right && !locked && p.Active() {
		return checked{p.ID, pw}, nil
	}
	err = st.Update(ctx, func(tx *store.Tx) error {
		by, details := audit.Actor{Kind: "anonymous", From: in.From.String(), Node: in.Node}, map[string]string{}
		id := reeve.PrincipalID("")
		if p != nil {
			id, details["principal"], details["name"] = p.ID, string(p.ID), p.Name
		}
		if locked {
			details["locked"] = "true"
		}
		if err := noteFailure(tx, id, in.From); err != nil {
			return err
		}
		return audit.Record(tx, audit.Event{By: by, Action: "session.refuse", Object: string(id), Outcome: audit.Denied, Details: details})
	})
	if err != nil {
		return checked{}, err
	}
	return checked{}, signInFailed()
}

// stillRight looks again, in the transaction that lets somebody in: what was changed while
// the password was hashed counts.
func stillRight(tx *store.Tx, id reeve.PrincipalID, pw *password) (*Principal, error) {
	p, err := GetPrincipal(tx, id)
	if err != nil {
		return nil, err
	}
	now, err := passwords.Get(tx, string(id))
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, signInFailed()
	}
	if err != nil {
		return nil, err
	}
	locked, err := throttled(tx, id)
	if err != nil {
		return nil, err
	}
	if locked || !p.Active() || !bytes.Equal(now.Hash, pw.Hash) {
		return nil, signInFailed()
	}
	return p, nil
}

// ChangePassword replaces the password of somebody who is signed in and knows the old one.
// All other sessions of theirs end.
func ChangePassword(ctx context.Context, st *store.Store, who Caller, in Attempt, fresh reeve.Secret) error {
	in.Name = who.Name
	id, err := check(ctx, st, in)
	if err != nil {
		return err
	}
	hashed, err := HashPassword(ctx, fresh, who.about()...)
	if err != nil {
		return err
	}
	return st.Update(ctx, func(tx *store.Tx) error {
		p, err := stillRight(tx, id.principal, id.password)
		if err != nil {
			return err
		}
		by := who.Actor(in.From.String(), in.Node)
		for s, err := range sessions.Scan(tx, "principal", store.Range{Prefix: []string{string(p.ID)}}) {
			if err == nil && (who.Session == nil || s.ID != who.Session.ID) {
				err = EndSession(tx, by, s.ID)
			}
			if err != nil {
				return err
			}
		}
		if err := setPassword(tx, p.ID, hashed); err != nil {
			return err
		}
		return audit.Record(tx, audit.Event{By: by, Action: "password.change", Object: string(p.ID)})
	})
}
