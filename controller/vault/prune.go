package vault

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Prune deletes the versions of a secret that nothing can need any more and returns
// how many. The deletion is audited with their numbers.
func (v *Vault) Prune(tx *store.Tx, by audit.Actor, id reeve.SecretID) (int, error) {
	all, err := v.Versions(tx, id)
	if err != nil {
		return 0, err
	}
	var gone []string
	for _, x := range all {
		if !prunable(x, all, tx.Now()) {
			continue
		}
		if err := versions.Delete(tx, versionKey(id, x.Number)); err != nil {
			return 0, err
		}
		gone = append(gone, strconv.FormatUint(uint64(x.Number), 10))
	}
	if len(gone) == 0 {
		return 0, nil
	}
	return len(gone), audit.Record(tx, audit.Event{By: by, Action: "secret.prune", Object: string(id), Outcome: audit.OK,
		Details: map[string]string{"versions": strings.Join(gone, ",")}})
}

// PruneAll prunes every secret, each in a transaction of its own, and returns how many
// versions went.
func (v *Vault) PruneAll(ctx context.Context, st *store.Store, by audit.Actor) (int, error) {
	var worth []reeve.SecretID
	err := st.View(ctx, func(tx *store.Tx) error {
		for s, err := range secrets.List(tx, "") {
			if err != nil {
				return err
			}
			all, err := v.Versions(tx, s.ID)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(all, func(x Version) bool { return prunable(x, all, tx.Now()) }) {
				worth = append(worth, s.ID)
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	total := 0
	for _, id := range worth {
		n := 0
		err := st.Update(ctx, func(tx *store.Tx) (err error) {
			n, err = v.Prune(tx, by, id)
			return err
		})
		if err != nil {
			return total, err
		}
		total += n
	}
	return total, nil
}

// prunable: never a candidate or the current version. One that never left the vault
// may go at once; any other only after Retention and VerifiedSince later proofs,
// because a target may have applied it when nobody was looking.
func prunable(x Version, all []Version, now time.Time) bool {
	if x.State == Candidate || x.State == Current {
		return false
	}
	if x.LeasedAt.IsZero() && x.VerifiedAt.IsZero() {
		return true
	}
	later := 0
	for _, o := range all {
		if o.Number > x.Number && !o.VerifiedAt.IsZero() {
			later++
		}
	}
	return later >= VerifiedSince && (now.Sub(x.ClosedAt) >= Retention || mutant.Is(mutant.HistoryPrunedEarly))
}
