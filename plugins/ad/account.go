package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Bits of userAccountControl.
const (
	bitDisabled  = 0x2
	bitNormal    = 0x200
	bitLockedOut = 0x10 // of msDS-User-Account-Control-Computed only
	bitExpired   = 0x800000
)

// account is a user as the directory stores it.
type account struct {
	dn, guid, sid    string
	name, upn        string
	comment          string
	marks            []string
	revisions        []string // guard.go
	control          int64    // userAccountControl
	computed         int64    // msDS-User-Account-Control-Computed
	passwordSet      time.Time
	passwordTicks    int64 // pwdLastSet as it stands
	expires          time.Time
	lockout          int64
	lastLogon        time.Time
	created          string
	groups           []string // DNs, without the primary one
	primary          string   // RID
	protected        bool     // adminCount
	servicePrincipal []string
}

var accountAttributes = []string{
	"objectGUID", "objectSid", "sAMAccountName", "userPrincipalName", "description", attributeMark,
	"userAccountControl", "msDS-User-Account-Control-Computed", "pwdLastSet", "accountExpires", "lockoutTime",
	"lastLogonTimestamp", "whenCreated", "memberOf", "primaryGroupID", "adminCount", "servicePrincipalName",
}

// attributeMark is where an account that Reeve made says whose it is; DESIGN.md says why there.
const attributeMark = "extensionName"

// mark is the value for an account of Reeve's.
func mark(accountID string) string { return "reeve:" + accountID }

// accountOf reads an entry. What a server leaves out because we may not read it is zero.
func accountOf(e *ldap.Entry) (*account, error) {
	a := &account{
		dn: e.DN, name: e.GetAttributeValue("sAMAccountName"), upn: e.GetAttributeValue("userPrincipalName"),
		comment: e.GetAttributeValue("description"), marks: e.GetAttributeValues(attributeMark),
		created: e.GetAttributeValue("whenCreated"), groups: e.GetAttributeValues("memberOf"),
		primary: e.GetAttributeValue("primaryGroupID"), protected: e.GetAttributeValue("adminCount") == "1",
		servicePrincipal: e.GetAttributeValues("servicePrincipalName"),
	}
	var err error
	if a.guid, err = guidText(e.GetRawAttributeValue("objectGUID")); err != nil {
		return nil, err
	}
	if a.sid, err = sidString(e.GetRawAttributeValue("objectSid")); err != nil {
		return nil, err
	}
	numbers := map[string]int64{}
	for _, name := range []string{
		"userAccountControl", "msDS-User-Account-Control-Computed", "pwdLastSet", "accountExpires", "lockoutTime", "lastLogonTimestamp",
	} {
		text := e.GetAttributeValue(name)
		if text == "" {
			continue
		}
		if numbers[name], err = strconv.ParseInt(text, 10, 64); err != nil {
			return nil, sdk.Errorf(sdk.ClassProtocol, "the server's answer is malformed: the attribute %s is no number", name)
		}
	}
	a.control, a.computed = numbers["userAccountControl"], numbers["msDS-User-Account-Control-Computed"]
	a.passwordTicks, a.lockout = numbers["pwdLastSet"], numbers["lockoutTime"]
	a.passwordSet, a.expires = timeOf(a.passwordTicks), timeOf(numbers["accountExpires"])
	a.lastLogon = timeOf(numbers["lastLogonTimestamp"])
	slices.Sort(a.groups)
	a.revisions = revisionsOf(a.marks)
	return a, nil
}

func (a *account) disabled() bool  { return a.control&bitDisabled != 0 }
func (a *account) lockedOut() bool { return a.computed&bitLockedOut != 0 }

// address is a name of the object that survives renaming and moving (MS-ADTS 3.1.1.3.1.2.4).
func (a *account) address() string { return "<GUID=" + a.guid + ">" }

// domain is the SID of the account's domain.
func (a *account) domain() string {
	i := strings.LastIndexByte(a.sid, '-')
	return a.sid[:max(i, 0)]
}

// Times are intervals of 100 ns since 1601 (MS-DTYP 2.3.3); 0 and the greatest number are never.
const (
	ticksPerSecond = 10_000_000
	epoch          = 11_644_473_600 // seconds from 1601 to 1970
	never          = 0
)

func timeOf(ticks int64) time.Time {
	seconds := ticks/ticksPerSecond - epoch
	if ticks <= 0 || seconds > 253_402_300_799 { // the end of the year 9999: what comes later is never
		return time.Time{}
	}
	return time.Unix(seconds, ticks%ticksPerSecond*100).UTC()
}

func ticksOf(t time.Time) int64 {
	if t.IsZero() {
		return never
	}
	return (t.Unix()+epoch)*ticksPerSecond + int64(t.Nanosecond()/100)
}

// guidText is an objectGUID as people and servers write it (MS-DTYP 2.3.4.2).
func guidText(b []byte) (string, error) {
	if len(b) != 16 {
		return "", sdk.Errorf(sdk.ClassProtocol, "the server's answer is malformed: an objectGUID has %d bytes", len(b))
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]),
		binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:]), nil
}

// sidString is an objectSid as people and servers write it (MS-DTYP 2.4.2).
func sidString(b []byte) (string, error) {
	if len(b) < 8 || b[0] != 1 || len(b) != 8+4*int(b[1]) {
		return "", sdk.Errorf(sdk.ClassProtocol, "the server's answer is malformed: an objectSid has %d bytes", len(b))
	}
	authority := uint64(binary.BigEndian.Uint16(b[2:]))<<32 | uint64(binary.BigEndian.Uint32(b[4:]))
	text := "S-1-" + strconv.FormatUint(authority, 10)
	for sub := b[8:]; len(sub) > 0; sub = sub[4:] {
		text += "-" + strconv.FormatUint(uint64(binary.LittleEndian.Uint32(sub)), 10)
	}
	return text, nil
}

// users matches users, and no computers or service accounts that the domain manages itself.
const users = "(objectCategory=person)(objectClass=user)"

// account reads a user by its sAMAccountName, wherever it is in the domain; nil if there is none.
func (s *session) account(ctx context.Context, name string) (*account, error) {
	return s.one(ctx, s.base, ldap.ScopeWholeSubtree, "(&"+users+"(sAMAccountName="+ldap.EscapeFilter(name)+"))")
}

// again reads a user by what never changes about it; nil if it has gone.
func (s *session) again(ctx context.Context, a *account) (*account, error) {
	fresh, err := s.one(ctx, a.address(), ldap.ScopeBaseObject, "(objectClass=user)")
	if sdk.ClassOf(err) == sdk.ClassNotFound {
		return nil, nil
	}
	return fresh, err
}

func (s *session) one(ctx context.Context, base string, scope int, filter string) (*account, error) {
	entries, err := s.search(ctx, "read the account", base, scope, filter, accountAttributes)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	if len(entries) > 1 { // the name is unique in a domain
		return nil, sdk.Errorf(sdk.ClassProtocol, "the server shows %d accounts of one name", len(entries))
	}
	return accountOf(entries[0])
}

// primaryGroup is the DN of the group that an account is in without being in its list of members.
func (s *session) primaryGroup(ctx context.Context, a *account) (string, error) {
	if a.primary == "" {
		return "", nil
	}
	entries, err := s.search(ctx, "read the primary group", s.base, ldap.ScopeWholeSubtree,
		"(objectSid="+a.domain()+"-"+ldap.EscapeFilter(a.primary)+")", []string{"objectSid"})
	if err != nil || len(entries) != 1 {
		return "", err
	}
	return entries[0].DN, nil
}
