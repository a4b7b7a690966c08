package directory

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"

	"github.com/go-ldap/ldap/v3"
)

// mostBytes is what a directory may send in answer to one question: it is not trusted to
// stop by itself.
const mostBytes = 16 << 20

// bounded is a connection that ends after so many bytes.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooMuch
	}
	if len(p) > b.left {
		p = p[:b.left]
	}
	n, err := b.Conn.Read(p)
	b.left -= n
	return n, err
}

var errTooMuch = errors.New("the directory sends too much")

// dial connects, verifies the certificate and sends nothing that is secret. The end of ctx
// ends the connection, and with it whatever waits for an answer: the driver knows no
// contexts. The caller calls hangUp.
func dial(ctx context.Context, d *Directory) (conn *ldap.Conn, hangUp func(), err error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", d.Address)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	hangUp = func() {
		stop()
		_ = raw.Close() // nothing is owed to the server
		if conn != nil {
			_ = conn.Close()
		}
	}
	host, _, _ := net.SplitHostPort(d.Address)
	roots := x509.NewCertPool() // empty: nothing verifies
	roots.AppendCertsFromPEM([]byte(d.CA))
	conf := &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12}
	var link net.Conn = &bounded{raw, mostBytes}
	if d.StartTLS {
		conn = ldap.NewConn(link, false)
		conn.Start()
		err = conn.StartTLS(conf)
	} else {
		secured := tls.Client(link, conf)
		if err = secured.HandshakeContext(ctx); err == nil {
			conn = ldap.NewConn(secured, true)
			conn.Start()
		}
	}
	if err == nil {
		if _, secure := conn.TLSConnectionState(); !secure {
			err = io.ErrUnexpectedEOF // nothing is sent in clear, whatever the driver thinks
		}
	}
	if err != nil {
		hangUp()
		return nil, nil, err
	}
	return conn, hangUp, nil
}
