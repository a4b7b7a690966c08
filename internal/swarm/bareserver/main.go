// Command bareserver is the floor of internal/swarm: a gRPC server with mutual TLS whose
// only call is a stream that echoes one message and then idles. It prints where it
// listens and what a client needs, as one line of JSON, and serves until its input ends.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/emptypb"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "bareserver:", err)
		os.Exit(1)
	}
}

// ticket is what a client needs.
type ticket struct {
	Address string `json:"address"`
	CA      []byte `json:"ca"`   // DER
	Cert    []byte `json:"cert"` // DER
	Key     []byte `json:"key"`  // SEC 1; good for this server alone
}

func serve() error {
	ca, caKey, err := issue(nil, nil)
	if err != nil {
		return err
	}
	cert, key, err := issue(ca, caKey)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at start
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
			Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}})),
		grpc.UnknownServiceHandler(func(_ any, st grpc.ServerStream) error {
			for {
				m := &emptypb.Empty{}
				if err := st.RecvMsg(m); err != nil {
					return nil //nolint:nilerr // the client has left
				}
				if err := st.SendMsg(m); err != nil {
					return err
				}
			}
		}))
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	t := ticket{Address: l.Addr().String(), CA: ca.Raw, Cert: cert.Raw, Key: der}
	if err := json.NewEncoder(os.Stdout).Encode(t); err != nil {
		return err
	}
	return server.Serve(l)
}

// issue makes an authority, or with one a certificate for both ends.
func issue(ca *x509.Certificate, caKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bare"}, NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ca == nil {
		template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign
		ca, caKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return cert, key, err
}
