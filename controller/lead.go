package controller

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
	sealPoll    = 250 * time.Millisecond
	handOverTry = 2 * time.Second
	holdTimeout = 10 * time.Second
)

// lead is the leader's work: cluster calls it after the barrier of a term and joins it
// when leadership ends. A sealed node can do none of it; it gives leadership to a
// fellow that is unsealed, and otherwise waits to be unsealed itself.
func (c *Controller) lead(ctx context.Context, term uint64) error {
	c.log.Info("this node leads", "term", term)
	if err := c.seal.Refresh(ctx, c.store); err != nil { // the keys of now, not those of a moment ago
		return err
	}
	for ctx.Err() == nil {
		if c.seal.Sealed() {
			c.waitUnsealed(ctx)
			continue
		}
		if err := c.finishRecovery(ctx); err != nil {
			return err
		}
		held, err := c.runLoops(ctx)
		if held != nil {
			close(held.stopped)
		}
		if err != nil {
			return err
		}
		if held != nil {
			select {
			case <-held.resume:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// pause is a time in which the leader's loops stand still: from stopped, which they
// close, to resume. What they hold in memory is gone then.
type pause struct{ stopped, resume chan struct{} }

// hold stops the leader's loops and returns what lets them go on.
func (c *Controller) hold(ctx context.Context) (resume func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, holdTimeout)
	defer cancel()
	p := pause{stopped: make(chan struct{}), resume: make(chan struct{})}
	select {
	case c.pauses <- p:
	case <-ctx.Done():
		return nil, reeve.Errorf(reeve.Unavailable, "not_leader", "this controller does not lead at the moment").WithFix("try again")
	}
	<-p.stopped
	return func() { close(p.resume) }, nil
}

// runLoops runs the loops that only the leader runs, until ctx ends, the node is
// sealed, or somebody holds them, who is returned.
func (c *Controller) runLoops(ctx context.Context) (held *pause, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	c.pulse.Reset()
	notary := audit.NewNotary(c.store, c.cluster, c.log)
	notary.Signed = func(err error) { c.ticked(ctx, service.Checkpoints, err) }
	g.Go(func() error { return c.broker.Run(ctx) })
	g.Go(func() error { return c.engine.Run(ctx) })
	g.Go(func() error { return c.sinks.Run(ctx) })
	g.Go(func() error { return c.tidy(ctx) })
	g.Go(func() error { return c.keepKeys(ctx) })
	g.Go(func() error { return notary.Run(ctx) })
	g.Go(func() error { return c.recheckDirectories(ctx) })
	g.Go(func() error {
		defer cancel()
		t := time.NewTicker(sealPoll)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case p := <-c.pauses:
				held = &p
				return nil
			case <-t.C:
				if c.seal.Sealed() {
					c.log.Warn("sealed while leading; the leader's work stops")
					return nil
				}
			}
		}
	})
	err = g.Wait()
	return held, err
}

// ticked notes what one of the leader's loops has done. What fails because the loop is to
// end did not fail.
func (c *Controller) ticked(ctx context.Context, name service.Name, err error) {
	if ctx.Err() == nil {
		c.pulse.Tick(name, c.store.Now(), err)
	}
}

// tidyEvery is how often tidy looks; also how long a new leader waits before it does.
const tidyEvery = time.Hour

// tidy deletes what nobody can need any more: old versions of secrets, old join tokens.
func (c *Controller) tidy(ctx context.Context) error {
	t := time.NewTicker(tidyEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if _, doubted := c.store.Clock(); doubted {
			continue // what seems old may not be
		}
		versions, err := c.vault.PruneAll(ctx, c.store, audit.System("controller"))
		tokens := 0
		if err == nil {
			err = c.store.Update(ctx, func(tx *store.Tx) (err error) {
				tokens, err = pki.ForgetJoinTokens(tx, 1000)
				return err
			})
		}
		c.ticked(ctx, service.Tidying, err)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("old secrets and tokens were not all deleted; trying again later", "error", err)
			continue
		}
		c.log.Debug("tidied", "secret_versions", versions, "join_tokens", tokens)
	}
}

// recheckEvery is how often directories are asked about who is signed in.
const recheckEvery = 5 * time.Minute

// recheckDirectories shuts out who was shut out in their directory.
func (c *Controller) recheckDirectories(ctx context.Context) error {
	t := time.NewTicker(recheckEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		shut, err := identity.RecheckDirectories(ctx, c.store)
		c.ticked(ctx, service.Directories, err)
		if err != nil && ctx.Err() == nil {
			c.log.Warn("the users of directories were not all looked at again; trying again later", "error", err)
		}
		if shut > 0 {
			c.log.Info("users are shut out in their directory", "users", shut)
		}
	}
}

// waitUnsealed waits until this node is unsealed, or leadership went to one that is.
func (c *Controller) waitUnsealed(ctx context.Context) {
	poll := time.NewTicker(sealPoll)
	defer poll.Stop()
	try := time.NewTicker(handOverTry)
	defer try.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
			if !c.seal.Sealed() {
				return
			}
		case <-try.C:
			if to, ok := c.unsealedFellow(ctx); ok {
				// Not waited for here: the transfer ends this very call. Run joins it.
				c.handOvers.Go(func() { _ = c.raft.TransferLeadership(context.WithoutCancel(ctx), to) })
			}
		}
	}
}

// unsealedFellow asks the other voters whether they are unsealed.
func (c *Controller) unsealedFellow(ctx context.Context) (reeve.NodeID, bool) {
	for _, m := range c.raft.Members() {
		if m.ID == c.id || !m.Voter || !m.Healthy {
			continue
		}
		var node *pki.Node
		err := c.store.View(ctx, func(tx *store.Tx) (err error) {
			node, err = pki.GetNode(tx, m.ID)
			return err
		})
		if err != nil {
			continue
		}
		if st, err := c.askStatus(ctx, node.APIAddr); err == nil && st.Node == string(m.ID) && st.Initialized && !st.Sealed {
			return m.ID, true
		}
	}
	return "", false
}

// askStatus asks another controller how it is, over mutual TLS.
func (c *Controller) askStatus(ctx context.Context, addr string) (st client.Status, err error) {
	ctx, cancel := context.WithTimeout(ctx, handOverTry)
	defer cancel()
	fellow, err := c.fellow(addr)
	if err != nil {
		return st, err
	}
	resp, err := fellow.GetStatus(ctx)
	if err != nil {
		return st, err
	}
	defer resp.Body.Close()
	return st, json.NewDecoder(resp.Body).Decode(&st)
}

// fellow is a client of another controller's API, with this node's certificate.
func (c *Controller) fellow(addr string) (*client.Client, error) {
	conf, err := c.identity.ForwardTLS()
	if err != nil {
		return nil, err
	}
	return client.NewClient("https://"+addr, client.WithHTTPClient(&http.Client{
		Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true, TLSHandshakeTimeout: handOverTry},
	}))
}
