package vault

import (
	"context"
	"strconv"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/audit/sink"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Revealed is a secret on its way to a person.
type Revealed struct {
	Kind    Kind
	Version uint32
	Value   reeve.Secret
}

// Reveal opens a version (0: the current one) for a person. The audit record is
// committed first: without a quorum, or with an unknown outcome, nothing leaves.
// reason is free text for the record. While an audit sink is further behind than its
// limit, it fails with Precondition "audit_lag".
func (v *Vault) Reveal(ctx context.Context, s *store.Store, by audit.Actor, id reeve.SecretID, version uint32,
	reason string) (Revealed, error) {
	var out Revealed
	err := s.Update(ctx, func(tx *store.Tx) (err error) {
		out, err = v.RevealIn(tx, by, id, version, reason)
		return err
	})
	if err != nil {
		out.Value.Wipe()
		return Revealed{}, err
	}
	return out, nil
}

// RevealIn is Reveal in a transaction of the caller, who shows the value only after it has
// been committed, and wipes it if it was not.
func (v *Vault) RevealIn(tx *store.Tx, by audit.Actor, id reeve.SecretID, version uint32, reason string) (Revealed, error) {
	info, err := secrets.Get(tx, string(id))
	if err == nil {
		err = sink.CheckLag(tx)
	}
	if err != nil {
		return Revealed{}, err
	}
	n := version
	if n == 0 {
		n = info.Current
	}
	if n == 0 {
		return Revealed{}, reeve.Errorf(reeve.Conflict, "secret_unproven", "no version of %s has been proven on its target yet", id).
			WithFix("wait for the account to be verified")
	}
	kind, value, err := v.Open(tx, id, n)
	if err != nil {
		return Revealed{}, err
	}
	return Revealed{Kind: kind, Version: n, Value: value}, audit.Record(tx, audit.Event{By: by, Action: "secret.reveal", Object: string(id), Outcome: audit.OK,
		Details: map[string]string{"owner": info.Owner, "version": strconv.FormatUint(uint64(n), 10), "reason": reason}})
}
