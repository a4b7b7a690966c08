package simulation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// witness is a node whose store has everything that is committed; nil while there is none.
func (w *world) witness() *node {
	for _, n := range w.nodes {
		if n.alive && n.applied == len(w.log.committed) {
			return n
		}
	}
	for _, n := range w.nodes {
		if n.alive && !n.leading {
			n.apply()
			return n
		}
	}
	return nil
}

// look reads committed state.
func (w *world) look(fn func(tx *store.Tx) error) bool {
	n := w.witness()
	if n == nil {
		return false
	}
	if err := n.store.View(context.Background(), fn); err != nil && n.alive {
		w.fail("look: %v", err)
	}
	return true
}

// facts is what the committed state says about an account.
type facts struct {
	a    *lifecycle.Account
	info *vault.Info
	job  *jobs.Job // the last, nil if none
	held uint32    // the version the target has; 0: none, the password is lost
}

// A revision stands for one state, so facts are read once in each.
func (w *world) facts(tx *store.Tx, l *login) (f facts, err error) {
	if l.seen.a != nil && l.seenAt == tx.Revision() && l.seenWith == l.password {
		return l.seen, nil
	}
	defer func() {
		l.seen, l.seenAt, l.seenWith = f, tx.Revision(), l.password
		if err != nil {
			l.seen = facts{}
		}
	}()
	if f.a, err = lifecycle.Get(tx, string(l.id)); err != nil {
		return f, err
	}
	if f.info, err = w.vault.Get(tx, f.a.SecretID); err != nil {
		return f, err
	}
	if f.a.Job != "" {
		if f.job, err = jobs.Get(tx, f.a.Job); err != nil {
			return f, err
		}
	}
	for ; l.looked < f.info.Last; l.looked++ {
		_, s, err := w.vault.Open(tx, f.a.SecretID, l.looked+1)
		if reeve.KindOf(err) == reeve.NotFound {
			continue
		}
		if err != nil {
			return f, err
		}
		l.known[s.Reveal()] = l.looked + 1
	}
	n, ok := l.known[l.password]
	if !ok {
		return f, nil
	}
	_, s, err := w.vault.Open(tx, f.a.SecretID, n)
	if reeve.KindOf(err) == reeve.NotFound {
		return f, nil
	}
	if err == nil && s.Reveal() == l.password {
		f.held = n
	}
	return f, err
}

// check looks at the invariants of one account (security.md §3).
func (w *world) check(l *login) {
	w.look(func(tx *store.Tx) error { return w.checkIn(tx, l) })
}

func (w *world) checkIn(tx *store.Tx, l *login) error {
	if w.problem != "" || l.password == "" {
		return nil
	}
	f, err := w.facts(tx, l)
	if err != nil {
		return err
	}
	idle := f.job == nil || f.job.State.Final()
	switch {
	case f.held == 0:
		w.violation("R1: the password of %s is lost: none of %d versions has it", l.name, f.info.Last)
	case idle && l.coming == 0 && !l.surprise && f.a.Sync == lifecycle.InSync && f.info.Current != f.held:
		w.violation("R2: %s is in sync with version %d, but the target has version %d", l.name, f.info.Current, f.held)
	case !idle && w.overdue(f.job):
		w.violation("J3: job %s (%s) of %s is %s at %s, its deadline was %s", f.job.ID, f.job.Operation, l.name, f.job.State, time.Now(), f.job.Deadline)
	}
	return nil
}

// overdue reports whether a job is at work or waiting beyond its deadline and quarantine,
// while somebody led who could have ended it.
func (w *world) overdue(j *jobs.Job) bool {
	n := w.log.leader
	if n == nil || !n.leading || time.Since(n.since) < 2*time.Minute {
		return false
	}
	end := j.Deadline.Add(jobs.LeaseTerm + jobs.KillGrace + j.Timeout + jobs.DriftMargin)
	return time.Now().After(end.Add(30 * time.Second))
}

// kept makes sure that no version that ever left the vault is gone, and none is missing
// without having been allowed to go.
func (w *world) kept(l *login) {
	w.look(func(tx *store.Tx) error {
		f, err := w.facts(tx, l)
		if err != nil {
			return err
		}
		all, err := w.vault.Versions(tx, f.a.SecretID)
		if err != nil {
			return err
		}
		if time.Since(w.begin) < vault.Retention && len(all) != int(f.info.Last) {
			w.violation("R1: %s has %d of %d versions within the time they must be kept", l.name, len(all), f.info.Last)
		}
		candidates := 0
		for _, v := range all {
			if v.State == vault.Candidate {
				candidates++
			}
		}
		if candidates > 1 {
			w.violation("R3: %s has %d candidates", l.name, candidates)
		}
		return nil
	})
}

// reported is called when a controller has answered a report. One that was accepted must
// have come under the fence it was accepted for.
func (w *world) reported(id reeve.JobID, fence uint64, stale bool) {
	w.look(func(tx *store.Tx) error {
		j, err := jobs.Get(tx, id)
		if err != nil {
			return err
		}
		for _, d := range j.Deliveries {
			if !stale && d.Fence == fence && d.Ending != jobs.EndReported {
				w.violation("J1: a report of %s under the dead fence %d was accepted (the delivery ended as %q)", id, fence, d.Ending)
			}
		}
		for _, l := range w.logins {
			if l.id == j.AccountID {
				return w.checkIn(tx, l)
			}
		}
		return nil
	})
}

// over reports whether nobody waits any more for what is done to an account under a fence.
func (w *world) over(l *login, fence uint64) (over bool) {
	w.look(func(tx *store.Tx) error {
		f, err := w.facts(tx, l)
		if err != nil {
			return err
		}
		over = f.job == nil || f.job.State.Final() || !slices.ContainsFunc(f.job.Deliveries, func(d jobs.Delivery) bool {
			return d.Fence == fence && d.EndedAt.IsZero()
		})
		return nil
	})
	return over
}

// allQuiet reports whether no account has anything at work.
func (w *world) allQuiet() bool {
	for _, l := range w.logins {
		if l.coming > 0 {
			return false
		}
	}
	return w.every(facts.quiet)
}

// anyStopped reports whether an agent is stopped: going on, it may still send a change.
func (w *world) anyStopped() bool {
	return slices.ContainsFunc(w.agents, func(a *agent) bool { return a.now != nil && a.now.proc.frozen })
}

func (f facts) quiet() bool {
	return (f.job == nil || f.job.State.Final()) && f.a.State == lifecycle.Active && f.a.ProbeAt.IsZero() && f.a.Sync == lifecycle.InSync
}

// allWell reports whether every account is there and in sync.
func (w *world) allWell() bool {
	return len(w.logins) == hosts*perHost && w.every(func(f facts) bool { return f.quiet() && f.info.Current == f.held })
}

func (w *world) every(is func(facts) bool) bool {
	n := w.log.leader
	if n == nil || !n.leading || len(w.tasks) > 6+len(w.agents)*3 {
		return false
	}
	all := true
	seen := w.look(func(tx *store.Tx) error {
		for _, l := range w.logins {
			f, err := w.facts(tx, l)
			if err != nil {
				return err
			}
			if !is(f) {
				all = false
				return nil
			}
		}
		return nil
	})
	return seen && all
}

// restless says which accounts are not as they should be.
func (w *world) restless() string {
	var out []string
	w.look(func(tx *store.Tx) error {
		for _, l := range w.logins {
			f, err := w.facts(tx, l)
			if err != nil {
				return err
			}
			if f.quiet() && f.info.Current == f.held {
				continue
			}
			s := fmt.Sprintf("%s on %s is %s, %s (%+v), version %d is current and %d on the target", l.name, l.of.name, f.a.State, f.a.Sync,
				f.a.LastError, f.info.Current, f.held)
			if f.job != nil {
				s += fmt.Sprintf(", job %s %s attempt %d (%s)", f.job.Operation, f.job.State, f.job.Attempt, f.job.Failure)
			}
			out = append(out, s)
		}
		return nil
	})
	return strings.Join(out, "; ")
}

// finish looks at everything once more when all is quiet.
func (w *world) finish() {
	for _, l := range w.logins {
		w.check(l)
		w.kept(l)
	}
	var first [32]byte
	for k, n := range w.nodes {
		if !n.alive {
			continue
		}
		n.apply()
		_, sum, err := n.store.StateHash()
		if err != nil {
			w.fail("state hash: %v", err)
		}
		if first == [32]byte{} {
			first = sum
		} else if sum != first {
			w.violation("controller %d has another state than its fellow", k+1)
		}
	}
}
