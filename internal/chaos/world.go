//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/testlab"
)

type worldOptions struct {
	dir, bin string
	seed     uint64
	out      io.Writer
	reeved   []string // what runs a controller; nil: this program
}

// world is the cluster, what it stands on, and what it has promised.
type world struct {
	opts    worldOptions
	lab     *testlab.Lab
	net     *testlab.Network
	fleet   *fleet.Fleet
	disks   map[string]*testlab.Disk // by controller
	targets []*target
	faults  counts
	round   int // at work

	mu       sync.Mutex
	accounts []*account // in the order they were asked for
	led      *fleet.Controller
	trouble  []error          // faults that could not be done or undone
	head     *auditchain.Head // of the trail as it was exported last
	repairs  int              // asked for so far
}

// connectors are those of the world's targets, besides ssh and mysql.
var connectors = []string{"postgres", "ad"}

// newWorld starts everything. What has been started is in the world also when it fails.
func newWorld(ctx context.Context, o worldOptions) (w *world, err error) {
	w = &world{opts: o, faults: counts{by: map[string]int{}}, disks: map[string]*testlab.Disk{}}
	if w.lab, err = testlab.Open(ctx, ""); err != nil {
		return w, err
	}
	names := machines()
	nodes := append(slices.Concat(controllers, names), "operator")
	for _, s := range sites {
		nodes = append(nodes, agentOf(s))
	}
	if w.net, err = w.lab.Network(nodes...); err != nil {
		return w, err
	}
	w.targets = make([]*target, len(names))
	var g errgroup.Group
	for i, name := range names {
		g.Go(func() (err error) { w.targets[i], err = newTarget(ctx, w.lab, w.net, name); return err })
	}
	if err := g.Wait(); err != nil {
		return w, err
	}
	if o.reeved == nil {
		self, err := os.Executable()
		if err != nil {
			return w, err
		}
		o.reeved = []string{self, asController}
	}
	w.fleet, err = fleet.New(fleet.Options{Dir: o.dir, Bin: o.bin, Reeved: o.reeved, Timing: "lan", From: w.net.Node("operator")})
	if err != nil {
		return w, err
	}
	for _, name := range controllers {
		d, err := w.lab.Disk()
		if err != nil {
			return w, err
		}
		w.disks[name] = d
		if _, err := w.fleet.AddController(fleet.ControllerOptions{Name: name, Node: w.net.Node(name), DataDir: filepath.Join(d.Dir(), "data")}); err != nil {
			return w, err
		}
	}
	if err := w.fleet.Bootstrap(ctx); err != nil {
		return w, err
	}
	if err := w.fleet.Join(ctx); err != nil {
		return w, err
	}
	if err := w.fleet.RegisterConnectors(ctx, connectors...); err != nil {
		return w, err
	}
	for _, s := range sites {
		if _, err := w.fleet.AddAgent(ctx, fleet.AgentOptions{Name: s, Site: s, Node: w.net.Node(agentOf(s))}); err != nil {
			return w, err
		}
	}
	for _, t := range w.targets {
		if err := w.addAsset(ctx, t); err != nil {
			return w, err
		}
	}
	w.led, err = w.fleet.Leader(ctx)
	return w, err
}

func (w *world) addAsset(ctx context.Context, t *target) error {
	r := client.AssetRequest{Name: t.name, Site: t.site, Connector: t.connector, Address: t.address, CaPem: t.ca, Options: t.options,
		ManagementAccount: &client.ManagementAccountRequest{Username: t.management, Password: &t.password}}
	if t.host != nil {
		r.HostKeys = &[]string{t.host.HostKey()}
	}
	key := w.key("asset " + t.name)
	_, err := fleet.Call[client.Asset](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.AddAsset(ctx, &client.AddAssetParams{IdempotencyKey: &key}, r)
	})
	if err != nil {
		return err
	}
	return fleet.Eventually(ctx, time.Minute, func(ctx context.Context) error { return w.assetReady(ctx, t) })
}

func (w *world) assetReady(ctx context.Context, t *target) error {
	a, err := fleet.Call[client.Asset](ctx, w.fleet, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.GetAsset(ctx, t.name)
	})
	if err == nil && (a.Alert != nil || !a.ManagementAccount.Verified) {
		err = fmt.Errorf("asset %s cannot be worked on", t.name)
	}
	return err
}

// key is an idempotency key: the same for the same thing, in this run only.
func (w *world) key(what string) string {
	return fmt.Sprintf("chaos-%d-%d-%s", os.Getpid(), w.opts.seed, strings.ReplaceAll(what, " ", "-"))
}

func (w *world) close() error {
	var err error
	for _, d := range w.disks {
		d.Heal() // nothing that waits for a disk can be killed
	}
	if w.fleet != nil {
		w.fleet.Kill()
	}
	if w.lab != nil {
		err = w.lab.Close()
	}
	return err
}

// note keeps an error of the lab: a fault that could not be undone makes the run worthless.
func (w *world) note(err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.trouble = append(w.trouble, err)
}

func (w *world) target(name string) *target {
	return w.targets[slices.IndexFunc(w.targets, func(t *target) bool { return t.name == name })]
}

func (w *world) agent(site string) *fleet.Agent {
	return w.fleet.Agents[slices.IndexFunc(w.fleet.Agents, func(a *fleet.Agent) bool { return a.Site == site })]
}

// How often things that take long are checked: every account on every target; that the
// replicas are the same, for which all controllers lose power at once.
const (
	fullEvery  = 25
	powerEvery = 50
)

// settle is how long a round waits for its jobs. Those that take longer, because a
// lease or a quarantine has to run out first, are checked in a later round.
const settle = 2500 * time.Millisecond

// play plays all rounds, then waits for the last job and checks everything once more.
func (w *world) play(ctx context.Context, rounds []round) error {
	began := time.Now()
	if err := w.playRound(ctx, prelude()); err != nil {
		return err
	}
	for _, r := range rounds {
		w.round = r.number
		if err := w.playRound(ctx, r); err != nil {
			return err
		}
	}
	if err := w.finish(ctx); err != nil {
		return err
	}
	w.summary(time.Since(began))
	_, err := fmt.Fprintf(w.opts.out, "chaos: %d rounds, %d faults, 0 lost, seed %d\n", len(rounds), w.faults.total(), w.opts.seed)
	return err
}

func (w *world) playRound(ctx context.Context, r round) error {
	began := time.Now()
	w.repair(ctx)
	var wg sync.WaitGroup
	hits := make([]string, len(r.faults))
	for i, f := range r.faults {
		wg.Go(func() { hits[i] = w.hit(ctx, f) })
	}
	made := make([]*request, len(r.ops))
	var requests sync.WaitGroup
	for i, o := range r.ops {
		requests.Go(func() {
			if sleep(ctx, o.at) {
				made[i] = w.ask(ctx, r.number, i, o)
			}
		})
	}
	wg.Wait()
	if err := w.heal(ctx); err != nil {
		requests.Wait()
		return w.failed(ctx, err)
	}
	requests.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	w.mu.Lock()
	trouble := errors.Join(w.trouble...)
	w.mu.Unlock()
	if trouble != nil {
		return fmt.Errorf("round %d: a fault could not be undone: %w", r.number, trouble)
	}
	if err := w.assetsReady(ctx); err != nil {
		return w.failed(ctx, err)
	}
	if err := w.settle(ctx, settle); err != nil {
		return w.failed(ctx, err)
	}
	lost := w.check(ctx, made, r.number > 0 && r.number%fullEvery == 0)
	if r.number > 0 && r.number%powerEvery == 0 && len(lost) == 0 {
		lost = append(lost, w.powerCut(ctx)...)
	}
	w.progress(r, made, hits, time.Since(began))
	if err := w.record(r.number, made, hits); err != nil {
		return err
	}
	return w.report(ctx, lost)
}

func (w *world) progress(r round, made []*request, hits []string, took time.Duration) {
	acknowledged := 0
	for _, m := range made {
		if m != nil && m.acknowledged {
			acknowledged++
		}
	}
	hits = slices.DeleteFunc(hits, func(s string) bool { return s == "" })
	total, flagged, busy := w.population()
	_, _ = fmt.Fprintf(w.opts.out, "round %3d %5.1fs  %d/%d acknowledged  %3d accounts, %d flagged, %d at work  %s\n", r.number,
		took.Seconds(), acknowledged, len(made), total, flagged, busy, strings.Join(hits, "; "))
}

// record keeps what was asked and answered beside the logs.
func (w *world) record(number int, made []*request, hits []string) error {
	f, err := os.OpenFile(filepath.Join(w.opts.dir, "requests.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s round %d: %s\n", time.Now().UTC().Format(time.RFC3339Nano), number, strings.Join(hits, "; "))
	for _, m := range made {
		if m != nil && err == nil {
			_, err = fmt.Fprintf(f, "  %s: %s %v %v\n", m.what, m.id, m.refused, m.err)
		}
	}
	return errors.Join(err, f.Close())
}

func (w *world) summary(took time.Duration) {
	w.faults.mu.Lock()
	var kinds []string
	for _, k := range slices.Sorted(maps.Keys(w.faults.by)) {
		kinds = append(kinds, fmt.Sprintf("%s %d", k, w.faults.by[k]))
	}
	w.faults.mu.Unlock()
	total, flagged, _ := w.population()
	_, _ = fmt.Fprintf(w.opts.out, "%s on %d cores; %d accounts made, %d there at the end, %d of them flagged; %d repairs asked for\nfaults: %s\n",
		took.Round(time.Second), runtime.NumCPU(), len(w.accounts), total, flagged, w.repairs, strings.Join(kinds, ", "))
}

// loss is a promise that was not kept.
type loss struct{ promised, found string }

func (w *world) failed(ctx context.Context, err error) error {
	return w.report(ctx, []loss{{"the cluster serves again once every fault is undone", err.Error()}})
}

func (w *world) report(ctx context.Context, lost []loss) error {
	if ctx.Err() != nil || len(lost) == 0 { // who is interrupted sees what is not there
		return ctx.Err()
	}
	for _, l := range lost {
		_, _ = fmt.Fprintf(w.opts.out, "LOST in round %d, seed %d\n  promised: %s\n  found:    %s\n", w.round, w.opts.seed, l.promised, l.found)
	}
	return fmt.Errorf("round %d: %d lost, seed %d", w.round, len(lost), w.opts.seed)
}
