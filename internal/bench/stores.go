package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/controller/cluster"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// stores are three controllers' stores over a real cluster in this process: mutual TLS on loopback, logs on disk.
type stores struct {
	leader *store.Store
	nodes  []*cluster.Node
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu  sync.Mutex
	err error
}

const trustDomain = "bench"

func startStores(ctx context.Context, e *env) (_ *stores, err error) {
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	c := &stores{stop: stop}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	dir, err := e.tempDir("stores")
	if err != nil {
		return nil, err
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	keys := seal.NewManager(e.log) // one for all: followers open nothing
	var opened []*store.Store
	for i := range 3 {
		n, s, err := openStore(e, ca, keys, filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
		opened = append(opened, s)
		if i == 0 {
			if err := n.Bootstrap(); err != nil {
				return nil, errors.Join(err, n.Close(), s.Close())
			}
		}
		c.wg.Go(func() { c.run(runCtx, n, s) })
		if i > 0 {
			if err := c.nodes[0].AddNonvoter(ctx, n.ID(), n.Addr()); err != nil {
				return nil, err
			}
			continue
		}
		if err := eventually(ctx, "the first node leads", n.IsLeader); err != nil {
			return nil, err
		}
	}
	c.leader = opened[0]
	if _, err := keys.Init(ctx, c.leader, trustDomain, seal.Scheme{Shares: 2, Threshold: 2}, func(*store.Tx) error { return nil }); err != nil {
		return nil, err
	}
	return c, eventually(ctx, "three nodes vote", func() bool {
		voters := 0
		for _, m := range c.nodes[0].Members() {
			if m.Voter && m.Healthy {
				voters++
			}
		}
		return voters == 3
	})
}

func openStore(e *env, ca *authority, keys *seal.Manager, dir string) (*cluster.Node, *store.Store, error) {
	id := reeve.NewNodeID()
	cert, err := ca.issue(id)
	if err != nil {
		return nil, nil, err
	}
	n, err := cluster.Open(cluster.Config{
		ID: id, Cluster: trustDomain, Bind: "127.0.0.1:0", DataDir: dir,
		TLS: func() (*tls.Config, error) {
			return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, RootCAs: ca.pool, ClientCAs: ca.pool}, nil
		},
		Lead:   func(ctx context.Context, _ uint64) error { <-ctx.Done(); return nil },
		Logger: e.log, StableFor: 2 * time.Second, // members are asked four times in that
	})
	if err != nil {
		return nil, nil, err
	}
	s, err := store.Open(store.Config{Path: filepath.Join(dir, "state.db"), Cipher: keys, Replicator: n, Logger: e.log})
	if err != nil {
		return nil, nil, errors.Join(err, n.Close())
	}
	return n, s, nil
}

// run drives one node and its store until ctx ends.
func (c *stores) run(ctx context.Context, n *cluster.Node, s *store.Store) {
	var wg sync.WaitGroup
	keep := func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.err = errors.Join(c.err, err)
	}
	wg.Go(func() { keep(n.Run(ctx, s)) })
	wg.Go(func() { keep(s.Run(ctx)) })
	wg.Wait()
	keep(s.Close())
}

func (c *stores) close() error {
	c.stop()
	c.wg.Wait()
	return c.err
}

// eventually polls, because clusters live on the machine's clock.
func eventually(ctx context.Context, what string, ok func() bool) error {
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain: %s", what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// authority issues the nodes' certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &authority{cert, key, pool}, nil
}

func (a *authority) issue(id reeve.NodeID) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/node/" + string(id)}}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
