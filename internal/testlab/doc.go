//go:build linux

// Package testlab starts real target systems on this machine: Linux hosts with a
// real sshd, MariaDB and PostgreSQL servers with TLS, Samba domain controllers, rsyslog, and networks that can be cut. Tests and the
// demo use it; the product never imports it.
//
// A [Lab] owns what it starts. Tests take the short way, which opens a lab, stops it
// with the test and obeys REEVE_LAB:
//
//	host := testlab.SSHHost(t, testlab.HostOptions{Accounts: []testlab.HostAccount{{Name: "root", Password: "…"}}})
//	db := testlab.MariaDB(t, testlab.MariaDBOptions{})
//	network := testlab.Net(t)
//
// Every server is process 1 of its own pid, mount and ipc namespaces and dies with
// the thread that started it (PDEATHSIG), so a killed test binary leaves no process,
// mount, namespace or shared memory behind. What it leaves is a directory under
// /dev/shm, which the next lab removes. Each server gets a loopback address of its
// own and listens on its standard port.
//
// Its methods answer from outside the protocol under test, from the target's own
// files and tables, so that a test need not believe what the product says.
package testlab
