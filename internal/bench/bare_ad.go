package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// bareAD is go-ldap with connections that are kept, as plugins/ad keeps them, and a fresh one for each proof.
type bareAD struct {
	target sdk.Target
	kept   shelf[*ldapSession]
}

func newBareAD(t sdk.Target) (keeper, error) { return &bareAD{t, newShelf[*ldapSession]()}, nil }

func (b *bareAD) close() error {
	return b.kept.clear(func(s *ldapSession) error { s.close(); return nil })
}

// ldapSession is a connection, logged in, on which the first error ends the work.
type ldapSession struct {
	conn     *ldap.Conn
	err      error
	revision string // of the account that is worked on
}

func (b *bareAD) connect(ctx context.Context, user, password string) (*ldapSession, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address(b.target))
	if err != nil {
		return nil, err
	}
	secured := tls.Client(raw, tlsOf(b.target))
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	s := &ldapSession{conn: ldap.NewConn(secured, true)}
	s.conn.Start()
	s.search("", ldap.ScopeBaseObject, "(objectClass=*)", "defaultNamingContext", "supportedCapabilities", "dnsHostName", "dsServiceName", "vendorName",
		"vendorVersion", "domainFunctionality", "forestFunctionality", "domainControllerFunctionality")
	s.do(s.conn.Bind(user+"@"+testlab.DomainName, password))
	if s.err != nil {
		s.close()
	}
	return s, s.err
}

func (s *ldapSession) close() { _ = s.conn.Close() }

func (s *ldapSession) do(err error) {
	if s.err == nil {
		s.err = err
	}
}

// search returns the last entry that was found, or an empty one.
func (s *ldapSession) search(base string, scope int, filter string, attributes ...string) *ldap.Entry {
	last := &ldap.Entry{}
	if s.err != nil {
		return last
	}
	var controls []ldap.Control
	if scope != ldap.ScopeBaseObject {
		controls = []ldap.Control{ldap.NewControlPaging(500)}
	}
	r, err := s.conn.Search(ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 0, 0, false, filter, attributes, controls))
	if err != nil {
		s.err = fmt.Errorf("search %s: %w", filter, err)
		return last
	}
	for _, e := range r.Entries {
		last = e
	}
	return last
}

func (s *ldapSession) modify(dn string, edit func(*ldap.ModifyRequest)) {
	if s.err != nil {
		return
	}
	r := ldap.NewModifyRequest(dn, nil)
	edit(r)
	s.do(s.conn.Modify(r))
}

// adAttributes are what plugins/ad reads of an account.
var adAttributes = []string{
	"objectGUID", "objectSid", "sAMAccountName", "userPrincipalName", "description", "extensionName",
	"userAccountControl", "msDS-User-Account-Control-Computed", "pwdLastSet", "accountExpires", "lockoutTime",
	"lastLogonTimestamp", "whenCreated", "memberOf", "primaryGroupID", "adminCount", "servicePrincipalName",
}

func (s *ldapSession) find(a *account) *ldap.Entry {
	e := s.search(testlab.DomainDN, ldap.ScopeWholeSubtree, "(&(objectCategory=person)(objectClass=user)(sAMAccountName="+a.name+"))", adAttributes...)
	for _, v := range e.GetAttributeValues("extensionName") {
		if strings.HasPrefix(v, "reeve-rev:") {
			s.revision = v
		}
	}
	return e
}

func (s *ldapSession) refresh(guid string) *ldap.Entry {
	return s.search(guid, ldap.ScopeBaseObject, "(objectClass=user)", adAttributes...)
}

// facts are read at the end of a change of an account that is there.
func (s *ldapSession) facts(a *account) {
	e := s.find(a)
	sid := e.GetRawAttributeValue("objectSid")
	if s.err != nil || len(sid) < 28 {
		s.do(fmt.Errorf("account %s has no SID", a.name))
		return
	}
	domain := "S-1-5-21"
	for _, i := range []int{12, 16, 20} {
		domain += "-" + strconv.FormatUint(uint64(binary.LittleEndian.Uint32(sid[i:])), 10)
	}
	primary := s.search(testlab.DomainDN, ldap.ScopeWholeSubtree, "(objectSid="+domain+"-"+e.GetAttributeValue("primaryGroupID")+")", "objectSid")
	const inChain = ":1.2.840.113556.1.4.1941:="
	s.search(testlab.DomainDN, ldap.ScopeWholeSubtree, "(&(objectClass=group)(|(member"+inChain+ldap.EscapeFilter(e.DN)+")(member"+inChain+
		ldap.EscapeFilter(primary.DN)+")))", "objectSid")
}

// group finds the role's group and whether the account is a member.
func (s *ldapSession) group(dn string) string {
	g := s.search(testlab.DomainDN, ldap.ScopeWholeSubtree, "(&(objectClass=group)(sAMAccountName="+benchGroup+"))", "objectSid", "adminCount")
	s.listed(g.DN, dn)
	return g.DN
}

func (s *ldapSession) listed(group, dn string) {
	s.search(group, ldap.ScopeBaseObject, "(member="+ldap.EscapeFilter(dn)+")", "objectSid")
}

// guarded changes an account together with the value by which another attempt would notice.
func (s *ldapSession) guarded(guid string, edit func(*ldap.ModifyRequest)) {
	next := newRevision()
	s.modify(guid, func(r *ldap.ModifyRequest) {
		r.Delete("extensionName", []string{s.revision})
		r.Add("extensionName", []string{next})
		edit(r)
	})
	s.revision = next
}

func newRevision() string { return "reeve-rev:" + rand.Text() }

// setPassword sets it twice, so that a domain controller forgets the one before at once.
func (s *ldapSession) setPassword(guid, password string) {
	for range 2 {
		s.guarded(guid, func(r *ldap.ModifyRequest) { r.Replace("unicodePwd", []string{testlab.UnicodePassword(password)}) })
	}
	s.refresh(guid)
}

func (s *ldapSession) token() {
	s.search("", ldap.ScopeBaseObject, "(objectClass=*)", "tokenGroups")
}

// guidOf names an object by what never changes about it.
func guidOf(e *ldap.Entry) string {
	b := e.GetRawAttributeValue("objectGUID")
	if len(b) != 16 {
		return "no objectGUID"
	}
	return fmt.Sprintf("<GUID=%08x-%04x-%04x-%x-%x>", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:])
}

// The operations of plugins/ad for an account with the role ad-helpdesk, in their order.

func (b *bareAD) provision(ctx context.Context, a *account) error {
	err := b.change(ctx, func(s *ldapSession) {
		s.find(a)
		add := ldap.NewAddRequest("CN="+a.name+","+testlab.AccountsOU, nil)
		for _, attribute := range [][2]string{
			{"sAMAccountName", a.name}, {"userPrincipalName", a.name + "@" + testlab.DomainName}, {"userAccountControl", "514"},
			{"accountExpires", "0"}, {"description", comment},
		} {
			add.Attribute(attribute[0], attribute[1:])
		}
		add.Attribute("extensionName", []string{newRevision(), "reeve:" + a.id})
		add.Attribute("objectClass", []string{"top", "person", "organizationalPerson", "user"})
		if s.err == nil {
			s.do(s.conn.Add(add))
		}
		made := s.find(a)
		guid := guidOf(made)
		s.setPassword(guid, a.password)
		s.refresh(guid)
		group := s.group(made.DN)
		s.modify(group, func(r *ldap.ModifyRequest) { r.Add("member", []string{made.DN}) })
		s.listed(group, made.DN)
		s.refresh(guid)
		s.guarded(guid, func(r *ldap.ModifyRequest) { r.Replace("userAccountControl", []string{"512"}) })
		s.refresh(guid)
		s.facts(a)
	})
	if err != nil {
		return err
	}
	return b.login(ctx, a, a.password)
}

func (b *bareAD) rotate(ctx context.Context, a *account, password string) error {
	err := b.change(ctx, func(s *ldapSession) {
		s.setPassword(guidOf(s.find(a)), password)
		s.facts(a)
	})
	if err != nil {
		return err
	}
	return b.login(ctx, a, password)
}

func (b *bareAD) deprovision(ctx context.Context, a *account) error {
	return b.change(ctx, func(s *ldapSession) {
		before := s.find(a)
		guid := guidOf(before)
		s.token()
		s.refresh(guid)
		s.guarded(guid, func(r *ldap.ModifyRequest) { r.Replace("userAccountControl", []string{"514"}) })
		s.refresh(guid)
		s.refresh(guid)
		group := s.group(before.DN)
		s.modify(group, func(r *ldap.ModifyRequest) { r.Delete("member", []string{before.DN}) })
		s.listed(group, before.DN)
		if s.err == nil {
			s.do(s.conn.Del(ldap.NewDelRequest(guid, nil)))
		}
		s.find(a)
	})
}

func (b *bareAD) change(ctx context.Context, work func(*ldapSession)) error {
	s, err := b.kept.take(
		func(s *ldapSession) error {
			s.search("", ldap.ScopeBaseObject, "(objectClass=*)", "currentTime")
			return s.err
		},
		func() (*ldapSession, error) {
			return b.connect(ctx, b.target.Management.Username, b.target.Management.Password.Reveal())
		})
	if err != nil {
		return err
	}
	if work(s); s.err != nil {
		s.close()
		return s.err
	}
	b.kept.give(s)
	return nil
}

// login is the proof: a fresh connection as the account.
func (b *bareAD) login(ctx context.Context, a *account, password string) error {
	s, err := b.connect(ctx, a.name, password)
	if err != nil {
		return err
	}
	defer s.close()
	s.find(a)
	s.token()
	return s.err
}
