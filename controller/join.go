package controller

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
	joinTimeout = 30 * time.Second
	joinPause   = 250 * time.Millisecond // between two rounds through the controllers
)

// Join makes this node a member of a cluster: it trades the token for a certificate
// and writes it to the data directory. Repeating it with the same token and directory
// is harmless. The node takes part once New and Run are called.
//
// Codes of the cluster: join_token_unknown, join_token_used, join_token_expired,
// node_name_taken; of this node: already_joined, controller_untrusted.
func Join(ctx context.Context, cfg Config, token reeve.Secret) error {
	if err := cfg.complete(); err != nil {
		return err
	}
	if err := cfg.prepare(); err != nil {
		return err
	}
	t, err := jointoken.Parse(token)
	if err != nil {
		return err
	}
	identity, err := pki.OpenNodeIdentity(cfg.identityPath())
	if err != nil {
		return err
	}
	if identity.Certified() {
		return reeve.Errorf(reeve.Conflict, "already_joined", "the node in %s belongs to a cluster already", cfg.DataDir).
			WithFix("run it with `reeved server`, or choose an empty data_dir")
	}
	csr, err := identity.Request()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	info := cfg.info()
	body := client.JoinRequest{Token: t.Secret.Bytes(), Csr: csr, RaftAddress: info.RaftAddr, ApiAddress: info.APIAddr, AgentAddress: info.AgentAddr}
	for {
		again, err := askToJoin(ctx, identity, t, body)
		if !again {
			return err
		}
		select { // an election; asking again with the same key is harmless
		case <-ctx.Done():
			return err
		case <-time.After(joinPause):
		}
	}
}

// askToJoin asks one controller after the other. again is true if one answered that nobody
// leads, or that nobody knows what became of the request.
func askToJoin(ctx context.Context, identity *pki.NodeIdentity, t jointoken.Token, body client.JoinRequest) (again bool, err error) {
	var unreached, undecided error
	for _, addr := range t.Addresses {
		c, err := client.NewClient("https://"+addr, client.WithHTTPClient(&http.Client{Transport: &http.Transport{
			TLSClientConfig: pinned(t), DisableKeepAlives: true, TLSHandshakeTimeout: 5 * time.Second,
		}}))
		if err != nil {
			return false, err
		}
		resp, err := c.JoinCluster(ctx, body)
		if err != nil {
			unreached = errors.Join(unreached, err)
			continue
		}
		err = install(identity, resp)
		if resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusGatewayTimeout {
			return false, err
		}
		undecided = err
	}
	if undecided != nil {
		return true, undecided
	}
	return false, reeve.Errorf(reeve.Unavailable, "cluster_unreachable", "no controller of cluster %s could be reached and trusted", t.Cluster).
		WithFix("check that this host reaches %s, and that the token is one for a controller of this cluster (reeve cluster join-token)", strings.Join(t.Addresses, ", ")).Wrap(unreached)
}

// pinned trusts exactly the authority the token names: the first contact is
// authenticated by the token, not by luck.
func pinned(t jointoken.Token) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection below checks more than the default would
		VerifyConnection: func(cs tls.ConnectionState) error {
			for _, ca := range cs.PeerCertificates[1:] {
				sum := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
				if !bytes.Equal(sum[:], t.CASPKIHash[:]) {
					continue
				}
				roots := x509.NewCertPool()
				roots.AddCert(ca)
				_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{
					Roots: roots, DNSName: pki.ServerName, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
				})
				return err
			}
			return reeve.Errorf(reeve.Denied, "controller_untrusted", "the controller's certificate is not of the authority the join token names").
				WithFix("make a new token on the cluster you mean to join")
		},
	}
}

func (c *Controller) install(resp *http.Response) error { return install(c.identity, resp) }

// install takes the identity out of an answer and writes it to disk.
func install(identity *pki.NodeIdentity, resp *http.Response) error {
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var p client.Problem
		if json.Unmarshal(raw, &p) != nil || p.Code == "" {
			return fmt.Errorf("controller: the cluster answered %s", resp.Status)
		}
		e := reeve.Errorf(reeve.Denied, p.Code, "%s", p.Detail)
		if p.Fix != nil {
			e = e.WithFix("%s", *p.Fix)
		}
		return e
	}
	var res client.JoinResult
	if err := json.Unmarshal(raw, &res); err != nil {
		return fmt.Errorf("controller: the cluster's answer cannot be read: %w", err)
	}
	der, err := certificateDER(res.Certificate)
	if err != nil {
		return err
	}
	return identity.Install(&pki.NodeEnrollment{Cluster: res.Cluster, Certificate: der, CA: []byte(res.Ca),
		Node: &pki.Node{ID: reeve.NodeID(res.Node), Name: res.Name}})
}
