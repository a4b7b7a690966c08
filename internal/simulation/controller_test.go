package simulation

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// node is a controller: the real store on a file of its own, and on the leader the real
// broker and engine.
type node struct {
	w    *world
	name string
	path string
	proc *process

	life  int // how often it was started
	alive bool
	ctx   context.Context // of the process
	kill  context.CancelFunc

	store   *store.Store
	engine  *lifecycle.Engine
	broker  *jobs.Broker
	changed <-chan struct{}
	applied int // entries of the log
	flushAt int // entries at which the next flush is

	leading    bool
	joining    bool // loops of an earlier leadership still run
	term       uint64
	since      time.Time
	loopsCtx   context.Context
	stopLoops  context.CancelFunc
	loops      int
	rounding   bool // a round of the broker is at work
	again      bool // and another one is wanted
	roundTimer uint64

	proposals []*proposal // not decided yet, in order
	last      *proposal
	ticks     int
	streams   []*stream
}

// boot starts a node on what its disk has.
func (n *node) boot() {
	w := n.w
	n.life++
	n.proc = &process{name: n.name}
	n.ctx, n.kill = context.WithCancel(context.Background())
	n.stopLoops = func() {}
	s, err := store.Open(store.Config{Path: n.path, Cipher: w.cipher, Replicator: n, Clock: time.Now, Logger: quiet, Park: w.park})
	if err != nil {
		w.fail("open the store: %v", err)
		return
	}
	n.store = s
	n.applied = int(s.AppliedIndex()) //nolint:gosec // few entries
	n.flushAt = n.applied + 50
	n.changed, _ = s.Watch("job")
	n.engine = lifecycle.New(lifecycle.Config{Store: s, Vault: w.vault, Policy: vault.DefaultPolicy(), Pulse: &service.Pulse{}, Logger: quiet,
		AgentsIn: func(*store.Tx, reeve.SiteID) (int, error) { return len(w.agents), nil }})
	n.broker = jobs.New(jobs.BrokerConfig{Store: s, Vault: w.vault, Cluster: "simulation", Handlers: n.engine.Handlers(),
		ConnectorDigests: inventory.ConnectorDigests, Logger: quiet, Rand: w.rng.Float64, Seal: seal,
		AgentKey: func(_ *store.Tx, _ reeve.SiteID, a reeve.AgentID) ([]byte, error) { return []byte(a), nil }})
	n.leading, n.joining, n.rounding, n.again, n.loops = false, false, false, false, 0
	n.proposals, n.streams = nil, nil
	n.alive = true
	n.apply()
	w.note("%s is up, %d applied", n.name, n.applied)
}

// crash is kill -9: what is not on the disk is gone, what it proposed is in doubt.
func (w *world) crash(n *node) {
	if !n.alive {
		return
	}
	w.note("%s dies", n.name)
	n.alive, n.leading = false, false
	if w.log.leader == n {
		w.log.leader = nil
		w.log.orphans = n.proposals
	}
	n.proposals = nil
	n.kill()
	n.stopLoops()
	_ = n.store.Apply(1<<62, 1, []byte("no entry")) // a failed store writes nothing more
	n.store.Follow()
	for _, s := range n.streams {
		s.serverDied()
	}
	w.reap(n, func() { w.after(w.between(100*time.Millisecond, 90*time.Second), n.boot) })
}

// reap waits until the last of a dead node's tasks has noticed.
func (w *world) reap(n *node, then func()) {
	w.after(time.Millisecond, func() {
		if !w.idle(n.proc) {
			w.reap(n, then)
			return
		}
		_ = n.store.Close() // says that the store has failed
		then()
	})
}

// startLoops does what controller.runLoops does, in steps.
func (n *node) startLoops() {
	n.loopsCtx, n.stopLoops = context.WithCancel(n.ctx)
	n.round()
	n.tick(n.loopsCtx, 0)
}

// round lets the broker look at what there is to do.
func (n *node) round() {
	if !n.leading {
		return
	}
	if n.rounding {
		n.again = true
		return
	}
	w, ctx := n.w, n.loopsCtx
	n.rounding, n.again = true, false
	n.loops++
	broker := n.broker
	w.start(n.proc, "round", func() {
		next, err := broker.Round(ctx)
		n.loops--
		n.rounding = false
		if err != nil && !transient(err) {
			w.fail("broker: %v", err)
		}
		if ctx.Err() != nil {
			return
		}
		n.pump()
		if n.again {
			n.round()
			return
		}
		n.roundTimer++
		turn := n.roundTimer
		w.after(max(next, time.Millisecond), func() {
			if n.roundTimer == turn && ctx.Err() == nil {
				n.round()
			}
		})
	})
}

// tick lets the engine start what is due.
func (n *node) tick(ctx context.Context, wait time.Duration) {
	w := n.w
	w.after(wait, func() {
		if ctx.Err() != nil {
			return
		}
		n.loops++
		w.start(n.proc, "tick", func() {
			err := n.engine.Tick(ctx)
			n.loops--
			if err != nil && !transient(err) {
				w.fail("tick: %v", err)
			}
			if n.ticks++; n.ticks%1800 == 0 {
				n.tidy(ctx)
			}
			n.tick(ctx, w.tickEvery)
		})
	})
}

// tidy is the leader's hourly pruning.
func (n *node) tidy(ctx context.Context) {
	if _, err := n.w.vault.PruneAll(ctx, n.store, system); err != nil && !transient(err) {
		n.w.fail("tidy: %v", err)
	}
}

// update runs a transaction on the node.
func (n *node) update(fn func(tx *store.Tx) error) error { return n.store.Update(n.ctx, fn) }

// transient reports whether an error comes from a fault of the log or a dead controller.
func transient(err error) bool {
	switch reeve.KindOf(err) {
	case reeve.Unavailable, reeve.OutcomeUnknown:
		return true
	default:
		return reeve.CodeOf(err) == "entry_version_unknown" // how crash makes a store fail
	}
}

// seal stands for HPKE, which would take most of the time: what it returns opens for the
// same agent, job, fence and reference alone.
func seal(key []byte, b envelope.Binding, r envelope.Ref, s reeve.Secret) (enc, ciphertext []byte, err error) {
	return []byte(bound(string(key), b, r)), append([]byte(nil), s.Bytes()...), nil
}

func (w *world) dir(name string) string {
	d := filepath.Join(w.root, name)
	if err := os.MkdirAll(d, 0o700); err != nil {
		w.fail("%v", err)
	}
	return d
}
