//go:build linux

package testlab

import (
	"context"
	"testing"
)

// New opens a lab for one test and closes it with the test.
func New(t testing.TB) *Lab {
	t.Helper()
	demand(t, namespaces)
	l, err := Open(context.WithoutCancel(t.Context()), "") // a test's own cleanups still find the servers
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the lab: %v", err)
		}
	})
	return l
}

// SSHHost starts a host that stops with the test.
func SSHHost(t testing.TB, opts HostOptions) *Host {
	t.Helper()
	return NewHost(t, New(t), opts)
}

// NewHost starts a host in a lab the test already has.
func NewHost(t testing.TB, l *Lab, opts HostOptions) *Host {
	t.Helper()
	demand(t, overlay, sshd, sudo)
	if opts.Telnet {
		demand(t, telnetd, activate)
	}
	h, err := l.SSHHost(opts)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	showLog(t, h.srv)
	return h
}

// Require obeys REEVE_LAB for tests that share a lab of hosts and databases, which
// outlives each of them.
func Require(t testing.TB) {
	t.Helper()
	demand(t, namespaces, overlay, sshd, sudo, mariadb)
}

// demand obeys REEVE_LAB. A machine that has everything and on which a server does
// not start is a failure under every policy but "off".
func demand(t testing.TB, needs ...need) {
	t.Helper()
	if policy() == "off" {
		t.Skip("REEVE_LAB=off")
	}
	for _, n := range needs {
		c := n.check()
		if c.OK {
			continue
		}
		if policy() == "require" {
			t.Fatalf("the lab needs %s: %s\nfix: %s", c.Name, c.Detail, c.Fix)
		}
		t.Skipf("the lab needs %s: %s\nfix: %s", c.Name, c.Detail, c.Fix)
	}
}

// showLog prints the end of a server's log if the test fails.
func showLog(t testing.TB, s *server) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", s.name, s.tail())
		}
	})
}

// MariaDB starts a server that stops with the test.
func MariaDB(t testing.TB, opts MariaDBOptions) *Database {
	t.Helper()
	return NewMariaDB(t, New(t), opts)
}

// NewMariaDB starts a server in a lab the test already has.
func NewMariaDB(t testing.TB, l *Lab, opts MariaDBOptions) *Database {
	t.Helper()
	demand(t, mariadb)
	d, err := l.MariaDB(opts)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	showLog(t, d.srv)
	return d
}

// Slapd starts an OpenLDAP server that stops with the test.
func Slapd(t testing.TB) *OpenLDAP {
	t.Helper()
	demand(t, namespaces, slapd)
	d, err := New(t).Slapd()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	showLog(t, d.srv)
	return d
}

// Browser starts a Chromium that stops with the test.
func Browser(t testing.TB, opts ChromiumOptions) *Chromium {
	t.Helper()
	demand(t, namespaces, chromium)
	b, err := New(t).Chromium(opts)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	showLog(t, b.srv)
	return b
}

// SambaAD starts a domain controller that stops with the test.
func SambaAD(t testing.TB, opts SambaOptions) *DomainController {
	t.Helper()
	return NewSambaAD(t, New(t), opts)
}

// NewSambaAD starts a domain controller in a lab the test already has.
func NewSambaAD(t testing.TB, l *Lab, opts SambaOptions) *DomainController {
	t.Helper()
	demand(t, samba)
	d, err := l.SambaAD(opts)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	showLog(t, d.srv)
	return d
}

// Postgres starts a server that stops with the test.
func Postgres(t testing.TB, opts PostgresOptions) *PostgresServer {
	t.Helper()
	l := New(t)
	demand(t, postgres)
	p, err := l.Postgres(opts)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	showLog(t, p.srv)
	return p
}

// NewSyslog starts a syslog server in a lab the test already has.
func NewSyslog(t testing.TB, l *Lab) *SyslogServer {
	t.Helper()
	demand(t, rsyslog)
	s, err := l.Syslog()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	showLog(t, s.srv)
	return s
}

// Net makes a network with a node for each name; it ends with the test.
func Net(t testing.TB, names ...string) *Network {
	t.Helper()
	return NewNet(t, New(t), names...)
}

// NewNet makes a network in a lab the test already has.
func NewNet(t testing.TB, l *Lab, names ...string) *Network {
	t.Helper()
	demand(t, ip, nft)
	n, err := l.Network(names...)
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	return n
}

// NewDisk mounts a disk in a lab the test already has. The processes on it are stopped
// before the lab is closed.
func NewDisk(t testing.TB, l *Lab) *Disk {
	t.Helper()
	demand(t, fuseDevice)
	d, err := l.Disk()
	if err != nil {
		t.Fatalf("lab: %v", err)
	}
	return d
}
