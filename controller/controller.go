// Package controller puts one controller together: it opens the node's identity, log,
// state and seal, wires the domain to them, listens, and stops everything in order. It
// decides nothing itself. Only controller/cmd/reeved imports it.
package controller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/reeve-pam/reeve/controller/audit/sink"
	"github.com/reeve-pam/reeve/controller/cluster"
	"github.com/reeve-pam/reeve/controller/gateway"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/rest"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Controller is one node, put together. Make it with New, drive it with Run.
type Controller struct {
	cfg      Config
	log      *slog.Logger
	identity *pki.NodeIdentity
	cluster  string
	id       reeve.NodeID

	seal      *seal.Manager
	raft      *cluster.Node
	store     *store.Store
	vault     *vault.Vault
	authority *pki.Authority
	broker    *jobs.Broker
	engine    *lifecycle.Engine
	gateway   *gateway.Server
	pulse     *service.Pulse
	sinks     *sink.Delivery
	api       http.Handler

	apiListener, agentListener net.Listener
	pauses                     chan pause     // asks the leader's loops to stop for a while
	handOvers                  sync.WaitGroup // transfers of leadership that lead began
}

// New puts a controller together and binds its addresses. The node must have been
// bootstrapped or have joined: else Precondition "node_not_certified".
func New(cfg Config) (_ *Controller, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	c := &Controller{cfg: cfg, log: cfg.Logger.With("node", cfg.Name), pauses: make(chan pause)}
	if c.identity, err = pki.OpenNodeIdentity(cfg.identityPath()); err != nil {
		return nil, err
	}
	if c.cluster, c.id, err = c.identity.Node(); err != nil {
		return nil, err
	}
	metrics := prometheus.NewRegistry()
	c.seal = seal.NewManager(c.log)
	if err := c.openCluster(metrics); err != nil {
		return nil, err
	}
	if err := c.wire(metrics); err != nil {
		return nil, errors.Join(err, c.raft.Close(), c.store.Close())
	}
	if err := c.listen(); err != nil {
		return nil, errors.Join(err, c.raft.Close(), c.store.Close())
	}
	return c, nil
}

// openCluster opens the log and the state.
func (c *Controller) openCluster(metrics prometheus.Registerer) (err error) {
	c.raft, err = cluster.Open(cluster.Config{
		ID: c.id, Cluster: c.cluster, Bind: c.cfg.Raft.Bind, Advertise: c.cfg.Raft.Address(), DataDir: c.cfg.DataDir,
		TLS:  func() (*tls.Config, error) { return c.identity.NodeTLS(c.refuseRemoved) },
		Lead: c.lead, Timeouts: c.cfg.Timing, Election: c.cfg.Election, StableFor: c.cfg.StableFor, Logger: c.log, Registry: metrics,
	})
	if err != nil {
		return err
	}
	c.store, err = store.Open(store.Config{Path: c.cfg.statePath(), Cipher: c.seal, Replicator: c.raft, Peers: c.raft.PeerTimes,
		Clock: c.cfg.Clock, Steady: c.cfg.Steady, Logger: c.log})
	if err != nil {
		return errors.Join(err, c.raft.Close())
	}
	c.identity.KeepTime(c.store.Now)
	c.watchClock(metrics)
	return nil
}

// refuseRemoved shuts out a controller that was removed, though its certificate lives on.
func (c *Controller) refuseRemoved(id reeve.NodeID) error {
	err := c.store.View(context.Background(), func(tx *store.Tx) error {
		n, err := pki.GetNode(tx, id)
		if err == nil && !n.Removed.IsZero() {
			return reeve.Errorf(reeve.Denied, "node_removed", "node %s was removed from the cluster", n.Name)
		}
		return err
	})
	if reeve.KindOf(err) == reeve.Denied {
		return err
	}
	return nil // a node that lags behind may not know its fellows yet
}

// wire makes the domain on top of the state.
func (c *Controller) wire(metrics *prometheus.Registry) error {
	c.authority = pki.New(c.store, c.seal, c.log)
	c.vault = vault.New(c.seal)
	c.pulse = &service.Pulse{}
	c.sinks = sink.NewDelivery(sink.Config{Store: c.store, Node: c.cfg.Name, Dir: c.cfg.auditFiles(), Pulse: c.pulse, Log: c.log})
	c.engine = lifecycle.New(lifecycle.Config{
		Store: c.store, Vault: c.vault, AgentsIn: agentsIn, Policy: vault.DefaultPolicy(), Pulse: c.pulse, Logger: c.log,
	})
	c.broker = jobs.New(jobs.BrokerConfig{
		Store: c.store, Vault: c.vault, Cluster: c.cluster, Handlers: c.engine.Handlers(),
		ConnectorDigests: inventory.ConnectorDigests, AgentKey: gateway.AgentKey, Terms: c.cfg.Terms, Pulse: c.pulse, Logger: c.log, Registry: metrics,
	})
	c.gateway = gateway.New(gateway.Config{
		Store: c.store, PKI: c.authority, Broker: c.broker, TLS: c.identity.GatewayTLS(c.agentCAs),
		Leader: func() (reeve.NodeID, bool) {
			id, _, _ := c.raft.Leader()
			return id, c.raft.IsLeader() && !c.seal.Sealed()
		},
		Logger: c.log,
	})
	forward, err := c.identity.ForwardTLS()
	if err != nil {
		return err
	}
	api, err := rest.New(rest.Config{
		Node: c.id, Name: c.cfg.Name, Cluster: c.cluster, Version: reeve.Version,
		Store: c.store, Raft: c.raft, Seal: c.seal, Vault: c.vault, Broker: c.broker, Lifecycle: c.engine, Authority: c.authority, Pulse: c.pulse, Sinks: c.sinks,
		Restore: c.restore, ForwardTLS: forward, Metrics: metrics, Logger: c.log,
	})
	if err != nil {
		return err
	}
	c.api = api.Handler()
	return nil
}

func agentsIn(tx *store.Tx, site reeve.SiteID) (int, error) {
	list, err := pki.ListAgents(tx, site, "", 1000)
	active := 0
	for _, a := range list {
		if a.Status == pki.Active {
			active++
		}
	}
	return active, err
}

func (c *Controller) agentCAs() (bundle []*x509.Certificate, err error) {
	err = c.store.View(context.Background(), func(tx *store.Tx) (err error) {
		bundle, err = pki.Bundle(tx, pki.RoleAgent)
		return err
	})
	return bundle, err
}

func (c *Controller) listen() (err error) {
	if c.apiListener, err = net.Listen("tcp", c.cfg.API.Bind); err != nil { //nolint:noctx // at start
		return reeve.Errorf(reeve.Unavailable, "address_unusable", "cannot listen on %s for the API", c.cfg.API.Bind).Wrap(err)
	}
	if c.agentListener, err = net.Listen("tcp", c.cfg.Agents.Bind); err != nil { //nolint:noctx // at start
		_ = c.apiListener.Close()
		return reeve.Errorf(reeve.Unavailable, "address_unusable", "cannot listen on %s for agents", c.cfg.Agents.Bind).Wrap(err)
	}
	return nil
}

// Limits of the API's listener, against slow and stuck clients. Live logs and
// snapshots lift the write limit for themselves.
const (
	headerTimeout = 10 * time.Second
	readTimeout   = 5 * time.Minute
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
	drain         = 5 * time.Second // what requests under way get when the node stops
)

// Run serves until ctx ends or something fails that the node cannot go on with. When
// it returns everything is stopped and joined. It can be called once.
func (c *Controller) Run(ctx context.Context) error {
	c.log.Info("controller starts", "id", c.id, "cluster", c.cluster, "version", reeve.Version, "applied", c.store.AppliedIndex(),
		"raft", c.cfg.Raft.Address(), "api", c.cfg.API.Address(), "agents", c.cfg.Agents.Address())
	// The faces go first, then the log, then the state: nobody may wait for a
	// transaction that can no longer be answered.
	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInner()
	state, stateCtx := errgroup.WithContext(inner)
	state.Go(func() error { return c.store.Run(stateCtx) })
	state.Go(func() error { return c.raft.Run(stateCtx, c.store) })
	state.Go(func() error { return c.seal.Run(stateCtx, c.store) })

	faces, facesCtx := errgroup.WithContext(ctx)
	faces.Go(func() error { return c.serveAPI(facesCtx) })
	faces.Go(func() error { return c.gateway.Run(facesCtx, c.agentListener) })
	faces.Go(func() error { return c.unsealWithKeyFile(facesCtx) })
	faces.Go(func() error { return c.renewCertificate(facesCtx) })
	faces.Go(func() error { // a failing state ends the faces
		select {
		case <-facesCtx.Done():
			return nil
		case <-stateCtx.Done():
			return stateCtx.Err()
		}
	})
	err := faces.Wait()
	stopInner()
	if stateErr := state.Wait(); stateErr != nil {
		err = stateErr // the cause; the faces only followed
	}
	c.handOvers.Wait()
	err = errors.Join(err, c.store.Close())
	c.log.Info("controller stopped")
	return err
}

func (c *Controller) serveAPI(ctx context.Context) error {
	srv := &http.Server{
		Handler: c.api, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx }, // live logs end with the node
		ErrorLog:    slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		drainCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if srv.Shutdown(drainCtx) != nil {
			_ = srv.Close()
		}
	}()
	err := srv.Serve(tls.NewListener(c.apiListener, c.identity.APITLS()))
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
		<-stopped
	}
	return err
}
