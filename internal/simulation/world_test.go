package simulation

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

var (
	quiet  = slog.New(slog.DiscardHandler)
	alice  = audit.Actor{Kind: "user", ID: "prin_1", Name: "alice"}
	system = audit.System("simulation")
)

// Sizes of a world.
const (
	controllers = 2
	agents      = 2
	hosts       = 3
	perHost     = 4 // accounts
)

// world is one episode: a cluster, agents and targets of its own, from their beginning
// through a time of faults to the quiet after it.
type world struct {
	*loop
	root    string
	cipher  store.Cipher
	vault   *vault.Vault
	log     *replog
	nodes   []*node
	agents  []*agent
	targets map[string]*target
	logins  []*login
	site    reeve.SiteID

	faulty     bool
	weights    map[string]float64 // of each kind of fault, in this episode
	tickEvery  time.Duration
	flushEvery int          // entries between two flushes of a controller, at most, in this episode
	finished   map[key]bool // deliveries an agent is through with

	want        int // rotations to be asked for
	rotations   int // asked for and begun
	faults      map[string]int
	worstLogins int
	problem     string
}

func newWorld(root string, seed uint64) *world {
	cipher := storetest.NewCipher()
	w := &world{loop: newLoop(seed), root: root, cipher: cipher, vault: vault.New(cipher), targets: map[string]*target{},
		weights: map[string]float64{}, tickEvery: time.Second, finished: map[key]bool{}, faults: map[string]int{}}
	w.log = &replog{w: w}
	w.flushEvery = []int{1000, 3000, 10_000}[w.rng.IntN(3)]
	for k := range controllers {
		n := &node{w: w, name: fmt.Sprintf("controller %d", k+1)}
		n.path = filepath.Join(w.dir(fmt.Sprintf("c%d", k+1)), "state.db")
		w.nodes = append(w.nodes, n)
	}
	for k := range agents {
		a := &agent{w: w, name: fmt.Sprintf("agent %d", k+1), id: reeve.NewAgentID()}
		a.dir = w.dir(fmt.Sprintf("a%d", k+1))
		w.agents = append(w.agents, a)
	}
	return w
}

// strikes says whether a fault of this kind strikes here. Every episode has kinds that
// are frequent, rare and absent in it: bugs need combinations that an even mixture of
// everything never makes.
func (w *world) strikes(kind string, p float64) bool {
	if !w.faulty {
		return false
	}
	weight, known := w.weights[kind]
	if !known {
		weight = []float64{0, 0.3, 1, 1, 4}[w.rng.IntN(5)]
		w.weights[kind] = weight
	}
	if !w.chance(p * weight) {
		return false
	}
	w.faults[kind]++
	w.note("fault: %s", kind)
	return true
}

// violation notes that an invariant does not hold; the first one ends the episode.
func (w *world) violation(format string, args ...any) {
	if w.problem == "" {
		w.problem = fmt.Sprintf("after %s: ", time.Since(w.begin)) + fmt.Sprintf(format, args...)
		w.note("VIOLATION %s", w.problem)
	}
}

// fail notes that something went wrong that no fault of ours explains.
func (w *world) fail(format string, args ...any) { w.violation(format, args...) }

// applied is called when a node has applied an entry.
func (w *world) applied(*node) {}

// run goes on until done, or something is wrong, or the time is up.
func (w *world) run(limit time.Duration, done func() bool) bool {
	until := time.Now().Add(limit)
	for w.problem == "" && time.Now().Before(until) {
		if done() {
			return true
		}
		w.step()
		w.settle(w.between2)
	}
	return false
}

// between2 hands over proposals and starts rounds when jobs have changed.
func (w *world) between2() {
	for _, n := range w.nodes {
		if !n.alive {
			continue
		}
		n.propose()
		select {
		case <-n.changed:
			n.round()
		default:
		}
	}
}

// setup makes the cluster and the accounts, without faults.
func (w *world) setup() {
	for _, n := range w.nodes {
		n.boot()
	}
	w.log.elect(w.nodes[0])
	w.supervise()
	admin := &process{name: "admin"}
	ready := false
	w.start(admin, "setup", func() { w.inventory(); ready = true })
	if !w.run(time.Minute, func() bool { return ready }) {
		w.fail("the cluster was not set up")
	}
	for _, a := range w.agents {
		a.boot()
	}
	ready = false
	w.start(admin, "provision", func() { ready = w.provision() })
	if !w.run(10*time.Minute, func() bool { return ready && w.allWell() }) {
		w.fail("the accounts were not made")
	}
}

func (w *world) do(fn func(tx *store.Tx) error) {
	if err := w.nodes[0].update(fn); err != nil {
		w.fail("setup: %v", err)
	}
}

func (w *world) inventory() {
	w.park(context.Background(), func() bool { return w.nodes[0].leading })
	w.do(func(tx *store.Tx) error {
		d := &connectorv1.Description{Name: "ssh", Version: "1.0.0", Category: "operating_system", DefaultPort: 22,
			NameRule: &connectorv1.NameRule{Pattern: `[a-z_][a-z0-9_-]*`, MaxBytes: 32, Help: "1 to 32 of a-z, 0-9, _ and -"},
			Roles:    []*connectorv1.Role{{Name: "ssh-standard", Version: 1}}}
		if _, err := inventory.RegisterConnector(tx, alice, d, strings.Repeat("a", 64)); err != nil {
			return err
		}
		site, err := inventory.AddSite(tx, alice, inventory.NewSite{Name: "dc1"})
		if err == nil {
			w.site = site.ID
		}
		return err
	})
}

// provision makes the assets and, when their management accounts are verified, the accounts.
func (w *world) provision() bool {
	engine := w.nodes[0].engine
	var names []string
	for k := range hosts {
		name := fmt.Sprintf("host%d", k+1)
		names = append(names, name)
		m := &target{name: name, root: "root-password", accounts: map[string]*login{}}
		w.targets[name+".example"] = m
		w.do(func(tx *store.Tx) error {
			a, err := inventory.AddAsset(tx, alice, inventory.NewAsset{Name: name, Site: "dc1", Connector: "ssh", Address: name + ".example"})
			if err != nil {
				return err
			}
			_, _, err = engine.SetManagement(tx, alice, a.ID, lifecycle.Management{Username: "root", Password: reeve.SecretString(m.root)})
			return err
		})
	}
	w.sleep(context.Background(), time.Minute)
	for k := range perHost {
		w.do(func(tx *store.Tx) error {
			_, err := engine.Provision(tx, alice, lifecycle.Request{Assets: names, Prefix: "pam_", Name: fmt.Sprintf("bob%d", k),
				Role: "ssh-standard", RotationEnabled: true, Owner: "alice"})
			return err
		})
	}
	return true
}

// supervise elects a leader when there is none, and now and then for no reason.
func (w *world) supervise() {
	w.after(w.between(200*time.Millisecond, 3*time.Second), func() {
		if w.log.leader == nil || w.strikes("leader changes", 0.004) {
			up := slices.DeleteFunc(slices.Clone(w.nodes), func(n *node) bool { return !n.alive })
			if len(up) > 0 {
				w.log.elect(up[w.rng.IntN(len(up))])
			}
		}
		for _, n := range w.nodes {
			switch {
			case n.alive && w.strikes("controller dies", 0.0008):
				w.crash(n)
			case n.alive && n != w.log.leader && !n.leading && w.rng.IntN(10) == 0:
				n.apply()
			}
		}
		for _, a := range w.agents {
			if i := a.now; i != nil && i.alive && w.strikes("agent dies", 0.0008) {
				i.die()
			}
		}
		for _, name := range slices.Sorted(maps.Keys(w.targets)) {
			if m := w.targets[name]; !m.down && w.strikes("target down", 0.001) {
				m.down = true
				w.after(w.outage(), func() { m.down = false })
			}
		}
		w.supervise()
	})
}

// outage is how long a target is down: mostly as long as some of a job's deliveries go on,
// and now and then beyond the last, until its account is probed with ever longer pauses.
func (w *world) outage() time.Duration {
	if w.rng.IntN(5) == 0 {
		return w.between(0, 20*time.Minute)
	}
	return w.between(0, 2*time.Minute)
}

// live lets people ask for rotations until there have been enough.
func (w *world) live(want int) {
	w.want = want
	for _, l := range w.logins {
		w.ask(l)
	}
}

// ask has somebody ask for something for an account, now and then; after a refusal, later.
func (w *world) ask(l *login) {
	w.after(w.between(0, 8*time.Second<<min(l.refused, 4)), func() {
		if w.rotations >= w.want {
			return
		}
		if n := w.log.leader; n != nil && n.leading {
			w.start(n.proc, "request", func() { w.request(n, l, w.rng.IntN(20) == 0) })
		}
		w.ask(l)
	})
}

// request asks for a rotation, or a login.
func (w *world) request(n *node, l *login, login bool) {
	err := n.update(func(tx *store.Tx) error {
		var err error
		if login {
			_, err = n.engine.Verify(tx, alice, l.id)
		} else {
			_, err = n.engine.Rotate(tx, alice, l.id)
		}
		return err
	})
	switch {
	case err == nil:
		w.note("request for %s", l.name)
		l.refused = 0
		if !login {
			w.rotations++
		}
	case reeve.KindOf(err) == reeve.Conflict:
		l.refused++
	case !n.alive, transient(err), reeve.KindOf(err) == reeve.Precondition:
	default:
		w.fail("request: %v", err)
	}
}

// calm ends the faults and waits for everything to come right by itself; after surprises
// a login is asked for.
func (w *world) calm() {
	w.faulty = false
	w.tickEvery = 5 * time.Second
	for _, m := range w.targets {
		m.down = false
	}
	if !w.run(12*time.Hour, func() bool { return w.allQuiet() && !w.anyStopped() }) {
		w.fail("no quiet after 12 hours: %s", w.restless())
		return
	}
	for _, l := range w.logins {
		if n := w.log.leader; l.surprise && n != nil {
			w.start(n.proc, "request", func() { w.request(n, l, true) })
		}
	}
	w.run(time.Minute, func() bool { return false })
	for _, l := range w.logins {
		l.surprise = false
	}
	if !w.run(12*time.Hour, func() bool { return w.allQuiet() && w.allWell() }) {
		w.fail("an account did not come right: %s", w.restless())
	}
}

// stop ends everything in the world.
func (w *world) stop() {
	w.faulty, w.events = false, nil
	for _, a := range w.agents {
		if a.now != nil && a.now.alive {
			a.now.alive = false
			a.now.proc.frozen = false
			a.now.kill()
			a.now.steps.Stop()
		}
	}
	for _, n := range w.nodes {
		if n.alive {
			w.crash(n)
		}
	}
	for range 100 {
		w.settle(func() {})
		if len(w.tasks) == 0 || len(w.events) == 0 {
			break
		}
		w.step()
	}
	if len(w.tasks) > 0 && w.problem == "" {
		w.fail("task %s of %s does not end", w.tasks[0].name, w.tasks[0].of.name)
	}
	w.close()
	for _, a := range w.agents {
		if a.now != nil && a.now.worker != nil {
			_, _ = a.now.worker.Close(), a.now.logs.Close()
		}
	}
	for _, n := range w.nodes {
		if n.store != nil {
			_ = n.store.Close()
		}
	}
}

// memory is a directory on tmpfs: what counts here is that writes are made, not that
// they outlive the machine.
func memory(t testing.TB) string {
	t.Helper()
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = t.TempDir()
	}
	d, err := os.MkdirTemp(base, "reeve-simulation-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(d) })
	return d
}

var _ = jobs.LeaseTerm
