package identity

import (
	"errors"
	"strconv"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Keep makes who there is in to, a restored state, and what they may do, what it is in
// from: neither a token that was revoked since, nor a privilege that was taken back, nor a
// second factor that was removed or a code that was used comes back.
func Keep(to, from *store.Tx) error {
	return errors.Join(principals.Replace(to, from), tokens.Replace(to, from), groups.Replace(to, from), memberships.Replace(to, from),
		pamRoles.Replace(to, from), assignments.Replace(to, from), factors.Replace(to, from), recoveries.Replace(to, from))
}

// Refound voids all tokens, because it is not known which were revoked, and makes one for
// root.
func Refound(tx *store.Tx, by audit.Actor) (*Token, reeve.Secret, error) {
	void := 0
	for t, err := range tokens.List(tx, "") {
		if err == nil {
			err = tokens.Delete(tx, string(t.ID))
		}
		if err != nil {
			return nil, reeve.Secret{}, err
		}
		void++
	}
	if err := audit.Record(tx, audit.Event{By: by, Action: "token.void", Object: "token", Details: map[string]string{"tokens": strconv.Itoa(void)}}); err != nil {
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
