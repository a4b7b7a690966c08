package lifecycle

import (
	"maps"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Change is what Update may change; nil leaves a field as it is.
type Change struct {
	Description, Owner, Custodian, UserIdentity *string
	Tags                                        map[string]string
	RotationEnabled                             *bool
	ExpiresAt                                   *time.Time // the zero time: never
}

// Update changes what Reeve knows about an account. It does not touch the target: a new
// expiry is enforced by Reeve itself.
func Update(tx *store.Tx, by audit.Actor, id reeve.AccountID, ch Change) (*Account, error) {
	a, err := accounts.Get(tx, string(id))
	if err != nil {
		return nil, err
	}
	if a.State.gone() {
		return nil, reeve.Errorf(reeve.Conflict, "account_state", "account %q is %s", a.Name, a.State)
	}
	before, r := described(a), Request{Assets: []string{a.AssetName}, Name: a.Name, Role: a.Role.Name, Tags: ch.Tags}
	for _, f := range []struct{ from, to, checked *string }{
		{ch.Description, &a.Description, &r.Description}, {ch.Owner, &a.Owner, &r.Owner},
		{ch.Custodian, &a.Custodian, &r.Custodian}, {ch.UserIdentity, &a.UserIdentity, &r.UserIdentity},
	} {
		if f.from != nil {
			*f.to, *f.checked = *f.from, *f.from
		}
	}
	if ch.Tags != nil {
		a.Tags = maps.Clone(ch.Tags)
	}
	if ch.RotationEnabled != nil {
		a.RotationEnabled = *ch.RotationEnabled
	}
	if ch.ExpiresAt != nil {
		a.ExpiresAt, r.ExpiresAt, r.StartAt = *ch.ExpiresAt, *ch.ExpiresAt, a.StartAt
	}
	if err := r.check(tx.Now()); err != nil {
		return nil, err
	}
	if err := accounts.Put(tx, a); err != nil {
		return nil, err
	}
	after := described(a)
	for k, v := range before {
		if after[k] == v {
			delete(before, k)
			delete(after, k)
		}
	}
	return a, audit.Record(tx, audit.Event{By: by, Action: "account.update", Object: string(id), Before: before, After: after})
}

func described(a *Account) map[string]string {
	out := map[string]string{"description": a.Description, "owner": a.Owner, "custodian": a.Custodian, "user_identity": a.UserIdentity,
		"rotation_enabled": strconv.FormatBool(a.RotationEnabled), "expires_at": ""}
	if !a.ExpiresAt.IsZero() {
		out["expires_at"] = a.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return out
}

// suspectPace is what lies between the logins after Suspect; suspectBatch is how many
// accounts one transaction takes, which has a limit of bytes.
const (
	suspectPace  = 100 * time.Millisecond
	suspectBatch = 50
)

// Suspects is how far Suspect has come; the zero value is the beginning.
type Suspects struct {
	Last  reeve.AccountID
	Count int
	Done  bool
}

// Suspect puts accounts in doubt, because the store was restored from an older backup
// and the targets may be ahead of it (C16): from after on, each is looked at again, ten in
// a second. One that may log in is verified and healed; one that is locked, or was being
// removed, is inspected. It takes some more accounts than so far: call it until it is
// done, each time in a transaction of its own, after jobs.Interrupt.
func Suspect(tx *store.Tx, by audit.Actor, reason string, after time.Duration, far Suspects) (Suspects, error) {
	var found []*Account
	for a, err := range accounts.List(tx, string(far.Last)) {
		if err != nil {
			return far, err
		}
		if !a.State.gone() && a.State != Scheduled {
			found = append(found, a)
		}
		if len(found) == suspectBatch {
			break
		}
	}
	if len(found) == 0 {
		far.Done = true
		return far, nil
	}
	for _, a := range found {
		a.Sync, a.Tried = Uncertain, nil
		a.phase(Stopped)
		a.ProbeAt = tx.Now().Add(after + suspectPace*time.Duration(far.Count))
		if err := interrupted(tx, a, reason); err != nil {
			return far, err
		}
		if err := accounts.Put(tx, a); err != nil {
			return far, err
		}
		far.Last, far.Count = a.ID, far.Count+1
	}
	return far, audit.Record(tx, audit.Event{By: by, Action: "lifecycle.suspect", Object: string(service.Lifecycle),
		Details: map[string]string{"reason": reason, "accounts": strconv.Itoa(len(found))}})
}

// interrupted takes the end of the job that was making an account. Where the target may
// have been touched a login decides whether it was made.
func interrupted(tx *store.Tx, a *Account, reason string) error {
	if a.State != Provisioning {
		return nil
	}
	switch err := idle(tx, a); {
	case reeve.KindOf(err) == reeve.Conflict:
		return nil // its job tells
	case err != nil:
		return err
	}
	a.LastError = &inventory.Failure{Class: reeve.ClassUnknownOutcome, Message: "interrupted while it was made: " + reason, At: tx.Now(),
		Fix: "if it stays like this, deprovision the account to clean up, then provision it again"}
	harmless := false
	switch j, err := jobs.Get(tx, a.Job); {
	case err == nil:
		harmless = !j.Mutates
	case reeve.KindOf(err) != reeve.NotFound:
		return err
	}
	if !harmless {
		a.State = Partial
		return nil
	}
	a.State, a.ProbeAt = Failed, time.Time{}
	a.LastError.Fix = "provision it again; an account that was made since is then found on the target"
	return inventory.Release(tx, string(a.ID))
}
