//go:build linux

package process

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/testlab"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// A ban cuts off an agent that runs, within five seconds, and for as long as it lasts.
func TestBanCutsOffARunningAgent_A3(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterOptions{})
	c.site("dmz")
	h := c.host("web01", nil)
	g := c.startAgent("dmz-1", "dmz", nil)
	c.enroll("dmz-2", "dmz", nil) // so that the site is not without agents; it does not run
	c.addHost(h, "dmz")
	c.provision(h, "alice")
	shadow, _, err := h.Shadow("alice")
	if err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	c.ok("agent", "ban", "dmz-1", "--reason", "the host was stolen")
	refused := eventually(t, 5*time.Second, func() error {
		if !strings.Contains(g.logged(), "agent_banned") {
			return fmt.Errorf("the agent has not noticed")
		}
		return nil
	})
	c.connected("dmz-1", false, 5*time.Second-time.Since(began))
	t.Logf("the agent was cut off %s after the ban", refused.Round(time.Millisecond))
	if got, err := c.agent("dmz-1"); err != nil || got.Status != "banned" || got.StatusReason == nil || *got.StatusReason != "the host was stolen" {
		t.Errorf("the agent is %+v, %v", got, err)
	}
	c.reeve("", "agent", "join-token", "dmz-1", "--site", "dmz").refused(t, "agent_banned")

	job := c.begin("rotate", "alice@web01")
	time.Sleep(6 * time.Second) // longer than a ban takes
	if j := c.job(job); j.State != client.JobStateQueued || j.Attempt != 0 {
		t.Errorf("a job queued after the ban is %+v", j)
	}
	if now, _, err := h.Shadow("alice"); err != nil || now != shadow {
		t.Errorf("the target has changed: %v", err)
	}
	g.stop() // nor does a restart help
	g.start()
	time.Sleep(2 * time.Second)
	c.connected("dmz-1", false, 0)

	c.ok("agent", "unban", "dmz-1", "--reason", "found it again")
	c.jobState(job, 80*time.Second, client.JobStateDone) // it asks again within a minute
	c.logsIn(h, "alice")
}

// An agent killed in the middle of a job tells what it knows before it takes more work.
func TestKilledAgentReportsItsOutboxFirst_J3(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterOptions{})
	c.site("dmz")
	h := c.host("web01", nil)
	g := c.startAgent("dmz-1", "dmz", nil)
	c.addHost(h, "dmz")
	c.provision(h, "alice")

	if err := h.LockAccounts(); err != nil { // chpasswd waits for the lock, up to 15 s
		t.Fatal(err)
	}
	job := c.begin("rotate", "alice@web01")
	eventually(t, 20*time.Second, func() error {
		if out, err := h.OutOfBand("pgrep -x chpasswd || pgrep -x passwd || pgrep -x usermod"); err != nil {
			return fmt.Errorf("nothing changes the password yet: %s", out)
		}
		return nil
	})
	g.kill()
	h.UnlockAccounts()
	killed := time.Now()
	g.start()
	// Without the report the controller would wait for the lease: 60 s.
	eventually(t, 25*time.Second, func() error {
		if j := c.job(job); j.State == client.JobStateLeased && j.Attempt <= 1 {
			return fmt.Errorf("the controller knows nothing: %+v", j)
		}
		return nil
	})
	known := time.Since(killed)
	// What the dead agent began may still be going on there: nobody touches the target
	// until that is over, and until then the account is flagged (R2).
	j := c.job(job)
	if j.State != client.JobStateQueued || j.Outcome == nil || *j.Outcome != "unknown" || j.NotBefore == nil || !j.NotBefore.After(time.Now()) {
		t.Errorf("the job is %+v", j)
	}
	if a := c.account("alice@web01"); a.Sync != "uncertain" {
		t.Errorf("the account is %s, %s", a.State, a.Sync)
	}
	t.Logf("%s after kill -9 the controller knew; the target is left alone for %s", known.Round(time.Millisecond), time.Until(*j.NotBefore).Round(time.Second))
	c.reeve("", "account", "rotate", "alice@web01").refused(t, "account_busy")
}

// Two agents with one identity: found out at the first renewal.
func TestClonedAgentIsFoundOut_A5(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterOptions{})
	c.site("dmz")
	g := c.startAgent("dmz-1", "dmz", nil)
	eventually(t, 20*time.Second, func() error { // it has proven its certificate
		if readAgentIdentity(t, g.data).Current == nil {
			return fmt.Errorf("the first certificate is not in use")
		}
		return nil
	})
	run(t, nil, c.dir, "", "reeve-agent", "run", "--data", g.data, "--connectors", g.connectors).refused(t, "data_in_use")

	// The thief has a copy of the data directory and renews first. There is no way to make
	// an agent renew early, so the copy's renewal is the bare RPC.
	stolen := c.path("stolen")
	if err := os.CopyFS(stolen, os.DirFS(g.data)); err != nil {
		t.Fatal(err)
	}
	id := readAgentIdentity(t, stolen)
	renewed := c.renew(id, agentCertificate(t, g))
	if _, err := c.call(renewed, func(ctx context.Context, a agentv1.AgentServiceClient) (any, error) {
		return a.RenewLeases(ctx, &agentv1.RenewLeasesRequest{})
	}); err != nil {
		t.Fatalf("the copy's new certificate: %v", err)
	}
	// The owner goes on with a certificate that has been replaced: good for one minute,
	// then its stream is closed, it comes back within another, and both are shut out.
	took := eventually(t, 140*time.Second, func() error {
		got, err := c.agent("dmz-1")
		if err == nil && got.Status != "quarantined" {
			err = fmt.Errorf("the agent is %s", got.Status)
		}
		return err
	})
	t.Logf("the copy was found out %s after it renewed", took.Round(time.Second))
	if _, err := c.call(renewed, func(ctx context.Context, a agentv1.AgentServiceClient) (any, error) {
		return a.RenewLeases(ctx, &agentv1.RenewLeasesRequest{})
	}); err == nil {
		t.Error("the copy is still served")
	}
	c.connected("dmz-1", false, 5*time.Second)
}

// renew renews the certificate of whoever has the identity.
func (c *cluster) renew(id agentIdentity, cert *tls.Certificate) *tls.Certificate {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		c.t.Fatal(err)
	}
	seal, err := envelope.GenerateKey()
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := c.call(cert, func(ctx context.Context, a agentv1.AgentServiceClient) (any, error) {
		return a.Renew(ctx, &agentv1.RenewRequest{CsrDer: csr, HpkePublicKey: seal.PublicKey().Bytes(), Version: "copy", Generation: id.Current.Generation})
	})
	if err != nil {
		c.t.Fatalf("renew: %v", err)
	}
	return &tls.Certificate{Certificate: [][]byte{res.(*agentv1.RenewResponse).GetIdentity().GetCertificateDer()}, PrivateKey: key}
}

// call makes one call to the gateway with a certificate.
func (c *cluster) call(cert *tls.Certificate, fn func(context.Context, agentv1.AgentServiceClient) (any, error)) (any, error) {
	c.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+c.nodes[0].agents, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: c.roots(), ServerName: host(c.nodes[0].agents), Certificates: []tls.Certificate{*cert}})))
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	return fn(ctx, agentv1.NewAgentServiceClient(conn))
}

// Only registered bytes run.
func TestChangedConnectorDoesNotRun_P4(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterOptions{})
	c.site("dmz")
	h := c.host("web01", nil)
	g := c.startAgent("dmz-1", "dmz", nil)
	c.addHost(h, "dmz")
	c.provision(h, "alice")
	shadow, _, err := h.Shadow("alice")
	if err != nil {
		t.Fatal(err)
	}
	sshd := logins(h)

	path := filepath.Join(g.connectors, "connector-ssh")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(body []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", body, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	replace(append(slices.Clone(whole), 0)) // runs as before, and is another file
	g.stop()                                // what was loaded before the change goes on being what was registered
	g.start()
	c.connected("dmz-1", true, 20*time.Second)
	j := c.jobState(c.begin("rotate", "alice@web01"), 30*time.Second, client.JobStateFailed, client.JobStateDead)
	if j.Error == nil || j.Error.Class != "plugin_changed" || j.Outcome == nil || *j.Outcome != "not_done" {
		t.Errorf("the job is %+v, error %+v", j, j.Error)
	}
	if now, _, err := h.Shadow("alice"); err != nil || now != shadow {
		t.Errorf("the target has changed: %v", err)
	}
	if now := logins(h); now != sshd {
		t.Errorf("%d logins on the host, %d before: something ran", now, sshd)
	}

	// A digest that was revoked does not run either, whole as the file may be.
	replace(whole)
	eventually(t, 20*time.Second, func() error { return idle(c.account("alice@web01")) })
	c.ok("account", "verify", "alice@web01", "--watch")
	sum := sha256.Sum256(whole)
	digest := hex.EncodeToString(sum[:])
	c.reeve("", "connector", "revoke", "ssh", strings.Repeat("0", 64)).refused(t, "digest_not_found")
	c.ok("connector", "revoke", "ssh", digest)
	sshd = logins(h)
	got := c.reeve("", "account", "rotate", "alice@web01", "--watch")
	if got.status != 1 || !strings.Contains(got.err, "connector") {
		t.Errorf("a revoked connector: %s", got)
	}
	if now := logins(h); now != sshd {
		t.Errorf("%d logins on the host, %d before: something ran", now, sshd)
	}
	c.reeve("", "connector", "register", path).refused(t, "digest_revoked")
}

// logins counts the logins the host's sshd has accepted.
func logins(h *testlab.Host) int { return strings.Count(h.Log(), "Accepted ") }

// idle says what still goes on with an account.
func idle(a client.Account) error {
	if a.State != "active" {
		return fmt.Errorf("the account is %s, %s: %+v", a.State, a.Sync, a.LastError)
	}
	return nil
}
