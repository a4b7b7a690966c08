package pki_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func TestTheOldCertificateIsGoodUntilTheNewOneIsUsed_A4(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	d := c.enrolled(siteX, "edge-1")
	old := d.clone()
	key := newKey(t)
	e, err := d.ask(key)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := d.ask(key); err != nil || !bytes.Equal(again.Certificate, e.Certificate) {
		t.Fatalf("another certificate for the same request: %v", err)
	}
	c.clock.Advance(6 * time.Hour)
	if err := old.call(); err != nil {
		t.Fatalf("before the new one was used: %v", err)
	}
	d.key = key
	if err := d.use(e); err != nil {
		t.Fatal(err)
	}
	if d.generation != 2 {
		t.Fatalf("generation %d", d.generation)
	}
	if err := d.call(); err != nil {
		t.Fatal(err)
	}
	if err := old.call(); err != nil {
		t.Fatalf("a call that was on its way: %v", err)
	}
	if n := len(c.records("agent.switch_certificate")); n != 1 {
		t.Fatalf("%d switches recorded", n)
	}
	// A request of the agent's own, overtaken by the answer to its repetition, does no harm …
	_, err = old.ask(newKey(t))
	want(t, err, "agent_certificate_stale")
	if err := d.call(); err != nil {
		t.Fatal(err)
	}
	// … but whoever still has the old one later has a copy.
	c.clock.Advance(2 * time.Minute)
	_, err = c.check(old.cert)
	want(t, err, "agent_certificate_stale")
	want(t, old.call(), "agent_certificate_stale")
	want(t, d.call(), "agent_quarantined")
}

func TestTheHPKEKeyChangesWithTheCertificate(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	d := c.enrolled(siteX, "edge-1")
	first := string(d.hpke)
	d.hpke = freshHPKE(t)
	key := newKey(t)
	e, err := d.ask(key)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.agent(d.id).HPKEKey(); string(got) != first {
		t.Fatal("secrets are sealed to a key the agent may not know is in use")
	}
	if err := d.use(e); err != nil {
		t.Fatal(err)
	}
	if err := d.call(); err != nil {
		t.Fatal(err)
	}
	if got := c.agent(d.id).HPKEKey(); string(got) != string(d.hpke) {
		t.Fatal("the new key is not in use")
	}
}

// A4: an agent that follows the rules is never locked out, whatever is lost: requests,
// answers, its memory between asking and saving, the controller's outcome.
func TestNoLostMessageStrandsAnAgent_A4(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	faults := map[string]storetest.Fate{"outcome unknown, done": storetest.CommitUnknown, "outcome unknown, lost": storetest.Lose, "refused": storetest.Refuse}
	losses := []string{"request lost", "answer lost", "outcome unknown, done", "outcome unknown, lost", "refused"}
	rapid.Check(t, func(rt *rapid.T) {
		must := func(what string, err error) {
			if err != nil {
				rt.Fatalf("%s: %v", what, err)
			}
		}
		// try does one exchange: f asks, and its answer arrives only if nothing is lost.
		try := func(step string, f func() error) (answered bool) {
			if step == "request lost" {
				return false
			}
			fate, faulty := faults[step]
			if faulty {
				c.faults.Next(fate)
			}
			err := f()
			if faulty {
				if err == nil {
					rt.Fatalf("%s: no error", step)
				}
				return false
			}
			must(step, err)
			return step != "answer lost"
		}

		d, secret := c.device(), c.agentToken(siteX, c.freshName())
		for _, step := range append(rapid.SliceOfN(rapid.SampledFrom(losses), 0, 3).Draw(rt, "enrolling"), "ok") {
			trial := d.clone()
			if try(step, func() error { return trial.enroll(secret) }) {
				d = trial
			}
		}
		must("first call", d.call())

		more := append([]string{"ok", "ok", "forgets its key", "calls", "waits"}, losses...)
		var key *ecdsa.PrivateKey // that it asks a certificate for
		for _, step := range rapid.SliceOfN(rapid.SampledFrom(more), 1, 12).Draw(rt, "renewing") {
			switch step {
			case "waits":
				c.clock.Advance(20 * time.Minute)
				continue
			case "calls":
				must(step, d.call())
				continue
			case "forgets its key": // a crash after asking and before saving
				key = nil
				continue
			}
			if key == nil {
				key = newKey(t)
			}
			var e *pki.Enrollment
			if try(step, func() (err error) { e, err = d.ask(key); return err }) {
				must("use", d.use(e))
				key = nil
			}
		}
		must("last call", d.call())
	})
}

// A5: of two copies of an agent's disk, one locks the agent at the latest when either
// renews and uses what it got, whichever goes first.
func TestAClonedKeyIsDetected_A5(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, c *cluster, original, copied *device) error{
		"the original renews, the copy calls": func(t *testing.T, c *cluster, original, copied *device) error {
			ok(t, original.renew(), original.call())
			c.clock.Advance(2 * time.Minute)
			return copied.call()
		},
		"the copy renews, the original calls": func(t *testing.T, c *cluster, original, copied *device) error {
			ok(t, copied.renew(), copied.call())
			c.clock.Advance(2 * time.Minute)
			return original.call()
		},
		"the original renews, the copy renews": func(t *testing.T, c *cluster, original, copied *device) error {
			ok(t, original.renew(), original.call())
			c.clock.Advance(2 * time.Minute)
			return copied.renew()
		},
		"both renew before either calls": func(t *testing.T, _ *cluster, original, copied *device) error {
			ok(t, original.renew(), copied.renew())
			return original.call()
		},
		"the second to renew calls first": func(t *testing.T, c *cluster, original, copied *device) error {
			ok(t, original.renew(), copied.renew(), copied.call())
			c.clock.Advance(2 * time.Minute)
			return original.call()
		},
	}
	for name, run := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, "c1")
			original := c.enrolled(siteX, "edge-1")
			copied := original.clone()
			want(t, run(t, c, original, copied), "agent_certificate_stale")
			if a := c.agent(original.id); a.Status != pki.Quarantined || a.Reason == "" {
				t.Fatalf("%s, %q", a.Status, a.Reason)
			}
			want(t, original.call(), "agent_quarantined")
			want(t, copied.call(), "agent_quarantined")
			want(t, copied.renew(), "agent_quarantined")
			if n := len(c.records("agent.quarantine")); n != 1 {
				t.Fatalf("%d quarantines recorded", n)
			}
		})
	}
}

func TestAStaleGenerationLocksTheAgent_A5(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	d := c.enrolled(siteX, "edge-1")
	ok(t, d.renew(), d.call())
	d.generation = 1 // a disk restored in part
	_, err := d.ask(newKey(t))
	want(t, err, "agent_generation_stale")
	want(t, d.call(), "agent_quarantined")
}

func TestABanCountsAtOnceAndCanBeLifted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	d := c.enrolled(siteX, "edge-1")
	pendingToken := c.agentToken(siteX, "edge-1")
	c.update(func(tx *store.Tx) error { _, err := pki.BanAgent(tx, operator, d.id, "stolen laptop"); return err })
	_, err := c.check(d.cert)
	want(t, err, "agent_banned")
	want(t, d.call(), "agent_banned")
	want(t, d.renew(), "agent_banned")
	want(t, c.device().enroll(pendingToken), "agent_banned")
	c.update(func(tx *store.Tx) error { _, err := pki.BanAgent(tx, operator, d.id, "again"); return err })
	c.update(func(tx *store.Tx) error { _, err := pki.UnbanAgent(tx, operator, d.id); return err })
	c.update(func(tx *store.Tx) error { _, err := pki.UnbanAgent(tx, operator, d.id); return err })
	if err := d.call(); err != nil {
		t.Fatal(err)
	}
	if b, u := len(c.records("agent.ban")), len(c.records("agent.unban")); b != 1 || u != 1 {
		t.Fatalf("%d bans and %d unbans recorded", b, u)
	}
	err = c.st.Update(t.Context(), func(tx *store.Tx) error { _, err := pki.BanAgent(tx, operator, reeve.NewAgentID(), ""); return err })
	want(t, err, "agent_not_found")
}

func TestAnExpiredAgentEnrolsAnew(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	d := c.enrolled(siteX, "edge-1")
	c.clock.Advance(pki.AgentLifetime)
	want(t, d.call(), "certificate_expired")
	_, err := d.ask(newKey(t))
	want(t, err, "certificate_expired")
	fresh := c.enrolled(siteX, "edge-1")
	if err := fresh.call(); err != nil || fresh.id == d.id {
		t.Fatal(err)
	}
	if a := c.agent(d.id); a.Status != pki.Replaced {
		t.Fatal(a.Status)
	}
	err = c.st.Update(t.Context(), func(tx *store.Tx) error { _, err := pki.UnbanAgent(tx, operator, d.id); return err })
	want(t, err, "agent_replaced")
}

// A2: the site is that of the certificate, and nobody but the authority can write one.
func TestTheSiteComesFromTheCertificateAlone_A2(t *testing.T) {
	t.Parallel()
	c, other := newCluster(t, "c1"), newCluster(t, "c2")
	x, y := c.enrolled(siteX, "edge-1"), c.enrolled(siteY, "edge-1")
	for _, tt := range []struct {
		d    *device
		site reeve.SiteID
	}{{x, siteX}, {y, siteY}} {
		a, err := c.auth.Admit(t.Context(), tt.d.cert, nil)
		if err != nil || a.SiteID != tt.site || a.ID != tt.d.id {
			t.Fatalf("%+v %v", a, err)
		}
	}
	if list := c.list(siteX); len(list) != 1 || list[0].ID != x.id {
		t.Fatalf("agents of site X: %v", list)
	}
	// The names in a request count for nothing.
	named := &x509.CertificateRequest{URIs: y.cert.URIs, DNSNames: []string{"controller.reeve.internal"}}
	key := newKey(t)
	csr, err := x509.CreateCertificateRequest(nil, named, key)
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.auth.Renew(t.Context(), x.cert, pki.RenewRequest{CSR: csr, HPKEKey: hpkeKey(t), Generation: x.generation})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(e.Certificate)
	if err != nil || cert.URIs[0].String() != x.cert.URIs[0].String() || len(cert.URIs) != 1 || len(cert.DNSNames) != 0 {
		t.Fatalf("%v %v %v", cert.URIs, cert.DNSNames, err)
	}
	// A certificate that names an agent here, but another authority signed.
	foreignAuthority, foreignKey := selfSigned(t, nil, nil, "spiffe://c1")
	forged, _ := selfSigned(t, foreignAuthority, foreignKey, x.cert.URIs[0].String())
	_, err = c.check(forged)
	want(t, err, "certificate_foreign")
	_, err = c.check(other.enrolled(siteX, "edge-1").cert)
	want(t, err, "certificate_foreign")
	nodeCert, err := c.first.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.check(nodeCert)
	want(t, err, "certificate_wrong_role")
	if x.call() != nil || y.call() != nil {
		t.Fatal("a forged certificate harmed the agent it names")
	}
	c.update(func(tx *store.Tx) error { return pki.MoveAgentForTest(tx, x.id, reeve.NewSiteID()) })
	want(t, x.call(), "agent_unknown")
}

func (c *cluster) list(site reeve.SiteID) (list []*pki.Agent) {
	c.t.Helper()
	if err := c.st.View(context.Background(), func(tx *store.Tx) (err error) {
		list, err = pki.ListAgents(tx, site, "", 10)
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	return list
}

func ok(t testing.TB, errs ...error) {
	t.Helper()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("step %d: %v", i+1, err)
		}
	}
}
