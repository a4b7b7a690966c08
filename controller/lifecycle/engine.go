package lifecycle

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Config is what an Engine works with. All fields are required.
type Config struct {
	Store *store.Store
	Vault *vault.Vault
	// AgentsIn is how many agents of a site may take jobs; controller/pki knows.
	AgentsIn func(tx *store.Tx, site reeve.SiteID) (int, error)
	Policy   vault.Policy // of passwords, narrowed to what each connector takes
	Pulse    *service.Pulse
	Logger   *slog.Logger
}

// Engine decides the life of accounts. Its methods over a transaction may be called on
// the leader from many goroutines; Run is the leader's loop.
type Engine struct{ Config }

// New returns an Engine. Its Handlers must be given to the jobs.Broker.
func New(c Config) *Engine { return &Engine{c} }

// The names under which the engine takes results.
const (
	handlerAccount    = "lifecycle.account"
	handlerAsset      = "lifecycle.asset"
	handlerRights     = "lifecycle.rights"
	handlerSuperseded = "lifecycle.superseded"
)

// Handlers take the results of the jobs the engine makes.
func (e *Engine) Handlers() jobs.Handlers {
	return jobs.Handlers{handlerAccount: e.accountResult, handlerAsset: e.assetResult, handlerRights: e.rightsResult,
		handlerSuperseded: e.supersededResult}
}

// system is who does what the engine decides by itself.
var system = audit.System("lifecycle")

const (
	tick        = time.Second      // how late a start or an expiry may be
	tickBatch   = 100              // accounts looked at per tick
	retryDue    = 5 * time.Minute  // until something due that was refused or failed is tried again
	retryBusy   = 10 * time.Second // until something due that met another job is tried again
	probeFirst  = time.Minute      // until logins are tried again by themselves; doubled each time
	probeAtMost = time.Hour
	// loginWindow is how long a target is left alone after loginBudget failed logins.
	loginWindow = 15 * time.Minute
)

// Run starts what is due until ctx ends: scheduled accounts, expiries, and probes of
// accounts whose state is in doubt. Only the leader runs it. A failed tick is logged
// and tried again.
func (e *Engine) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			err := e.Tick(ctx)
			if ctx.Err() != nil {
				return nil
			}
			e.Pulse.Tick(service.Lifecycle, e.Store.Now(), err)
			if err != nil {
				e.Logger.Error("lifecycle tick failed", "error", err)
			}
		}
	}
}

// Tick starts everything that is due by now, each account in a transaction of its own.
// What is due is in the store, so nothing fires twice or is missed when leadership
// changes (C5). Nothing is due by a clock that is in doubt.
func (e *Engine) Tick(ctx context.Context) error {
	var due []reeve.AccountID
	err := e.Store.View(ctx, func(tx *store.Tx) error {
		if tx.ClockInDoubt() {
			return nil
		}
		for a, err := range accounts.Scan(tx, "due", store.Range{To: store.TimePart(tx.Now().Add(time.Nanosecond))}) {
			if err != nil {
				return err
			}
			if due = append(due, a.ID); len(due) == tickBatch {
				break
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range due {
		err := e.Store.Update(ctx, func(tx *store.Tx) error { return e.startDue(tx, id) })
		switch reeve.KindOf(err) {
		case "":
		case reeve.Invalid, reeve.Precondition, reeve.Conflict, reeve.NotFound:
			err = e.Store.Update(ctx, func(tx *store.Tx) error { return e.refuseDue(tx, id, err) })
			if err != nil {
				return err
			}
		default:
			return err
		}
	}
	return nil
}

// startDue does what is due for one account.
func (e *Engine) startDue(tx *store.Tx, id reeve.AccountID) error {
	a, err := accounts.Get(tx, string(id))
	if err != nil {
		return err
	}
	now := tx.Now()
	if at := a.due(); at.IsZero() || at.After(now) {
		return nil // done meanwhile
	}
	switch {
	case a.State == Scheduled:
		return e.start(tx, system, a)
	case a.State == Active && !a.ExpiresAt.IsZero() && !a.ExpiresAt.After(now):
		_, err := e.change(tx, system, a, opDisable, map[string]string{"reason": "expired"})
		return err
	case a.State == Disabled || a.State == Deprovisioning: // no login tells
		_, err := e.login(tx, system, a, opInspect)
		return err
	default:
		_, err := e.login(tx, system, a, opVerify)
		return err
	}
}

// refuseDue notes on the account why what was due could not be started; it is tried
// again later.
func (e *Engine) refuseDue(tx *store.Tx, id reeve.AccountID, why error) error {
	a, err := accounts.Get(tx, string(id))
	if err != nil {
		return err
	}
	if reeve.CodeOf(why) == "account_busy" {
		a.RetryAt = tx.Now().Add(retryBusy)
		return accounts.Put(tx, a) // nothing is wrong
	}
	a.RetryAt = tx.Now().Add(retryDue)
	f := &inventory.Failure{Class: reeve.ClassInvalid, Message: why.Error(), At: tx.Now()}
	if known, ok := errors.AsType[*reeve.Error](why); ok {
		f.Message, f.Fix = known.Message, known.Fix
	}
	a.LastError = f
	return e.save(tx, system, a, "account.due", audit.Denied, map[string]string{"code": reeve.CodeOf(why)})
}
