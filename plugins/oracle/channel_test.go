package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// packet is a TNS packet with a length of two bytes.
func packet(kind, flags byte, body ...byte) []byte {
	n := packetHead + len(body)
	return append([]byte{byte(n >> 8), byte(n), 0, 0, kind, flags, 0, 0}, body...) //nolint:gosec // short
}

func wide(kind, flags byte, body ...byte) []byte {
	p := packet(kind, flags, body...)
	return append([]byte{0, 0, p[0], p[1]}, p[4:]...)
}

type half struct{ io.Reader }

func (half) Write(p []byte) (int, error) { return len(p), nil }

func read(stream []byte) ([]byte, error) {
	return io.ReadAll(&channel{inner: half{bytes.NewReader(stream)}})
}

func TestChannelPassesPacketsOnAsTheyCome(t *testing.T) {
	t.Parallel()
	for name, stream := range map[string][]byte{
		"empty":     {},
		"narrow":    append(packet(packetData, 0, 0, 0, 'a'), packet(packetData, 0)...),
		"wide":      append(packet(packetAccept, 0, 1, 61, 0, 0), wide(packetData, 0, 0, 0, 'a')...),
		"old":       append(packet(packetAccept, 0, 1, 0x3A, 0, 0), packet(packetData, 0, 0, 0, 'a')...),
		"resend":    packet(packetResend, resendTLS), // without TLS there is nothing to do anew
		"head only": packet(12, 0),
	} {
		if got, err := read(stream); err != nil || !bytes.Equal(got, stream) {
			t.Errorf("%s: % x, %v, want % x", name, got, err, stream)
		}
	}
}

func TestChannelRefusesWhatIsNoPacket(t *testing.T) {
	t.Parallel()
	accept := packet(packetAccept, 0, 1, 61, 0, 0)
	for name, head := range map[string][]byte{
		"zero":     {0, 0, 0, 0, packetData, 0, 0, 0},
		"too wide": append(bytes.Clone(accept), 0x7F, 0xFF, 0xFF, 0xFF, packetData, 0, 0, 0),
		"negative": append(bytes.Clone(accept), 0xFF, 0xFF, 0xFF, 0xFF, packetData, 0, 0, 0),
		"no kind":  packet(0, 0),
		"no such":  packet('/', 0),
		"seven":    append(bytes.Clone(accept), 0, 0, 0, 7, packetData, 0, 0, 0),
	} {
		if _, err := read(head); !errors.Is(err, errPacket) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzChannel(f *testing.F) {
	f.Add(packet(packetData, 0, 0, 0, 'a'))
	f.Add(append(packet(packetAccept, 0, 1, 61, 0, 0), wide(packetData, 0x80, 0x80, 0, 'a')...))
	f.Add([]byte{0, 9, 0, 0, packetAccept, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, stream []byte) {
		got, err := read(stream)
		if !bytes.HasPrefix(stream, got) {
			t.Errorf("% x became % x", stream, got)
		}
		if err == nil && len(got) != len(stream) {
			t.Errorf("%d of %d bytes came through", len(got), len(stream))
		}
	})
}

// A listener that hands a connection over asks for a second handshake, which is verified like the first.
func TestChannelHandshakesAnewWhenTheListenerAsks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		second tls.Certificate
		trusts bool
	}{{"the same server", serverCertificate(t), true}, {"another server", serverCertificate(t), false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			first := serverCertificate(t)
			if c.trusts {
				c.second = first
			}
			roots := x509.NewCertPool()
			roots.AddCert(first.Leaf)
			near, far := net.Pipe()
			defer func() { _ = near.Close() }()
			served := make(chan error, 1)
			go func() { served <- handOver(far, first, c.second) }()
			config := &tls.Config{RootCAs: roots, ServerName: "db", MinVersion: tls.VersionTLS12}
			secure := tls.Client(near, config)
			if err := secure.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			ch := &channel{Conn: near, inner: secure, config: config}
			_, err := ch.Write([]byte("connect"))
			if err == nil {
				_, err = io.ReadFull(ch, make([]byte, packetHead)) // the resend packet
			}
			if err != nil {
				t.Fatal(err)
			}
			_, err = ch.Write([]byte("connect"))
			if _, refused := errors.AsType[*tls.CertificateVerificationError](err); refused == c.trusts {
				t.Fatalf("the second handshake: %v", err)
			}
			_ = near.Close()
			if err := <-served; c.trusts && err != nil {
				t.Errorf("the server: %v", err)
			}
		})
	}
}

// handOver reads a connect packet, asks for another handshake, and reads it again.
func handOver(conn net.Conn, first, second tls.Certificate) error {
	defer func() { _ = conn.Close() }()
	buffer := make([]byte, len("connect"))
	for _, c := range []tls.Certificate{first, second} {
		secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{c}, MinVersion: tls.VersionTLS12})
		if _, err := io.ReadFull(secure, buffer); err != nil {
			return err
		}
		if string(buffer) != "connect" {
			return errors.New("something else came")
		}
		_, err := secure.Write(packet(packetResend, resendTLS))
		if err != nil {
			return nil //nolint:nilerr // after the second time nobody reads
		}
	}
	return nil
}

func serverCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"db"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}
