package identity

import (
	"errors"
	"strconv"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity/directory"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Keep makes who there is in to, a restored state, what they may do and how they sign in,
// what it is in from: neither a token that was revoked since, nor a session that ended, a
// password that was changed, an invitation or a wrapping token that was used, a lockout or a privilege that was
// taken back comes undone; nor does a second factor that was removed, or a code that was used, come back.
func Keep(to, from *store.Tx) error {
	return errors.Join(principals.Replace(to, from), tokens.Replace(to, from), groups.Replace(to, from), memberships.Replace(to, from),
		pamRoles.Replace(to, from), assignments.Replace(to, from), sessions.Replace(to, from), passwords.Replace(to, from),
		invitations.Replace(to, from), wraps.Replace(to, from), failed.Replace(to, from), factors.Replace(to, from), recoveries.Replace(to, from), parties.Replace(to, from), ceremonies.Replace(to, from),
		assetGroups.Replace(to, from), groupedAssets.Replace(to, from), groupUses.Replace(to, from), accessPolicies.Replace(to, from), policySubjects.Replace(to, from), directory.Keep(to, from))
}

// Refound voids all tokens, sessions, invitations, wraps and passwords, because it is not known
// which were ended since or why, and makes a token for root, who invites people anew.
func Refound(tx *store.Tx, by audit.Actor) (*Token, reeve.Secret, error) {
	details := map[string]string{}
	for _, t := range []struct {
		name  string
		clear func(*store.Tx) (int, error)
	}{{"tokens", emptied(tokens, func(t *Token) string { return string(t.ID) })}, {"sessions", emptied(sessions, func(s *Session) string { return string(s.ID) })},
		{"invitations", emptied(invitations, func(i *Invitation) string { return string(i.ID) })}, {"wraps", emptied(wraps, func(w *Wrap) string { return string(w.ID) })},
		{"passwords", emptied(passwords, func(p *password) string { return string(p.Principal) })}} {
		n, err := t.clear(tx)
		if err != nil {
			return nil, reeve.Secret{}, err
		}
		details[t.name] = strconv.Itoa(n)
	}
	if err := audit.Record(tx, audit.Event{By: by, Action: "token.void", Object: "token", Details: details}); err != nil {
		return nil, reeve.Secret{}, err
	}
	for p, err := range principals.List(tx, "") {
		if err != nil {
			return nil, reeve.Secret{}, err
		}
		if p.Kind == Root {
			return CreateToken(tx, by, NewToken{Principal: p.ID, Description: "made when the cluster was restored"})
		}
	}
	return nil, reeve.Secret{}, reeve.Errorf(reeve.Internal, "root_missing", "the state has no root principal")
}

// emptied deletes all of a table and says how many there were.
func emptied[T any](table *store.Table[T], key func(*T) string) func(*store.Tx) (int, error) {
	return func(tx *store.Tx) (n int, err error) {
		for r, err := range table.List(tx, "") {
			if err == nil {
				err = table.Delete(tx, key(r))
			}
			if err != nil {
				return n, err
			}
			n++
		}
		return n, nil
	}
}
