package simulation

import (
	"context"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// replog is the replicated log as Raft promises it: what is committed stays, in order.
// Everything else may happen to a proposal: it is lost with its leader or on its own, it
// is committed and nobody says so, or somebody says so late.
type replog struct {
	w         *world
	committed []entry
	term      uint64
	leader    *node // who may commit; nil while nobody does
	orphans   []*proposal
}

type entry struct {
	term uint64
	data []byte
}

// proposal is an entry on its way.
type proposal struct {
	of      *node
	life    int
	entry   entry
	settle  func()
	decided bool
	err     error
}

// Wait implements store.Proposal; it is called when the fate is decided.
func (p *proposal) Wait() error { return p.err }

var (
	errRefused = reeve.Errorf(reeve.Unavailable, "not_leader", "the log did not take the entry")
	errUnknown = reeve.Errorf(reeve.OutcomeUnknown, "leadership_lost", "leadership was lost while waiting")
)

// Propose implements store.Replicator.
func (n *node) Propose(data []byte) store.Proposal {
	p := &proposal{of: n, life: n.life, entry: entry{n.term, data}}
	n.proposals = append(n.proposals, p)
	n.last = p
	return p
}

// propose hands over what the node's store has queued.
func (n *node) propose() {
	w := n.w
	for n.alive {
		settle := n.store.Step()
		if settle == nil {
			return
		}
		p := n.last
		p.settle = settle
		if w.strikes("controller dies before a proposal", 0.0005) {
			n.proposals = n.proposals[:len(n.proposals)-1]
			w.crash(n)
			return
		}
		w.after(w.between(time.Millisecond, 8*time.Millisecond), func() { w.log.decide(p) })
	}
}

// decide is when a majority has, or has not, written the entry.
func (g *replog) decide(p *proposal) {
	n := p.of
	if p.decided || g.leader != n || n.life != p.life || n.term != p.entry.term {
		return // it was decided with its leader
	}
	// Entries enter the log in order.
	for len(n.proposals) > 0 {
		q := n.proposals[0]
		n.proposals = n.proposals[1:]
		g.commit(q)
		if q == p || !n.alive {
			break
		}
	}
}

func (g *replog) commit(p *proposal) {
	w, n := g.w, p.of
	switch {
	case w.strikes("entry refused", 0.002):
		g.answer(p, errRefused)
		return
	case w.strikes("entry lost", 0.002):
		g.answer(p, errUnknown)
		return
	}
	g.append(p.entry)
	if w.strikes("controller dies between commit and apply", 0.0005) {
		w.crash(n)
		return
	}
	n.apply()
	switch {
	case w.strikes("controller dies between commit and answer", 0.0005):
		w.crash(n)
	case w.strikes("acknowledgement lost", 0.002):
		g.answer(p, errUnknown)
	case w.strikes("acknowledgement late", 0.002):
		p.decided = true
		w.after(w.between(0, 3*time.Second), func() { p.decided = false; g.answer(p, nil) })
	default:
		g.answer(p, nil)
	}
}

func (g *replog) append(e entry) {
	g.committed = append(g.committed, e)
	g.w.note("commit %d in term %d", len(g.committed), e.term)
}

// answer tells the store of the proposer, unless that has died.
func (g *replog) answer(p *proposal, err error) {
	if p.decided {
		return
	}
	p.decided = true
	if p.of.alive && p.of.life == p.life {
		p.err = err
		p.settle()
	}
}

// elect makes a node the leader of a new term. What the leader before it had proposed
// is committed up to some point, and lost from there.
func (g *replog) elect(n *node) {
	w, old := g.w, g.leader
	var left []*proposal
	if old != nil {
		left = old.proposals
	} else {
		left = g.orphans
	}
	left = slices.DeleteFunc(slices.Clone(left), func(p *proposal) bool { return p.decided })
	for _, p := range left[:w.rng.IntN(len(left)+1)] {
		g.append(p.entry)
	}
	g.orphans = nil
	g.term++
	g.leader = n
	w.note("%s leads term %d", n.name, g.term)
	term := g.term
	if old != nil && old.alive {
		if old == n {
			old.depose(left)
		} else { // it learns of it late, and until then believes that it leads
			life := old.life
			w.after(w.between(0, 2*time.Second), func() {
				if old.life == life {
					old.depose(left)
				}
			})
		}
	}
	n.lead(term)
}

// depose ends a node's leadership: its loops are told and joined, its proposals are in
// doubt.
func (n *node) depose(left []*proposal) {
	if !n.leading || !n.alive {
		return
	}
	n.leading = false
	n.stopLoops()
	n.store.Follow()
	for _, p := range left {
		n.w.log.answer(p, errUnknown)
	}
	n.proposals = nil
	n.joining = true
	n.w.start(n.proc, "step down", func() {
		n.w.park(context.Background(), func() bool { return n.loops == 0 })
		n.broker.StepDown()
		n.pump() // the streams end: nobody else would tell their agents
		n.joining = false
		n.w.note("%s follows", n.name)
	})
}

// lead begins a node's leadership, after the one before it has ended and everything that
// was committed is applied.
func (n *node) lead(term uint64) {
	w := n.w
	w.start(n.proc, "lead", func() {
		w.park(n.ctx, func() bool { return !n.joining })
		if !n.alive || w.log.leader != n || w.log.term != term {
			return
		}
		n.apply()
		if err := n.store.Lead(term); err != nil {
			w.fail("lead: %v", err)
			return
		}
		n.term, n.leading, n.since = term, true, time.Now()
		n.startLoops()
	})
}

// apply takes over what is committed.
func (n *node) apply() {
	g := n.w.log
	for n.applied < len(g.committed) {
		e := g.committed[n.applied]
		n.applied++
		if err := n.store.Apply(uint64(n.applied), e.term, e.data); err != nil {
			n.w.fail("apply: %v", err)
			return
		}
		n.w.applied(n)
	}
	if n.applied < n.flushAt {
		return
	}
	n.flushAt = n.applied + 20 + n.w.rng.IntN(n.w.flushEvery)
	if err := n.store.Flush(); err != nil {
		n.w.fail("flush: %v", err)
	}
}

var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()
