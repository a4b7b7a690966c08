package identity

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// InvitationLife is how long an invitation, or a reset, can be used.
const InvitationLife = 24 * time.Hour

// Invitation lets somebody set their password once: their first, or another when the old
// one is lost. It is stored without its secret.
type Invitation struct {
	ID        reeve.InvitationID `cbor:"1,keyasint"`
	Principal reeve.PrincipalID  `cbor:"2,keyasint"`
	Hash      string             `cbor:"3,keyasint"`
	Expires   time.Time          `cbor:"4,keyasint"`
}

var invitations = store.NewTable("invitation",
	store.Key(func(i *Invitation) string { return string(i.ID) }),
	store.Unique("hash", func(i *Invitation) []string { return []string{i.Hash} }),
	store.Index("principal", func(i *Invitation) []string { return []string{string(i.Principal)} }),
)

// Invite makes an invitation for a user; earlier ones of theirs end. The password they
// have stays until it is used. The grantor must hold all that the user holds, for who has
// the link can become the user: code grant_exceeds. Service accounts have no password:
// code not_a_person; nor have users of a directory: code password_elsewhere. A token other
// than root's replaces no password that is set: code reset_by_token.
func Invite(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.PrincipalID) (*Invitation, reeve.Secret, error) {
	p, err := GetPrincipal(tx, id)
	if err == nil {
		err = MayActFor(tx, grantor, id)
	}
	switch {
	case err != nil:
		return nil, reeve.Secret{}, err
	case p.Kind != User:
		return nil, reeve.Secret{}, reeve.Errorf(reeve.Conflict, "not_a_person", "%s is no person: it has no password", p.Name).WithFix("make a token for it: reeve token create --for %s", p.Name)
	case p.Directory != "":
		return nil, reeve.Secret{}, passwordElsewhere(p)
	case !p.Active():
		return nil, reeve.Secret{}, reeve.Errorf(reeve.Conflict, "principal_disabled", "%s is %s", p.Name, p.Status())
	}
	if grantor.Token != nil && grantor.Kind != Root {
		if _, err := passwords.Get(tx, string(id)); err == nil {
			return nil, reeve.Secret{}, reeve.Errorf(reeve.Denied, "reset_by_token", "%s has a password, and a token replaces nobody's", p.Name).WithFix("sign in: reeve login")
		} else if reeve.KindOf(err) != reeve.NotFound {
			return nil, reeve.Secret{}, err
		}
	}
	if err := endInvitations(tx, id); err != nil {
		return nil, reeve.Secret{}, err
	}
	secret, hash := invitationBearer.make()
	inv := &Invitation{ID: reeve.NewInvitationID(), Principal: id, Hash: hash, Expires: tx.Now().Add(InvitationLife)}
	if err := invitations.Insert(tx, inv); err != nil {
		return nil, reeve.Secret{}, err
	}
	return inv, secret, audit.Record(tx, audit.Event{By: by, Action: "invitation.create", Object: string(inv.ID), Details: map[string]string{
		"principal": string(id), "name": p.Name, "expires": inv.Expires.UTC().Format(time.RFC3339)}})
}

func endInvitations(tx *store.Tx, id reeve.PrincipalID) error {
	for i, err := range invitations.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
		if err == nil {
			err = invitations.Delete(tx, string(i.ID))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// AcceptInvitation sets the password of the user that was invited, ends all their sessions
// and lets them try again if they were locked out. Codes invitation_malformed,
// invitation_unknown for one that was used, has expired or never existed, and those of
// [HashPassword].
func AcceptInvitation(ctx context.Context, st *store.Store, secret, fresh reeve.Secret, from netip.Addr, node string) error {
	hash, err := invitationBearer.hash(secret)
	if err != nil {
		return err
	}
	var about []string
	var least int
	err = st.View(ctx, func(tx *store.Tx) error {
		if err := admitAddress(tx, from); err != nil {
			return err
		}
		p, _, err := invited(tx, hash)
		if err == nil {
			about = p.about()
			least, err = leastPassword(tx, p.ID)
		}
		return err
	})
	if reeve.CodeOf(err) == "invitation_unknown" {
		return errors.Join(err, st.Update(ctx, func(tx *store.Tx) error { return noteFailure(tx, "", from) }))
	}
	if err != nil {
		return err
	}
	hashed, err := HashPassword(ctx, fresh, least, about...)
	if err != nil {
		return err
	}
	return st.Update(ctx, func(tx *store.Tx) error {
		p, i, err := invited(tx, hash)
		if err != nil {
			return err
		}
		by := p.Actor(from.String(), node)
		if err := EndSessions(tx, by, p.ID); err != nil {
			return err
		}
		if err := forgetFailures(tx, p.ID); err != nil {
			return err
		}
		if err := setPassword(tx, p.ID, hashed); err != nil {
			return err
		}
		return audit.Record(tx, audit.Event{By: by, Action: "invitation.accept", Object: string(i.ID), Details: map[string]string{"principal": string(p.ID), "name": p.Name}})
	})
}

func invited(tx *store.Tx, hash string) (*Principal, *Invitation, error) {
	i, err := invitations.Find(tx, "hash", hash)
	if err != nil && reeve.KindOf(err) != reeve.NotFound {
		return nil, nil, err
	}
	var p *Principal
	if err == nil {
		if p, err = GetPrincipal(tx, i.Principal); err != nil {
			return nil, nil, err
		}
	}
	if p == nil || !tx.Now().Before(i.Expires) || !p.Active() {
		return nil, nil, reeve.Errorf(reeve.Unauthenticated, "invitation_unknown", "this invitation was used, has expired or never existed").
			WithFix("ask an administrator for another")
	}
	return p, i, nil
}
