package jobs

import (
	"context"
	"crypto/hpke"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

const cluster = "testcluster"

var me = audit.Actor{Kind: "user", ID: "prin_me", Name: "me"}

// noDeadline hides testing.T's Deadline, which is wall time and must not be asked for in
// a bubble, from rapid.
type noDeadline struct{ testing.TB }

// rig is a broker on a real store, with agents that take jobs from it.
type rig struct {
	t      testing.TB
	store  *store.Store
	vault  *vault.Vault
	faults *storetest.Faults
	broker *Broker
	stop   func()

	registry *prometheus.Registry

	mu      sync.Mutex
	keys    map[reeve.AgentID]hpke.PrivateKey
	sites   map[reeve.AgentID]reeve.SiteID
	banned  map[reeve.AgentID]bool
	handled []string                      // "<state> <outcome>" of each call of the handler
	fail    error                         // what the handler returns
	waiters map[reeve.JobID]chan struct{} // closed when the job's handler sees it done
	early   map[reeve.JobID]bool
}

func newRig(t testing.TB, path string, more ...storetest.Option) *rig {
	t.Helper()
	cipher, faults := storetest.NewCipher(), new(storetest.Faults)
	opts := []storetest.Option{storetest.WithCipher(cipher), storetest.WithFaults(faults)}
	if path != "" {
		opts = append(opts, storetest.WithPath(path))
	}
	r := &rig{t: t, store: storetest.New(t, append(opts, more...)...), vault: vault.New(cipher), faults: faults, registry: prometheus.NewRegistry(),
		keys: map[reeve.AgentID]hpke.PrivateKey{}, sites: map[reeve.AgentID]reeve.SiteID{}, banned: map[reeve.AgentID]bool{}}
	r.broker = New(BrokerConfig{Store: r.store, Vault: r.vault, Cluster: cluster, Logger: slog.New(slog.DiscardHandler),
		Handlers:         Handlers{"test": r.handle},
		ConnectorDigests: func(*store.Tx, string) ([]string, error) { return []string{"d1"}, nil },
		AgentKey:         r.agentKey, Registry: r.registry, Rand: func() float64 { return 0.5 }})
	r.lead()
	t.Cleanup(func() { r.stop() })
	return r
}

// lead runs the broker until r.stop.
func (r *rig) lead() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := r.broker.Run(ctx); err != nil {
			r.t.Errorf("run the broker: %v", err)
		}
	})
	r.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
}

func (r *rig) handle(_ *store.Tx, j *Job, res *agentv1.Result) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	if r.waiters != nil {
		if c := r.waiters[j.ID]; c != nil {
			close(c)
		} else {
			r.early[j.ID] = true
		}
		return nil
	}
	r.handled = append(r.handled, fmt.Sprintf("%s %s", j.State, res.GetOutcome()))
	return nil
}

func (r *rig) agentKey(_ *store.Tx, site reeve.SiteID, agent reeve.AgentID) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sites[agent] != site || r.banned[agent] {
		return nil, reeve.Errorf(reeve.Denied, "agent_banned", "agent %s is banned", agent)
	}
	return r.keys[agent].PublicKey().Bytes(), nil
}

// agent enrols an agent in a site.
func (r *rig) agent(site reeve.SiteID) *testAgent {
	r.t.Helper()
	key, err := envelope.GenerateKey()
	if err != nil {
		r.t.Fatal(err)
	}
	id := reeve.NewAgentID()
	r.mu.Lock()
	r.keys[id], r.sites[id] = key, site
	r.mu.Unlock()
	return &testAgent{r: r, id: id, site: site, key: key}
}

// testAgent pulls jobs the way the gateway does for a real one.
type testAgent struct {
	r    *rig
	id   reeve.AgentID
	site reeve.SiteID
	key  hpke.PrivateKey
	stop func()

	mu      sync.Mutex
	jobs    []*agentv1.Job
	cancels []string
	ended   error
}

// attach opens a pull with credits and collects what comes.
func (a *testAgent) attach(credits uint32) *testAgent {
	a.r.t.Helper()
	p, err := a.r.broker.Attach(Puller{ID: a.id, SiteID: a.site, Connectors: []string{"ssh"}})
	if err != nil {
		a.r.t.Fatalf("attach: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer p.Close()
		for {
			m, err := p.Next(ctx)
			a.mu.Lock()
			a.ended = err
			if err == nil {
				if j := m.GetJob(); j != nil {
					a.jobs = append(a.jobs, j)
				}
				if c := m.GetCancel(); c != nil {
					a.cancels = append(a.cancels, c.GetJob())
				}
			}
			a.mu.Unlock()
			if err != nil {
				return
			}
		}
	})
	p.AddCredits(credits)
	a.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	a.r.t.Cleanup(a.stop)
	return a
}

// took waits until nothing moves and returns the jobs that came since the last call.
func (a *testAgent) took() []*agentv1.Job {
	synctest.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.jobs
	a.jobs = nil
	return out
}

func (a *testAgent) takeOne() *agentv1.Job {
	a.r.t.Helper()
	got := a.took()
	if len(got) != 1 {
		a.r.t.Fatalf("%s took %d jobs, want 1", a.id, len(got))
	}
	return got[0]
}

func (a *testAgent) report(j *agentv1.Job, outcome reeve.Outcome, class reeve.Class) (stale bool) {
	a.r.t.Helper()
	stale, err := a.r.broker.Report(context.Background(), a.id, reeve.JobID(j.GetId()), j.GetFence(),
		&agentv1.Result{Outcome: string(outcome), Class: string(class), Message: "test"})
	if err != nil {
		a.r.t.Fatalf("report: %v", err)
	}
	return stale
}

func (a *testAgent) renew(j *agentv1.Job) string {
	a.r.t.Helper()
	s, err := a.r.broker.RenewLeases(a.id, []*agentv1.LeaseRef{{Job: j.GetId(), Fence: j.GetFence()}})
	if err != nil {
		a.r.t.Fatalf("renew: %v", err)
	}
	return s[0].GetState()
}

func (r *rig) update(fn func(*store.Tx) error) {
	r.t.Helper()
	if err := r.store.Update(context.Background(), fn); err != nil {
		r.t.Fatalf("update: %v", err)
	}
}

func (r *rig) enqueue(s Spec) *Job {
	r.t.Helper()
	if s.Work == nil {
		s.Work = &agentv1.Work{Operation: "verify"}
	}
	if s.Connector == "" {
		s.Connector = "ssh"
	}
	if s.Class == 0 {
		s.Class = ClassApproved
	}
	s.Handler = "test"
	var j *Job
	r.update(func(tx *store.Tx) (err error) {
		j, err = Enqueue(tx, me, s)
		return err
	})
	return j
}

func (r *rig) job(id reeve.JobID) *Job {
	r.t.Helper()
	var j *Job
	if err := r.store.View(context.Background(), func(tx *store.Tx) (err error) {
		j, err = Get(tx, id)
		return err
	}); err != nil {
		r.t.Fatalf("get job: %v", err)
	}
	return j
}

func (r *rig) expect(id reeve.JobID, want State) *Job {
	r.t.Helper()
	synctest.Wait()
	j := r.job(id)
	if j.State != want {
		r.t.Fatalf("job is %s (%s), want %s", j.State, j.Failure, want)
	}
	return j
}

// secret puts a password into the vault.
func (r *rig) secret(value string) SecretRef {
	r.t.Helper()
	ref := SecretRef{Slot: "candidate", Kind: "password"}
	r.update(func(tx *store.Tx) (err error) {
		if ref.Secret, err = r.vault.Create(tx, vault.Password, "acct_1"); err != nil {
			return err
		}
		ref.Version, err = r.vault.AddCandidate(tx, ref.Secret, reeve.SecretString(value))
		return err
	})
	return ref
}

func drawChunk(t *rapid.T, h *logHead) *agentv1.LogChunk {
	c := &agentv1.LogChunk{Job: "job_1", Attempt: 1, Fence: 7,
		Sequence: uint64(max(0, int(h.Sequence)+rapid.IntRange(-1, 3).Draw(t, "sequence"))), //nolint:gosec // small
		Offset:   h.Offset, Last: rapid.IntRange(0, 20).Draw(t, "last") == 0}
	if rapid.IntRange(0, 5).Draw(t, "wrong offset") == 0 {
		c.Offset = rapid.Uint64().Draw(t, "offset")
	}
	switch rapid.IntRange(0, 3).Draw(t, "content") {
	case 0:
		c.GapBytes = rapid.Uint64().Draw(t, "gap")
	case 1:
		c.GapBytes, c.Data = 1, []byte("both")
	default:
		c.Data = rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "data")
	}
	return c
}

// onDone closes c when the job's handler has been called.
func (r *rig) onDone(id reeve.JobID, c chan struct{}) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.early[id] {
		delete(r.early, id)
		close(c)
		return func() {}
	}
	r.waiters[id] = c
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiters, id)
	}
}
