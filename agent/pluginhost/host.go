package pluginhost

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Limits of the host.
const (
	maxSide      = 64               // jobs side by side in one process
	maxJobs      = 20_000           // after which a process takes no more
	maxAge       = 15 * time.Minute // likewise
	maxIdle      = 2 * time.Minute  // after which an unused process is ended
	sweepEvery   = 15 * time.Second // how often idle processes are looked at
	aloneFor     = time.Minute      // how long jobs get processes of their own after a crash
	backoffFirst = time.Second      // after a failed start; doubles up to backoffMax
	backoffMax   = time.Minute
)

// Config is what a Host needs.
type Config struct {
	Dir    string // the connectors: files named connector-<name>
	Logger *slog.Logger
}

// Host runs connectors. Its processes end with Run.
type Host struct {
	dir string
	log *slog.Logger

	mu        sync.Mutex
	sockets   string // private directory of the sockets; empty unless running
	processes map[*engine]bool
	starting  map[string]chan struct{} // by name: closed when the start at work is over
	failures  map[string]failure       // by digest
	alone     map[string]time.Time     // by digest: until when jobs share nothing
	closed    bool
	ending    sync.WaitGroup // processes being killed
}

// failure remembers that a connector did not start.
type failure struct {
	times int
	again time.Time
	err   error
}

// New makes a Host. Nothing runs before Run.
func New(cfg Config) *Host {
	return &Host{dir: cfg.Dir, log: cfg.Logger, processes: map[*engine]bool{}, starting: map[string]chan struct{}{},
		failures: map[string]failure{}, alone: map[string]time.Time{}}
}

// Run ends idle processes in time until ctx ends; then it kills and reaps all of them,
// idle or not, and returns. Acquire works while Run runs.
func (h *Host) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			h.sweep(now)
		case <-ctx.Done():
			h.close()
			return nil
		}
	}
}

// List returns the connectors in the host's directory.
func (h *Host) List() ([]Installed, error) { return List(h.dir) }

// Guard keeps the secrets of a job out of what a process prints.
type Guard interface {
	Redact(text string) string
	Wipe() // it is no longer needed
}

// Acquire returns a job's share of a process of the connector. The process runs bytes
// whose SHA-256 is among digests (hex); if those on the disk have another, the error
// has ClassPluginChanged and nothing was run. A connector that failed to start is not
// tried again at once. Errors are *sdk.Error.
func (h *Host) Acquire(ctx context.Context, name string, digests []string) (*Process, error) {
	p, err := h.acquire(ctx, name, digests)
	if err != nil {
		return nil, err
	}
	return &Process{engine: p}, nil
}

func (h *Host) acquire(ctx context.Context, name string, digests []string) (*engine, error) {
	if !validName(name) {
		return nil, sdk.Errorf(sdk.ClassInvalid, "%q is not the name of a connector", name)
	}
	for {
		p, wait, started := h.join(name, digests)
		switch {
		case started != nil:
			defer started()
			return h.fresh(ctx, name, digests)
		case wait != nil:
			select {
			case <-wait:
			case <-ctx.Done():
				return nil, sdk.Errorf(sdk.ClassCancelled, "cancelled while the connector %s started", name).Wrap(ctx.Err())
			}
		case p.healthy(ctx):
			return p, nil
		default:
			h.log.Warn("connector gives no sign of life", "connector", name, "pid", p.run.ID())
			p.retire()
			h.leave(p)
		}
	}
}

// fresh starts a process, if the bytes on the disk are allowed.
func (h *Host) fresh(ctx context.Context, name string, digests []string) (*engine, error) {
	img, err := load(filepath.Join(h.dir, filePrefix+name))
	if err != nil {
		return nil, err
	}
	defer img.close()
	if !slices.Contains(digests, img.sha256) {
		return nil, sdk.Errorf(reeve.ClassPluginChanged, "the connector %s on the agent's disk has digest %s, which this job does not allow",
			name, img.sha256).WithFix("install the registered connector on the agent, or register this one")
	}
	return h.launch(ctx, name, img)
}

// join takes a place in a process that has one. Where there is none it says what to wait
// for, if one is being started, or else that the caller is to start one and what to call
// when that is over.
func (h *Host) join(name string, digests []string) (p *engine, wait <-chan struct{}, started func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	alone := false
	for _, d := range digests {
		alone = alone || now.Before(h.alone[d])
	}
	for p := range h.processes {
		if p.name != name || !slices.Contains(digests, p.sha256) || p.Exited() || p.retired || p.jobs >= maxJobs || now.Sub(p.born) >= maxAge {
			continue
		}
		if p.active == 0 || p.active < maxSide && !p.lone && !alone {
			p.active++
			p.jobs++
			p.lone = alone
			return p, nil, nil
		}
	}
	if alone {
		return nil, nil, func() {}
	}
	if wait := h.starting[name]; wait != nil {
		return nil, wait, nil
	}
	over := make(chan struct{})
	h.starting[name] = over
	return nil, nil, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.starting, name)
		close(over)
	}
}

// launch starts a process with one job in it.
func (h *Host) launch(ctx context.Context, name string, img *image) (*engine, error) {
	dir, err := h.ready(img.sha256)
	if err != nil {
		return nil, err
	}
	p, err := start(ctx, name, img, dir, h.log)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil && h.closed {
		p.kill()
		return nil, closing()
	}
	if err != nil {
		if ctx.Err() == nil {
			f := h.failures[img.sha256]
			f.times, f.err = f.times+1, err
			f.again = time.Now().Add(min(backoffFirst<<min(f.times-1, 10), backoffMax))
			h.failures[img.sha256] = f
			h.log.Error("connector does not start", "connector", name, "failures", f.times, "error", err)
		}
		return nil, err
	}
	delete(h.failures, img.sha256)
	p.host, p.active, p.jobs = h, 1, 1
	p.lone = time.Now().Before(h.alone[p.sha256])
	h.processes[p] = true
	h.log.Info("connector started", "connector", name, "pid", p.run.ID(), "sha256", img.sha256)
	h.ending.Go(func() { h.mourn(p) })
	return p, nil
}

// mourn waits for a process to end. One that died by itself, or was killed for one of
// several jobs, makes jobs go alone for a while: nobody knows which of them it was.
func (h *Host) mourn(p *engine) {
	<-p.run.exited
	h.mu.Lock()
	defer h.mu.Unlock()
	p.crowd = p.active
	if h.processes[p] && p.crowd > 1 && p.culprit == nil {
		h.alone[p.sha256] = time.Now().Add(aloneFor)
		h.log.Warn("connector died with several jobs in it: jobs get processes of their own for a while", "connector", p.name,
			"pid", p.run.ID(), "jobs", p.crowd, "for", aloneFor)
	}
	close(p.mourned)
}

// ready returns the directory for sockets, unless the image must not be started now.
func (h *Host) ready(sha256 string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return "", closing()
	}
	if f := h.failures[sha256]; time.Now().Before(f.again) {
		return "", f.err
	}
	if h.sockets == "" {
		// Not in the data directory: the path of a socket is limited to 107 bytes.
		dir, err := os.MkdirTemp("", "reeve-agent-") // 0700
		if err != nil {
			return "", sdk.Errorf(sdk.ClassInternal, "no directory for the connectors' sockets: %v", err).
				WithFix("make %s writable for the agent", os.TempDir()).Wrap(err)
		}
		h.sockets = dir
	}
	return h.sockets, nil
}

func closing() *sdk.Error { return sdk.Errorf(sdk.ClassBusy, "the agent is stopping") }

// leave gives up one job's place in a process.
func (h *Host) leave(p *engine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p.active--
	p.idle = time.Now()
	if p.active == 0 && (h.closed || p.Exited() || p.retired || p.jobs >= maxJobs || p.idle.Sub(p.born) >= maxAge) {
		h.endLocked(p)
	}
}

func (h *Host) sweep(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range h.processes {
		if p.Exited() || p.active == 0 && (now.Sub(p.idle) >= maxIdle || now.Sub(p.born) >= maxAge) {
			h.endLocked(p)
		}
	}
}

// endLocked kills a process beside the caller; close joins it.
func (h *Host) endLocked(p *engine) {
	if !h.processes[p] {
		return
	}
	delete(h.processes, p)
	h.ending.Go(func() {
		p.kill()
		h.log.Info("connector ended", "connector", p.name, "pid", p.run.ID(), "jobs", p.jobs)
	})
}

func (h *Host) close() {
	h.mu.Lock()
	h.closed = true
	for p := range h.processes {
		h.endLocked(p)
	}
	dir := h.sockets
	h.mu.Unlock()
	h.ending.Wait()
	if dir != "" {
		_ = os.RemoveAll(dir)
	}
}

// Describe runs the connector at path once and returns what it says of itself, and
// the SHA-256 in hex of the very bytes that said so. It is for registering a connector
// and trusts the caller to know what it runs.
func Describe(ctx context.Context, path string) (sdk.Description, string, error) {
	img, err := load(path)
	if err != nil {
		return sdk.Description{}, "", err
	}
	defer img.close()
	dir, err := os.MkdirTemp("", "reeve-describe-")
	if err != nil {
		return sdk.Description{}, "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	p, err := start(ctx, nameOf(path), img, dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return sdk.Description{}, "", err
	}
	defer p.kill()
	var d sdk.Description
	err = p.call(ctx, nil, func(ctx context.Context, c *sdk.Client) error {
		d, err = c.Describe(ctx)
		return err
	})
	if err != nil {
		return sdk.Description{}, "", err
	}
	return d, img.sha256, nil
}
