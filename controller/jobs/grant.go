package jobs

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// grant leases the picked jobs in one transaction and hands them to their pulls once it
// is committed. Cards that turn out not to be grantable go back to where the store has
// them.
func (b *Broker) grant(ctx context.Context, picked []*card) error {
	if len(picked) == 0 {
		return nil
	}
	var grants []grant
	var refused []refusal
	var idle []*card
	began := b.store.Now()
	err := b.store.Update(ctx, func(tx *store.Tx) error {
		grants, refused, idle = nil, nil, nil
		for _, c := range picked {
			g, err := b.grantOne(tx, c)
			switch {
			case heals(err):
				wipeAll(grants)
				return err
			case err != nil:
				refused = append(refused, refusal{card: c, cause: err})
			case g == nil:
				idle = append(idle, c)
			default:
				grants = append(grants, *g)
				if err := storeLease(tx, g.job); err != nil {
					wipeAll(grants)
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		wipeAll(grants)
		return err
	}
	b.hand(grants, idle, began)
	return b.refuse(ctx, refused)
}

// refusal is a job that cannot be handed to any agent, such as one whose secret is gone.
type refusal struct {
	card  *card
	cause error
}

// grantOne leases one job within tx: nothing when the store no longer has it ready,
// its account free (J1) and its agent active.
func (b *Broker) grantOne(tx *store.Tx, c *card) (*grant, error) {
	j, err := Get(tx, c.id)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, nil //nolint:nilnil // nothing to grant
	}
	if err != nil {
		return nil, err
	}
	free, err := accountFree(tx, j)
	if err != nil || !free || !j.ready(tx.Now()) {
		return nil, err
	}
	key, err := b.cfg.AgentKey(tx, j.SiteID, c.agent)
	if err != nil {
		if heals(err) {
			return nil, err
		}
		b.log.Warn("agent may not take jobs", "agent", c.agent, "error", err)
		return nil, nil //nolint:nilerr,nilnil // banned meanwhile: another agent takes the job
	}
	digests, err := b.cfg.ConnectorDigests(tx, j.Connector)
	if err != nil {
		return nil, err
	}
	g := &grant{job: j, key: key, digests: digests}
	for _, r := range j.Secrets {
		_, s, err := b.vault.Open(tx, r.Secret, r.Version)
		if err != nil {
			g.wipe()
			return nil, err
		}
		g.secrets = append(g.secrets, s)
		fresh, err := b.vault.MarkLeased(tx, r.Secret, r.Version, tx.Now())
		if err != nil {
			g.wipe()
			return nil, err
		}
		g.fresh = append(g.fresh, fresh)
	}
	j.lease(c.agent, tx.Revision(), tx.Now(), b.cfg.Terms)
	return g, nil
}

// storeLease stores a lease together with what it exposes (A7).
func storeLease(tx *store.Tx, j *Job) error {
	if err := put(tx, j); err != nil {
		return err
	}
	if len(j.Secrets) == 0 {
		return nil
	}
	names := make([]string, len(j.Secrets))
	for i, r := range j.Secrets {
		if err := exposures.Insert(tx, &Exposure{Agent: j.Lease.Agent, Secret: r.Secret, Version: r.Version,
			Job: j.ID, Fence: j.Lease.Fence, Slot: r.Slot, At: tx.Now()}); err != nil {
			return err
		}
		names[i] = fmt.Sprintf("%s=%s@%d", r.Slot, r.Secret, r.Version)
	}
	return audit.Record(tx, audit.Event{By: system, Action: "secret.lease", Object: string(j.ID), Outcome: audit.OK,
		Details: map[string]string{"agent": string(j.Lease.Agent), "fence": fmt.Sprint(j.Lease.Fence), "secrets": strings.Join(names, " ")}})
}

// accountFree reports whether no job at work or in quarantine excludes j from its account.
func accountFree(tx *store.Tx, j *Job) (bool, error) {
	if j.AccountID == "" {
		return true, nil
	}
	for o, err := range table.Scan(tx, "held", store.Range{Prefix: []string{string(j.AccountID)}}) {
		if err != nil {
			return false, err
		}
		if o.ID != j.ID && excludes(j, o) {
			return false, nil
		}
	}
	return true, nil
}

// hand shows committed leases on the board and gives them to their pulls.
func (b *Broker) hand(grants []grant, idle []*card, began time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.store.Now()
	for _, g := range grants {
		c := cardOf(g.job)
		// The term counts from before the commit. The agent counts what is left when the
		// job is sent, a network's delay later: quarantine covers the difference.
		c.until = earlier(began.Add(b.cfg.Terms.Lease), c.deadline)
		g.until = c.until
		b.board.set(c, now)
		b.metrics.pickedUp(g.job, now)
		if p := b.pulls[c.agent]; p != nil && p.closed == nil {
			p.deliver(g)
			continue
		}
		g.wipe()
		b.unsent = append(b.unsent, g)
	}
	for _, c := range idle {
		if b.board.cards[c.id] == c {
			b.board.remove(c.id)
			again := c.waiting()
			again.notBefore = now.Add(lookAgain)
			b.board.set(again, now)
		}
	}
}

// refuse fails jobs that no agent can be given.
func (b *Broker) refuse(ctx context.Context, refused []refusal) error {
	for _, r := range refused {
		b.log.Error("job cannot be handed out", "job", r.card.id, "error", r.cause)
		err := b.decide(ctx, r.card.id, func(j *Job, now time.Time) (reeve.Outcome, reeve.Class, string) {
			if j.State != StateQueued {
				return "", "", ""
			}
			j.Failure = "the controller could not prepare the job: " + reeve.CodeOf(r.cause)
			j.finish(StateFailed, now)
			return reeve.NotDone, reeve.ClassInvalid, j.Failure
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func wipeAll(grants []grant) {
	for i := range grants {
		grants[i].wipe()
	}
}
