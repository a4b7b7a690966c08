package winrm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options say how the host is set up. The zero value is a server with HTTPS and NTLM.
type Options struct {
	HTTP           bool // no TLS
	Encrypted      bool // with HTTP: messages must be encrypted, which is not modelled (AllowUnencrypted=false)
	Basic          bool // lets people log in with Basic
	NoNegotiate    bool // and not with NTLM
	RequireBinding bool // NTLM needs a channel binding (CbtHardeningLevel=Strict)
	MaxShells      int  // per account; 0: 30
	// LongestWait bounds how long a client may look for output before it is told that there is none yet. 0: as long as it asks for.
	LongestWait time.Duration
	Tolerant    bool // what is not understood does not fail the test
}

// Server is a host at work.
type Server struct {
	Host *Host
	// CAPEM is what clients may trust, and Certificate what they see.
	CAPEM   string
	Address string
	Port    int

	options     Options
	certificate *x509.Certificate
	http        *http.Server
	listener    net.Listener
	done        chan struct{}
	serving     sync.WaitGroup

	mu       sync.Mutex
	troubles map[string]Trouble
	shells   map[string]*shell
	problems []string
	asked    map[string]int
	held     []net.Conn
}

// Trouble is something that goes wrong.
type Trouble string

// The troubles. The place where they happen is "accept", "login" (any request of somebody who is logged in), or the last word of an action:
// Create, Command, Send, Receive, Signal, Delete, Identify.
const (
	None       Trouble = ""
	Hang       Trouble = "hang"           // no answer
	HalfHang   Trouble = "half hang"      // half an answer
	Drop       Trouble = "drop"           // it is done, and the connection ends before the answer
	Empty      Trouble = "empty"          // an answer without a body
	Oversized  Trouble = "oversized"      // an answer without an end
	Malformed  Trouble = "malformed"      // an answer that is no XML
	Unending   Trouble = "unending"       // XML that nobody should read: cut off in the middle
	Other      Trouble = "other"          // an answer to another request
	Endless    Trouble = "endless"        // at Receive: output without an end
	EndlessErr Trouble = "endless errors" // the same on standard error
	Idle       Trouble = "idle"           // at Receive: an answer at once, without output, each time
	Quota      Trouble = "quota"          // the account's quota is used up
	Down       Trouble = "down"           // HTTP 503
)

// Start starts a host that stops with the test. What it did not understand fails the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	if o.MaxShells == 0 {
		o.MaxShells = 30
	}
	s := &Server{
		Host: newHost(), Address: "127.0.0.1", options: o, done: make(chan struct{}),
		troubles: map[string]Trouble{}, shells: map[string]*shell{}, asked: map[string]int{},
	}
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Port = l.Addr().(*net.TCPAddr).Port
	s.listener = &door{l, s}
	if !o.HTTP {
		certificate, err := s.certify()
		if err != nil {
			t.Fatal(err)
		}
		s.listener = tls.NewListener(s.listener, &tls.Config{
			Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		})
	}
	s.http = &http.Server{
		Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: time.Minute, ErrorLog: nil,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connection{}, &login{})
		},
	}
	s.http.ErrorLog = quiet()
	s.serving.Go(func() { _ = s.http.Serve(s.listener) })
	t.Cleanup(func() {
		s.stop()
		if problems := s.Problems(); len(problems) > 0 && !o.Tolerant {
			t.Errorf("the host did not understand: %s", strings.Join(problems, "; "))
		}
	})
	return s
}

func (s *Server) stop() {
	close(s.done)
	_ = s.http.Close()
	s.mu.Lock()
	for _, c := range s.held {
		_ = c.Close()
	}
	for _, sh := range s.shells {
		sh.end()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

// door makes trouble with connections that have just been made.
type door struct {
	net.Listener
	s *Server
}

func (d *door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		switch d.s.trouble("accept") {
		case None:
			return c, nil
		case Hang:
			d.s.mu.Lock()
			d.s.held = append(d.s.held, c)
			d.s.mu.Unlock()
		default:
			_ = c.Close()
		}
	}
}

// Trouble makes everything that happens at a place go wrong from now on, or no more with None.
func (s *Server) Trouble(at string, what Trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubles[at] = what
}

func (s *Server) trouble(at string) Trouble {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.troubles[at]
}

// Problems are what was not understood so far.
func (s *Server) Problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.problems...)
}

func (s *Server) problem(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problems = append(s.problems, fmt.Sprintf(format, args...))
}

// Shells is how many shells are open.
func (s *Server) Shells() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.shells)
}

// EndShells ends every shell, as Windows does with those whose client has been gone for a while.
func (s *Server) EndShells() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, sh := range s.shells {
		sh.end()
		delete(s.shells, id)
	}
}

// Asked is how often an action was asked for.
func (s *Server) Asked(action string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[action]
}

// serve is one HTTP request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "Microsoft-HTTPAPI/2.0")
	if r.URL.Path != "/wsman" {
		http.Error(w, "Not Found", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodPost {
		http.Error(w, "", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 512<<10))
	if err != nil {
		return
	}
	user, ok := s.authenticate(w, r)
	if !ok {
		return
	}
	if s.options.HTTP && s.options.Encrypted {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if len(body) == 0 { // a client that logs in first and talks then
		w.WriteHeader(http.StatusOK)
		return
	}
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/soap+xml") {
		s.problem("content type %q", r.Header.Get("Content-Type"))
		w.WriteHeader(http.StatusUnsupportedMediaType)
		return
	}
	var m request
	if err := xml.Unmarshal(body, &m); err != nil {
		s.problem("a message that is no envelope: %v", err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.asked[m.action()]++
	s.mu.Unlock()
	what := s.trouble("login")
	if what == None {
		what = s.trouble(m.action())
	}
	if what == Hang {
		s.wait(r)
		return
	}
	var a answer
	if what != Quota && what != Down {
		a = s.answer(r.Context(), user, &m)
	}
	s.write(w, r, &m, a, what)
}

// wait holds a request until its client or the host goes away.
func (s *Server) wait(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-s.done:
	}
	panic(http.ErrAbortHandler)
}

// write answers, or makes trouble instead.
func (s *Server) write(w http.ResponseWriter, r *http.Request, m *request, a answer, what Trouble) {
	switch what {
	case Drop:
		panic(http.ErrAbortHandler)
	case Empty:
		a.body = ""
	case Malformed:
		a.body = "<s:Envelope><what"
	case Unending:
		a.body = a.body[:len(a.body)/2]
	case Other:
		a = m.reply("http://schemas.xmlsoap.org/ws/2004/09/enumeration/PullResponse", "")
	case Endless, EndlessErr, Idle:
		a = endless(m, what)
	case Quota:
		a = m.fault(faultQuota, "w:QuotaLimit", "Dieser Benutzer hat die maximale Anzahl gleichzeitiger Shells überschritten.")
	case Down:
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/soap+xml;charset=UTF-8")
	if what == Oversized {
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, a.body)
		for filler := strings.Repeat(" ", 64<<10); ; {
			if _, err := io.WriteString(w, filler); err != nil || r.Context().Err() != nil {
				panic(http.ErrAbortHandler)
			}
		}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(a.status)
	if what == HalfHang {
		_, _ = io.WriteString(w, a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		s.wait(r)
	}
	_, _ = io.WriteString(w, a.body)
}

// endless is a piece of output of a command that goes on, or a piece of nothing.
func endless(m *request, what Trouble) answer {
	id, stream := m.Body.Receive.Desired.Command, ""
	if what != Idle {
		name := map[Trouble]string{Endless: "stdout", EndlessErr: "stderr"}[what]
		stream = `<rsp:Stream Name="` + name + `" CommandId="` + id + `">` + base64.StdEncoding.EncodeToString(make([]byte, 384<<10)) + `</rsp:Stream>`
	}
	return m.reply(nsShell+"/ReceiveResponse", `<rsp:ReceiveResponse>`+stream+
		`<rsp:CommandState CommandId="`+id+`" State="`+nsShell+`/CommandState/Running"/></rsp:ReceiveResponse>`)
}

// certify makes an authority and a certificate from it, as every host has its own.
func (s *Server) certify() (tls.Certificate, error) {
	var none tls.Certificate
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return none, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of " + HostName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caRaw, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return none, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return none, err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: HostName}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		DNSNames: []string{strings.ToLower(HostName), "localhost"}, IPAddresses: []net.IP{net.ParseIP(s.Address)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return none, err
	}
	if s.certificate, err = x509.ParseCertificate(raw); err != nil {
		return none, err
	}
	s.CAPEM = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caRaw}))
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, nil
}
