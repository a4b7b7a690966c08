package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// inFlight is how much is done at a time, by Reeve (an agent's default) and by the floors.
const inFlight = 16

// targets is a cluster of three controllers and an agent, and a lab of real servers it works on.
type targets struct {
	lab   *testlab.Lab
	fleet *fleet.Fleet
	api   *client.Client // of the leader
	runs  int
}

const benchSite = "bench"

func startTargets(ctx context.Context, e *env) (_ *targets, err error) {
	w := &targets{}
	if w.lab, err = testlab.Open(ctx, ""); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.fleet, err = e.startFleet(ctx, ""); err != nil {
		return nil, err
	}
	if err := w.fleet.RegisterConnectors(ctx); err != nil {
		return nil, err
	}
	if _, err := w.fleet.AddAgent(ctx, fleet.AgentOptions{Name: "bench-1", Site: benchSite}); err != nil {
		return nil, err
	}
	leader, err := w.fleet.Leader(ctx)
	if err != nil {
		return nil, err
	}
	w.api, err = w.fleet.Client(leader)
	return w, err
}

func (w *targets) close() (err error) {
	if w.fleet != nil {
		w.fleet.Kill()
	}
	return w.lab.Close()
}

// addAsset adds a target and waits until its management account is verified.
func (w *targets) addAsset(ctx context.Context, r client.AssetRequest) error {
	r.Site = benchSite
	_, err := fleet.Answer[client.Asset](w.api.AddAsset(ctx, &client.AddAssetParams{}, r)) //nolint:bodyclose // Answer does
	if err != nil {
		return err
	}
	return eventually(ctx, "the management account of "+r.Name+" is verified", func() bool {
		a, err := fleet.Answer[client.Asset](w.api.GetAsset(ctx, r.Name)) //nolint:bodyclose // Answer does
		return err == nil && a.ManagementAccount != nil && a.ManagementAccount.Verified
	})
}

// each does n things, inFlight at a time.
func each(n int, do func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, inFlight)
	for k := range errs {
		wg.Go(func() {
			for errs[k] == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				errs[k] = do(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// provision orders an account for each request, through the API, and returns how long it took until the last was made
// and proven.
func (w *targets) provision(ctx context.Context, orders []client.ProvisionRequest) (ids []string, took time.Duration, err error) {
	ids = make([]string, len(orders))
	began := time.Now()
	err = each(len(orders), func(i int) error {
		b, err := fleet.Answer[client.Batch](w.api.ProvisionAccounts(ctx, &client.ProvisionAccountsParams{}, orders[i])) //nolint:bodyclose // Answer does
		if err == nil {
			ids[i] = b.Accounts[0].Id
		}
		return err
	})
	if err == nil {
		err = w.rest(ctx, func() (bool, error) {
			a, err := fleet.Answer[client.Account](w.api.GetAccount(ctx, ids[len(ids)-1])) //nolint:bodyclose // Answer does
			return err == nil && a.State != "provisioning", err
		})
	}
	return ids, time.Since(began), err
}

// rotate sets a new password for each account.
func (w *targets) rotate(ctx context.Context, ids []string) (took time.Duration, err error) {
	began := time.Now()
	var last string // job of the last account
	err = each(len(ids), func(i int) error {
		j, err := fleet.Answer[client.JobRef](w.api.ActOnAccount(ctx, ids[i], "rotate", &client.ActOnAccountParams{})) //nolint:bodyclose // Answer does
		if err == nil && i == len(ids)-1 {
			last = j.Job
		}
		return err
	})
	if err == nil {
		err = w.rest(ctx, func() (bool, error) {
			j, err := fleet.Answer[client.Job](w.api.GetJob(ctx, last)) //nolint:bodyclose // Answer does
			return err == nil && j.FinishedAt != nil, err
		})
	}
	return time.Since(began), err
}

// restEvery is how often it is asked whether jobs are left: asking is work for the leader, and a round takes a second at least.
const restEvery = 50 * time.Millisecond

// rest waits until no job is left. It begins to look when the last one that was asked for is done: a single record is
// cheap to ask for, and nearly all that is waited for.
func (w *targets) rest(ctx context.Context, lastDone func() (bool, error)) error {
	for _, over := range []func() (bool, error){lastDone, func() (bool, error) { return w.idle(ctx) }} {
		for deadline := time.Now().Add(5 * time.Minute); ; {
			done, err := over()
			if err != nil {
				return err
			}
			if done {
				break
			}
			if time.Now().After(deadline) {
				return errors.New("jobs are left after five minutes")
			}
			if err := wait(ctx, restEvery); err != nil {
				return err
			}
		}
	}
	return nil
}

// idle reports whether no job waits or is at work.
func (w *targets) idle(ctx context.Context) (bool, error) {
	limit := 1
	for _, state := range []client.ListJobsParamsState{"queued", "leased"} {
		page, err := fleet.Answer[client.JobPage](w.api.ListJobs(ctx, &client.ListJobsParams{State: &state, Limit: &limit})) //nolint:bodyclose // Answer does
		if err != nil || len(page.Items) > 0 {
			return false, err
		}
	}
	return true, nil
}

// allWell fails unless every account is active with a password that was proven.
func (w *targets) allWell(ctx context.Context, ids []string) error {
	for _, id := range ids {
		if id == "" {
			continue // its order failed, which was told
		}
		a, err := fleet.Answer[client.Account](w.api.GetAccount(ctx, id)) //nolint:bodyclose // Answer does
		if err != nil {
			return err
		}
		if a.State != "active" || a.Sync != "in_sync" {
			why := ""
			if a.LastError != nil {
				why = a.LastError.Class + ": " + a.LastError.Message
			}
			return fmt.Errorf("account %s is %s, %s: %s", a.Name, a.State, a.Sync, why)
		}
	}
	return nil
}

func perSecond(n int, d time.Duration) []float64 { return []float64{float64(n) / d.Seconds()} }
