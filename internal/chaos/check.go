//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/testlab"
)

func final(j client.Job) bool {
	return j.State != client.JobStateQueued && j.State != client.JobStateLeased
}

// refresh looks at an account and says whether it rests: no job of it is left.
func (w *world) refresh(ctx context.Context, a *account) error {
	before, err := w.getAccount(ctx, a.id)
	if err != nil {
		return fmt.Errorf("%s, acknowledged as %s: %w", a, a.id, err)
	}
	rests := true
	now := before
	if before.Job != nil {
		j, err := w.getJob(ctx, *before.Job)
		if err != nil {
			return fmt.Errorf("job %s of %s: %w", *before.Job, a, err)
		}
		if rests = final(j); rests {
			if now, err = w.getAccount(ctx, a.id); err != nil { // as the job's end has left it
				return err
			}
			rests = now.Job != nil && *now.Job == *before.Job
		} else if j.Deadline != nil && time.Since(*j.Deadline) > terms.KillGrace+terms.Work+terms.DriftMargin+10*time.Second {
			return fmt.Errorf("job %s of %s is %s, %s after its deadline", j.Id, a, j.State, time.Since(*j.Deadline))
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	a.now, a.rests = now, rests
	return nil
}

// settle waits until all accounts rest, no longer than limit.
func (w *world) settle(ctx context.Context, limit time.Duration) error {
	for deadline := time.Now().Add(limit); ; {
		w.mu.Lock()
		var busy []*account
		for _, a := range w.accounts {
			if !a.rests {
				busy = append(busy, a)
			}
		}
		w.mu.Unlock()
		var g errgroup.Group
		g.SetLimit(8)
		for _, a := range busy {
			g.Go(func() error { return w.refresh(ctx, a) })
		}
		if err := g.Wait(); err != nil {
			return err
		}
		w.mu.Lock()
		left := slices.ContainsFunc(busy, func(a *account) bool { return !a.rests })
		w.mu.Unlock()
		if !left || time.Now().After(deadline) || !sleep(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// check holds what was promised against the targets. full looks at every account, and at
// the audit trail.
func (w *world) check(ctx context.Context, made []*request, full bool) []loss {
	lost := w.checkAnswers(ctx, made)
	w.mu.Lock()
	var todo []*account
	for _, a := range w.accounts {
		if a.rests && (full || !a.checked) {
			todo = append(todo, a)
		}
	}
	w.mu.Unlock()
	lost = append(lost, w.lookTwice(ctx, todo)...)
	if full {
		lost = append(lost, w.checkRecords(ctx)...)
		lost = append(lost, w.checkAudit(ctx)...)
	}
	return lost
}

// checkAnswers asks each acknowledged request again with the same key: the answer must be
// the one that was given.
func (w *world) checkAnswers(ctx context.Context, made []*request) (lost []loss) {
	for _, r := range made {
		switch {
		case r == nil:
		case r.err != nil:
			lost = append(lost, loss{r.what + " is answered once the cluster serves again", r.err.Error()})
		case r.acknowledged:
			if id, err := r.again(ctx); err != nil || id != r.id {
				lost = append(lost, loss{fmt.Sprintf("%s, asked again with its key, is answered with %s", r.what, r.id), fmt.Sprintf("%q, %v", id, err)})
			}
		}
	}
	return lost
}

// lookTwice looks at accounts and, at those with which something is wrong, once more: an
// account that did not rest after all is looked at in a later round.
func (w *world) lookTwice(ctx context.Context, todo []*account) []loss {
	wrong, lost := w.look(ctx, todo)
	if len(lost) == 0 || !sleep(ctx, 300*time.Millisecond) {
		return lost
	}
	var still []*account
	for _, a := range wrong {
		if err := w.refresh(ctx, a); err != nil {
			return append(lost, loss{"every acknowledged account and job is known", err.Error()})
		}
		if a.rests {
			still = append(still, a)
		}
	}
	_, lost = w.look(ctx, still)
	return lost
}

// look checks accounts, and that the targets have no others of ours and none twice.
func (w *world) look(ctx context.Context, todo []*account) (wrong []*account, lost []loss) {
	there := map[*target]map[string]*entry{}
	for _, t := range w.targets {
		es, err := t.entries(ctx, prefix)
		if err != nil {
			return nil, []loss{{"the files of " + t.name + " can be read", err.Error()}}
		}
		there[t] = es
		lost = append(lost, w.checkEntries(t, es)...)
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(6)
	for _, a := range todo {
		g.Go(func() error {
			l := w.lookAt(ctx, a, there[a.on][a.name])
			mu.Lock()
			defer mu.Unlock()
			if l != nil {
				wrong, lost = append(wrong, a), append(lost, *l)
			}
			a.checked = l == nil
			return nil
		})
	}
	_ = g.Wait()
	return wrong, lost
}

// checkEntries finds accounts that a target has twice, or that nobody was promised.
func (w *world) checkEntries(t *target, es map[string]*entry) (lost []loss) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range es {
		if e.times > 1 {
			lost = append(lost, loss{"no account exists twice", fmt.Sprintf("%s has %s %d times", t.name, e.name, e.times)})
		}
		known := slices.ContainsFunc(w.accounts, func(a *account) bool {
			return a.name == e.name && a.on == t && (a.here() || !a.rests)
		})
		if !known {
			lost = append(lost, loss{"targets have no account of Reeve's that Reeve does not know of", fmt.Sprintf("%s has %s", t.name, e.name)})
		}
	}
	return lost
}

// lookAt checks one account at rest; nil: everything is as promised.
func (w *world) lookAt(ctx context.Context, a *account, e *entry) *loss {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if e == nil {
		e = &entry{name: a.name}
	}
	w.mu.Lock()
	now, asked, job, was := a.now, a.asked, a.job, a.was
	w.mu.Unlock()
	about := fmt.Sprintf("%s (%s, %s", a, now.State, now.Sync)
	if now.LastError != nil {
		about += "; " + now.LastError.Class + ": " + now.LastError.Message
	}
	about += ")"
	lost := func(promised, format string, args ...any) *loss {
		return &loss{promised, about + ": " + fmt.Sprintf(format, args...)}
	}
	kept := false // the acknowledged request is said to be done
	if job != "" {
		j, err := w.getJob(ctx, job)
		if err != nil {
			return lost("the job of an acknowledged request is known", "%s: %v", job, err)
		}
		if !final(j) {
			return lost("an account whose job goes on is at work", "job %s is %s", job, j.State)
		}
		kept = j.State == client.JobStateDone
	}
	if want := stateAfter[asked]; kept && want != "" && now.State != want {
		return lost(asked+" is acknowledged, its job is done: the account is "+want, "it is %s", now.State)
	}
	if now.Job != nil && now.LastError == nil && (now.State == "provisioning" || now.State == "deprovisioning") {
		if j, err := w.getJob(ctx, *now.Job); err != nil || j.State == client.JobStateDone {
			return lost("an account on its way has a job, or says why not", "job %s is %s, %v", *now.Job, j.State, err)
		}
	}
	if now.Sync != "in_sync" && here(now.State) { // flagged
		return nil
	}
	switch now.State {
	case "removed", "failed":
		if e.times > 0 {
			return lost("an account that was removed, or never made, is not on the target", "it is in the target's own files")
		}
		return nil
	case "active", "disabled":
	default:
		return nil
	}
	if e.times == 0 {
		return lost("an account in sync is on the target", "the target's own files do not have it")
	}
	if disabled := now.State == "disabled"; e.locked != disabled {
		return lost("an account is locked if, and only if, it is disabled", "the target's own files say locked: %v", e.locked)
	}
	current, err := w.reveal(ctx, a)
	if err != nil {
		return lost("the password of an account in sync can be revealed", "%v", err)
	}
	if ok, err := a.on.matches(ctx, e, current.value); err != nil || !ok {
		return lost("the target keeps the hash of the password in the vault", "it is that of another one: %v", err)
	}
	err = a.on.login(ctx, a.name, current.value)
	if now.State == "disabled" {
		if !errors.Is(err, testlab.ErrRefused) {
			return lost("a disabled account does not log in", "a plain client: %v", err)
		}
		return nil
	}
	if err != nil {
		return lost("an account without a flag logs in with the password in the vault", "a plain client: %v", err)
	}
	if kept && asked == "rotate" {
		if current.number <= was.number {
			return lost("a rotation that is done leaves a newer password", "version %d, before it %d", current.number, was.number)
		}
		if err := a.on.login(ctx, a.name, was.value); !errors.Is(err, testlab.ErrRefused) {
			return lost("after a rotation the old password is refused", "a plain client: %v", err)
		}
	}
	return nil
}

func here(state string) bool { return state != "removed" && state != "failed" }

// stateAfter is the state in which a request leaves an account once its job is done. That
// of a provision is only the first of several.
var stateAfter = map[string]string{"rotate": "active", "disable": "disabled", "enable": "active", "deprovision": "removed"}

// checkRecords holds the list of all accounts against those that were acknowledged.
func (w *world) checkRecords(ctx context.Context) (lost []loss) {
	records := map[string]client.Account{}
	holder := map[string]string{} // of a name on an asset
	var cursor *string
	for {
		page, err := fleet.Call[client.AccountPage](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
			limit := 200
			return api.ListAccounts(ctx, &client.ListAccountsParams{Limit: &limit, Cursor: cursor})
		})
		if err != nil {
			return []loss{{"accounts can be listed", err.Error()}}
		}
		for _, a := range page.Items {
			records[a.Id] = a
			if !here(a.State) {
				continue
			}
			at := a.Name + "@" + a.Asset
			if other, twice := holder[at]; twice {
				lost = append(lost, loss{"no account exists twice", fmt.Sprintf("%s is both %s and %s", at, other, a.Id)})
			}
			holder[at] = a.Id
		}
		if cursor = page.Next; cursor == nil {
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.accounts {
		if _, ok := records[a.id]; !ok {
			lost = append(lost, loss{"every acknowledged account is known", fmt.Sprintf("%s, %s, is not listed", a, a.id)})
		}
		delete(records, a.id)
	}
	for id, a := range records {
		lost = append(lost, loss{"there are no accounts but those acknowledged", fmt.Sprintf("%s@%s, %s", a.Name, a.Asset, id)})
	}
	return lost
}

// checkAudit exports the trail and verifies it, and that it goes on where the one before
// ended.
func (w *world) checkAudit(ctx context.Context) []loss {
	trail, err := fleet.Call[[]byte](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.ExportAudit(ctx, nil)
	})
	if err != nil {
		return []loss{{"the audit trail can be exported", err.Error()}}
	}
	report, err := auditchain.Verify(bytes.NewReader(trail), auditchain.Options{Expect: w.head})
	if err != nil {
		return []loss{{"the exported audit trail is whole", err.Error()}}
	}
	w.head = &report.Head
	return nil
}

// finish waits until the last job has ended and what is flagged is repaired, as far as
// that goes, and checks everything.
func (w *world) finish(ctx context.Context) error {
	const limit = 6 * time.Minute // five deliveries, their pauses and quarantines
	for began := time.Now(); ; {
		if err := w.settle(ctx, 5*time.Second); err != nil {
			return w.failed(ctx, err)
		}
		_, flagged, busy := w.population()
		if busy == 0 && (flagged == 0 || time.Since(began) > limit/3) {
			break
		}
		if time.Since(began) > limit {
			return w.report(ctx, []loss{{"every job ends", fmt.Sprintf("%d accounts have a job %s after the last fault", busy, limit)}})
		}
		w.repair(ctx)
	}
	lost := w.check(ctx, nil, true)
	if len(lost) == 0 {
		lost = w.powerCut(ctx)
	}
	return w.report(ctx, lost)
}
