package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// session is one connection to one domain controller, logged in.
type session struct {
	conn  *ldap.Conn
	raw   net.Conn
	stop  func() bool // ends the watch over the context; false: the connection has been ended
	at    string      // the address that was connected to; the name may stand for several servers
	place place
	root  *ldap.Entry     // the rootDSE
	base  string          // the domain's own DN
	sent  bool            // a change has been sent
	back  func(keep bool) // to where it was borrowed from; nil: nowhere
}

// dial connects and verifies the certificate, and sends nothing that is secret. at is an address for later connections
// of a job to the same server; empty: the target's.
func dial(ctx context.Context, t sdk.Target, p place, at string) (*session, error) {
	cfg, err := cert.Config(t)
	if err != nil {
		return nil, err
	}
	address := net.JoinHostPort(t.Address, strconv.Itoa(t.Port))
	if at == "" {
		at = address
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, refused(ctx, address, t.Trust, err)
	}
	s := &session{raw: raw, place: p, at: raw.RemoteAddr().String()}
	s.watch(ctx)
	if p.startTLS {
		err = startTLS(raw)
	}
	secured := tls.Client(raw, cfg)
	if err == nil {
		err = secured.HandshakeContext(ctx)
	}
	if err != nil {
		s.stop()
		_ = raw.Close()
		return nil, refused(ctx, address, t.Trust, err)
	}
	s.conn = ldap.NewConn(secured, true)
	s.conn.Start()
	return s, nil
}

// watch has the end of the context end the connection, and with it whatever waits for an answer: the driver knows no
// contexts.
func (s *session) watch(ctx context.Context) {
	s.stop = context.AfterFunc(ctx, func() { _ = s.raw.Close() })
}

// errNoStartTLS is the answer of a server that does not turn on TLS.
var errNoStartTLS = errors.New("the server does not turn on TLS")

// startTLSRequest is an ExtendedRequest with message id 1 and the name of StartTLS (RFC 4511 section 4.14.1).
const startTLSRequest = "\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + "1.3.6.1.4.1.1466.20037"

// startTLS asks the server to turn on TLS. The driver's own StartTLS hides why a handshake failed.
func startTLS(conn net.Conn) error {
	if _, err := conn.Write([]byte(startTLSRequest)); err != nil {
		return err
	}
	answer, err := firstAnswer(conn)
	if err != nil {
		return err
	}
	return startTLSAnswer(answer)
}

// maxStartTLS is more than an answer without a TLS certificate of words has.
const maxStartTLS = 4096

// firstAnswer reads one message and not a byte more: what follows belongs to TLS.
func firstAnswer(conn net.Conn) ([]byte, error) {
	var head []byte
	one := make([]byte, 1)
	read := func() (byte, error) {
		n, err := conn.Read(one)
		if n == 0 && err == nil {
			err = errors.New("no byte")
		}
		head = append(head, one[0])
		return one[0], err
	}
	tag, err := read()
	if err != nil {
		return nil, err
	}
	n, err := read()
	if err != nil {
		return nil, err
	}
	length := int(n)
	if n >= 0x80 {
		length = 0
		for range n & 0x7f {
			b, err := read()
			if err != nil {
				return nil, err
			}
			if length = length<<8 | int(b); length > maxStartTLS {
				return nil, fmt.Errorf("%w: its answer is too long", errNoStartTLS)
			}
		}
	}
	if tag != 0x30 {
		return nil, fmt.Errorf("%w: it does not speak LDAP", errNoStartTLS)
	}
	for range length {
		if _, err := read(); err != nil {
			return nil, err
		}
	}
	return head, nil
}

// startTLSAnswer reads an ExtendedResponse.
func startTLSAnswer(answer []byte) error {
	malformed := fmt.Errorf("%w: its answer is malformed", errNoStartTLS)
	packet, err := ber.ReadPacket(bufio.NewReader(bytes.NewReader(answer)))
	if err != nil || len(packet.Children) < 2 {
		return malformed
	}
	response := packet.Children[1]
	if response.ClassType != ber.ClassApplication || response.Tag != ldap.ApplicationExtendedResponse || len(response.Children) == 0 {
		return malformed
	}
	code, ok := response.Children[0].Value.(int64)
	if !ok {
		return malformed
	}
	if code != ldap.LDAPResultSuccess {
		return fmt.Errorf("%w: result %d", errNoStartTLS, code)
	}
	return nil
}

// capabilities of a rootDSE (MS-ADTS 3.1.1.3.4.3).
const (
	isActiveDirectory = "1.2.840.113556.1.4.800"
	isReadOnly        = "1.2.840.113556.1.4.1920"
)

// manage finds out what the server is and logs in as the management account.
func manage(ctx context.Context, t sdk.Target) (*session, error) {
	p, err := placeOf(t)
	if err != nil {
		return nil, err
	}
	s, err := dial(ctx, t, p, "")
	if err != nil {
		return nil, err
	}
	err = s.look(ctx)
	if err == nil {
		err = s.login(ctx, t.Management)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// borrow is manage, over a connection that an operation before may have left. It is given back with done.
func (c connector) borrow(ctx context.Context, t sdk.Target) (*session, error) {
	dial := func(ctx context.Context) (*session, error) { return manage(ctx, t) }
	if c.kept == nil {
		return dial(ctx)
	}
	s, back, err := c.kept.Borrow(ctx, t, "", dial, works)
	if err != nil {
		return nil, err
	}
	s.stop() // of who had it before, or of dial
	s.watch(ctx)
	s.back, s.sent = back, false
	return s, nil
}

// works asks the server something that it answers at once.
func works(ctx context.Context, s *session) bool {
	s.watch(ctx)
	_, err := s.search(ctx, "ask for the time", "", ldap.ScopeBaseObject, "(objectClass=*)", []string{"currentTime"})
	return s.stop() && err == nil
}

// done gives the connection back, or ends it. One over which something failed is not used again: what was wrong with it, or
// with the rights of its login, may be right on another.
func (s *session) done(err error) {
	if s.back == nil {
		s.close()
		return
	}
	s.back(s.stop() && err == nil && !s.conn.IsClosing())
}

// login is one bind. An empty password never gets to the server, which would call it an anonymous success.
func (s *session) login(ctx context.Context, c sdk.Credential) error {
	if c.Username == "" || c.Password.Empty() {
		return sdk.Errorf(sdk.ClassAuthFailed, "log in: a user name and a password are needed").WithFix("set both")
	}
	if err := s.conn.Bind(s.place.bindName(c.Username), c.Password.Reveal()); err != nil {
		return loginFailure(ctx, s.at, err)
	}
	return nil
}

// bindName is what an account logs in as. A plain name gets the domain's own name behind it, which every account may
// use whatever its userPrincipalName is. DNs, UPNs and DOMAIN\name stay.
func (p place) bindName(username string) string {
	if strings.ContainsAny(username, `@\=`) {
		return username
	}
	return username + "@" + p.domain
}

// look reads the rootDSE, which anybody may, and checks that the server can do what is asked of it.
func (s *session) look(ctx context.Context) error {
	all, err := s.search(ctx, "read the rootDSE", "", ldap.ScopeBaseObject, "(objectClass=*)", rootAttributes)
	if err != nil {
		return err
	}
	if len(all) != 1 {
		return sdk.Errorf(sdk.ClassProtocol, "the server shows no rootDSE")
	}
	s.root = all[0]
	can := s.root.GetAttributeValues("supportedCapabilities")
	s.base = s.root.GetAttributeValue("defaultNamingContext")
	switch {
	case !slices.Contains(can, isActiveDirectory) || s.base == "":
		return sdk.Errorf(sdk.ClassUnsupported, "the server is no domain controller of Active Directory").
			WithFix("use a domain controller as target")
	case slices.Contains(can, isReadOnly):
		return sdk.Errorf(sdk.ClassUnsupported, "the server is a read-only domain controller").
			WithFix("use a writable domain controller as target")
	case !within(s.place.ou, s.base):
		return sdk.Errorf(sdk.ClassInvalid, "the option %s is not in the domain of this server, %s", optionOU, s.base).
			WithFix("correct the option, or use a domain controller of that domain")
	}
	return nil
}

var rootAttributes = []string{
	"defaultNamingContext", "schemaNamingContext", "supportedCapabilities", "dnsHostName", "dsServiceName", "vendorName", "vendorVersion",
	"domainFunctionality", "forestFunctionality", "domainControllerFunctionality",
}

func (s *session) close() {
	s.stop()
	_ = s.raw.Close() // nothing is owed to the server
	_ = s.conn.Close()
}

// pageSize is how many entries are asked for at once; servers give at most 1000 (MaxPageSize).
const pageSize = 500

// search reads entries. A read that fails after a change was sent leaves the outcome of the whole unknown.
func (s *session) search(ctx context.Context, what, base string, scope int, filter string, attributes []string) ([]*ldap.Entry, error) {
	var all []*ldap.Entry
	err := s.pages(ctx, what, base, scope, filter, attributes, func(e *ldap.Entry) (bool, error) {
		all = append(all, e)
		return true, nil
	})
	return all, err
}

// pages calls each for every entry until it returns false.
func (s *session) pages(ctx context.Context, what, base string, scope int, filter string, attributes []string,
	each func(*ldap.Entry) (bool, error),
) error {
	paging := ldap.NewControlPaging(pageSize)
	for {
		var controls []ldap.Control
		if scope != ldap.ScopeBaseObject {
			controls = []ldap.Control{paging}
		}
		r, err := s.conn.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 0, 0, false, filter, attributes, controls))
		if err != nil {
			return failure(ctx, what, err, s.sent)
		}
		for _, e := range r.Entries {
			if more, err := each(e); err != nil || !more {
				return err
			}
		}
		next, ok := ldap.FindControl(r.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		if !ok || len(next.Cookie) == 0 {
			return nil
		}
		paging.SetCookie(next.Cookie)
	}
}

// change sends a modification of one object.
func (s *session) change(ctx context.Context, what, dn string, edit func(*ldap.ModifyRequest)) error {
	return failure(ctx, what, s.try(dn, edit), true)
}

// try is change for callers that look at the result themselves.
func (s *session) try(dn string, edit func(*ldap.ModifyRequest)) error {
	r := ldap.NewModifyRequest(dn, nil)
	edit(r)
	s.sent = true
	return s.conn.Modify(r)
}
