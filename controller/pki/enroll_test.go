package pki_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func TestATokenLetsOneAgentIntoItsSite(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	d := c.enrolled(siteX, "edge-1")
	a := c.agent(d.id)
	if a.SiteID != siteX || a.Name != "edge-1" || a.Status != pki.Active || a.Version != "1.0" || !bytes.Equal(a.HPKEKey(), d.hpke) {
		t.Fatalf("%+v", a)
	}
	if len(d.cert.URIs) != 1 || d.cert.URIs[0].String() != "spiffe://c1/site/"+string(siteX)+"/agent/"+string(d.id) {
		t.Fatal(d.cert.URIs)
	}
	if life := d.cert.NotAfter.Sub(c.clock.Now()); life > pki.AgentLifetime || life < pki.AgentLifetime-time.Minute {
		t.Fatalf("the certificate lives %s", life)
	}
	if err := d.call(); err != nil {
		t.Fatal(err)
	}
}

// The same key asking again, after a lost answer, is the same agent with a valid certificate.
func TestEnrollingAgainWithTheSameKeyGivesTheSame_A4(t *testing.T) {
	t.Parallel()
	for name, fate := range map[string]storetest.Fate{"answer lost": storetest.Commit, "outcome unknown, committed": storetest.CommitUnknown,
		"outcome unknown, lost": storetest.Lose, "refused": storetest.Refuse} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, "c1")
			secret, d := c.agentToken(siteX, "edge-1"), c.device()
			c.faults.Next(fate)
			if err := d.enroll(secret); (err == nil) != (fate == storetest.Commit) {
				t.Fatal(err)
			}
			c.clock.Advance(14 * time.Minute)
			retry := &device{t: t, c: c, key: d.key, hpke: d.hpke}
			if err := retry.enroll(secret); err != nil {
				t.Fatal(err)
			}
			if fate == storetest.Commit && (retry.id != d.id || !retry.cert.Equal(d.cert)) {
				t.Fatal("another agent or certificate")
			}
			if err := retry.call(); err != nil {
				t.Fatal(err)
			}
			if n := len(c.records("agent.enroll")); n != 1 {
				t.Fatalf("%d enrolments recorded", n)
			}
			if fate != storetest.Commit {
				return
			}
			c.clock.Advance(10 * time.Hour) // the token itself has expired long ago
			if err := retry.enroll(secret); err != nil {
				t.Fatal(err)
			}
			if err := retry.renew(); err != nil {
				t.Fatal(err)
			}
			if err := retry.call(); err != nil {
				t.Fatal(err)
			}
			want(t, d.enroll(secret), "join_token_used") // it has lived on since
			if s := c.agent(d.id).Status; s != pki.Active {
				t.Fatal(s)
			}
		})
	}
}

func TestAnotherKeyIsRefusedAndQuarantinesTheFirst_A1(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	secret, d, other := c.agentToken(siteX, "edge-1"), c.device(), c.device()
	if err := d.enroll(secret); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		want(t, other.enroll(secret), "join_token_used")
	}
	want(t, d.call(), "agent_quarantined")
	want(t, d.renew(), "agent_quarantined")
	if n := len(c.records("agent.quarantine")); n != 1 {
		t.Fatalf("%d quarantines recorded", n)
	}
	if n := len(c.records("join_token.misuse")); n != 1 {
		t.Fatalf("%d misuses recorded: whoever holds a token can fill the audit trail", n)
	}
	// The remedy: a new token replaces the agent; the old certificate is of no use.
	fresh := c.enrolled(siteX, "edge-1")
	if err := fresh.call(); err != nil {
		t.Fatal(err)
	}
	want(t, d.call(), "agent_replaced")
	if err := fresh.call(); err != nil {
		t.Fatalf("the intruder's certificate harms the new agent: %v", err)
	}
}

// A1: whatever is duplicated, concurrent, lost or unknown, a token admits one key at most.
func TestATokenAdmitsAtMostOneKey_A1(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	rapid.Check(t, func(rt *rapid.T) {
		name := c.freshName()
		secret := c.agentToken(siteX, name)
		fates := rapid.SampledFrom([]storetest.Fate{storetest.Commit, storetest.Commit, storetest.CommitUnknown, storetest.Lose, storetest.Refuse})
		drawn := rapid.SliceOfN(fates, 0, 4).Draw(rt, "fates")
		c.faults.Next(drawn...)
		devices := []*device{c.device(), c.device(), c.device()}
		tries := rapid.SliceOfN(rapid.IntRange(0, 2), 1, 8).Draw(rt, "tries")
		var mu sync.Mutex
		admitted := map[int]reeve.AgentID{}
		var running sync.WaitGroup
		for _, i := range tries {
			running.Go(func() {
				copied := devices[i].clone()
				if copied.enroll(secret) == nil {
					mu.Lock()
					defer mu.Unlock()
					admitted[i] = copied.id
				}
			})
		}
		running.Wait()
		c.drain(len(drawn))
		if len(admitted) > 1 {
			rt.Fatalf("%d keys were admitted", len(admitted))
		}
		var holders []*pki.Agent
		c.view(func(tx *store.Tx) error {
			all, err := pki.ListAgents(tx, siteX, "", 10_000)
			for _, a := range all {
				if a.Name == name {
					holders = append(holders, a)
				}
			}
			return err
		})
		if len(holders) > 1 {
			rt.Fatalf("%d agents of one token", len(holders))
		}
		for i, id := range admitted {
			if len(holders) != 1 || holders[0].ID != id {
				rt.Fatal("the admitted agent is not the registered one")
			}
			// The registered key is the admitted one: nobody else's request was certified.
			cert, err := x509.ParseCertificate(holders[0].Current.Certificate)
			if err != nil || !devices[i].key.PublicKey.Equal(cert.PublicKey) {
				rt.Fatal("the registered certificate is for another key")
			}
		}
	})
}

func TestBadTokensAreToldApart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	want(t, c.device().enroll(reeve.SecretString(strings.Repeat("x", 32))), "join_token_unknown")
	want(t, c.device().enroll(reeve.Secret{}), "join_token_unknown")

	other := newCluster(t, "c2")
	want(t, c.device().enroll(other.agentToken(siteX, "edge-1")), "join_token_unknown")

	secret := c.agentToken(siteX, "edge-1")
	c.clock.Advance(pki.DefaultTokenLifetime)
	want(t, c.device().enroll(secret), "join_token_expired")

	nodeToken := c.token(pki.NewJoinToken{Role: pki.RoleNode, Name: "c2"})
	want(t, c.device().enroll(nodeToken), "join_token_unknown")
	_, err := c.auth.EnrollNode(t.Context(), c.agentToken(siteX, "edge-2"), request(t, newKey(t)), info("x"), "")
	want(t, err, "join_token_unknown")

	var made *pki.JoinToken
	var text reeve.Secret
	c.update(func(tx *store.Tx) (err error) {
		made, text, err = pki.CreateJoinToken(tx, operator, pki.NewJoinToken{Role: pki.RoleAgent, SiteID: siteX, Name: "edge-3", Addresses: []string{"h:1"}})
		return err
	})
	tok, err := jointoken.Parse(text)
	if err != nil || tok.Cluster != "c1" {
		t.Fatal(tok, err)
	}
	var ca []*x509.Certificate
	c.view(func(tx *store.Tx) (err error) {
		ca, err = pki.Bundle(tx, pki.RoleNode)
		return err
	})
	if tok.CASPKIHash != sha256.Sum256(ca[0].RawSubjectPublicKeyInfo) {
		t.Fatal("the token does not carry the hash of the authority's key")
	}
	c.update(func(tx *store.Tx) error { return pki.RevokeJoinToken(tx, operator, made.ID) })
	want(t, c.device().enroll(tok.Secret), "join_token_unknown")
}

func TestBadTokenRequestsAreRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	banned := c.enrolled(siteX, "banned")
	c.update(func(tx *store.Tx) error { _, err := pki.BanAgent(tx, operator, banned.id, "lost"); return err })
	addr := []string{"h:1"}
	for name, tt := range map[string]struct {
		in   pki.NewJoinToken
		code string
	}{
		"no name":         {pki.NewJoinToken{Role: pki.RoleAgent, SiteID: siteX, Addresses: addr}, "name_invalid"},
		"bad name":        {pki.NewJoinToken{Role: pki.RoleAgent, SiteID: siteX, Name: "a;id", Addresses: addr}, "name_invalid"},
		"no role":         {pki.NewJoinToken{Name: "a", Addresses: addr}, "role_invalid"},
		"no site":         {pki.NewJoinToken{Role: pki.RoleAgent, Name: "a", Addresses: addr}, "site_missing"},
		"site for a node": {pki.NewJoinToken{Role: pki.RoleNode, SiteID: siteX, Name: "a", Addresses: addr}, "site_unexpected"},
		"too long":        {pki.NewJoinToken{Role: pki.RoleNode, Name: "a", Lifetime: 25 * time.Hour, Addresses: addr}, "lifetime_invalid"},
		"negative":        {pki.NewJoinToken{Role: pki.RoleNode, Name: "a", Lifetime: -1, Addresses: addr}, "lifetime_invalid"},
		"node name":       {pki.NewJoinToken{Role: pki.RoleNode, Name: "c1", Addresses: addr}, "node_name_taken"},
		"banned":          {pki.NewJoinToken{Role: pki.RoleAgent, SiteID: siteX, Name: "banned", Addresses: addr}, "agent_banned"},
		"no address":      {pki.NewJoinToken{Role: pki.RoleNode, Name: "a"}, "join_token_invalid"},
	} {
		err := c.st.Update(t.Context(), func(tx *store.Tx) error {
			_, s, err := pki.CreateJoinToken(tx, operator, tt.in)
			if err != nil && !s.Empty() {
				t.Error("a token beside an error")
			}
			return err
		})
		if reeve.CodeOf(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOnlyProvenKeysOfGoodKindsAreCertified(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := request(t, newKey(t))
	forged[len(forged)-1] ^= 1
	for name, tt := range map[string]struct {
		csr  []byte
		code string
	}{
		"P-384":     {request(t, p384), "csr_key_unsupported"},
		"RSA":       {request(t, rsaKey), "csr_key_unsupported"},
		"empty":     {nil, "csr_invalid"},
		"cut":       {request(t, newKey(t))[:60], "csr_invalid"},
		"signature": {forged, "csr_invalid"},
		"huge":      {make([]byte, 9<<10), "csr_invalid"},
		"Ed25519":   {request(t, edKey), ""},
	} {
		_, err := c.auth.Enroll(t.Context(), pki.EnrollRequest{Secret: c.agentToken(siteX, "edge"), CSR: tt.csr, HPKEKey: hpkeKey(t)})
		if reeve.CodeOf(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = c.auth.Enroll(t.Context(), pki.EnrollRequest{Secret: c.agentToken(siteX, "edge"), CSR: request(t, newKey(t)), HPKEKey: []byte("short")})
	want(t, err, "hpke_key_invalid")
}

// K1: no private key, token or share is on disk in the clear, or in the log.
func TestNoKeyOrTokenIsReadable_K1(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	secret := c.agentToken(siteX, "edge-1")
	text := c.agentToken(siteX, "edge-2")
	d := c.device()
	if err := d.enroll(secret); err != nil {
		t.Fatal(err)
	}
	failure := c.device().enroll(secret)
	var keys [][]byte
	c.view(func(tx *store.Tx) error {
		for _, id := range []string{"node", "agent"} {
			plain, err := pki.CAKeyForTest(tx, c.seal, pki.Role(id))
			if err != nil {
				return err
			}
			keys = append(keys, plain)
		}
		return nil
	})
	c.node.Stop()
	disk, err := os.ReadFile(c.path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(disk, []byte("Reeve agent CA")) {
		t.Fatal("this is not the state file")
	}
	for i, s := range append(keys, secret.Bytes(), text.Bytes()) {
		for _, form := range [][]byte{s, []byte(hex.EncodeToString(s))} {
			for where, b := range map[string][]byte{"disk": disk, "log": c.log.Bytes(), "error": []byte(fmt.Sprintf("%+v", failure))} {
				if bytes.Contains(b, form) {
					t.Errorf("secret %d is on the %s", i, where)
				}
			}
		}
	}
}
