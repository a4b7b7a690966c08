package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// door is queued credentials with one turn, at which each answer takes a second.
type door struct {
	queued
	client        *tls.Config
	now, most, in atomic.Int32 // answered now, at most, and ever
}

func newDoor(t *testing.T, stop <-chan struct{}) *door {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"door"}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	d := &door{client: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool(), ServerName: "door", NextProtos: []string{"h2"}}}
	d.client.RootCAs.AddCert(cert)
	d.queued = newQueued(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			d.in.Add(1)
			d.most.Store(max(d.most.Load(), d.now.Add(1)))
			time.Sleep(time.Second)
			d.now.Add(-1)
			return nil, nil //nolint:nilnil // as it is
		}}, newTurns(1, stop))
	return d
}

// knock begins a handshake, of which the server's end comes through the channel.
func (d *door) knock(t *testing.T) (peer net.Conn, served <-chan error) {
	t.Helper()
	peer, mine := net.Pipe()
	check(t, mine.SetDeadline(time.Now().Add(handshakeTimeout)))
	c := make(chan error, 1)
	go func() {
		conn, _, err := d.ServerHandshake(mine)
		if err == nil { // still a connection that works
			_, err = conn.Write([]byte("welcome"))
		}
		c <- err
		_ = mine.Close()
	}()
	t.Cleanup(func() { _ = peer.Close() })
	return peer, c
}

// enter is the client's side.
func (d *door) enter(peer net.Conn) error {
	conn := tls.Client(peer, d.client)
	if err := conn.Handshake(); err != nil {
		return err
	}
	_, err := conn.Read(make([]byte, 7))
	return err
}

// hello is how a handshake begins.
func (d *door) hello(t *testing.T) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(ours, d.client).Handshake()
	}()
	b := make([]byte, 4096)
	n, err := theirs.Read(b)
	check(t, err)
	check(t, theirs.Close())
	<-done
	return b[:n]
}

// Between two answers there is a rest.
func TestHandshakesTakeTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, nil)
		const crowd = 60 // the last waits for longer than a handshake may take
		began, results := time.Now(), make(chan error, 2*crowd)
		for range crowd {
			peer, served := d.knock(t)
			go func() { results <- d.enter(peer) }()
			go func() { results <- <-served }()
		}
		for range 2 * crowd {
			check(t, <-results)
		}
		if d.most.Load() != 1 || time.Since(began) != crowd*time.Second+(crowd-1)*restMax {
			t.Errorf("%d at a time, %s", d.most.Load(), time.Since(began))
		}
	})
}

// Peers that say nothing, or stop in the middle, have no turn while they are silent, and
// are let go after their time.
func TestSilentPeersKeepNobodyWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, nil)
		began := time.Now()
		_, silent := d.knock(t)
		half, stopped := d.knock(t)
		_, err := half.Write(d.hello(t))
		check(t, err)
		synctest.Wait() // it has its turn
		peer, served := d.knock(t)
		check(t, d.enter(peer))
		check(t, <-served)
		if took := time.Since(began); took != 2*time.Second+restMax {
			t.Errorf("waited %s", took)
		}
		for _, c := range []<-chan error{silent, stopped} {
			if err := <-c; err == nil {
				t.Error("let in without a word")
			}
		}
		if took := time.Since(began); took > handshakeTimeout {
			t.Errorf("kept silent peers for %s", took)
		}
	})
}

// Who gives up while it waits has cost no turn, and leaves at once.
func TestAbandonedHandshakesAreNotBegun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, nil)
		hello := d.hello(t)
		first, served := d.knock(t)
		entered := make(chan error, 1)
		go func() { entered <- d.enter(first) }()
		synctest.Wait() // it has its turn
		peer, abandoned := d.knock(t)
		_, err := peer.Write(hello)
		check(t, err)
		synctest.Wait() // it is in the queue
		began := time.Now()
		check(t, peer.Close())
		if err := <-abandoned; err == nil || time.Since(began) != 0 {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		check(t, <-entered)
		check(t, <-served)
		if n := d.in.Load(); n != 1 {
			t.Errorf("%d handshakes were begun", n)
		}
	})
}

// A server that stops does not let its queue in first.
func TestTheQueueEndsWithTheServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		d := newDoor(t, stop)
		hello := d.hello(t)
		d.turns.begin <- struct{}{} // a turn that does not end
		peer, served := d.knock(t)
		_, err := peer.Write(hello)
		check(t, err)
		synctest.Wait()
		close(stop)
		if err := <-served; err == nil {
			t.Error("let in")
		}
	})
}
