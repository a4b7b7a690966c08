//go:build linux

package testlab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/go-ldap/ldap/v3"
)

// What every OpenLDAP of the lab has.
const (
	SlapdDN       = "dc=lab,dc=test"
	SlapdPeople   = "ou=people,dc=lab,dc=test"
	SlapdGroups   = "ou=groups,dc=lab,dc=test"
	SlapdSearcher = "cn=searcher,dc=lab,dc=test" // may read everything but passwords
)

// OpenLDAP is a running slapd with memberOf.
type OpenLDAP struct {
	Addr             string // IP address; ports 636 (LDAPS) and 389 (StartTLS)
	CAPEM            string // the certificate authority of its TLS certificate
	SearcherPassword string // of SlapdSearcher

	srv  *server
	dir  string
	root string // password of cn=root,dc=lab,dc=test
}

const slapdConf = `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile DIR/pid
TLSCACertificateFile DIR/ca.pem
TLSCertificateFile DIR/server.pem
TLSCertificateKeyFile DIR/server.key
require authc
database mdb
suffix "dc=lab,dc=test"
rootdn "cn=root,dc=lab,dc=test"
rootpw ROOT
directory DIR/data
maxsize 16777216
dbnosync
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="cn=searcher,dc=lab,dc=test" read by users none by * none
`

// Slapd starts an OpenLDAP server and returns once it answers.
func (l *Lab) Slapd() (*OpenLDAP, error) {
	d := &OpenLDAP{root: newPassword(), SearcherPassword: newPassword()}
	var err error
	if d.Addr, err = l.address(); err != nil {
		return nil, err
	}
	if d.dir, err = l.mkdir("slapd"); err != nil {
		return nil, err
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	if err := ca.issue(d.dir, d.Addr); err != nil {
		return nil, err
	}
	d.CAPEM = string(ca.pem)
	conf := strings.NewReplacer("DIR", d.dir, "ROOT", d.root).Replace(slapdConf)
	if err := os.WriteFile(filepath.Join(d.dir, "slapd.conf"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(d.dir, "data"), 0o700); err != nil {
		return nil, err
	}
	d.srv = newServer(l, "slapd "+d.Addr, d.dir, nil)
	cmd := exec.CommandContext(d.srv.ctx, "slapd", "-d", "0", "-f", d.dir+"/slapd.conf", "-h", "ldap://"+d.Addr+" ldaps://"+d.Addr) //nolint:gosec // own paths
	cmd.Env, cmd.Dir = []string{path, "LC_ALL=C.UTF-8"}, d.dir
	err = d.srv.start(cmd, syscall.CLONE_NEWPID|syscall.CLONE_NEWIPC|syscall.CLONE_NEWNS, func(ctx context.Context) error {
		return d.do(ctx, func(*ldap.Conn) error { return nil })
	})
	if err != nil {
		return nil, err
	}
	for dn, attributes := range map[string]map[string][]string{
		SlapdDN: {"objectClass": {"dcObject", "organization"}, "o": {"Lab"}, "dc": {"lab"}},
	} {
		if err := d.Add(l.ctx, dn, attributes); err != nil {
			return nil, err
		}
	}
	for _, dn := range []string{SlapdPeople, SlapdGroups} {
		if err := d.Add(l.ctx, dn, map[string][]string{"objectClass": {"organizationalUnit"}}); err != nil {
			return nil, err
		}
	}
	if err := d.Add(l.ctx, SlapdSearcher, map[string][]string{"objectClass": {"organizationalRole", "simpleSecurityObject"}, "userPassword": {d.SearcherPassword}}); err != nil {
		return nil, err
	}
	return d, l.onClose(d.srv.kill)
}

// AddPerson adds somebody who signs in by uid.
func (d *OpenLDAP) AddPerson(ctx context.Context, uid, password string) (dn string, err error) {
	dn = "uid=" + ldap.EscapeDN(uid) + "," + SlapdPeople
	return dn, d.Add(ctx, dn, map[string][]string{"objectClass": {"inetOrgPerson"}, "cn": {"The " + uid}, "sn": {uid}, "mail": {"someone@lab.test"}, "userPassword": {password}})
}

// Add adds an entry past the product.
func (d *OpenLDAP) Add(ctx context.Context, dn string, attributes map[string][]string) error {
	add := ldap.NewAddRequest(dn, nil)
	for name, values := range attributes {
		add.Attribute(name, values)
	}
	if err := d.do(ctx, func(c *ldap.Conn) error { return c.Add(add) }); err != nil {
		return fmt.Errorf("add %s: %w", dn, err)
	}
	return nil
}

// Replace sets attributes of an entry past the product.
func (d *OpenLDAP) Replace(ctx context.Context, dn string, attributes map[string][]string) error {
	modify := ldap.NewModifyRequest(dn, nil)
	for name, values := range attributes {
		modify.Replace(name, values)
	}
	return d.do(ctx, func(c *ldap.Conn) error { return c.Modify(modify) })
}

// Delete removes an entry past the product.
func (d *OpenLDAP) Delete(ctx context.Context, dn string) error {
	return d.do(ctx, func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest(dn, nil)) })
}

func (d *OpenLDAP) do(ctx context.Context, change func(*ldap.Conn) error) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(d.CAPEM))
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: d.Addr, MinVersion: tls.VersionTLS12}}
	raw, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(d.Addr, "636"))
	if err != nil {
		return err
	}
	conn := ldap.NewConn(raw, true)
	conn.SetTimeout(startLimit)
	conn.Start()
	defer func() { _ = conn.Close() }()
	if err := conn.Bind("cn=root,dc=lab,dc=test", d.root); err != nil {
		return err
	}
	return change(conn)
}

// Logs is all the server has logged.
func (d *OpenLDAP) Logs() string { return d.srv.logged() }

// Hang stops the server: connections open and nobody answers.
func (d *OpenLDAP) Hang() error { return d.srv.stop() }

// Resume undoes Hang.
func (d *OpenLDAP) Resume() error { return d.srv.signal(syscall.SIGCONT) }
