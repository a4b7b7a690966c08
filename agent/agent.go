package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/reeve-pam/reeve/agent/link"
	"github.com/reeve-pam/reeve/agent/logship"
	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/agent/worker"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// DefaultConcurrency is how many jobs an agent does at a time.
const DefaultConcurrency = 16

// shipRetry is how long log shipping rests after a controller has refused the logs.
const shipRetry = time.Minute

// Config is what an Agent needs.
type Config struct {
	Data        string // its own directory, enrolled; one process at a time
	Connectors  string // directory of the connectors
	Concurrency int    // jobs at a time; 0: DefaultConcurrency
	Logger      *slog.Logger
	Crash       func(point string) bool // for tests: see worker.Config
}

// Agent is one agent. It is made by New and runs once.
type Agent struct {
	log     *slog.Logger
	lock    *os.File
	link    *link.Link
	host    *pluginhost.Host
	logs    *logship.Shipper
	worker  *worker.Worker
	closers []func() error
}

// New opens the data directory. Codes: agent_not_enrolled, data_in_use, data_invalid,
// identity_unreadable, outbox_failed, log_spool_failed. Nothing runs before Run; an
// Agent that is not run is closed with Close.
func New(cfg Config) (_ *Agent, err error) {
	a := &Agent{log: cfg.Logger}
	defer func() {
		if err != nil {
			_ = a.Close()
		}
	}()
	if cfg.Concurrency == 0 {
		cfg.Concurrency = DefaultConcurrency
	}
	if a.lock, err = lockDir(cfg.Data); err != nil {
		return nil, err
	}
	a.closers = append(a.closers, a.lock.Close)
	if a.link, err = link.Open(link.Config{Dir: cfg.Data, Version: reeve.Version, Logger: cfg.Logger}); err != nil {
		return nil, err
	}
	a.closers = append(a.closers, func() error { a.link.Close(); return nil })
	if _, err = pluginhost.List(cfg.Connectors); err != nil {
		return nil, err
	}
	a.host = pluginhost.New(pluginhost.Config{Dir: cfg.Connectors, Logger: cfg.Logger})
	if a.logs, err = logship.Open(logship.Config{Path: filepath.Join(cfg.Data, "logs.db"), Logger: cfg.Logger}); err != nil {
		return nil, err
	}
	a.closers = append(a.closers, a.logs.Close)
	a.worker, err = worker.New(worker.Config{Link: a.link, Host: worker.Plugins(a.host), Logs: a.logs, Outbox: filepath.Join(cfg.Data, "outbox.db"),
		Concurrency: cfg.Concurrency, Logger: cfg.Logger, Crash: cfg.Crash})
	if err != nil {
		return nil, err
	}
	a.closers = append(a.closers, a.worker.Close)
	return a, nil
}

// Close gives the data directory free.
func (a *Agent) Close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	a.closers = nil
	return errors.Join(errs...)
}

// Run works until ctx ends, or until something fails that only a new start can mend.
// When it returns, everything it started has ended, connectors included, and the data
// directory is free.
func (a *Agent) Run(ctx context.Context) error {
	defer func() { _ = a.Close() }()
	id := a.link.Identity()
	a.log.Info("agent runs", "agent", id.Agent, "name", id.Name, "site", id.Site, "cluster", id.Cluster, "version", reeve.Version)

	// The worker ends first: until then its jobs need connectors and a place for logs.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	g, serving := errgroup.WithContext(serving)
	g.Go(func() error { return a.host.Run(serving) })
	g.Go(func() error { return a.logs.Run(serving) })
	g.Go(func() error { return a.link.Run(serving) })
	g.Go(func() error { return a.ship(serving) })
	g.Go(func() error {
		defer stop()
		working, cancel := context.WithCancel(serving)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		return a.worker.Run(working)
	})
	return g.Wait()
}

// ship ships logs until ctx ends.
func (a *Agent) ship(ctx context.Context) error {
	for ctx.Err() == nil {
		a.logs.Await(ctx)
		if err := a.link.Call(ctx, a.logs.Ship); err != nil && ctx.Err() == nil {
			a.log.Error("logs cannot be shipped", "error", err, "retry_in", shipRetry)
			t := time.NewTimer(shipRetry) // jobs go on meanwhile
			select {
			case <-ctx.Done():
			case <-t.C:
			}
			t.Stop()
		}
	}
	return nil
}

// Enroll makes the data directory, if need be, and the agent in it; see link.Enroll.
func Enroll(ctx context.Context, data string, token reeve.Secret, log *slog.Logger) (link.Identity, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return link.Identity{}, dataInvalid(data, err)
	}
	lock, err := lockDir(data)
	if err != nil {
		return link.Identity{}, err
	}
	defer func() { _ = lock.Close() }()
	return link.Enroll(ctx, data, token, reeve.Version, log)
}

// lockDir makes sure that the directory is private and that this process alone uses
// it, until the file is closed.
func lockDir(dir string) (*os.File, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, reeve.Errorf(reeve.Precondition, "agent_not_enrolled", "there is no agent in %s", dir).
			WithFix("enrol it first: reeve-agent enroll")
	case err != nil:
		return nil, dataInvalid(dir, err)
	case !info.IsDir():
		return nil, dataInvalid(dir, errors.New("it is not a directory"))
	case info.Mode().Perm()&0o077 != 0:
		if err := os.Chmod(dir, 0o700); err != nil { //nolint:gosec // a directory needs x
			return nil, dataInvalid(dir, err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the agent's own directory
	if err != nil {
		return nil, dataInvalid(dir, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a file descriptor fits
		_ = f.Close()
		return nil, reeve.Errorf(reeve.Conflict, "data_in_use", "another agent runs on %s", dir).
			WithFix("give each agent a data directory of its own").Wrap(err)
	}
	return f, nil
}

func dataInvalid(dir string, err error) *reeve.Error {
	return reeve.Errorf(reeve.Precondition, "data_invalid", "the data directory %s cannot be used: %v", dir, err).
		WithFix("give the agent a directory that it owns").Wrap(err)
}
