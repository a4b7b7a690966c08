//go:build linux

package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// The page of the cluster, in a real browser with a virtual security key: a key is added,
// signs in and steps up, from the command line to the page and back.
func TestASecurityKeyInARealBrowser(t *testing.T) {
	t.Parallel()
	c, admin := realCluster(t)
	const password = "canary lantern walrus 4711"
	ada := invited(t, admin, "ada", password, false)
	at := strings.TrimPrefix(c.URL(0), "https://")
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	browser := testlab.Browser(t, testlab.ChromiumOptions{Hosts: map[string]string{pki.ServerName: host}, Trusted: []string{publicKeyOf(t, at, c.CA)}})
	if err := browser.AddSecurityKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	terminal{t, admin, ada.dir}.must("security-keys", "configure", "--url", "https://"+net.JoinHostPort(pki.ServerName, port))
	login := []string{"login", "ada", "--password-file", ada.path("password")}
	ada.must(login...)

	page := "https://" + net.JoinHostPort(pki.ServerName, port) + "/security-key"
	if err := browser.Open(t.Context(), page+"#do=prove&port=1&state=<script>&code=x&options=e30"); err != nil {
		t.Fatal(err)
	}
	if text, err := browser.Text(t.Context(), "main"); err != nil || !strings.Contains(text, "Nothing is asked here.") || strings.Contains(text, "script") {
		t.Errorf("the page, asked for nonsense: %s %v", text, err)
	}

	enrolled := ada.atKey(inBrowser(browser, "Add a security key"), "factor", "add-key", "--name", "yubi")
	if enrolled.status != 0 || len(strings.Fields(enrolled.out)) != 10 {
		t.Fatalf("%+v", enrolled)
	}
	if got := ada.atKey(inBrowser(browser, "Show your security key"), login...); got.status != 0 || !strings.Contains(got.err, "signed in as ada") {
		t.Errorf("%+v", got)
	}
	if got := ada.atKey(inBrowser(browser, "Show your security key"), "session", "step-up", "--key", "--password-file", ada.path("password")); got.status != 0 {
		t.Errorf("%+v", got)
	}
	if got := ada.must("session", "list"); !strings.Contains(got.out, "password webauthn") {
		t.Errorf("the session: %s", got.out)
	}
	problems, err := browser.Problems(t.Context())
	if err != nil {
		t.Error(err)
	}
	for _, p := range problems {
		if !strings.Contains(p, "favicon") {
			t.Errorf("the browser complains: %s", p)
		}
	}
}

// inBrowser opens the address from the terminal, compares what both show, and clicks.
func inBrowser(b *testlab.Chromium, says string) func(t *testing.T, address, code string) {
	return func(t *testing.T, address, code string) {
		t.Helper()
		ctx := t.Context()
		if err := b.Open(ctx, address); err != nil {
			t.Fatal(err)
		}
		text, err := b.Text(ctx, "main")
		if err != nil || !strings.Contains(text, says) || !strings.Contains(text, code) {
			t.Fatalf("the page: %s %v", text, err)
		}
		if err := b.Click(ctx, "#go"); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			to, err := b.Address(ctx)
			if err == nil && strings.HasPrefix(to, "http://127.0.0.1:") {
				break
			}
			if time.Now().After(deadline) {
				text, _ := b.Text(ctx, "main")
				t.Fatalf("the browser stays at %s %v: %s", to, err, text)
			}
		}
		if text, err := b.Text(ctx, "p"); err != nil || !strings.Contains(text, "The security key has answered.") {
			t.Errorf("at the end: %s %v", text, err)
		}
	}
}

// publicKeyOf hashes the public key of a controller, whose certificate the cluster's
// authority vouches for.
func publicKeyOf(t *testing.T, address string, authority []byte) string {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	conn, err := (&tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: pki.ServerName, MinVersion: tls.VersionTLS13}}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sum := sha256.Sum256(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}
