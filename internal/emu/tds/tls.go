package tds

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"
)

// certificate makes a server certificate for localhost and 127.0.0.1, and the authority that
// signed it, as PEM.
func certificate() (tls.Certificate, string, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	from, to := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "emulator authority"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "emulator"}, NotBefore: from, NotAfter: to,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, "", err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	return tls.Certificate{Certificate: [][]byte{der, caDER}, PrivateKey: key}, string(text), nil
}

// wrapped carries the records of a TLS handshake in PRELOGIN packets, until raw is set.
// [MS-TDS] 2.2.6.5
type wrapped struct {
	net.Conn
	raw     bool
	in, out bytes.Buffer
}

func (w *wrapped) Read(p []byte) (int, error) {
	if w.in.Len() > 0 {
		return w.in.Read(p)
	}
	if w.raw {
		return w.Conn.Read(p)
	}
	if err := w.flush(); err != nil {
		return 0, err
	}
	var h [headerLength]byte
	if _, err := io.ReadFull(w.Conn, h[:]); err != nil {
		return 0, err
	}
	if h[0] != packetPrelogin {
		return 0, fmt.Errorf("a packet of type %d in the TLS handshake", h[0])
	}
	n := int64(binary.BigEndian.Uint16(h[2:])) - headerLength
	if _, err := io.CopyN(&w.in, w.Conn, n); err != nil {
		return 0, err
	}
	return w.in.Read(p)
}

func (w *wrapped) Write(p []byte) (int, error) {
	if w.raw {
		return w.Conn.Write(p)
	}
	return w.out.Write(p)
}

func (w *wrapped) flush() error {
	if w.out.Len() == 0 {
		return nil
	}
	p := []byte{packetPrelogin, statusLast, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(p[2:], uint16(headerLength+w.out.Len()))
	_, err := w.Conn.Write(append(p, w.out.Bytes()...))
	w.out.Reset()
	return err
}

// secure finishes the handshake and gives the connection that goes on without packets around it.
func secure(conn net.Conn, config *tls.Config) (net.Conn, error) {
	w := &wrapped{Conn: conn}
	c := tls.Server(w, config)
	if err := c.HandshakeContext(context.Background()); err != nil {
		_ = w.flush() // the alert
		return nil, err
	}
	if err := w.flush(); err != nil {
		return nil, err
	}
	w.raw = true
	return c, nil
}

// peeked is a connection whose first byte was looked at.
type peeked struct {
	net.Conn
	first []byte
}

func (p *peeked) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
