package linearize

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Options say what to run. The zero value of a field means what its comment says.
type Options struct {
	Seed    uint64        // of what clients do and when which fault strikes
	For     time.Duration // how long clients work
	Clients int           // at the same time; 0: 16
	Objects []string      // kinds that clients work on; none: all of Objects
	Faults  []string      // that strike, in random order; none: all of Faults
	Dir     string        // where nodes keep their data
	Out     string        // where pictures of violations go; "": nowhere
	Log     *slog.Logger  // of the nodes; nil: nowhere
}

// Objects are the kinds of object, in the order of issue and documentation.
var Objects = []string{"secret", "job", "token", "lock", "site"}

// Report is what came of a run.
type Report struct {
	Seed       uint64
	Operations int // answered
	Refused    int // surely without effect, and not part of any history
	Unknown    int
	Objects    int
	Faults     []string // in the order in which they struck
	Violations []Violation
	// Failed nodes stopped by themselves, with the reason: the store's own checks.
	Failed []string
	// Diverged says that replicas at one index did not hold the same bytes (O3).
	Diverged bool
}

// Clean reports whether nothing was found.
func (r *Report) Clean() bool { return len(r.Violations) == 0 && len(r.Failed) == 0 && !r.Diverged }

func (r *Report) String() string {
	s := fmt.Sprintf("linearize: %d operations on %d objects, %d unknown, %d refused, faults %s, %d violations, seed %d",
		r.Operations, r.Objects, r.Unknown, r.Refused, strings.Join(r.Faults, " "), len(r.Violations), r.Seed)
	for _, v := range r.Violations[:min(5, len(r.Violations))] {
		s += "\n" + v.String()
	}
	for _, f := range r.Failed {
		s += "\nnode " + f
	}
	if r.Diverged {
		s += "\nreplicas at one index hold different bytes"
	}
	return s
}

const (
	callLimit = 600 * time.Millisecond // after which a client no longer waits
	epoch     = time.Second            // how long an object is worked on
)

// run is one run's shared state.
type run struct {
	opt     Options
	cluster *Cluster
	history *history
	keys    *keys
	shared  sync.Map // what once made, by key
	busy    sync.Map // keys somebody is making
	ids     atomic.Uint64
}

// Run starts a cluster, lets clients work on it under faults, and checks what they saw.
// An error means that the run itself did not work; what it found is in the report.
func Run(ctx context.Context, opt Options) (*Report, error) {
	if opt.Clients == 0 {
		opt.Clients = 16
	}
	if len(opt.Objects) == 0 {
		opt.Objects = Objects
	}
	if len(opt.Faults) == 0 {
		opt.Faults = Faults()
	}
	c, err := Start(ctx, opt.Dir, opt.Log)
	if err != nil {
		return nil, err
	}
	r := &run{opt: opt, cluster: c, history: newHistory(), keys: c.keys}
	working, stop := context.WithTimeout(ctx, opt.For)
	defer stop()
	clients := make([]*client, opt.Clients)
	var wg sync.WaitGroup
	for i := range clients {
		clients[i] = r.client(i)
		wg.Go(func() { clients[i].work(working) })
	}
	n := &nemesis{run: r, rand: rand.New(rand.NewPCG(opt.Seed, 1<<32))} //nolint:gosec // repeatable on purpose
	nemesisErr := n.strike(working)
	wg.Wait()
	report := &Report{Seed: opt.Seed, Faults: n.struck, Failed: n.failed}
	if nemesisErr == nil {
		nemesisErr = r.readEverything(ctx, clients[0], report)
	}
	for _, node := range c.nodes {
		p := node.now.Load()
		select {
		case <-p.ended:
			if p.failure != nil && !n.killed[p] {
				report.Failed = append(report.Failed, fmt.Sprintf("%s: %v", node.name, p.failure))
			}
		default:
		}
	}
	stopErr := c.Stop()
	if report.Violations, err = r.history.check(opt.Out); err != nil {
		return nil, err
	}
	report.Operations, report.Refused, report.Unknown = r.history.count[answered], r.history.count[refused], r.history.count[unknown]
	report.Objects = len(r.history.objects)
	if report.Clean() { // else the reason is known already
		if nemesisErr != nil {
			return report, nemesisErr
		}
		return report, stopErr
	}
	return report, nil
}

// readEverything heals the cluster and reads every object on every node, each leading in
// turn: what is lost, or different on one node, is seen then.
func (r *run) readEverything(ctx context.Context, c *client, report *Report) error {
	for _, node := range r.cluster.nodes {
		var p *parts
		err := await(ctx, node.name+" to lead", func() bool {
			p = node.now.Load()
			l := r.cluster.leader()
			if l == p {
				return true
			}
			if l != nil {
				short, cancel := context.WithTimeout(ctx, time.Second)
				defer cancel()
				_ = l.raft.TransferLeadership(short, p.id) // tried again
			}
			return false
		})
		if err != nil {
			return err
		}
		c.readAll(ctx, p)
	}
	return await(ctx, "the replicas to be at one index", func() bool {
		first, sum, err := r.cluster.nodes[0].now.Load().store.StateHash()
		for _, node := range r.cluster.nodes[1:] {
			at, s, e := node.now.Load().store.StateHash()
			if err != nil || e != nil || at != first {
				return false
			}
			report.Diverged = report.Diverged || s != sum
		}
		return true
	})
}

// client is one of those who work on the cluster.
type client struct {
	*run
	number   int
	name     string
	rand     *rand.Rand
	agent    reeve.AgentID
	proofs   map[reeve.SecretID][]proof
	latest   map[reeve.SecretID]uint32
	holdings []holding
	finished []reeve.JobID
}

func (r *run) client(i int) *client {
	return &client{run: r, number: i, name: fmt.Sprintf("client-%d", i), agent: reeve.NewAgentID(),
		rand:   rand.New(rand.NewPCG(r.opt.Seed, uint64(i))), //nolint:gosec // repeatable on purpose
		proofs: map[reeve.SecretID][]proof{}, latest: map[reeve.SecretID]uint32{}}
}

func (c *client) work(ctx context.Context) {
	do := map[string]func(context.Context){"secret": c.secret, "job": c.job, "token": c.token, "lock": c.lock, "site": c.site}
	for ctx.Err() == nil {
		func() {
			// Not ended with the run: a call that is cut short tells nothing.
			call, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
			defer cancel()
			do[c.opt.Objects[c.rand.IntN(len(c.opt.Objects))]](call)
		}()
	}
}

// key names one of n objects of the kind. After a while, or when one has too many
// operations of unknown outcome, another takes its place: that keeps histories short.
func (c *client) key(kind string, n int) string {
	which := c.rand.IntN(n)
	for {
		key := fmt.Sprintf("%s/%d-%d", kind, time.Since(c.history.began)/epoch, which)
		if !c.history.tired(c.objectOf(key)) {
			return key
		}
		which += n
	}
}

// objectOf is the key in the history of what once made under the key.
func (c *client) objectOf(key string) string {
	switch made, _ := c.shared.Load(key); v := made.(type) {
	case reeve.SecretID:
		return "secret/" + string(v)
	case reeve.JobID:
		return jobKey(v)
	}
	return key
}

// pick is a node that believes it leads, or now and then any.
func (c *client) pick() *parts {
	var all, leading []*parts
	for _, n := range c.cluster.nodes {
		p := n.now.Load()
		all = append(all, p)
		if p.raft.IsLeader() {
			leading = append(leading, p)
		}
	}
	if len(leading) > 0 && c.rand.IntN(12) > 0 {
		return leading[c.rand.IntN(len(leading))]
	}
	time.Sleep(time.Millisecond) // most likely it refuses at once: do not spin
	return all[c.rand.IntN(len(all))]
}

func (c *client) note(key string, m *objectModel, call int64, input, output any, v verdict) {
	c.history.record(c.number, key, m, call, input, output, v)
}

// unseen is a number that no fence has.
func (r *run) unseen() uint64 { return 1<<63 + r.ids.Add(1) }

// readVerdict: a read that failed tells nothing and changed nothing.
func readVerdict(err error) verdict {
	if err != nil && reeve.KindOf(err) != reeve.NotFound {
		return refused
	}
	return answered
}

// once makes what belongs to a key, the first time somebody needs it. While it is being
// made, or if that failed, ok is false.
func once[T any](ctx context.Context, c *client, key string, make func(context.Context, *parts) (T, error)) (v T, ok bool) {
	if made, ok := c.shared.Load(key); ok {
		return made.(T), true
	}
	if _, taken := c.busy.LoadOrStore(key, true); taken {
		time.Sleep(time.Millisecond)
		return v, false
	}
	defer c.busy.Delete(key)
	v, err := make(ctx, c.pick())
	if err != nil {
		return v, false
	}
	c.shared.Store(key, v)
	return v, true
}

// readAll reads every object that has a history, on one node.
func (c *client) readAll(ctx context.Context, p *parts) {
	c.history.mu.Lock()
	objects := maps.Clone(c.history.objects)
	c.history.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(objects)) {
		if !c.readOne(ctx, p, key, objects[key].model) {
			return // it has lost its leadership, or cannot answer
		}
	}
}

func (c *client) readOne(ctx context.Context, p *parts, key string, m *objectModel) (answers bool) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	kind, name, _ := strings.Cut(key, "/")
	call := c.history.now()
	var in, out any
	var err error
	switch kind {
	case "secret":
		var a secretAnswer
		a.OK = true
		a.Pointers, err = readSecret(ctx, p, reeve.SecretID(name))
		in, out = secretOp{Do: "read"}, a
	case "job":
		var a jobAnswer
		a.What, err = jobDone(ctx, p, reeve.JobID(name))
		in, out = jobOp{Do: "read"}, a
	case "lock":
		var holder string
		holder, err = readLock(ctx, p, key)
		in, out = lockOp{Do: "read"}, holder
	case "site":
		var a siteAnswer
		a.ID, err = c.askSite(ctx, p.info.APIAddr, strings.ReplaceAll(key, "/", "-"), 0)
		in, out = siteOp{}, a
	default:
		return true
	}
	v := readVerdict(err)
	c.note(key, m, call, in, out, v)
	return v == answered
}
