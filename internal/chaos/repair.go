//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
)

// repairsAtOnce bounds what the operator of this run does before a round.
const repairsAtOnce = 6

// repair is the operator: it does for accounts that are flagged what docs/operators.md
// says, so that a run does not end with all of them waiting for a person.
func (w *world) repair(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	w.mu.Lock()
	var todo []*account
	for _, a := range w.accounts {
		if a.rests && a.here() && a.flagged() && len(todo) < repairsAtOnce {
			todo = append(todo, a)
		}
	}
	// Those repaired longest ago come first the next time.
	w.mu.Unlock()
	for _, a := range todo {
		w.repairOne(ctx, a)
	}
}

func (w *world) repairOne(ctx context.Context, a *account) {
	w.mu.Lock()
	w.repairs++
	key := w.key(fmt.Sprintf("repair %d", w.repairs))
	a.rests, a.checked = false, false
	last := ""
	if a.now.Job != nil {
		last = *a.now.Job
	}
	state, sync := a.now.State, a.now.Sync
	w.mu.Unlock()
	j, err := w.getJob(ctx, last)
	if err == nil && j.State == client.JobStateDead {
		_, err := fleet.Call[client.Job](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
			return api.RetryJob(ctx, last, &client.RetryJobParams{IdempotencyKey: &key})
		})
		if err == nil {
			return // what was promised stays promised
		}
	}
	switch {
	case state == "partial" || state == "deprovisioning" || state == "provisioning":
		w.act(ctx, key, a, "deprovision")
	case state == "disabled":
		w.act(ctx, key, a, "enable")
	case slices.Contains([]string{"out_of_sync", "stranded"}, sync):
		w.act(ctx, key, a, "reconcile")
	case sync == "in_sync": // and an error to look at
		w.act(ctx, key, a, "inspect")
	default:
		w.act(ctx, key, a, "verify")
	}
}

// assetsReady has assets verified again that Reeve does not work on, as an operator would
// once the target is back.
func (w *world) assetsReady(ctx context.Context) error {
	asked := map[string]bool{}
	return fleet.Eventually(ctx, time.Minute, func(ctx context.Context) error {
		for _, t := range w.targets {
			err := w.assetReady(ctx, t)
			if err == nil {
				continue
			}
			if !asked[t.name] {
				asked[t.name] = true
				key := w.key(fmt.Sprintf("verify asset %s %d", t.name, w.round))
				_, asking := fleet.Call[client.JobRef](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
					return api.VerifyAsset(ctx, t.name, &client.VerifyAssetParams{IdempotencyKey: &key})
				})
				if asking != nil {
					return asking
				}
			}
			return err
		}
		return nil
	})
}
