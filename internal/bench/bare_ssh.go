package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
)

// bareSSH is x/crypto/ssh with one connection as root, over which all operations go, each with one session at a time;
// plugins/ssh keeps one too.
type bareSSH struct {
	addr, hostKey string
	root          *ssh.Client
}

func newBareSSH(t sdk.Target) (keeper, error) {
	b := &bareSSH{addr: address(t), hostKey: t.Trust.HostKeys[0]}
	var err error
	b.root, err = dialSSH(b.addr, b.hostKey, t.Management.Username, t.Management.Password.Reveal())
	return b, err
}

func address(t sdk.Target) string { return net.JoinHostPort(t.Address, strconv.Itoa(t.Port)) }

func dialSSH(addr, hostKey, user, password string) (*ssh.Client, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(hostKey))
	if err != nil {
		return nil, err
	}
	return ssh.Dial("tcp", addr, &ssh.ClientConfig{User: user,
		Auth: []ssh.AuthMethod{ssh.Password(password)}, HostKeyCallback: ssh.FixedHostKey(key), HostKeyAlgorithms: []string{key.Type()}})
}

func (b *bareSSH) close() error { return b.root.Close() }

// script is one for a Unix host.
type script struct {
	text  string
	input string // a line
	fine  int    // an exit status that is as good as 0
}

func (b *bareSSH) run(c script) (string, error) {
	s, err := b.root.NewSession()
	if err != nil {
		return "", err
	}
	s.Stdin = strings.NewReader(c.input)
	quoted, err := quote.ShArg(unixEnvironment + c.text)
	if err != nil {
		return "", err
	}
	out, err := s.CombinedOutput("exec /bin/sh -c " + quoted) // whatever root's login shell is
	if status, ok := errors.AsType[*ssh.ExitError](err); ok && c.fine != 0 && status.ExitStatus() == c.fine {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", c.text, err, out)
	}
	return string(out), err
}

// The scripts of plugins/ssh and plugins/telnet for a standard user, in their order.

func provisionUnix(a *account) []script {
	return []script{
		{text: "useradd -m -s /bin/bash -c 'reeve " + a.id + " " + comment + "' -- " + a.name},
		{text: `IFS= read -r line && printf '%s\n' "$line" | chpasswd`, input: a.name + ":" + a.password + "\n"},
	}
}

func rotateUnix(a *account, password string) script {
	return script{text: fmt.Sprintf(setPassword, a.name), input: a.name + ":" + password + "\n"}
}

func removeUnix(a *account, uid string) []script {
	return []script{
		{text: "f=/etc/sudoers.d/reeve-" + a.name + `; [ -e "$f" ] || exit 3; rm -f -- "$f"`, fine: 3},
		{text: "usermod -L -e 1 -- " + a.name},
		{text: "pgrep -u " + a.name + " >/dev/null || exit 3; command -v loginctl >/dev/null && loginctl terminate-user " + a.name + " >/dev/null 2>&1; n=0; while pgrep -u " + a.name + " >/dev/null; do " +
			"[ $n -lt 50 ] || exit 75; pkill -KILL -u " + a.name + "; sleep 0.1; n=$((n+1)); done", fine: 3},
		{text: "userdel -r -- " + a.name, fine: 12}, // there is no mail to remove
		{text: "find / -xdev -uid " + uid + " 2>/dev/null | head -n 20"},
	}
}

// change runs commands between two readings of the account. They get the uid that the first one told.
func (b *bareSSH) change(a *account, commands func(uid string) []script) error {
	read := script{text: fmt.Sprintf(readUser, a.name)}
	before, err := b.run(read)
	if err != nil {
		return err
	}
	for _, c := range append(commands(uidOf(before)), read) {
		if _, err := b.run(c); err != nil {
			return err
		}
	}
	return nil
}

// uidOf is the uid that readUser told, if there is an account.
func uidOf(read string) string {
	_, rest, _ := strings.Cut(read, "passwd ")
	if fields := strings.Split(rest, ":"); len(fields) > 2 {
		return fields[2]
	}
	return ""
}

func (b *bareSSH) provision(ctx context.Context, a *account) error {
	if err := b.change(a, func(string) []script { return provisionUnix(a) }); err != nil {
		return err
	}
	return testlab.SSHLogin(ctx, b.addr, a.name, a.password, b.hostKey)
}

func (b *bareSSH) rotate(ctx context.Context, a *account, password string) error {
	if err := b.change(a, func(string) []script { return []script{rotateUnix(a, password)} }); err != nil {
		return err
	}
	return testlab.SSHLogin(ctx, b.addr, a.name, password, b.hostKey)
}

func (b *bareSSH) deprovision(_ context.Context, a *account) error {
	return b.change(a, func(uid string) []script { return removeUnix(a, uid) })
}
