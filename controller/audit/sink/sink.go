// Package sink owns where the audit trail goes outside the cluster: the sinks that an
// administrator names, how far each of them is, and the leader's loop that brings them
// the records. See DESIGN.md. It imports the audit trail and nothing above; the vault
// asks it whether a sink is too far behind for reveals.
package sink

import (
	"crypto/x509"
	"encoding/base64"
	"iter"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Kind is how records reach a sink.
type Kind string

// The kinds.
const (
	Syslog Kind = "syslog" // RFC 5424 over TLS (RFC 5425)
	CEF    Kind = "cef"    // the same, with ArcSight's Common Event Format as the message
	HTTPS  Kind = "https"  // signed batches of JSON lines
	File   Kind = "file"   // JSON lines below the leader's data directory
)

// Sink is where the trail goes. Which fields are set depends on the kind.
type Sink struct {
	Name       string `cbor:"1,keyasint,omitempty"`
	Kind       Kind   `cbor:"2,keyasint,omitempty"`
	Address    string `cbor:"3,keyasint,omitempty"` // syslog: host:port
	URL        string `cbor:"4,keyasint,omitempty"` // https
	File       string `cbor:"5,keyasint,omitempty"` // file: a name, not a path
	CA         string `cbor:"6,keyasint,omitempty"` // PEM of who signs the sink's certificate; "": whom this machine trusts
	Secret     []byte `cbor:"7,keyasint,omitempty"` // https: the key bodies are signed with; never shown
	AllowLocal bool   `cbor:"8,keyasint,omitempty"` // loopback and link-local addresses may be dialled
	// Beyond these, if they are not zero, reveals and exports are refused.
	MaxRecords uint64        `cbor:"9,keyasint,omitempty"`
	MaxAge     time.Duration `cbor:"10,keyasint,omitempty"`
	CreatedAt  time.Time     `cbor:"11,keyasint,omitzero"`
	Made       uint64        `cbor:"12,keyasint,omitempty"` // the revision it was made or changed in, which it had at no other time
	Paused     bool          `cbor:"13,keyasint,omitempty"` // it gets nothing; its limit holds
}

var sinks = store.NewTable("audit_sink", store.Key(func(s *Sink) string { return s.Name }))

// New is what Add is asked for; see Sink.
type New struct {
	Name, Address, URL, File, CA string
	Kind                         Kind
	Secret                       reeve.Secret // whsec_ and the base64 of 24 to 64 bytes
	AllowLocal                   bool
	MaxRecords                   uint64
	MaxAge                       time.Duration
}

const maxSinks = 16

// nameRule is for sinks and their files: no path, nothing hidden.
var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// Add makes a sink. It gets the whole trail, from the first record on. A taken name is a
// Conflict "audit_sink_name_taken"; two sinks cannot share a file.
func Add(tx *store.Tx, by audit.Actor, in New) (*Sink, error) {
	s, err := in.check()
	if err != nil {
		return nil, err
	}
	n := 0
	for other, err := range sinks.List(tx, "") {
		if err != nil {
			return nil, err
		}
		if other.Name == s.Name {
			return nil, reeve.Errorf(reeve.Conflict, "audit_sink_name_taken", "there is a sink %q already", s.Name).WithFix("choose another name")
		}
		if n++; n == maxSinks {
			return nil, reeve.Errorf(reeve.Precondition, "audit_sinks_too_many", "there are %d sinks, which is all there can be", n).WithFix("remove one")
		}
	}
	if err := fileFree(tx, s); err != nil {
		return nil, err
	}
	s.CreatedAt, s.Made = tx.Now(), tx.Revision()
	if err := sinks.Insert(tx, s); err != nil {
		return nil, err
	}
	return s, audit.Record(tx, audit.Event{By: by, Action: "audit_sink.add", Object: s.Name, After: s.audited()})
}

// To is where the sink is, for people.
func (s *Sink) To() string { return s.Address + s.URL + s.File }

// check gives every field that is wrong the same code: audit_sink_invalid.
func (in New) check() (*Sink, error) {
	refuse := func(field, fix, format string, args ...any) (*Sink, error) {
		return nil, reeve.Errorf(reeve.Invalid, "audit_sink_invalid", format, args...).WithFix("%s", fix).WithField("/" + field)
	}
	s := &Sink{Name: in.Name, Kind: in.Kind, Address: in.Address, URL: in.URL, File: in.File, CA: in.CA, AllowLocal: in.AllowLocal, MaxRecords: in.MaxRecords, MaxAge: in.MaxAge}
	if !nameRule.MatchString(s.Name) {
		return refuse("name", "use 1 to 63 of a-z, 0-9, '.', '_' and '-'", "a sink cannot have that name")
	}
	if s.CA != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(s.CA)) {
		return refuse("ca", "give certificates in PEM", "there is no certificate in ca")
	}
	wants := map[Kind]string{Syslog: "address", CEF: "address", HTTPS: "url", File: "file"}[s.Kind]
	if wants == "" {
		return refuse("kind", "use syslog, cef, https or file", "there is no such kind of sink")
	}
	for field, given := range map[string]bool{"address": s.Address != "", "url": s.URL != "", "file": s.File != ""} {
		if given != (field == wants) {
			return refuse(field, "give "+wants+" and no other", "a sink of kind %q is named by its %s", string(s.Kind), wants)
		}
	}
	host := ""
	switch s.Kind {
	case Syslog, CEF:
		var port string
		var err error
		if host, port, err = net.SplitHostPort(s.Address); err != nil || host == "" || !portOK(port) {
			return refuse("address", "write it like siem.example.com:6514", "the address is not host:port")
		}
	case HTTPS:
		u, err := url.Parse(s.URL)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return refuse("url", "write it like https://siem.example.com/reeve", "the URL is not https with a host and a path alone")
		}
		host = u.Hostname()
		if s.Secret, err = key(in.Secret); err != nil {
			return refuse("secret", "write whsec_ and the base64 of 24 to 64 random bytes", "the secret is not that of a webhook")
		}
	case File:
		if !nameRule.MatchString(s.File) {
			return refuse("file", "use 1 to 63 of a-z, 0-9, '.', '_' and '-'; the directory is fixed", "that cannot be the name of a file")
		}
		if s.CA != "" || s.AllowLocal {
			return refuse("ca", "leave ca and allow_local out", "a file is not dialled")
		}
	}
	if s.Kind != HTTPS && !in.Secret.Empty() {
		return refuse("secret", "leave it out", "only https sinks are signed for")
	}
	if ip, err := netip.ParseAddr(host); err == nil && !s.AllowLocal && local(ip) {
		return refuse(wants, "allow_local allows it", "loopback and link-local addresses are not dialled")
	}
	return s, nil
}

func portOK(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// key is the secret of a webhook as Standard Webhooks write it.
func key(secret reeve.Secret) ([]byte, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(secret.Reveal()), "whsec_")
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !ok || len(raw) < 24 || len(raw) > 64 {
		return nil, reeve.Errorf(reeve.Invalid, "audit_sink_invalid", "the secret is not that of a webhook")
	}
	return raw, nil
}

// List yields all sinks by name.
func List(tx *store.Tx) iter.Seq2[*Sink, error] { return sinks.List(tx, "") }

// Remove forgets a sink and how far it was: NotFound "audit_sink_not_found". What it
// already holds stays there.
func Remove(tx *store.Tx, by audit.Actor, name string) error {
	s, err := sinks.Get(tx, name)
	if err != nil {
		return err
	}
	if err := sinks.Delete(tx, name); err != nil {
		return err
	}
	if err := cursors.Delete(tx, name); err != nil && reeve.KindOf(err) != reeve.NotFound {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "audit_sink.remove", Object: name, Before: s.audited()})
}
