// Package oidctest runs an OpenID provider that others wrote (the npm package
// oidc-provider) as a process of its own, and is the browser that signs in at it.
package oidctest

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// Person is what a provider says about somebody, by claim, besides the subject.
type Person map[string]any

// Options say what provider to start.
type Options struct {
	Algorithm      string            // of ID tokens; "" is RS256
	Public         bool              // the client has no secret
	Method         string            // how the client shows it; "" is client_secret_basic
	OnlyInUserinfo bool              // claims are kept out of the token
	Redirects      []string          // where browsers may be sent back to, besides programs on their machine
	People         map[string]Person // by subject, which is also what they type to sign in
}

// Provider is one that runs.
type Provider struct {
	Issuer, Authority, ClientID, ClientSecret string
}

// Start starts a provider; the test's cleanup ends it.
func Start(t testing.TB, o Options) *Provider {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(file), "testdata", "provider")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); err != nil {
		t.Fatal("the npm package oidc-provider is not installed: run make setup")
	}
	p := &Provider{ClientID: "reeve", ClientSecret: "Canary-client-secret-" + rand.Text()}
	if o.Public {
		p.ClientSecret = ""
	}
	cert, key := Certificate(t)
	p.Authority = string(cert)
	if o.Algorithm == "" {
		o.Algorithm = "RS256"
	}
	if o.Method == "" {
		o.Method = "client_secret_basic"
	}
	given, err := json.Marshal(map[string]any{"certificate": string(cert), "key": string(key), "client_id": p.ClientID, "client_secret": p.ClientSecret,
		"method": o.Method, "algorithm": o.Algorithm, "people": o.People, "only_in_userinfo": o.OnlyInUserinfo, "redirects": o.Redirects})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("node", "provider.mjs") //nolint:noctx // the cleanup ends it
	cmd.Dir = dir
	var complaints strings.Builder
	cmd.Stderr = &complaints
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if _, err := in.Write(append(given, '\n')); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var says struct{ Issuer string }
		if json.Unmarshal(lines.Bytes(), &says) == nil && says.Issuer != "" {
			p.Issuer = says.Issuer
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return p
		}
	}
	t.Fatalf("the provider did not start: %s", complaints.String())
	return nil
}

// Certificate makes one for 127.0.0.1 that is its own authority, in PEM, and its key.
func Certificate(t testing.TB) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "provider"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

var form = regexp.MustCompile(`action="([^"]+)"`)

// Browse opens an address as a browser does, signs in as somebody in the provider's own
// forms, and returns where it is sent back to, without going there.
func (p *Provider) Browse(t testing.TB, address, person string) *url.URL {
	t.Helper()
	back, _ := p.Browser().Open(t, address, person)
	return back
}

// Browser is one that keeps the provider's cookies.
type Browser struct {
	provider *Provider
	jar      http.CookieJar
}

// Browser returns one that has not been anywhere yet.
func (p *Provider) Browser() *Browser {
	jar, _ := cookiejar.New(nil)
	return &Browser{p, jar}
}

// Open is [Provider.Browse]; asked says that the provider asked who it is, which it need not
// if it remembers.
func (b *Browser) Open(t testing.TB, address, person string) (back *url.URL, asked bool) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(b.provider.Authority))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	c := &http.Client{Jar: b.jar, Transport: transport, Timeout: 20 * time.Second, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if !strings.HasPrefix(r.URL.String(), b.provider.Issuer+"/") {
			back = r.URL
			return http.ErrUseLastResponse
		}
		return nil
	}}
	fields := url.Values(nil) // none: the first page
	for range 6 {
		var resp *http.Response
		var err error
		if fields == nil {
			resp, err = c.Get(address) //nolint:noctx // it has a timeout
		} else {
			resp, err = c.PostForm(address, fields) //nolint:noctx // it has a timeout
		}
		if err != nil {
			t.Fatal(err)
		}
		page, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if back != nil {
			return back, asked
		}
		action := form.FindSubmatch(page)
		if action == nil {
			t.Fatalf("the provider shows no form: %s: %s", resp.Status, page)
		}
		next, err := resp.Request.URL.Parse(string(action[1]))
		if err != nil {
			t.Fatal(err)
		}
		address = next.String()
		if strings.Contains(string(page), `name="login"`) {
			asked = true
			fields = url.Values{"prompt": {"login"}, "login": {person}, "password": {"any"}}
		} else {
			fields = url.Values{"prompt": {"consent"}}
		}
	}
	t.Fatal("the provider does not send the browser back")
	return nil, false
}
