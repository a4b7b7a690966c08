package sink

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// sender brings a batch to a sink. It returns nil only when the sink has all of it; after
// an error it may have some of it, and gets it again.
type sender interface {
	send(ctx context.Context, batch []*audit.Entry) error
}

func (d *Delivery) sender(s *Sink) sender {
	switch s.Kind {
	case Syslog:
		return &syslogSender{sink: s, frame: func(e *audit.Entry) ([]byte, error) { return syslogFrame(d.Node, e) }}
	case CEF:
		return &syslogSender{sink: s, frame: func(e *audit.Entry) ([]byte, error) { return cefFrame(d.Node, e) }}
	case HTTPS:
		return newHTTPSSender(s)
	default:
		return &fileSender{dir: d.Dir, name: s.File}
	}
}

const (
	dialLimit    = 10 * time.Second
	farewell     = 15 * time.Second // for the receiver to read what was sent
	maxResponse  = 64 << 10
	jsonLineType = "application/x-ndjson"
)

// local addresses lead into this machine or to its neighbours, such as a cloud's metadata
// service: a URL that an administrator was talked into must not reach them by accident.
func local(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast()
}

// dialer refuses local addresses after names are resolved, so that no name leads there.
func (s *Sink) dialer() *net.Dialer {
	return &net.Dialer{Timeout: dialLimit, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return err
		}
		if !s.AllowLocal && local(at.Addr()) {
			return errors.New("loopback and link-local addresses are not dialled unless the sink allows it")
		}
		return nil
	}}
}

func (s *Sink) tls() *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AppendCertsFromPEM([]byte(s.CA))
	}
	return c
}

// lines are records as they are exported.
func lines(batch []*audit.Entry) ([]byte, error) {
	var out []byte
	for _, e := range batch {
		line, err := auditchain.Encode(e)
		if err != nil {
			return nil, err
		}
		out = append(out, line...)
	}
	return out, nil
}

// syslogSender makes one connection for each batch. Syslog has no acknowledgement, but a
// receiver that gets a TLS close_notify must answer it with its own (RFC 5425 section 4.4),
// and can do so only when it has read everything before it: that answer is awaited.
type syslogSender struct {
	sink  *Sink
	frame func(e *audit.Entry) ([]byte, error)
}

func (s *syslogSender) send(ctx context.Context, batch []*audit.Entry) error {
	var out []byte
	for _, e := range batch {
		f, err := s.frame(e)
		if err != nil {
			return err
		}
		out = append(out, f...)
	}
	d := tls.Dialer{NetDialer: s.sink.dialer(), Config: s.sink.tls()}
	raw, err := d.DialContext(ctx, "tcp", s.sink.Address)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	conn := raw.(*tls.Conn)
	if _, err := conn.Write(out); err != nil {
		return err
	}
	if err := conn.CloseWrite(); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(farewell))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		return fmt.Errorf("the receiver did not confirm that it read everything (RFC 5425 section 4.4): %w", err)
	}
	return nil
}

// httpsSender posts batches, signed as Standard Webhooks say. The same batch has the same
// webhook-id each time, by which a receiver knows it again.
type httpsSender struct {
	sink   *Sink
	client *http.Client
}

func newHTTPSSender(s *Sink) *httpsSender {
	return &httpsSender{sink: s, client: &http.Client{
		Transport: &http.Transport{DialContext: s.dialer().DialContext, TLSClientConfig: s.tls(), TLSHandshakeTimeout: dialLimit,
			DisableKeepAlives: true, MaxResponseHeaderBytes: maxResponse},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // who is trusted is who was named
	}}
}

func (s *httpsSender) send(ctx context.Context, batch []*audit.Entry) error {
	body, err := lines(batch)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.sink.URL, bytes.NewReader(body))
	if err != nil {
		return err
	}
	id := fmt.Sprintf("reeve-%s-%d-%d-%.16s", s.sink.Name, batch[0].Sequence, batch[len(batch)-1].Sequence, batch[len(batch)-1].Hash)
	at := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", jsonLineType)
	req.Header.Set("User-Agent", "reeve/"+reeve.Version)
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", at)
	req.Header.Set("Webhook-Signature", sign(s.sink.Secret, id, at, body))
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.CopyN(io.Discard, resp.Body, maxResponse)
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the receiver answered %d, not 2xx; redirects are not followed", resp.StatusCode)
	}
	return nil
}

// sign is the Standard Webhooks signature, version 1.
func sign(key []byte, id, at string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// fileSender appends to a file in a directory that no caller chooses (CVE-2025-6000). It
// opens it for each batch, so it may be moved away at any time.
type fileSender struct{ dir, name string }

func (s *fileSender) send(_ context.Context, batch []*audit.Entry) (err error) {
	body, err := lines(batch)
	if err != nil {
		return err
	}
	f, err := s.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if n := st.Size(); n > 0 { // what a full disk cut off ends its line
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, n-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			body = append([]byte{'\n'}, body...)
		}
	}
	if _, err := f.Write(body); err != nil {
		return err
	}
	return f.Sync()
}

// open opens the file, which must be one, and makes it and its directory if need be.
func (s *fileSender) open() (_ *os.File, err error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.OpenRoot(s.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	f, err := dir.OpenFile(s.name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", s.name)
	}
	if err == nil {
		err = f.Chmod(0o600)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
