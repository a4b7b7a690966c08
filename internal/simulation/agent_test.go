package simulation

import (
	"context"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/reeve-pam/reeve/agent/logship"
	"github.com/reeve-pam/reeve/agent/worker"
	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

type grpcOption = grpc.CallOption

// agent is an enrolled agent with its data directory, over all its starts.
type agent struct {
	w    *world
	name string
	id   reeve.AgentID
	dir  string
	now  *incarnation
}

// incarnation is one start of an agent: the real worker, with its outbox on the disk.
type incarnation struct {
	w     *world
	of    *agent
	proc  *process
	ctx   context.Context
	kill  context.CancelFunc
	alive bool
	rate  float64 // of its clock; 1 is right
	began time.Time

	worker *worker.Worker
	logs   *logship.Shipper
	steps  *worker.Steps
	stream *stream

	believed *node // who leads, as far as it knows
	toReport bool
	atWork   map[string]int // tasks of a job
}

// boot starts an agent on what its disk has.
func (a *agent) boot() {
	w := a.w
	i := &incarnation{w: w, of: a, proc: &process{name: a.name}, alive: true, rate: 1, began: time.Now(), toReport: true,
		atWork: map[string]int{}}
	if w.strikes("agent's clock is wrong", 0.2) {
		i.rate = 0.96 + 0.08*w.rng.Float64()
	}
	i.ctx, i.kill = context.WithCancel(context.Background())
	a.now = i
	var err error
	if i.logs, err = logship.Open(logship.Config{Path: filepath.Join(a.dir, "logs.db"), Logger: quiet}); err != nil {
		w.fail("%v", err)
		return
	}
	i.worker, err = worker.New(worker.Config{Link: tie{i}, Host: plugs{i}, Logs: i.logs, Outbox: filepath.Join(a.dir, "outbox.db"),
		Concurrency: 6, Logger: quiet, Crash: i.crashes, Uptime: i.uptime,
		Redactor: func(...reeve.Secret) *redact.Redactor { return redact.New() }})
	if err != nil {
		w.fail("%v", err)
		return
	}
	i.steps = i.worker.Steps(i.ctx)
	w.note("%s is up", a.name)
	w.start(i.proc, "pull", i.pull)
	w.start(i.proc, "report", i.report)
	w.start(i.proc, "leases", i.renew)
}

// uptime is the clock of its leases.
func (i *incarnation) uptime() time.Duration {
	return time.Duration(float64(time.Since(i.began)) * i.rate)
}

// controller is whom it calls.
func (i *incarnation) controller() *node {
	w := i.w
	if i.believed == nil {
		i.believed = w.log.leader
		if i.believed == nil || w.rng.IntN(8) == 0 {
			i.believed = w.nodes[w.rng.IntN(len(w.nodes))]
		}
	}
	return i.believed
}

// pull is worker.pullForever: first what is known, then more work.
func (i *incarnation) pull() {
	w := i.w
	for i.ctx.Err() == nil {
		if !i.drain() {
			continue
		}
		if i.stream = i.openStream(); i.stream == nil {
			i.believed = nil
			w.sleep(i.ctx, w.between(0, 5*time.Second))
			continue
		}
		w.park(i.ctx, func() bool { return !i.stream.client })
		i.believed = nil
		w.sleep(i.ctx, w.between(0, 2*time.Second))
	}
	if i.stream != nil && !i.stream.cut {
		i.stream.client, i.stream.cut = false, true
		w.after(w.between(0, 35*time.Second), i.stream.closeServer)
	}
}

// drain reports what the outbox holds and no other task is reporting.
func (i *incarnation) drain() bool {
	i.toReport = false
	err := i.steps.Report(i.ctx)
	if err != nil {
		i.toReport = true
		i.w.sleep(i.ctx, 5*time.Second)
	}
	return err == nil
}

func (i *incarnation) report() {
	for i.ctx.Err() == nil {
		i.w.park(i.ctx, func() bool { return i.toReport })
		if i.ctx.Err() == nil {
			i.toReport = false
			i.w.start(i.proc, "drain", func() { i.drain() })
		}
	}
}

func (i *incarnation) renew() {
	last := time.Now()
	for i.ctx.Err() == nil {
		i.w.park(i.ctx, func() bool { return time.Since(last) >= i.steps.RenewIn() })
		last = time.Now()
		if i.steps.Renew(i.ctx) != nil {
			i.w.sleep(i.ctx, time.Second)
		}
	}
}

// receive takes a message of a stream.
func (i *incarnation) receive(s *stream, m *agentv1.PullJobsResponse) {
	w := i.w
	if !i.alive {
		return
	}
	if i.proc.frozen {
		w.after(w.between(time.Second, 5*time.Second), func() { i.receive(s, m) })
		return
	}
	if c := m.GetCancel(); c != nil {
		i.steps.Cancel(c)
		return
	}
	j := m.GetJob()
	times := 1
	if w.strikes("job delivered twice", 0.002) {
		times = 2
	}
	for range times {
		do := i.steps.Accept(j)
		if do == nil {
			continue
		}
		i.atWork[j.Id]++
		turn := i.atWork[j.Id]
		w.note("%s takes %s of fence %d, attempt %d", i.of.name, j.Work.Operation, j.Fence, j.Attempt)
		w.start(i.proc, j.Work.Operation, func() {
			w.cur.fence = j.Fence
			w.park(context.Background(), func() bool { return turn == 1 || i.done(j.Id, turn-1) })
			do()
			i.ended(j.Id, turn)
			i.toReport = true
			if i.stream != nil && i.stream.client {
				if n := i.steps.Credits(false); n > 0 {
					i.stream.addCredits(n)
				}
			}
		})
	}
}

// done and ended keep the deliveries of one job one after the other.
func (i *incarnation) done(job string, turn int) bool { return i.w.finished[key{i, job, turn}] }
func (i *incarnation) ended(job string, turn int)     { i.w.finished[key{i, job, turn}] = true }

type key struct {
	i    *incarnation
	job  string
	turn int
}

// crashes is worker.Config.Crash: asked at every point of a job's way. The agent may die
// there, or be stopped for a while (SIGSTOP) and go on as if nothing had happened.
func (i *incarnation) crashes(point string) bool {
	w := i.w
	if !i.alive {
		return true
	}
	if w.strikes("agent dies "+point, 0.003) {
		i.die()
		return true
	}
	if w.strikes("agent stopped "+point, 0.001) {
		i.freeze()
	}
	return false
}

// freeze stops everything the agent does, for a moment or longer than any quarantine.
func (i *incarnation) freeze() {
	w := i.w
	i.proc.frozen = true
	for _, t := range w.tasks {
		if t != nil && t.of == i.proc {
			t.stopped = true
		}
	}
	d := w.between(0, 90*time.Second)
	if w.chance(0.3) {
		d = w.between(0, 10*time.Minute)
	}
	w.note("%s stopped", i.of.name)
	w.after(d, func() { i.proc.frozen = false })
	w.park(context.Background(), func() bool { return !i.proc.frozen })
}

// die is kill -9. What the outbox has is on the disk.
func (i *incarnation) die() {
	w := i.w
	if !i.alive {
		return
	}
	w.note("%s dies", i.of.name)
	i.alive, i.proc.frozen = false, false
	i.kill()
	i.steps.Stop()
	i.reap(func() { w.after(w.between(100*time.Millisecond, 2*time.Minute), i.of.boot) })
}

func (i *incarnation) reap(then func()) {
	w := i.w
	w.after(time.Millisecond, func() {
		if !w.idle(i.proc) {
			i.reap(then)
			return
		}
		for k := range w.finished {
			if k.i == i {
				delete(w.finished, k)
			}
		}
		_, _ = i.worker.Close(), i.logs.Close()
		then()
	})
}
