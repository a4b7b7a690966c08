package identity

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
	// WrapLife is how long a wrapping token is good for, unless it is asked for otherwise.
	WrapLife = 5 * time.Minute
	// LongestWrap is how long it is good for at most.
	LongestWrap = 12 * time.Hour
	// mostWraps is how many of somebody's may wait to be opened.
	mostWraps = 100
	// wrapKept is how long one is remembered after its end, so that a second use is told from
	// a mistake.
	wrapKept = 24 * time.Hour
)

// Wrap is an answer that whoever holds its token may open once, in place of the one who
// asked for it. It holds no secret, but the right to be told one: what is revealed is read
// when it is opened, and only if who asked for it could still reveal it then.
type Wrap struct {
	ID        reeve.WrapID      `cbor:"1,keyasint"`
	Hash      string            `cbor:"2,keyasint"`
	Principal reeve.PrincipalID `cbor:"3,keyasint"` // who asked for it
	Session   reeve.SessionID   `cbor:"4,keyasint,omitempty"`
	Token     reeve.TokenID     `cbor:"5,keyasint,omitempty"`
	Account   reeve.AccountID   `cbor:"6,keyasint"` // whose password it reveals
	Reason    string            `cbor:"7,keyasint"`
	For       reeve.PrincipalID `cbor:"8,keyasint,omitempty"` // who alone may open it; "": whoever holds the token
	Networks  []netip.Prefix    `cbor:"9,keyasint,omitempty"` // from where; none: from anywhere
	Created   time.Time         `cbor:"10,keyasint"`
	Expires   time.Time         `cbor:"11,keyasint"`
	// OpenedAt is when it was opened, and OpenedFrom the address; zero: it was not.
	OpenedAt   time.Time `cbor:"12,keyasint,omitzero"`
	OpenedFrom string    `cbor:"13,keyasint,omitempty"`
}

// State is open, opened or expired.
func (w *Wrap) State(now time.Time) string {
	switch {
	case !w.OpenedAt.IsZero():
		return "opened"
	case !now.Before(w.Expires):
		return "expired"
	default:
		return "open"
	}
}

var wraps = store.NewTable("wrap",
	store.Key(func(w *Wrap) string { return string(w.ID) }),
	store.Unique("hash", func(w *Wrap) []string { return []string{w.Hash} }),
	store.Index("principal", func(w *Wrap) []string { return []string{string(w.Principal)} }),
	store.Index("unopened", func(w *Wrap) []string {
		if !w.OpenedAt.IsZero() {
			return nil
		}
		return []string{string(w.Principal), store.TimePart(w.Expires)}
	}),
	store.Index("end", func(w *Wrap) []string { return []string{store.TimePart(w.Expires)} }),
)

// NewWrap says what to wrap.
type NewWrap struct {
	Account  reeve.AccountID
	Reason   string            // for the record
	For      reeve.PrincipalID // the user who alone may open it; "": whoever holds the token
	Networks []netip.Prefix    // none: from anywhere
	Life     time.Duration     // up to LongestWrap
}

// MakeWrap makes a wrap for somebody who may reveal the account's password; that they may
// is the caller's word. It ends at the latest with the token it was asked for with, or 12
// hours after the session began. The secret is returned this once. Codes wraps_too_many,
// wrap_for_nobody.
func MakeWrap(tx *store.Tx, by audit.Actor, who Caller, in NewWrap) (*Wrap, reeve.Secret, error) {
	if err := forgetOldWraps(tx); err != nil {
		return nil, reeve.Secret{}, err
	}
	open, err := openWraps(tx, who.ID)
	if err == nil && open >= mostWraps {
		err = reeve.Errorf(reeve.TooMany, "wraps_too_many", "%d of your wraps wait to be opened", open).
			WithFix("revoke those that nobody will open: reeve wrap list")
	}
	if err != nil {
		return nil, reeve.Secret{}, err
	}
	if in.For != "" {
		if p, err := GetPrincipal(tx, in.For); err != nil {
			return nil, reeve.Secret{}, err
		} else if p.Kind != User || !p.Active() {
			return nil, reeve.Secret{}, reeve.Errorf(reeve.Invalid, "wrap_for_nobody", "%s cannot sign in to open it: only a person who is active can", p.Name).
				WithFix("leave it out: then whoever holds the token opens it").WithField("/for")
		}
	}
	secret, hash := wrapBearer.make()
	w := &Wrap{ID: reeve.NewWrapID(), Hash: hash, Principal: who.ID, Account: in.Account, Reason: in.Reason, For: in.For, Networks: in.Networks,
		Created: tx.Now(), Expires: tx.Now().Add(in.Life)}
	if s := who.Session; s != nil {
		w.Session, w.Expires = s.ID, earlier(w.Expires, s.Created.Add(SessionLife))
	}
	if t := who.Token; t != nil {
		w.Token, w.Expires = t.ID, earlier(w.Expires, t.Expires)
	}
	if err := wraps.Insert(tx, w); err != nil {
		return nil, reeve.Secret{}, err
	}
	details := w.about()
	details["expires"] = w.Expires.UTC().Format(time.RFC3339)
	if w.For != "" {
		details["for"] = string(w.For)
	}
	if len(w.Networks) > 0 {
		details["networks"] = fmt.Sprint(w.Networks)
	}
	return w, secret, audit.Record(tx, audit.Event{By: by, Action: "wrap.create", Object: string(w.ID), Details: details})
}

// earlier is a, or b if that is earlier; a zero b is never.
func earlier(a, b time.Time) time.Time {
	if !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (w *Wrap) about() map[string]string {
	return map[string]string{"account": string(w.Account), "principal": string(w.Principal), "reason": w.Reason}
}

// openWraps counts the wraps of a principal that can be opened.
func openWraps(tx *store.Tx, id reeve.PrincipalID) (n int, err error) {
	for _, err := range wraps.Scan(tx, "unopened", store.Range{Prefix: []string{string(id)}, From: store.TimePart(tx.Now().Add(time.Nanosecond))}) {
		if err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

// forgetOldWraps drops a few wraps that ended long ago.
func forgetOldWraps(tx *store.Tx) error {
	n := 0
	for w, err := range wraps.Scan(tx, "end", store.Range{To: store.TimePart(tx.Now().Add(-wrapKept))}) {
		if err == nil {
			err = wraps.Delete(tx, string(w.ID))
		}
		if err != nil {
			return err
		}
		if n++; n == 8 {
			break
		}
	}
	return nil
}

// Opener is who opens a wrap.
type Opener struct {
	From    netip.Addr
	Session reeve.Secret // what they showed to prove who they are, for wraps that are for one user; may be empty
	Node    string       // that took the call
}

// FindWrap returns the wrap of a token, open or not. Codes wrap_malformed; wrap_unknown for
// one that was revoked, ended more than a day ago or never existed; wrap_elsewhere;
// sign_ins_too_many for a network that has shown too many that were no good.
func FindWrap(tx *store.Tx, secret reeve.Secret, o Opener) (*Wrap, error) {
	hash, err := wrapBearer.hash(secret)
	if err == nil {
		err = admitAddress(tx, o.From)
	}
	if err != nil {
		return nil, err
	}
	w, err := wraps.Find(tx, "hash", hash)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, reeve.Errorf(reeve.Unauthenticated, "wrap_unknown", "this wrapping token was revoked, ended long ago or never existed").
			WithFix("have another made")
	}
	if err != nil {
		return nil, err
	}
	if len(w.Networks) > 0 && !slices.ContainsFunc(w.Networks, func(n netip.Prefix) bool { return n.Contains(o.From) }) {
		return w, reeve.Errorf(reeve.Unauthenticated, "wrap_elsewhere", "this wrapping token may not be used from here").
			WithFix("use it from the networks it was made for")
	}
	return w, nil
}

// Unwrap opens a wrap, once: reveal, which is told who opens it and who asked for it, as
// they are now, reads what it stands for in the transaction in which it is marked as opened.
// If that fails, for whatever reason, it stays as it was. Codes those of [FindWrap],
// wrap_used, wrap_expired, wrap_void if who asked for it could not any more, wrap_bound or
// step_up_needed if it is for a user who has not proved lately that it is them, and those of
// reveal. What is refused is recorded, and counted for the network.
func Unwrap(ctx context.Context, st *store.Store, secret reeve.Secret, o Opener, reveal func(tx *store.Tx, by audit.Actor, w *Wrap, asked Caller) error) error {
	var w *Wrap
	err := st.View(ctx, func(tx *store.Tx) (err error) { // strangers do not get to the lock
		w, err = FindWrap(tx, secret, o)
		return err
	})
	if err == nil {
		err = st.Update(ctx, func(tx *store.Tx) error {
			if w, err = FindWrap(tx, secret, o); err != nil {
				return err
			}
			return open(tx, w, o, reveal)
		})
	}
	return RefuseWrap(ctx, st, w, o, err)
}

func open(tx *store.Tx, w *Wrap, o Opener, reveal func(tx *store.Tx, by audit.Actor, w *Wrap, asked Caller) error) error {
	switch w.State(tx.Now()) {
	case "opened":
		return reeve.Errorf(reeve.Conflict, "wrap_used", "this was opened at %s from %s already", w.OpenedAt.UTC().Format(time.RFC3339), w.OpenedFrom).
			WithFix("if that was not you, somebody else has seen the password: tell who gave you the token, and have the password rotated")
	case "expired":
		return reeve.Errorf(reeve.Unauthenticated, "wrap_expired", "this wrapping token expired at %s", w.Expires.UTC().Format(time.RFC3339)).WithFix("have another made")
	}
	by, err := opens(tx, w, o)
	if err != nil {
		return err
	}
	asked, err := w.asker(tx)
	if err != nil {
		return err
	}
	w.OpenedAt, w.OpenedFrom = tx.Now(), o.From.String()
	if err := wraps.Put(tx, w); err != nil {
		return err
	}
	details := w.about()
	details["name"] = asked.Name
	if err := audit.Record(tx, audit.Event{By: by, Action: "wrap.open", Object: string(w.ID), Details: details}); err != nil {
		return err
	}
	return reveal(tx, by, w, asked)
}

// opens is who opens a wrap, for the record: the user it is for, or whoever holds it.
func opens(tx *store.Tx, w *Wrap, o Opener) (audit.Actor, error) {
	if w.For == "" {
		return o.stranger(w), nil
	}
	bound := reeve.Errorf(reeve.Denied, "wrap_bound", "this is for one user, who must be signed in").WithFix("sign in as who it was made for: reeve login")
	if o.Session.Empty() || !isSession(o.Session) {
		return audit.Actor{}, bound
	}
	c, err := Authenticate(tx, o.Session, o.From)
	switch {
	case err != nil:
		return audit.Actor{}, err
	case c.ID != w.For:
		return audit.Actor{}, bound
	case !c.Session.Fresh(tx.Now()):
		return audit.Actor{}, reeve.Errorf(reeve.Denied, "step_up_needed", "this needs a proof of the last %s that it is you", StepUpFor).
			WithFix("enter your password again: reeve session step-up")
	}
	return c.Actor(o.From.String(), o.Node), nil
}

// stranger is somebody of whom nothing is known but the wrap they show.
func (o Opener) stranger(w *Wrap) audit.Actor {
	return audit.Actor{Kind: "anonymous", From: o.From.String(), Node: o.Node, Session: string(w.ID)}
}

// asker is who asked for the wrap, with what they showed then, if all that is still good.
// A session that nobody has used for long is; one that was ended is not.
func (w *Wrap) asker(tx *store.Tx) (c Caller, err error) {
	p, err := GetPrincipal(tx, w.Principal)
	if err == nil && w.Session != "" {
		c.Session, err = sessions.Get(tx, string(w.Session))
	}
	if err == nil && w.Token != "" {
		c.Token, err = tokens.Get(tx, string(w.Token))
	}
	if err == nil {
		err = stillVouched(tx, p, c.Token)
	}
	if kind := reeve.KindOf(err); kind == reeve.NotFound || kind == reeve.Unauthenticated || err == nil && !p.Active() {
		return Caller{}, VoidWrap(err)
	}
	if err != nil {
		return Caller{}, err
	}
	c.Principal = *p
	return c, nil
}

// VoidWrap is the refusal of a wrap whose asker could not reveal the password any more.
func VoidWrap(why error) *reeve.Error {
	return reeve.Errorf(reeve.Denied, "wrap_void", "who made this wrapping token may not reveal the password any more").WithFix("ask somebody who may").Wrap(why)
}

// RefuseWrap counts and records that a wrapping token was refused (w is nil for one that
// nobody knows), and returns why: err, or that this failed. A typing error, a seal that is
// closed and the like are no refusals.
func RefuseWrap(ctx context.Context, st *store.Store, w *Wrap, o Opener, err error) error {
	code := reeve.CodeOf(err)
	switch reeve.KindOf(err) {
	case reeve.Unauthenticated, reeve.Denied, reeve.NotFound, reeve.Conflict, reeve.Precondition:
	default:
		return err
	}
	if code == wrapBearer.malformed().Code {
		return err
	}
	failed := st.Update(ctx, func(tx *store.Tx) error {
		if w != nil {
			details := w.about()
			details["code"] = code
			if e, ok := errors.AsType[*reeve.Error](err); ok && e.Err != nil {
				details["cause"] = reeve.CodeOf(e.Err)
			}
			if err := audit.Record(tx, audit.Event{By: o.stranger(w), Action: "wrap.refuse", Object: string(w.ID), Outcome: audit.Denied, Details: details}); err != nil {
				return err
			}
		}
		if kind := reeve.KindOf(err); kind != reeve.Unauthenticated && kind != reeve.Denied && code != "wrap_used" {
			return nil // the token is good: what it stands for cannot be read now
		}
		return noteFailure(tx, "", o.From)
	})
	if failed != nil { // what err is about may not have been made either
		return failed
	}
	return err
}

// ListWraps yields the wraps of a principal, or of everybody if it is empty, oldest first,
// those after the id given only.
func ListWraps(tx *store.Tx, id reeve.PrincipalID, after string) iter.Seq2[*Wrap, error] {
	if id == "" {
		return wraps.List(tx, after)
	}
	return func(yield func(*Wrap, error) bool) {
		for w, err := range wraps.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
			if err == nil && string(w.ID) <= after {
				continue
			}
			if !yield(w, err) || err != nil {
				return
			}
		}
	}
}

// GetWrap returns a wrap; code wrap_not_found.
func GetWrap(tx *store.Tx, id reeve.WrapID) (*Wrap, error) { return wraps.Get(tx, string(id)) }

// RevokeWrap ends a wrap, so that it cannot be opened. One that was opened stays for its
// time, as it is evidence: code wrap_used. Code wrap_not_found.
func RevokeWrap(tx *store.Tx, by audit.Actor, id reeve.WrapID) error {
	w, err := wraps.Get(tx, string(id))
	if err != nil {
		return err
	}
	if !w.OpenedAt.IsZero() {
		return reeve.Errorf(reeve.Conflict, "wrap_used", "this was opened at %s from %s already", w.OpenedAt.UTC().Format(time.RFC3339), w.OpenedFrom).
			WithFix("if nobody was to see the password, rotate it")
	}
	if err := wraps.Delete(tx, string(id)); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "wrap.revoke", Object: string(id), Details: w.about()})
}
