package controller

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/cluster"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// BootstrapOptions say what cluster to make.
type BootstrapOptions struct {
	Cluster           string // its name for ever; empty: made up
	Shares, Threshold int    // of the seal key; unused when the configuration names a key file
}

// Bootstrapped is what exists only now: it must be handed out and forgotten.
type Bootstrapped struct {
	Cluster   string
	Shares    []reeve.Secret // none with a key file
	RootToken reeve.Secret
	CA        []byte // PEM, to check controllers against
}

// Bootstrap makes a cluster of one in an empty data directory: root key, authorities,
// this node's certificate and the root token, all in one transaction. It runs offline;
// nothing listens. Conflict "already_initialised" if the directory holds a node.
func Bootstrap(ctx context.Context, cfg Config, opt BootstrapOptions) (_ *Bootstrapped, err error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if err := cfg.unused(); err != nil {
		return nil, err
	}
	if opt.Cluster == "" {
		opt.Cluster = "reeve-" + strings.ToLower(rand.Text()[:8])
	}
	if err := cfg.prepare(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil { // what was made is good for nothing: let the operator simply try again
			_ = os.RemoveAll(cfg.DataDir)
		}
	}()
	me, err := pki.OpenNodeIdentity(cfg.identityPath())
	if err != nil {
		return nil, err
	}
	sealer := seal.NewManager(cfg.Logger)
	leading := make(chan struct{}, 1)
	id := reeve.NewNodeID()
	node, err := cluster.Open(cluster.Config{
		ID: id, Cluster: opt.Cluster, Bind: "127.0.0.1:0", Advertise: cfg.Raft.Address(), DataDir: cfg.DataDir, Logger: cfg.Logger,
		Timeouts: cluster.TimeoutsLAN, // alone, there is nobody to wait for
		TLS:      func() (*tls.Config, error) { return nobody(opt.Cluster, id) },
		Lead: func(ctx context.Context, _ uint64) error {
			leading <- struct{}{}
			<-ctx.Done()
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	st, err := store.Open(store.Config{Path: cfg.statePath(), Cipher: sealer, Replicator: node, Logger: cfg.Logger})
	if err != nil {
		return nil, errors.Join(err, node.Close())
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if err := node.Bootstrap(); err != nil {
		return nil, errors.Join(err, node.Close())
	}

	running, stop := context.WithCancel(ctx)
	defer stop()
	g, running := errgroup.WithContext(running)
	g.Go(func() error { return st.Run(running) })
	g.Go(func() error { return node.Run(running, st) })
	made := &Bootstrapped{Cluster: opt.Cluster}
	g.Go(func() error {
		defer stop()
		select {
		case <-running.Done():
			return running.Err()
		case <-leading:
		}
		return made.found(running, cfg, opt, id, me, sealer, st)
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return made, nil
}

// unused refuses a data directory in which a node may live.
func (c *Config) unused() error {
	if entries, err := os.ReadDir(c.DataDir); err == nil && len(entries) > 0 {
		return reeve.Errorf(reeve.Conflict, "already_initialised", "the data directory %s is not empty", c.DataDir).
			WithFix("run the node that lives there with `reeved server`, or choose an empty data_dir")
	}
	return nil
}

// nobody is the TLS of a cluster that is being made: its certificate is for this
// purpose alone, and as no authority is trusted, no peer is let in.
func nobody(cluster string, id reeve.NodeID) (*tls.Config, error) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{{Scheme: "spiffe", Host: cluster, Path: "/node/" + string(id)}}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool(), ClientCAs: x509.NewCertPool(),
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, nil
}

// found writes everything a cluster begins with, and installs the node's certificate.
func (b *Bootstrapped) found(ctx context.Context, cfg Config, opt BootstrapOptions, id reeve.NodeID, me *pki.NodeIdentity, sealer *seal.Manager, st *store.Store) error {
	csr, err := me.Request()
	if err != nil {
		return err
	}
	authority := pki.New(st, sealer, cfg.Logger)
	by := audit.System("bootstrap")
	var enrolled *pki.NodeEnrollment
	scheme := seal.Scheme{KeyFile: cfg.KeyFile, Shares: opt.Shares, Threshold: opt.Threshold}
	b.Shares, err = sealer.Init(ctx, st, opt.Cluster, scheme, func(tx *store.Tx) error {
		if enrolled, err = authority.Bootstrap(tx, by, opt.Cluster, id, csr, cfg.info()); err != nil {
			return err
		}
		if err := audit.MakeKey(tx, by, opt.Cluster); err != nil {
			return err
		}
		root, err := identity.CreatePrincipal(tx, by, "root", identity.Root, identity.Profile{})
		if err != nil {
			return err
		}
		_, b.RootToken, err = identity.CreateToken(tx, by, identity.NewToken{Principal: root.ID, Description: "made at bootstrap"})
		return err
	})
	if err != nil {
		return err
	}
	b.CA = enrolled.CA
	return me.Install(enrolled)
}
