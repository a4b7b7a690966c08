//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// prefix starts the name of every account of ours, and of no other.
const prefix = "k"

// account is an account that was asked for and acknowledged.
type account struct {
	id, name string
	on       *target

	// What was asked for last, and the job with which it was acknowledged.
	asked string
	job   string
	was   version // its password before that

	now     client.Account // as it was seen last
	rests   bool           // no job of it was left then
	checked bool           // what was promised was looked up since
}

func (a *account) String() string { return a.name + "@" + a.on.name }

// version is a password an account had.
type version struct {
	number int // 0: none
	value  reeve.Secret
}

// here reports whether the account is, or may be, on its target.
func (a *account) here() bool { return a.now.State != "removed" && a.now.State != "failed" }

// flagged reports whether Reeve itself says that something is amiss.
func (a *account) flagged() bool {
	switch a.now.State {
	case "active", "disabled":
		return a.now.Sync != "in_sync" || a.now.LastError != nil
	case "removed", "failed":
		return false
	}
	return true
}

// request is one request of a round and what became of it.
type request struct {
	what         string
	acknowledged bool
	refused      error
	again        func(context.Context) (string, error) // the same request once more: the id it is answered with
	id           string                                // that the answer named
	err          error                                 // no answer at all
}

// patience is how long a request may go unanswered: longer than any fault lasts and the
// cluster then needs.
const patience = 60 * time.Second

// most accounts at a time: more only make a round longer.
const most = 40

var suits = map[string]func(*account) bool{
	"rotate":  func(a *account) bool { return a.now.State == "active" },
	"disable": func(a *account) bool { return a.now.State == "active" && a.now.Sync == "in_sync" },
	"enable":  func(a *account) bool { return a.now.State == "disabled" },
	"deprovision": func(a *account) bool {
		return a.now.State == "active" || a.now.State == "disabled" || a.now.State == "partial"
	},
}

// ask makes a request and keeps asking until it is answered.
func (w *world) ask(ctx context.Context, number, i int, o op) *request {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	kind := o.kind
	if total, _, _ := w.population(); kind == "provision" && total >= most {
		kind = "deprovision"
	}
	key := w.key(fmt.Sprintf("round %d request %d", number, i))
	if kind == "provision" {
		return w.askProvision(ctx, key, o)
	}
	a := w.choose(kind, o.pick)
	if a == nil {
		return nil
	}
	return w.act(ctx, key, a, kind)
}

// choose takes an account at rest that can take the request.
func (w *world) choose(kind string, pick uint32) *account {
	w.mu.Lock()
	defer w.mu.Unlock()
	var can []*account
	for _, a := range w.accounts {
		if a.rests && suits[kind](a) {
			can = append(can, a)
		}
	}
	if len(can) == 0 {
		return nil
	}
	a := can[int(pick)%len(can)]
	a.rests, a.checked = false, false // one request at a time
	return a
}

func (w *world) act(ctx context.Context, key string, a *account, kind string) *request {
	r := &request{what: kind + " " + a.String()}
	var was version
	if kind == "rotate" {
		var err error
		if was, err = w.reveal(ctx, a); err != nil {
			r.err = err
			return r
		}
	}
	r.again = func(ctx context.Context) (string, error) {
		ref, err := fleet.Call[client.JobRef](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
			return api.ActOnAccount(ctx, a.id, kind, &client.ActOnAccountParams{IdempotencyKey: &key})
		})
		return ref.Job, err
	}
	// What is refused changes nothing: what was promised before still is.
	if job, err := r.again(ctx); r.answer(job, err) {
		w.mu.Lock()
		defer w.mu.Unlock()
		a.asked, a.job, a.was = kind, job, was
	}
	return r
}

func (w *world) askProvision(ctx context.Context, key string, o op) *request {
	r := &request{what: fmt.Sprintf("provision %s on %v", o.name, o.assets)}
	on := w.target(o.assets[0])
	body := client.ProvisionRequest{Name: o.name, Role: on.role, Params: on.params, Assets: o.assets}
	var batch client.Batch
	r.again = func(ctx context.Context) (string, error) {
		b, err := fleet.Call[client.Batch](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
			return api.ProvisionAccounts(ctx, &client.ProvisionAccountsParams{IdempotencyKey: &key}, body)
		})
		if err == nil {
			batch = b
		}
		return b.Id, err
	}
	id, err := r.again(ctx)
	if !r.answer(id, err) {
		return r
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, made := range batch.Accounts {
		a := &account{id: made.Id, name: made.Name, on: w.target(made.Asset), asked: "provision", now: made}
		if made.Job != nil {
			a.job = *made.Job
		}
		w.accounts = append(w.accounts, a)
	}
	// Requests of one round are answered in any order; accounts are numbered in one.
	slices.SortStableFunc(w.accounts, func(a, b *account) int { return a.now.CreatedAt.Compare(b.now.CreatedAt) })
	return r
}

// answer takes what a request was answered with; true: it was acknowledged.
func (r *request) answer(id string, err error) bool {
	if _, refused := errors.AsType[*fleet.ErrProblem](err); refused {
		r.refused = err
		return false
	}
	r.id, r.err, r.acknowledged = id, err, err == nil
	return r.acknowledged
}

func (w *world) reveal(ctx context.Context, a *account) (version, error) {
	s, err := fleet.Call[client.RevealedSecret](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.RevealSecret(ctx, a.id, client.ReasonRequest{Reason: "chaos: to log in with a plain client"})
	})
	return version{number: s.Version, value: reeve.SecretString(s.Password)}, err
}

func (w *world) getAccount(ctx context.Context, id string) (client.Account, error) {
	return fleet.Call[client.Account](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.GetAccount(ctx, id)
	})
}

func (w *world) getJob(ctx context.Context, id string) (client.Job, error) {
	return fleet.Call[client.Job](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.GetJob(ctx, id)
	})
}

// population counts the accounts that are or may be on targets, those flagged, and those
// with a job under way.
func (w *world) population() (total, flagged, busy int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.accounts {
		if !a.here() {
			continue
		}
		total++
		if !a.rests {
			busy++
		} else if a.flagged() {
			flagged++
		}
	}
	return total, flagged, busy
}
