// Package directory owns directories of people (LDAP, Active Directory): where they are,
// how Reeve logs in to them, and what they say of somebody who gives a password. It talks
// to them over TLS alone. Package identity imports it and decides what an answer is worth.
package directory

import (
	"crypto/x509"
	"iter"
	"net"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Directory is one directory. Its name is unique for ever: users and groups refer to it.
type Directory struct {
	Name           string    `cbor:"1,keyasint"`
	Address        string    `cbor:"2,keyasint"`           // host:port
	StartTLS       bool      `cbor:"3,keyasint,omitempty"` // else TLS from the first byte
	CA             string    `cbor:"4,keyasint"`           // PEM; whose certificates are trusted
	BindDN         string    `cbor:"5,keyasint"`           // the account that searches
	Password       []byte    `cbor:"6,keyasint,omitempty"` // of BindDN; the store seals the record
	UserBase       string    `cbor:"7,keyasint"`           // where people are searched, with all below
	UserFilter     string    `cbor:"8,keyasint"`           // holds %Name% where the name goes
	GroupAttribute string    `cbor:"9,keyasint"`           // of a person: the groups they are in
	CreateUsers    bool      `cbor:"10,keyasint,omitempty"`
	CreatedAt      time.Time `cbor:"11,keyasint"`
	RemovedAt      time.Time `cbor:"12,keyasint,omitzero"`
}

// What a directory has if nothing else is said.
const (
	DefaultUserFilter     = "(sAMAccountName=%Name%)"
	DefaultGroupAttribute = "memberOf"
)

// Removed reports whether the directory is only kept for old records.
func (d *Directory) Removed() bool { return !d.RemovedAt.IsZero() }

var directories = store.NewTable("directory", store.Key(func(d *Directory) string { return d.Name }))

// Add adds a directory. The password is copied. Codes name_invalid, directory_name_taken
// and directory_invalid, which says what is wrong.
func Add(tx *store.Tx, by audit.Actor, d Directory, password reeve.Secret) (*Directory, error) {
	if err := d.complete(); err != nil {
		return nil, err
	}
	if password.Empty() {
		return nil, reeve.Errorf(reeve.Invalid, "directory_invalid", "the password of the bind account is empty").WithField("/password")
	}
	switch _, err := directories.Get(tx, d.Name); {
	case err == nil:
		return nil, reeve.Errorf(reeve.Conflict, "directory_name_taken", "a directory has, or had, the name %s", d.Name).WithFix("choose another")
	case reeve.KindOf(err) != reeve.NotFound:
		return nil, err
	}
	d.Password, d.CreatedAt, d.RemovedAt = append([]byte(nil), password.Bytes()...), tx.Now(), time.Time{}
	if err := directories.Insert(tx, &d); err != nil {
		return nil, err
	}
	return &d, audit.Record(tx, audit.Event{By: by, Action: "directory.add", Object: object(d.Name), After: map[string]string{
		"name": d.Name, "address": d.Address, "bind_dn": d.BindDN, "user_base": d.UserBase, "user_filter": d.UserFilter}})
}

func object(name string) string { return "directory/" + name }

// Find returns a directory that was not removed; code directory_not_found.
func Find(tx *store.Tx, name string) (*Directory, error) {
	d, err := directories.Get(tx, name)
	if reeve.KindOf(err) == reeve.NotFound || err == nil && d.Removed() {
		return nil, reeve.Errorf(reeve.NotFound, "directory_not_found", "there is no directory %q", name).WithFix("see what there is: reeve directory list")
	}
	return d, err
}

// List yields the directories that were not removed, by name, those after the name given.
func List(tx *store.Tx, after string) iter.Seq2[*Directory, error] {
	return func(yield func(*Directory, error) bool) {
		for d, err := range directories.List(tx, after) {
			if err == nil && d.Removed() {
				continue
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

// Renew replaces the password of the bind account, the authority, or both; what is empty
// stays. Where the directory is cannot be changed: it would be another.
func Renew(tx *store.Tx, by audit.Actor, name, ca string, password reeve.Secret) (*Directory, error) {
	d, err := Find(tx, name)
	if err != nil {
		return nil, err
	}
	changed := map[string]string{}
	if ca != "" {
		d.CA, changed["ca"] = ca, "changed"
	}
	if !password.Empty() {
		d.Password, changed["password"] = append([]byte(nil), password.Bytes()...), "changed"
	}
	if len(changed) == 0 {
		return nil, reeve.Errorf(reeve.Invalid, "directory_invalid", "nothing is to be changed").WithFix("give a password, an authority, or both")
	}
	if err := d.complete(); err != nil {
		return nil, err
	}
	if err := directories.Put(tx, d); err != nil {
		return nil, err
	}
	return d, audit.Record(tx, audit.Event{By: by, Action: "directory.renew", Object: object(name), After: changed})
}

// Remove forgets how to reach a directory. That nobody needs it any more is for the
// caller to see to.
func Remove(tx *store.Tx, by audit.Actor, name string) error {
	d, err := Find(tx, name)
	if err != nil {
		return err
	}
	d.Password, d.RemovedAt = nil, tx.Now()
	if err := directories.Put(tx, d); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "directory.remove", Object: object(name), Before: map[string]string{"name": name, "address": d.Address}})
}

// RecordTest notes that a directory is asked on behalf of an administrator.
func RecordTest(tx *store.Tx, by audit.Actor, name, user string) error {
	return audit.Record(tx, audit.Event{By: by, Action: "directory.test", Object: object(name), Details: map[string]string{"user": user}})
}

// Keep makes the directories in to, a restored state, what they are in from.
func Keep(to, from *store.Tx) error { return directories.Replace(to, from) }

// complete fills in what was left out and refuses what cannot work.
func (d *Directory) complete() error {
	invalid := func(field, format string, args ...any) error {
		return reeve.Errorf(reeve.Invalid, "directory_invalid", format, args...).WithField("/" + field)
	}
	if !validName(d.Name) {
		return reeve.Errorf(reeve.Invalid, "name_invalid", "the name of a directory is 1 to 32 of a-z, 0-9, '.', '-' and '_'").WithField("/name")
	}
	if d.UserFilter == "" {
		d.UserFilter = DefaultUserFilter
	}
	if d.GroupAttribute == "" {
		d.GroupAttribute = DefaultGroupAttribute
	}
	if host, _, err := net.SplitHostPort(d.Address); err != nil || host == "" {
		port := "636"
		if d.StartTLS {
			port = "389"
		}
		d.Address = net.JoinHostPort(strings.Trim(d.Address, "[]"), port)
	}
	if host, _, err := net.SplitHostPort(d.Address); err != nil || host == "" || strings.ContainsAny(d.Address, "/ ") {
		return invalid("address", "the address is host or host:port; Reeve speaks LDAP over TLS alone, so there is no ldap://")
	}
	if !x509.NewCertPool().AppendCertsFromPEM([]byte(d.CA)) {
		return invalid("ca", "the authority is not PEM: give one or more blocks of BEGIN CERTIFICATE")
	}
	if dn, err := ldap.ParseDN(d.BindDN); err != nil || len(dn.RDNs) == 0 {
		return invalid("bind_dn", "the bind account is not a distinguished name such as CN=Reeve,OU=Services,DC=example,DC=com")
	}
	if dn, err := ldap.ParseDN(d.UserBase); err != nil || len(dn.RDNs) == 0 {
		return invalid("user_base", "the base of users is not a distinguished name such as OU=People,DC=example,DC=com")
	}
	if strings.Count(d.UserFilter, placeholder) == 0 {
		return invalid("user_filter", "the filter does not hold %s", placeholder)
	}
	if _, err := userFilter(d.UserFilter, "ada"); err != nil {
		return invalid("user_filter", "the filter cannot be read; write it such as %s", DefaultUserFilter)
	}
	if !validAttribute(d.GroupAttribute) {
		return invalid("group_attribute", "the attribute of groups is a name such as %s", DefaultGroupAttribute)
	}
	return nil
}

// validName has no @, which stands between a user and a directory.
func validName(s string) bool {
	return len(s) >= 1 && len(s) <= 32 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == ""
}

func validAttribute(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == ""
}
