//go:build linux

package testlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"golang.org/x/crypto/ssh"
)

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// ErrRefused is in the error of a login that the server refused, as opposed to one
// that could not be tried.
var ErrRefused = errors.New("login refused")

// SSHLogin tries one password login with the bare SSH client and nothing of the
// product's, and runs "id -un" in it. addr is "ip:port", hostKey an authorized_keys
// line. A refused password is ErrRefused.
func SSHLogin(ctx context.Context, addr, user, password, hostKey string) error {
	return login(ctx, new(net.Dialer).DialContext, addr, user, password, hostKey)
}

func login(ctx context.Context, dial dialFunc, addr, user, password, hostKey string) error {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(hostKey))
	if err != nil {
		return fmt.Errorf("host key: %w", err)
	}
	offered := false
	client, err := connect(ctx, dial, addr, &ssh.ClientConfig{
		User:              user,
		HostKeyCallback:   ssh.FixedHostKey(key),
		HostKeyAlgorithms: []string{key.Type()},
		Auth: []ssh.AuthMethod{ssh.PasswordCallback(func() (string, error) {
			offered = true
			return password, nil
		})},
	})
	if err != nil {
		if offered && strings.Contains(err.Error(), "unable to authenticate") { // x/crypto/ssh has no error value for it
			return fmt.Errorf("%w: %s", ErrRefused, user)
		}
		return err
	}
	defer func() { _ = client.Close() }()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	out, err := session.CombinedOutput("id -un")
	if err != nil { // an expired password, a shell that refuses
		return fmt.Errorf("%w: %s: %w: %s", ErrRefused, user, err, out)
	}
	if got := strings.TrimSpace(string(out)); got != user {
		return fmt.Errorf("logged in as %q, not %q", got, user)
	}
	return nil
}

// connect opens a connection that ctx ends.
func connect(ctx context.Context, dial dialFunc, addr string, config *ssh.ClientConfig) (*ssh.Client, error) {
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c, chans, reqs, err := ssh.NewClientConn(conn, addr, config)
	if err != nil {
		stop()
		_ = conn.Close()
		return nil, err
	}
	return ssh.NewClient(c, chans, reqs), nil
}

// presentedKey asks a server for its host key without logging in.
func presentedKey(ctx context.Context, dial dialFunc, addr string) (string, error) {
	var key ssh.PublicKey
	enough := errors.New("seen")
	_, err := connect(ctx, dial, addr, &ssh.ClientConfig{
		User: "nobody",
		HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			key = k
			return enough
		},
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if key == nil {
		return "", err
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), nil
}
