package identity

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity/directory"
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
	Code     reeve.Secret // of a second factor; empty: none is shown
	Answer   string       // of a security key, to a challenge, as the browser puts it; "": none
	Keys     store.Cipher // opens second factors
	From     netip.Addr
	Client   string
	Node     string

	session reeve.SessionID // that is stepped up; "": they sign in
}

// signInFailed is the one answer to everything that is wrong, so that nobody learns which
// users there are, or that one is locked.
func signInFailed() error {
	return reeve.Errorf(reeve.Unauthenticated, "sign_in_failed", "the name or the password is wrong, or too many tries were made").
		WithFix("check both; after several failures wait some minutes, or ask an administrator")
}

// SignIn begins a session for somebody who knows the password of an active user and shows
// a second factor, if there is one. It takes as long for a name that nobody has. Codes
// sign_in_failed, sign_ins_too_many; after the right password alone second_factor_needed,
// security_key_needed, second_factor_wrong, security_key_copied.
func SignIn(ctx context.Context, st *store.Store, in Attempt) (s *Session, secret reeve.Secret, err error) {
	id, err := check(ctx, st, in)
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	err = enter(ctx, st, in, id, func(tx *store.Tx, p *Principal, methods []string) (err error) {
		s, secret, err = BeginSession(tx, p.Actor(in.From.String(), in.Node), NewSession{Principal: p.ID, From: in.From, Client: in.Client, Methods: methods})
		return err
	})
	return s, secret, err
}

// StepUp proves again who the owner of a session is.
func StepUp(ctx context.Context, st *store.Store, who Caller, in Attempt) (s *Session, err error) {
	in.Name, in.session = who.Name, who.Session.ID
	id, err := check(ctx, st, in)
	if err != nil {
		return nil, err
	}
	err = enter(ctx, st, in, id, func(tx *store.Tx, _ *Principal, methods []string) (err error) {
		s, err = prove(tx, who.Actor(in.From.String(), in.Node), who.Session.ID, methods)
		return err
	})
	return s, err
}

// checked is whose password was right.
type checked struct {
	principal reeve.PrincipalID // "": nobody's yet; they are to be made
	password  *password
	outside   *outside // who was asked instead of Reeve
	answer    *directory.Answer
}

func (c checked) methods() []string {
	if c.outside != nil {
		return []string{"ldap"}
	}
	return []string{"password"}
}

// check compares a password, or has a directory do it. A failure is counted and recorded;
// success is for the caller to record, in a transaction that looks with stillRight whether
// it still is one.
func check(ctx context.Context, st *store.Store, in Attempt) (checked, error) {
	began := time.Now()
	done, err := inHand.take(in.From)
	if err != nil {
		return checked{}, err
	}
	defer done()
	var p *Principal
	var pw *password
	var via *outside
	var locked, slow bool
	err = st.View(ctx, func(tx *store.Tx) error {
		if err := admitAddress(tx, in.From); err != nil {
			return err
		}
		var err error
		if p, via, err = lookUp(tx, canonical(in.Name)); err != nil {
			return err
		}
		if slow, err = anyDirectory(tx); err != nil {
			return err
		}
		id := failureKey(p, via)
		if locked, err = throttled(tx, cmp.Or(id, nobody)); err != nil || p != nil && p.Directory != "" {
			return err
		}
		owner := reeve.PrincipalID(nobody)
		if p != nil {
			owner = p.ID
		}
		locked = locked && id != "" // whom there is not is not locked, but all that is read for others is read
		got, err := passwords.Get(tx, string(owner))
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
	right, err := pw.matches(ctx, in.Password) // also where a directory is asked: all cost one hash
	if err != nil {
		return checked{}, err
	}
	out := checked{password: pw, outside: via}
	if p != nil {
		out.principal = p.ID
	}
	var refused *directory.Refused
	if via != nil && !locked && (p == nil || p.Active()) {
		out.answer, err = via.ask(ctx, st, p, in.Password)
		var no bool
		if refused, no = errors.AsType[*directory.Refused](err); err != nil && !no {
			return checked{}, err
		}
		right = err == nil
	}
	if right && !locked && (p == nil || p.Active()) {
		return out, nil
	}
	details := map[string]string{}
	if locked {
		details["locked"] = "true"
	}
	err = st.Update(ctx, func(tx *store.Tx) error { return refuse(tx, in, p, via, refused, details) })
	if err != nil {
		return checked{}, err
	}
	if slow {
		wait(ctx, began)
	}
	return checked{}, signInFailed()
}

// refuse counts and records a failure, of nobody if p is nil. via is the directory that
// was asked, if one was, and refused what it said.
func refuse(tx *store.Tx, in Attempt, p *Principal, via *outside, refused *directory.Refused, details map[string]string) error {
	by := audit.Actor{Kind: "anonymous", From: in.From.String(), Node: in.Node}
	// A name that nobody has is recorded like one that somebody has: the record takes as long.
	id, owner := failureKey(p, via), Principal{ID: nobody, Name: nobody}
	if p != nil {
		owner = *p
	}
	details["principal"], details["name"] = string(owner.ID), owner.Name
	if via != nil {
		details["directory"] = via.directory.Name
	}
	if refused != nil {
		details["reason"] = refused.Reason
		if !refused.Judged { // nobody is locked out because a directory is down
			id = ""
		}
	}
	if err := noteFailure(tx, id, in.From); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "session.refuse", Object: string(owner.ID), Outcome: audit.Denied, Details: details})
}

// enter lets somebody do something whose password was right, if their second factor is as
// well. A wrong one counts as a wrong password does; methods are what they have shown.
func enter(ctx context.Context, st *store.Store, in Attempt, id checked, do func(tx *store.Tx, p *Principal, methods []string) error) error {
	var wrong error
	err := st.Update(ctx, func(tx *store.Tx) error {
		wrong = nil
		p, err := stillRight(tx, id, in)
		if err != nil {
			return err
		}
		second, err := useSecondFactor(tx, p, in)
		if code := reeve.CodeOf(err); code == "second_factor_wrong" || code == "security_key_copied" {
			wrong = err
			return refuse(tx, in, p, id.outside, nil, map[string]string{"second_factor": "wrong"})
		}
		if err == nil {
			err = forgetFailures(tx, p.ID)
		}
		if err != nil {
			return err
		}
		return do(tx, p, append(id.methods(), second...))
	})
	if err == nil {
		err = wrong
	}
	return err
}

// stillRight looks again, in the transaction that lets somebody in: what was changed while
// the password was hashed, or a directory was asked, counts.
func stillRight(tx *store.Tx, c checked, in Attempt) (*Principal, error) {
	if c.outside != nil {
		return letIn(tx, c, in)
	}
	p, err := GetPrincipal(tx, c.principal)
	if err != nil {
		return nil, err
	}
	now, err := passwords.Get(tx, string(p.ID))
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, signInFailed()
	}
	if err != nil {
		return nil, err
	}
	locked, err := throttled(tx, p.ID)
	if err != nil {
		return nil, err
	}
	if locked || !p.Active() || !bytes.Equal(now.Hash, c.password.Hash) {
		return nil, signInFailed()
	}
	return p, nil
}

// ChangePassword replaces the password of somebody who is signed in and knows the old one.
// All other sessions of theirs end.
func ChangePassword(ctx context.Context, st *store.Store, who Caller, in Attempt, fresh reeve.Secret) error {
	if who.Directory != "" {
		return passwordElsewhere(&who.Principal)
	}
	in.Name = who.Name
	id, err := check(ctx, st, in)
	if err != nil {
		return err
	}
	var least int
	err = st.View(ctx, func(tx *store.Tx) (err error) {
		least, err = leastPassword(tx, who.ID)
		return err
	})
	if err != nil {
		return err
	}
	hashed, err := HashPassword(ctx, fresh, least, who.about()...)
	if err != nil {
		return err
	}
	return st.Update(ctx, func(tx *store.Tx) error {
		p, err := stillRight(tx, id, in)
		if err != nil {
			return err
		}
		by := who.Actor(in.From.String(), in.Node)
		if err := endOtherSessions(tx, by, who); err != nil {
			return err
		}
		if err := setPassword(tx, p.ID, hashed); err != nil {
			return err
		}
		return audit.Record(tx, audit.Event{By: by, Action: "password.change", Object: string(p.ID)})
	})
}
