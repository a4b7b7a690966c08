package controller

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// unsealWithKeyFile opens the seal by itself, as soon as this node knows the seal, when
// the configuration names a key file. It tries once for each time the node is found
// sealed at start: a node that an operator sealed stays so.
func (c *Controller) unsealWithKeyFile(ctx context.Context) error {
	if c.cfg.KeyFile == "" {
		return nil
	}
	t := time.NewTicker(sealPoll)
	defer t.Stop()
	complained := false
	for {
		err := c.seal.UnsealWithKeyFile(c.cfg.KeyFile)
		if err == nil {
			return nil
		}
		if reeve.CodeOf(err) != "not_initialised" && !complained {
			c.log.Error("cannot unseal with the key file; trying on", "error", err)
			complained = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

const (
	renewCheck = 10 * time.Minute
	renewRetry = time.Minute
)

// renewCertificate renews the node's certificate from half of its life on.
func (c *Controller) renewCertificate(ctx context.Context) error {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = renewCheck
		if c.store.Now().Before(c.identity.RenewalDue()) {
			continue
		}
		if err := c.renew(ctx); err != nil {
			c.log.Warn("the node's certificate could not be renewed; trying again", "error", err, "due", c.identity.RenewalDue())
			wait = renewRetry
		}
	}
}

// renew asks the leader, which may be this node, for the next certificate.
func (c *Controller) renew(ctx context.Context) error {
	csr, err := c.identity.Request()
	if err != nil {
		return err
	}
	info := c.info()
	if c.raft.IsLeader() {
		cert, err := c.identity.Certificate()
		if err != nil {
			return err
		}
		e, err := c.authority.RenewNode(ctx, cert, csr, info)
		if err != nil {
			return err
		}
		return c.identity.Install(e)
	}
	id, _, ok := c.raft.Leader()
	if !ok {
		return reeve.Errorf(reeve.Unavailable, "no_leader", "no controller leads at the moment")
	}
	var leader *pki.Node
	if err := c.store.View(ctx, func(tx *store.Tx) (err error) {
		leader, err = pki.GetNode(tx, id)
		return err
	}); err != nil {
		return err
	}
	fellow, err := c.fellow(leader.APIAddr)
	if err != nil {
		return err
	}
	resp, err := fellow.RenewNode(ctx, client.RenewNodeRequest{Csr: csr, RaftAddress: info.RaftAddr, ApiAddress: info.APIAddr, AgentAddress: info.AgentAddr})
	if err != nil {
		return err
	}
	return c.install(resp)
}

func (c *Config) info() pki.NodeInfo {
	return pki.NodeInfo{Name: c.Name, RaftAddr: c.Raft.Address(), APIAddr: c.API.Address(), AgentAddr: c.Agents.Address()}
}

func (c *Controller) info() pki.NodeInfo { return c.cfg.info() }

// certificateDER takes the one certificate out of PEM.
func certificateDER(text string) ([]byte, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("controller: the answer holds no certificate")
	}
	_, err := x509.ParseCertificate(block.Bytes)
	return block.Bytes, err
}
