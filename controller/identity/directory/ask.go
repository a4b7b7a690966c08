package directory

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Patience is how long a directory may take for everything together.
const Patience = 10 * time.Second

// atOnce bounds how many wait for one directory: one that hangs must not fill the
// controller.
const atOnce = 8

var slots sync.Map // by name: chan struct{}

// Answer is what a directory says of somebody.
type Answer struct {
	DN       string
	Entry    string // the entry's own id, which no other entry gets: hexadecimal
	FullName string
	Email    string
	Groups   []string // as the directory names them
	Active   bool     // it is an Active Directory
	Shut     string   // why it would not let them in, of what Active Directory shows: disabled, expired
}

// Refused is why somebody is not let in. It is for the audit trail, never for who asks.
type Refused struct {
	Reason string
	Judged bool // the directory was asked and said no
	cause  error
}

func (r *Refused) Error() string { return "the directory does not let them in: " + r.Reason }

func (r *Refused) Unwrap() error { return r.cause }

// Ask proves a password: it searches the name with the bind account, and logs in as what
// is found, if that is exactly one entry. It fails with *[Refused]. It must not be called
// in a transaction: it takes up to [Patience].
func Ask(ctx context.Context, d *Directory, name string, password reeve.Secret) (*Answer, error) {
	if password.Empty() { // a bind without one is an anonymous success (RFC 4513 section 5.1.2)
		return nil, &Refused{Reason: "empty_password", Judged: true}
	}
	return d.with(ctx, func(conn *ldap.Conn) (*Answer, error) {
		found, refused := d.find(conn, name)
		if refused != nil {
			return nil, refused
		}
		if err := conn.Bind(found.DN, password.Reveal()); err != nil {
			return nil, bindRefused(err)
		}
		a := d.answer(found)
		return a, d.groups(conn, found, a)
	})
}

// Look is what an administrator sees of a name, or with an empty name whether the
// directory can be used. Kind Conflict, codes directory_unreachable,
// directory_untrusted, directory_login_refused, directory_search_failed; NotFound
// directory_user_not_found.
func Look(ctx context.Context, d *Directory, name string) (*Answer, error) {
	a, err := d.with(ctx, func(conn *ldap.Conn) (*Answer, error) {
		if name == "" {
			if _, err := conn.Search(d.request(d.UserBase, ldap.ScopeBaseObject, "(objectClass=*)", "1.1")); err != nil {
				return nil, &Refused{Reason: "search_failed", cause: err}
			}
			a := &Answer{}
			_, a.Active = domain(conn)
			return a, nil
		}
		return d.see(conn, name)
	})
	if r, ok := errors.AsType[*Refused](err); ok {
		return nil, r.explain(d, name)
	}
	return a, err
}

// See is what a directory says of a name without its password. It fails with *[Refused].
func See(ctx context.Context, d *Directory, name string) (*Answer, error) {
	return d.with(ctx, func(conn *ldap.Conn) (*Answer, error) { return d.see(conn, name) })
}

func (d *Directory) see(conn *ldap.Conn, name string) (*Answer, error) {
	found, refused := d.find(conn, name)
	if refused != nil {
		return nil, refused
	}
	a := d.answer(found)
	return a, d.groups(conn, found, a)
}

func (r *Refused) explain(d *Directory, name string) error {
	switch r.Reason {
	case "untrusted":
		return reeve.Errorf(reeve.Conflict, "directory_untrusted", "the certificate of %s is not one of the directory's authority, or for another name", d.Address).
			WithFix("add the directory with the address that is in the certificate and the right --ca-file").Wrap(r)
	case "login_refused":
		return reeve.Errorf(reeve.Conflict, "directory_login_refused", "%s refuses the bind account", d.Address).WithFix("check its name and password").Wrap(r)
	case "search_failed":
		return reeve.Errorf(reeve.Conflict, "directory_search_failed", "%s does not answer the search", d.Address).
			WithFix("check the base and the filter of users, and what the bind account may read").Wrap(r)
	case "not_found", "ambiguous":
		return reeve.Errorf(reeve.NotFound, "directory_user_not_found", "not exactly one entry of %s is found for %q", d.Name, name).WithFix("check the base and the filter of users").Wrap(r)
	default:
		return reeve.Errorf(reeve.Conflict, "directory_unreachable", "%s does not answer within %s, or does not speak TLS", d.Address, Patience).
			WithFix("check the address, and that the controllers can reach it; LDAPS is port 636, StartTLS port 389").Wrap(r)
	}
}

// with waits for a turn, connects and logs in with the bind account.
func (d *Directory) with(ctx context.Context, do func(*ldap.Conn) (*Answer, error)) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	v, _ := slots.LoadOrStore(d.Name, make(chan struct{}, atOnce))
	slot := v.(chan struct{}) //nolint:forcetypeassert // nothing else is stored
	select {
	case slot <- struct{}{}:
		defer func() { <-slot }()
	case <-ctx.Done():
		return nil, &Refused{Reason: "unreachable", cause: ctx.Err()}
	}
	conn, hangUp, err := dial(ctx, d)
	if err != nil {
		return nil, &Refused{Reason: dialReason(err), cause: err}
	}
	defer hangUp()
	if err := d.login(conn); err != nil {
		return nil, err
	}
	a, err := do(conn)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// login binds as the account that searches. Its password is never empty.
func (d *Directory) login(conn *ldap.Conn) error {
	if len(d.Password) == 0 {
		return &Refused{Reason: "login_refused"}
	}
	err := conn.Bind(d.BindDN, string(d.Password))
	switch {
	case err == nil:
		return nil
	case ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInvalidDNSyntax, ldap.LDAPResultInsufficientAccessRights):
		return &Refused{Reason: "login_refused", cause: err}
	}
	return &Refused{Reason: "unreachable", cause: err}
}

func (d *Directory) request(base string, scope int, filter string, attributes ...string) *ldap.SearchRequest {
	return ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 2, int(Patience.Seconds()), false, filter, attributes, nil)
}

// find searches the one entry of a name.
func (d *Directory) find(conn *ldap.Conn, name string) (*ldap.Entry, error) {
	filter, err := userFilter(d.UserFilter, name)
	if err != nil {
		return nil, &Refused{Reason: "not_found", Judged: true, cause: err}
	}
	res, err := conn.Search(d.request(d.UserBase, ldap.ScopeWholeSubtree, filter, "displayName", "cn", "mail", "objectGUID", "entryUUID", "userAccountControl", "accountExpires", d.GroupAttribute))
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) || err == nil && len(res.Entries) > 1:
		return nil, &Refused{Reason: "ambiguous", Judged: true, cause: err}
	case ldap.IsErrorWithCode(err, ldap.ErrorNetwork):
		return nil, &Refused{Reason: "unreachable", cause: err}
	case err != nil:
		return nil, &Refused{Reason: "search_failed", cause: err}
	case len(res.Entries) == 0 || res.Entries[0].DN == "": // a bind without a name is an anonymous success
		return nil, &Refused{Reason: "not_found", Judged: true}
	}
	return res.Entries[0], nil
}

func (d *Directory) answer(e *ldap.Entry) *Answer {
	a := &Answer{DN: e.DN, FullName: e.GetAttributeValue("displayName"), Email: e.GetAttributeValue("mail"), Entry: e.GetAttributeValue("entryUUID")}
	if a.FullName == "" {
		a.FullName = e.GetAttributeValue("cn")
	}
	if guid := e.GetRawAttributeValue("objectGUID"); len(guid) > 0 {
		a.Entry = hex.EncodeToString(guid)
	}
	a.Shut = shut(e.GetAttributeValue("userAccountControl"), e.GetAttributeValue("accountExpires"), time.Now())
	return a
}

const (
	accountDisable = 0x2                // of userAccountControl (MS-ADTS 2.2.16)
	intervals1970  = 116444736000000000 // of 100 ns from 1601 to 1970 (MS-DTYP 2.3.3)
	neverExpires   = 0x7fffffffffffffff // as is 0 (MS-ADA1 2.3)
)

// shut says why Active Directory would refuse somebody, from what it shows of them.
func shut(control, expires string, now time.Time) string {
	if flags, err := strconv.ParseInt(control, 10, 64); err == nil && flags&accountDisable != 0 {
		return "disabled"
	}
	if at, err := strconv.ParseInt(expires, 10, 64); err == nil && at > 0 && at != neverExpires && now.UnixNano()/100+intervals1970 >= at {
		return "expired"
	}
	return ""
}

// groups finds out which groups an entry is in, with the bind account: of Active
// Directory also those it is in through others.
func (d *Directory) groups(conn *ldap.Conn, e *ldap.Entry, a *Answer) error {
	a.Groups = e.GetEqualFoldAttributeValues(d.GroupAttribute)
	if err := d.login(conn); err != nil {
		return err
	}
	var base string
	if base, a.Active = domain(conn); !a.Active || !strings.EqualFold(d.GroupAttribute, DefaultGroupAttribute) {
		return nil
	}
	res, err := conn.SearchWithPaging(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, int(Patience.Seconds()), false,
		memberFilter(e.DN), []string{"1.1"}, nil), 500)
	if err != nil {
		return &Refused{Reason: "search_failed", cause: err}
	}
	a.Groups = nil
	for _, g := range res.Entries {
		a.Groups = append(a.Groups, g.DN)
	}
	return nil
}

// isActiveDirectory is a capability in a rootDSE (MS-ADTS 3.1.1.3.4.3).
const isActiveDirectory = "1.2.840.113556.1.4.800"

// domain is the domain's own name if the server is of Active Directory.
func domain(conn *ldap.Conn) (base string, active bool) {
	res, err := conn.Search(ldap.NewSearchRequest("", ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, 0, false, "(objectClass=*)",
		[]string{"supportedCapabilities", "defaultNamingContext"}, nil))
	if err != nil || len(res.Entries) != 1 {
		return "", false
	}
	return res.Entries[0].GetAttributeValue("defaultNamingContext"), slices.Contains(res.Entries[0].GetAttributeValues("supportedCapabilities"), isActiveDirectory)
}
