//go:build linux

package testlab

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// SyslogServer is a running rsyslog that takes messages over TLS (RFC 5425).
type SyslogServer struct {
	Addr  string // host:port
	CAPEM string // the certificate authority of its TLS certificate

	srv *server
	dir string
}

// SyslogMessage is a message as rsyslog understood it.
type SyslogMessage struct {
	Host       string `json:"host"`
	App        string `json:"app"`
	Severity   string `json:"severity"`
	Facility   string `json:"facility"`
	ID         string `json:"id"`
	Structured string `json:"structured"`
	Message    string `json:"message"`
}

const syslogConfig = `global(workDirectory="%[1]s" net.enableDNS="off" maxMessageSize="1m"
 defaultNetstreamDriver="ossl" defaultNetstreamDriverCAFile="%[1]s/ca.pem"
 defaultNetstreamDriverCertFile="%[1]s/server.pem" defaultNetstreamDriverKeyFile="%[1]s/server.key")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="anon")
input(type="imtcp" address="%[2]s" port="6514")
template(name="j" type="list" option.jsonf="on") {
 property(outname="host" name="hostname" format="jsonf")
 property(outname="app" name="app-name" format="jsonf")
 property(outname="severity" name="syslogseverity-text" format="jsonf")
 property(outname="facility" name="syslogfacility-text" format="jsonf")
 property(outname="id" name="msgid" format="jsonf")
 property(outname="structured" name="structured-data" format="jsonf")
 property(outname="message" name="msg" format="jsonf") }
action(type="omfile" file="%[1]s/out.json" template="j")
`

// Syslog starts a server and returns once it answers.
func (l *Lab) Syslog() (*SyslogServer, error) {
	ip, err := l.address()
	if err != nil {
		return nil, err
	}
	s := &SyslogServer{Addr: net.JoinHostPort(ip, "6514")}
	if s.dir, err = l.mkdir("syslog"); err != nil {
		return nil, err
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	if err := ca.issue(s.dir, ip); err != nil {
		return nil, err
	}
	s.CAPEM = string(ca.pem)
	if err := os.WriteFile(s.dir+"/rsyslog.conf", fmt.Appendf(nil, syslogConfig, s.dir, ip), 0o600); err != nil {
		return nil, err
	}
	s.srv = newServer(l, "rsyslog "+ip, s.dir, nil)
	if err := s.Start(); err != nil {
		return nil, err
	}
	return s, l.onClose(s.srv.kill)
}

// Start starts the server again after Stop.
func (s *SyslogServer) Start() error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(s.CAPEM))
	cmd := exec.CommandContext(s.srv.ctx, "rsyslogd", "-n", "-f", s.dir+"/rsyslog.conf", "-i", "NONE") //nolint:gosec // own paths
	cmd.Env = []string{path}
	return s.srv.start(cmd, hostNamespaces, func(ctx context.Context) error {
		c, err := (&tls.Dialer{Config: &tls.Config{RootCAs: pool}}).DialContext(ctx, "tcp", s.Addr) //nolint:gosec // 1.2 by default
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// Stop ends the server in order: what it has read, it writes.
func (s *SyslogServer) Stop() error {
	if err := s.srv.signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.srv.exited():
		return nil
	case <-time.After(startLimit):
		s.srv.kill()
		return errors.New("rsyslog did not end")
	}
}

// Received is everything the server has written, in the order of its arrival.
func (s *SyslogServer) Received() (all []SyslogMessage, err error) {
	raw, err := os.ReadFile(s.dir + "/out.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for dec := json.NewDecoder(bytes.NewReader(raw)); err == nil && dec.More(); {
		var m SyslogMessage
		if err = dec.Decode(&m); err == nil {
			all = append(all, m)
		}
	}
	return all, err
}
