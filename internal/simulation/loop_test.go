package simulation

import (
	"container/heap"
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"math/rand/v2"
	"testing/synctest"
	"time"
)

// loop is the one logical thread. Events happen at instants of the fake clock of a
// synctest bubble; between them tasks run, one at a time and each until it waits.
//
// A task is a coroutine (iter.Pull): real code that blocks, such as store.Update or the
// agent's procedure, is left where it would wait and resumed when what it waits for is
// true. Tasks never run at the same time, so nothing depends on Go's scheduler; the only
// other goroutines are those of timers (a context's deadline, the end of a lease), which
// run while the loop sleeps.
type loop struct {
	rng    *rand.Rand
	events events
	seq    uint64
	tasks  []*task
	spare  []*task // whose coroutine has nothing to do; its stack has grown already
	cur    *task
	begin  time.Time

	trace  io.Writer // gets everything that happens
	digest interface{ Sum64() uint64 }
	steps  int
}

type event struct {
	at  time.Time
	seq uint64
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at.Before(e[j].at) || e[i].at.Equal(e[j].at) && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	(*e)[len(*e)-1] = event{}
	*e = (*e)[:len(*e)-1]
	return last
}

// process is what tasks belong to: a controller or an agent, from start to end. One that
// is frozen (SIGSTOP) runs nothing.
type process struct {
	name   string
	frozen bool
}

type task struct {
	name   string
	of     *process
	resume func() (struct{}, bool)
	end    func()
	yield  func(struct{}) bool
	do     func() // nil: none
	ready  func() bool

	fence   uint64 // of the job an agent works on
	stopped bool   // was frozen with its process: what it does may come later than anybody expects
}

func newLoop(seed uint64) *loop {
	h := fnv.New64a()
	return &loop{rng: rand.New(rand.NewPCG(seed, 0)), begin: time.Now(), trace: h, digest: h}
}

// note adds to the trace, by which two runs of one seed are compared.
func (l *loop) note(format string, args ...any) {
	fmt.Fprintf(l.trace, "%d ", time.Since(l.begin))
	fmt.Fprintf(l.trace, format, args...)
	_, _ = l.trace.Write([]byte{'\n'})
}

// chance is true with probability p.
func (l *loop) chance(p float64) bool { return p > 0 && l.rng.Float64() < p }

// between is a random duration.
func (l *loop) between(from, to time.Duration) time.Duration {
	return from + time.Duration(l.rng.Int64N(int64(to-from)+1))
}

// after has do run d from now.
func (l *loop) after(d time.Duration, do func()) {
	l.seq++
	heap.Push(&l.events, event{time.Now().Add(d), l.seq, do})
}

// start begins a task of a process; it runs when the present one waits.
func (l *loop) start(of *process, name string, fn func()) {
	var t *task
	if n := len(l.spare); n > 0 {
		t, l.spare = l.spare[n-1], l.spare[:n-1]
	} else {
		t = &task{}
		t.resume, t.end = iter.Pull(func(yield func(struct{}) bool) {
			t.yield = yield
			for more := true; more; more = yield(struct{}{}) {
				t.do()
				t.do = nil
			}
		})
	}
	t.name, t.of, t.do, t.ready, t.fence, t.stopped = name, of, fn, always, 0, false
	l.tasks = append(l.tasks, t)
}

func always() bool { return true }

// close ends the coroutines.
func (l *loop) close() {
	for _, t := range l.spare {
		t.end()
	}
}

// park lets the task wait until ready says so, or ctx has ended. It is a store.Park.
func (l *loop) park(ctx context.Context, ready func() bool) {
	t := l.cur
	if t == nil {
		panic("simulation: waiting outside of a task")
	}
	done := func() bool { return ready() || ctx.Err() != nil }
	for !done() {
		t.ready = done
		t.yield(struct{}{})
	}
}

// sleep lets the task wait for d, or until ctx ends.
func (l *loop) sleep(ctx context.Context, d time.Duration) {
	until := false
	l.after(d, func() { until = true })
	l.park(ctx, func() bool { return until })
}

// settle runs tasks until all of them wait.
func (l *loop) settle(between func()) {
	for again := true; again; {
		again = false
		for i := 0; i < len(l.tasks); i++ {
			t := l.tasks[i]
			if t == nil || t.of.frozen || !t.ready() {
				continue
			}
			again = true
			l.cur = t
			if t.resume(); t.do == nil {
				l.tasks[i] = nil
				l.spare = append(l.spare, t)
			}
			l.cur = nil
		}
		l.sweep()
		between()
	}
}

func (l *loop) sweep() {
	n := 0
	for _, t := range l.tasks {
		if t != nil {
			l.tasks[n] = t
			n++
		}
	}
	clear(l.tasks[n:])
	l.tasks = l.tasks[:n]
}

// idle reports whether a process has no tasks left.
func (l *loop) idle(of *process) bool {
	for _, t := range l.tasks {
		if t != nil && t.of == of {
			return false
		}
	}
	return true
}

// step goes on to the next event.
func (l *loop) step() {
	e := heap.Pop(&l.events).(event)
	if wait := time.Until(e.at); wait > 0 {
		time.Sleep(wait)
		synctest.Wait() // timers of the same instant come first
	}
	l.steps++
	e.do()
}
