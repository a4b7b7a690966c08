package linearize

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// nemesis makes one fault strike after the other.
type nemesis struct {
	*run
	rand   *rand.Rand
	struck []string
	failed []string
	killed map[*parts]bool
}

// faults are what may strike. Each returns when the cluster is whole again, but for an
// election.
var faults = map[string]func(*nemesis, context.Context) error{
	"cut-leader":     func(n *nemesis, ctx context.Context) error { return n.cut(ctx, true) },
	"cut-follower":   func(n *nemesis, ctx context.Context) error { return n.cut(ctx, false) },
	"mute-leader":    func(n *nemesis, ctx context.Context) error { return n.oneWay(ctx, n.cluster.net.Mute) },
	"deafen-leader":  func(n *nemesis, ctx context.Context) error { return n.oneWay(ctx, n.cluster.net.Deafen) },
	"freeze-leader":  (*nemesis).freeze,
	"kill-leader":    func(n *nemesis, ctx context.Context) error { return n.kill(ctx, true) },
	"kill-follower":  func(n *nemesis, ctx context.Context) error { return n.kill(ctx, false) },
	"restart-leader": (*nemesis).restart,
	"transfer":       (*nemesis).transfer,
	"install":        (*nemesis).install,
	"refuse":         (*nemesis).refuse,
	"stall":          (*nemesis).stall,
}

// Faults are the names of what may strike.
func Faults() []string { return slices.Sorted(maps.Keys(faults)) }

// strike lets all faults strike in random order, over and over until ctx ends, with a
// little peace after each.
func (n *nemesis) strike(ctx context.Context) error {
	n.killed = map[*parts]bool{}
	for {
		order := slices.Clone(n.opt.Faults)
		n.rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, name := range order {
			n.pause(ctx, 100, 300)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the end of the run
			}
			whole := context.WithoutCancel(ctx)
			if err := await(whole, "a leader", func() bool { return n.cluster.leader() != nil }); err != nil {
				return err
			}
			n.struck = append(n.struck, name)
			if err := faults[name](n, ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			n.cluster.net.Heal()
		}
	}
}

// pause waits for some time between the bounds, in milliseconds.
func (n *nemesis) pause(ctx context.Context, from, to int) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(from+n.rand.IntN(to-from)) * time.Millisecond):
	}
}

// victim is the leader, or a node that is not.
func (n *nemesis) victim(leads bool) *node {
	l := n.cluster.leader()
	at := n.rand.IntN(size)
	for i := range size {
		if v := n.cluster.nodes[(at+i)%size]; (v.now.Load() == l) == leads {
			return v
		}
	}
	return n.cluster.nodes[at] // nobody leads any more
}

func (n *nemesis) cut(ctx context.Context, leads bool) error {
	n.cluster.net.Isolate(n.victim(leads).now.Load().id)
	n.pause(ctx, 500, 1000)
	return nil
}

func (n *nemesis) oneWay(ctx context.Context, cut func(reeve.NodeID)) error {
	cut(n.victim(true).now.Load().id)
	n.pause(ctx, 500, 1000)
	return nil
}

// freeze cuts the leader off and hangs its disk, so that it does not notice: what it says
// while and just after others lead is what a stopped process would say when it goes on.
func (n *nemesis) freeze(ctx context.Context) error {
	v := n.victim(true)
	release := v.disk.close()
	defer release()
	n.cluster.net.Isolate(v.now.Load().id)
	n.pause(ctx, 1300, 1600)
	return nil
}

func (n *nemesis) kill(ctx context.Context, leads bool) error {
	v := n.victim(leads)
	n.killed[v.now.Load()] = true
	v.kill()
	n.pause(ctx, 100, 500)
	n.cluster.net.Heal()
	return v.start()
}

func (n *nemesis) restart(ctx context.Context) error {
	v := n.victim(true)
	if err := v.now.Load().end(); err != nil {
		n.failed = append(n.failed, fmt.Sprintf("%s: %v", v.name, err))
	}
	n.pause(ctx, 10, 100)
	return v.start()
}

func (n *nemesis) transfer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_ = n.victim(true).now.Load().raft.TransferLeadership(ctx, "") // refused without a healthy fellow
	return nil
}

// install lets a follower miss so much that it needs the leader's snapshot, and kills it
// when it has it.
func (n *nemesis) install(ctx context.Context) error {
	v := n.victim(false)
	n.cluster.net.Isolate(v.now.Load().id)
	leader := n.cluster.leader()
	n.pause(ctx, 300, 500)
	if leader != nil {
		whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = leader.raft.Snapshot(whole) // nothing new is an error too
	}
	n.cluster.net.Heal()
	n.pause(ctx, 200, 400)
	return n.kill(ctx, false)
}

// refuse lets the leader's log refuse proposals, here and there.
func (n *nemesis) refuse(ctx context.Context) error {
	v := n.victim(true)
	for range 10 {
		v.refuse.Store(1)
		n.pause(ctx, 40, 80)
	}
	v.refuse.Store(0)
	return nil
}

// stall stops the leader between computing an entry and proposing it, for so long that
// others have led and it leads again.
func (n *nemesis) stall(ctx context.Context) error {
	v := n.victim(true)
	first := v.now.Load()
	open := v.outlet.close()
	defer open()
	n.pause(ctx, 40, 80)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Second)
	defer cancel()
	_ = first.raft.TransferLeadership(ctx, "") // if it fails nothing is stalled for long
	n.pause(ctx, 200, 400)
	for ctx.Err() == nil && n.cluster.leader() != first {
		if l := n.cluster.leader(); l != nil {
			_ = l.raft.TransferLeadership(ctx, first.id)
		}
		n.pause(ctx, 5, 10)
	}
	return nil
}
