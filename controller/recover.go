package controller

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/cluster"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Recovered is what became of a cluster that was recovered from one survivor.
type Recovered struct {
	Cluster  string
	Lost     []string  // names of the controllers that are no longer members
	Recorded time.Time // of the newest change this node has
}

// recovery waits in the state until a leader that is unsealed has finished it.
type recovery struct {
	At       time.Time `cbor:"1,keyasint"`
	Lost     []string  `cbor:"2,keyasint,omitempty"`
	Revision uint64    `cbor:"3,keyasint"` // the newest this node had
}

const recoveryKey = "recovery"

// Plain: it is written while nobody has unsealed anything.
var recoveries = store.NewTable("recovery", store.Key(func(*recovery) string { return recoveryKey }), store.Plain[recovery]())

// Recover makes the node of the configuration, which must be stopped, the only member of
// its cluster, after a majority of the controllers was lost for good. What only they knew
// is lost; so that nothing is taken for certain that they may have changed, open jobs are
// ended and all accounts are put in doubt when the node first leads unsealed. Without
// accept it changes nothing and says what would be lost: Precondition
// "data_loss_not_accepted".
func Recover(cfg Config, accept bool) (_ *Recovered, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	me, err := pki.OpenNodeIdentity(cfg.identityPath())
	if err != nil {
		return nil, err
	}
	out := &Recovered{}
	var id reeve.NodeID
	if out.Cluster, id, err = me.Node(); err != nil {
		return nil, err
	}
	st, err := store.Open(store.Config{Path: cfg.statePath(), Cipher: seal.NewManager(cfg.Logger), Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := out.describe(st, id); err != nil {
		return nil, err
	}
	if !accept {
		return nil, reeve.Errorf(reeve.Precondition, "data_loss_not_accepted",
			"%s would be the only controller of cluster %s; %s would never be let in again, and what only they have been told is lost: the newest change here is of %s",
			cfg.Name, out.Cluster, strings.Join(out.Lost, ", "), out.Recorded.Format(time.RFC3339)).
			WithFix("bring one of them back if you can; if they are lost for good, make sure that they stay off and add --accept-data-loss")
	}
	return out, cluster.Recover(cfg.DataDir, id, cfg.Raft.Address(), st, func() error { return out.amend(st, id) }, cfg.Logger)
}

// describe says who would be lost and how new the state is.
func (r *Recovered) describe(st *store.Store, id reeve.NodeID) error {
	return st.View(context.Background(), func(tx *store.Tx) error {
		members, err := pki.ListNodes(tx)
		if err != nil {
			return err
		}
		r.Lost = nil
		for _, n := range members {
			if n.ID != id {
				r.Lost = append(r.Lost, n.Name)
			}
		}
		r.Recorded = tx.Recorded()
		return nil
	})
}

// amend shuts the lost controllers out, leaves room for the revisions they may have given
// out, and notes what is still to be done once somebody has unsealed this one.
func (r *Recovered) amend(st *store.Store, id reeve.NodeID) error {
	if err := r.describe(st, id); err != nil { // the log may have brought more
		return err
	}
	var newest uint64
	err := st.View(context.Background(), func(tx *store.Tx) error {
		newest = tx.Revision()
		return nil
	})
	if err != nil {
		return err
	}
	return st.Amend(newest+revisionGap, func(tx *store.Tx) error {
		if err := pki.Forsake(tx, id); err != nil {
			return err
		}
		return recoveries.Put(tx, &recovery{At: tx.Now(), Lost: r.Lost, Revision: newest})
	})
}

// finishRecovery does what a recovery has left for a leader that is unsealed.
func (c *Controller) finishRecovery(ctx context.Context) error {
	var left *recovery
	err := c.store.View(ctx, func(tx *store.Tx) (err error) {
		left, err = recoveries.Get(tx, recoveryKey)
		return err
	})
	if reeve.KindOf(err) == reeve.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	by := audit.System("recovery")
	in := func(fn func(*store.Tx) error) error { return c.store.Update(ctx, fn) }
	if err := doubtAll(in, by, "a majority of the controllers was lost", jobs.Settling(c.cfg.Terms), c.cfg.Terms); err != nil {
		return err
	}
	err = in(func(tx *store.Tx) error {
		if err := recoveries.Delete(tx, recoveryKey); err != nil {
			return err
		}
		return audit.Record(tx, audit.Event{By: by, Action: "cluster.recover", Object: "cluster", Details: map[string]string{
			"survivor": c.cfg.Name, "lost": strings.Join(left.Lost, " "), "recovered_at": left.At.Format(time.RFC3339), "revision": revisionText(left.Revision)}})
	})
	if err == nil {
		c.log.Warn("recovered from the loss of a majority: open jobs are ended, every account is looked at again", "lost", left.Lost)
	}
	return err
}

// doubtAll ends all open jobs and puts all accounts in doubt, to be looked at after a
// while, each step in a transaction that in makes.
func doubtAll(in func(func(*store.Tx) error) error, by audit.Actor, reason string, after time.Duration, terms jobs.Terms) error {
	for more := true; more; {
		err := in(func(tx *store.Tx) (err error) {
			more, err = jobs.Interrupt(tx, by, reason, terms)
			return err
		})
		if err != nil {
			return err
		}
	}
	for far := (lifecycle.Suspects{}); !far.Done; {
		err := in(func(tx *store.Tx) (err error) {
			far, err = lifecycle.Suspect(tx, by, reason, after, far)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
