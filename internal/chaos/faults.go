//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// hit does a fault, lets it last, and undoes it. It returns what was done to whom, empty
// if the victim could not take it (a host with a file open for writing does not become
// read-only, an agent without a job has no connector).
func (w *world) hit(ctx context.Context, f fault) string {
	if !sleep(ctx, f.at) {
		return ""
	}
	victim := f.victim
	var undo func()
	switch f.kind {
	case "kill", "pause", "stop":
		victim, undo = w.hitProcess(ctx, f)
	case "cut", "oneway", "loss":
		undo = w.hitNetwork(f)
	case "disk-hang", "disk-full", "disk-fail":
		c := w.controller(ctx, f.victim)
		victim = c.Name
		d := w.disks[c.Name]
		map[string]func(){"disk-hang": d.Hang, "disk-full": d.Full, "disk-fail": d.Fail}[f.kind]()
		undo = d.Heal
	default:
		g := w.target(f.victim)
		if g.hit(ctx, f.kind) {
			undo = func() { w.note(g.heal(ctx)) }
		}
	}
	if undo == nil {
		return ""
	}
	sleep(ctx, f.span)
	undo()
	w.count(f.kind)
	done := f.kind + " " + victim
	if victim != f.victim {
		done += " (" + f.victim + ")"
	}
	if f.other != "" {
		done += " " + f.other
	}
	return done
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// controller is the one that leads, or one of the others, as the cluster says now; if
// nobody says, the one that led last counts.
func (w *world) controller(ctx context.Context, role string) *fleet.Controller {
	ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	lead, err := w.fleet.Leader(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.led = lead
	}
	if role == "leader" {
		return w.led
	}
	n := 1
	for _, c := range w.fleet.Controllers {
		if c == w.led {
			continue
		}
		if role == fmt.Sprintf("follower-%d", n) {
			return c
		}
		n++
	}
	return w.led
}

func (w *world) hitProcess(ctx context.Context, f fault) (victim string, undo func()) {
	if site, ok := strings.CutPrefix(f.victim, "connector-"); ok {
		return f.victim, w.hitConnector(ctx, w.agent(site), f)
	}
	var p *fleet.Process
	if site, ok := strings.CutPrefix(f.victim, "agent-"); ok {
		p = w.agent(site).Process
	} else {
		p = w.controller(ctx, f.victim).Process
	}
	if f.kind == "pause" {
		if p.Pause() != nil {
			return p.Name, nil
		}
		return p.Name, func() { _ = p.Resume() } // it may have been killed meanwhile
	}
	if !p.Running() {
		return p.Name, nil
	}
	if f.kind == "kill" {
		p.Kill()
	} else {
		w.note(p.End(stopLimit))
	}
	return p.Name, func() { _ = p.Start() } // heal starts what is not running
}

// stopLimit is what a program gets to end when it is asked to, whatever else is wrong.
const stopLimit = 30 * time.Second

// hitConnector waits for a connector to appear, so that the fault meets a job at work.
func (w *world) hitConnector(ctx context.Context, a *fleet.Agent, f fault) func() {
	sig := map[string]syscall.Signal{"kill": syscall.SIGKILL, "pause": syscall.SIGSTOP, "stop": syscall.SIGTERM}[f.kind]
	for deadline := time.Now().Add(f.span); ; {
		if n, _ := a.SignalChildren(sig); n > 0 {
			return func() { _, _ = a.SignalChildren(syscall.SIGCONT) }
		}
		if time.Now().After(deadline) || !sleep(ctx, 10*time.Millisecond) {
			return nil
		}
	}
}

func (w *world) hitNetwork(f fault) func() {
	a := w.net.Node(f.victim)
	var b *testlab.Node
	if f.other != "" {
		b = w.net.Node(f.other)
	}
	var err error
	switch f.kind {
	case "cut":
		err = w.net.Cut(a, b)
	case "oneway":
		err = w.net.CutOneWay(a, b)
	default:
		err = w.net.Loss(a, f.percent)
	}
	if err != nil {
		w.note(err)
		return nil
	}
	return func() { w.note(w.net.Heal()) } // one network fault at a time: see newRound
}

// heal undoes everything that may still be wrong, and waits until the cluster serves and
// both agents are connected.
func (w *world) heal(ctx context.Context) error {
	for _, d := range w.disks {
		d.Heal()
	}
	if err := w.net.Heal(); err != nil {
		return err
	}
	var g errgroup.Group
	for _, t := range w.targets {
		g.Go(func() error { return t.heal(ctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	err := fleet.Eventually(ctx, time.Minute, func(ctx context.Context) error {
		for _, p := range w.fleet.Processes() {
			_ = p.Resume()
			if !p.Running() {
				if err := p.Start(); err != nil {
					return err
				}
			}
		}
		for _, a := range w.fleet.Agents {
			if _, err := a.SignalChildren(syscall.SIGCONT); err != nil {
				return err
			}
		}
		if err := w.fleet.AllVote(ctx); err != nil {
			return err
		}
		for _, s := range sites {
			if err := w.fleet.Connected(ctx, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("the cluster did not come back: %w", err)
	}
	_ = w.controller(ctx, "leader") // for faults of the next round that find nobody to ask
	return nil
}

// counts of faults by kind.
type counts struct {
	mu sync.Mutex
	by map[string]int
}

func (w *world) count(kind string) {
	w.faults.mu.Lock()
	defer w.faults.mu.Unlock()
	w.faults.by[kind]++
}

func (c *counts) total() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.by {
		n += v
	}
	return n
}
