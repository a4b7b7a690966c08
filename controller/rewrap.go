package controller

import (
	"context"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
)

// keyCheck is how often the leader looks whether keys have grown old; keyRetry how long
// it waits after something went wrong.
const (
	keyCheck = 10 * time.Minute
	keyRetry = 5 * time.Second
)

// keepKeys is the leader's upkeep of the keys: new terms when the old ones are due, and
// after new terms everything sealed again under them. What was done stays done: after a
// change of leader the next one goes on with what is left.
func (c *Controller) keepKeys(ctx context.Context) error {
	changed, stop := c.store.Watch(seal.Table)
	defer stop()
	for {
		wait := keyCheck
		err := c.keepKeysOnce(ctx)
		c.ticked(ctx, service.Keys, err)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("the upkeep of the keys did not end; trying again", "error", err)
			wait = keyRetry
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
}

func (c *Controller) keepKeysOnce(ctx context.Context) error {
	err := c.store.Update(ctx, func(tx *store.Tx) error {
		if _, err := seal.ForgetHandover(tx); err != nil {
			return err
		}
		return c.rotateOldTerms(tx)
	})
	if err != nil {
		return err
	}
	var s *seal.State
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		s, err = seal.LoadState(tx)
		return err
	})
	if err != nil || !s.RewrapPending() {
		return err
	}
	return c.rewrap(ctx, s.KeyringVersion)
}

// rotateOldTerms starts new terms when the active one of data is old, as far as the time
// is to be believed.
func (c *Controller) rotateOldTerms(tx *store.Tx) error {
	if tx.ClockInDoubt() {
		return nil
	}
	terms, err := c.seal.Terms()
	if err != nil {
		return err
	}
	for _, t := range terms {
		if t.Active && t.Purpose == seal.Data && tx.Now().After(t.Created.Add(seal.MaxTermAge)) {
			return c.seal.Rotate(tx, audit.System("controller"))
		}
	}
	return nil
}

// rewrap seals everything again that is sealed under a term older than those of a
// keyring: data keys of secrets, keys of second factors and of the authorities, then all records.
func (c *Controller) rewrap(ctx context.Context, keyring uint64) error {
	began, total := time.Now(), 0
	stale := func(value []byte) bool { return c.seal.Stale(seal.Data, value) }
	passes := []func(from string) (string, int, error){
		func(from string) (string, int, error) { return c.vault.Rewrap(ctx, c.store, stale, from) },
		func(string) (_ string, n int, err error) {
			err = c.store.Update(ctx, func(tx *store.Tx) (err error) {
				n, err = c.authority.Rewrap(tx)
				return err
			})
			return "", n, err
		},
		func(from string) (string, int, error) {
			return identity.RewrapFactors(ctx, c.store, c.seal, stale, from)
		},
		func(from string) (string, int, error) { return c.store.Reseal(ctx, stale, from) },
	}
	for _, pass := range passes {
		for from := ""; ; {
			next, n, err := pass(from)
			if err != nil {
				return err
			}
			if total += n; next == "" {
				break
			}
			from = next
		}
	}
	c.log.Info("everything is sealed under the newest keys", "keyring", keyring, "values", total, "took", time.Since(began))
	return c.store.Update(ctx, func(tx *store.Tx) error { return seal.Rewrapped(tx, audit.System("controller"), keyring, total) })
}
