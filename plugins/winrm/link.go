package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// The ways to log in.
const (
	authNTLM  = "ntlm"
	authBasic = "basic"
)

const (
	// maxAnswer bounds one answer of the server. It was asked for 150 KiB, which is its own default.
	maxAnswer    = 1 << 20
	maxHead      = 64 << 10 // for the HTTP head and what encodes the body
	envelopeSize = 153600
	// pollTime is how long the server waits for output, answerTime how long we wait for any answer.
	pollTime   = "PT20S"
	answerTime = 30 * time.Second
)

// link is one connection to a server, over which one operation talks in one login. NTLM logs in connections, not requests: when the
// connection is gone, so is the login, and the operation is over.
type link struct {
	address  string
	url      string
	auth     string
	user     string
	password sdk.Secret
	next     sdk.Secret // what the password is about to become; Basic shows it with every request
	raw      net.Conn   // of TCP
	conn     net.Conn   // what is spoken over: TLS on it, or itself
	left     *io.LimitedReader
	in       *bufio.Reader
	gone     bool
	binding  []byte // of the TLS connection
	loggedIn bool
}

var (
	errGone        = errors.New("the connection is gone")
	errNoChallenge = errors.New("the server offers no NTLM")
)

// dial connects. It does not log in: that is part of the first request.
func dial(ctx context.Context, t sdk.Target, c sdk.Credential) (*link, error) {
	legacy := t.Options[optionLegacy] == "yes"
	l := &link{
		address:  net.JoinHostPort(t.Address, strconv.Itoa(t.Port)),
		auth:     t.Options[optionAuth],
		user:     c.Username,
		password: c.Password,
	}
	if c.Password.Empty() {
		return nil, sdk.Errorf(sdk.ClassInvalid, "%s has no password to log in with", c.Username).WithFix("give it a password; keys are not understood")
	}
	if legacy && l.auth == authBasic {
		return nil, sdk.Errorf(sdk.ClassInvalid, "without TLS, basic would send the password itself over the network").
			WithFix("set the option %s to %s, or %s to no", optionAuth, authNTLM, optionLegacy)
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.address)
	if err != nil {
		return nil, failure(ctx, "connect to "+l.address, err, false)
	}
	scheme, conn := "http", raw
	if !legacy {
		scheme = "https"
		if conn, err = l.secure(ctx, t, raw); err != nil {
			_ = raw.Close()
			return nil, err
		}
	}
	l.url = (&url.URL{Scheme: scheme, Host: l.address, Path: "/wsman"}).String()
	l.raw, l.conn = raw, conn
	l.left = &io.LimitedReader{R: conn}
	l.in = bufio.NewReader(l.left)
	return l, nil
}

// secure wraps the connection in TLS and checks who is at the other end.
func (l *link) secure(ctx context.Context, t sdk.Target, conn net.Conn) (net.Conn, error) {
	cfg, err := cert.Config(t)
	if err != nil {
		return nil, err
	}
	cfg.NextProtos = []string{"http/1.1"}
	c := tls.Client(conn, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, refused(ctx, l.address, t.Trust, err)
	}
	l.binding = channelBinding(c.ConnectionState().PeerCertificates[0])
	return c, nil
}

// close hangs up. TLS is not told: that could block.
func (l *link) close() {
	l.gone = true
	_ = l.raw.Close()
}

// reply is one HTTP answer, read whole.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// post sends one message, and logs in first if that has not been done. sent says that a change may be under way.
func (l *link) post(ctx context.Context, what, message string, sent bool) (*envelope, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	r, err := l.authorized(ctx, message)
	if err != nil {
		if sdk.ClassOf(err) != sdk.ClassInternal {
			return nil, err
		}
		return nil, failure(ctx, what, err, sent)
	}
	return l.read(what, r, sent)
}

// read makes an envelope of an answer.
func (l *link) read(what string, r *reply, sent bool) (*envelope, error) {
	if sent && r.status != http.StatusOK && r.status != http.StatusInternalServerError {
		return nil, strange(what, true, "%s answered with HTTP status %d", l.address, r.status)
	}
	switch r.status {
	case http.StatusOK, http.StatusInternalServerError: // faults come with 500
	case http.StatusUnauthorized:
		return nil, sdk.Errorf(sdk.ClassAuthFailed, "%s refused the login of %s", l.address, l.user).WithFix("%s", loginFix)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return nil, sdk.Errorf(sdk.ClassBusy, "%s: WinRM on %s is too busy (HTTP status %d)", what, l.address, r.status).WithFix("%s", waitFix)
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return nil, sdk.Errorf(sdk.ClassUnsupported, "%s is no WinRM service (HTTP status %d)", l.address, r.status).
			WithFix("check the port: WinRM has 5986 with TLS")
	default:
		return nil, strange(what, false, "%s answered with HTTP status %d", l.address, r.status)
	}
	if len(r.body) == 0 && r.status != http.StatusOK && l.binding == nil && !sent { // how WinRM refuses plain messages
		return nil, sdk.Errorf(sdk.ClassUnsupported, "%s does not take messages that nothing protects", l.address).
			WithFix("make an HTTPS listener for WinRM and set the option %s to no; or, worse, set WSMan:\\localhost\\Service\\AllowUnencrypted to true",
				optionLegacy)
	}
	if !strings.HasPrefix(r.header.Get("Content-Type"), "application/soap+xml") {
		return nil, strange(what, sent, "%s gave an answer that is no SOAP message", l.address)
	}
	e, err := parseEnvelope(r.body)
	if err != nil {
		return nil, strange(what, sent, "%s gave an answer that cannot be read", l.address)
	}
	return e, nil
}

// authorized sends a message as somebody who is logged in.
func (l *link) authorized(ctx context.Context, message string) (*reply, error) {
	if l.auth == authBasic {
		r, err := l.basic(ctx, message)
		if err == nil && r.status == http.StatusUnauthorized && !l.next.Empty() {
			l.password, l.next = l.next, sdk.Secret{}
			r, err = l.basic(ctx, message)
		}
		return r, err
	}
	if l.loggedIn {
		return l.send(ctx, message, "")
	}
	first, err := negotiate()
	if err != nil {
		return nil, err
	}
	r, err := l.send(ctx, message, "Negotiate "+base64.StdEncoding.EncodeToString(first))
	if err != nil || r.status != http.StatusUnauthorized {
		return r, err
	}
	challenge, err := challengeOf(r.header)
	if errors.Is(err, errNoChallenge) {
		return nil, sdk.Errorf(sdk.ClassUnsupported, "%s does not let anybody log in with NTLM", l.address).
			WithFix("on the server set WSMan:\\localhost\\Service\\Auth\\Negotiate to true").Wrap(err)
	}
	var proof []byte
	if err == nil {
		proof, err = authenticate(challenge, l.binding, l.user, l.password.Reveal())
	}
	if err != nil {
		return nil, sdk.Errorf(sdk.ClassProtocol, "%s gave an NTLM challenge that cannot be answered", l.address).WithFix("%s", strangeFix).Wrap(err)
	}
	r, err = l.send(ctx, message, "Negotiate "+base64.StdEncoding.EncodeToString(proof))
	l.loggedIn = err == nil && r.status != http.StatusUnauthorized
	return r, err
}

func (l *link) basic(ctx context.Context, message string) (*reply, error) {
	return l.send(ctx, message, "Basic "+base64.StdEncoding.EncodeToString([]byte(l.user+":"+l.password.Reveal())))
}

// challengeOf finds the challenge among the ways to log in that a server offers.
func challengeOf(h http.Header) ([]byte, error) {
	for _, offer := range h.Values("Www-Authenticate") {
		if scheme, token, ok := strings.Cut(offer, " "); ok && strings.EqualFold(scheme, "Negotiate") {
			return base64.StdEncoding.DecodeString(strings.TrimSpace(token))
		}
	}
	return nil, errNoChallenge
}

// send is one HTTP exchange. After an error the connection is gone. The client of net/http is not used: it may give a connection up
// between two requests for reasons of its own, and with it the login.
func (l *link) send(ctx context.Context, message, authorization string) (r *reply, err error) {
	if l.gone {
		return nil, errGone
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, l.url, strings.NewReader(message))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/soap+xml;charset=UTF-8")
	req.Header.Set("User-Agent", "reeve")
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	hangUp := context.AfterFunc(ctx, func() { _ = l.raw.Close() })
	defer func() {
		if !hangUp() || err != nil {
			l.close()
		}
	}()
	l.left.N = maxAnswer + maxHead
	if err := req.Write(l.conn); err != nil {
		return nil, err
	}
	res, err := http.ReadResponse(l.in, req)
	if err != nil {
		return nil, l.cut(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, l.cut(err)
	}
	if len(body) > maxAnswer {
		return nil, errTooLarge
	}
	if res.Close {
		l.close()
	}
	return &reply{res.StatusCode, res.Header, body}, nil
}

// cut says why an answer could not be read to its end.
func (l *link) cut(err error) error {
	_, network := errors.AsType[net.Error](err)
	switch {
	case l.left.N <= 0:
		return errTooLarge
	case network, errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return err
	default:
		return errors.Join(errNotHTTP, err)
	}
}
