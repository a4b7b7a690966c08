package sink

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Change is what Edit is asked for. What is nil, and an empty secret, stays as it is.
type Change struct {
	Kind                   *Kind // syslog or cef, of a sink that is one of them
	Address, URL, File, CA *string
	Secret                 reeve.Secret
	AllowLocal, Paused     *bool
	MaxRecords             *uint64
	MaxAge                 *time.Duration
}

// Edit changes a sink, which goes on from the record it has: NotFound
// "audit_sink_not_found". It may get its last few records again.
func Edit(tx *store.Tx, by audit.Actor, name string, ch Change) (*Sink, error) {
	old, err := sinks.Get(tx, name)
	if err != nil {
		return nil, err
	}
	in := New{Name: old.Name, Kind: old.Kind, Address: old.Address, URL: old.URL, File: old.File, CA: old.CA, Secret: ch.Secret, AllowLocal: old.AllowLocal,
		MaxRecords: old.MaxRecords, MaxAge: old.MaxAge}
	if ch.Kind != nil {
		if dialled := (old.Kind == Syslog || old.Kind == CEF) && (*ch.Kind == Syslog || *ch.Kind == CEF); !dialled && *ch.Kind != old.Kind {
			return nil, reeve.Errorf(reeve.Invalid, "audit_sink_invalid", "a sink of kind %q cannot become one of kind %q", string(old.Kind), string(*ch.Kind)).
				WithFix("add another sink").WithField("/kind")
		}
		in.Kind = *ch.Kind
	}
	set(&in.Address, ch.Address)
	set(&in.URL, ch.URL)
	set(&in.File, ch.File)
	set(&in.CA, ch.CA)
	set(&in.AllowLocal, ch.AllowLocal)
	set(&in.MaxRecords, ch.MaxRecords)
	set(&in.MaxAge, ch.MaxAge)
	if in.Kind == HTTPS && in.Secret.Empty() {
		in.Secret = reeve.SecretString("whsec_" + base64.StdEncoding.EncodeToString(old.Secret))
		defer in.Secret.Wipe()
	}
	s, err := in.check()
	if err == nil {
		err = fileFree(tx, s)
	}
	if err != nil {
		return nil, err
	}
	s.CreatedAt, s.Made, s.Paused = old.CreatedAt, tx.Revision(), old.Paused
	set(&s.Paused, ch.Paused)
	if err := sinks.Put(tx, s); err != nil {
		return nil, err
	}
	before, after := old.audited(), s.audited()
	for field, value := range after {
		if before[field] == value {
			delete(before, field)
			delete(after, field)
		}
	}
	if !bytes.Equal(old.Secret, s.Secret) {
		after["secret"] = "changed"
	}
	return s, audit.Record(tx, audit.Event{By: by, Action: "audit_sink.edit", Object: s.Name, Before: before, After: after})
}

// set sets what is asked for.
func set[T any](field *T, asked *T) {
	if asked != nil {
		*field = *asked
	}
}

// fileFree fails if another sink writes to the same file.
func fileFree(tx *store.Tx, s *Sink) error {
	for other, err := range sinks.List(tx, "") {
		if err != nil {
			return err
		}
		if s.File != "" && other.File == s.File && other.Name != s.Name {
			return reeve.Errorf(reeve.Conflict, "audit_sink_file_taken", "sink %q writes to %s already", other.Name, s.File).WithFix("choose another file name").WithField("/file")
		}
	}
	return nil
}

// audited is what the trail says of a sink.
func (s *Sink) audited() map[string]string {
	m := map[string]string{"kind": string(s.Kind), "to": s.To()}
	if s.CA != "" {
		sum := sha256.Sum256([]byte(s.CA))
		m["ca_sha256"] = hex.EncodeToString(sum[:])
	}
	if s.AllowLocal {
		m["allow_local"] = "true"
	}
	if s.MaxRecords > 0 {
		m["max_lag_records"] = strconv.FormatUint(s.MaxRecords, 10)
	}
	if s.MaxAge > 0 {
		m["max_lag"] = s.MaxAge.String()
	}
	if s.Paused {
		m["paused"] = "true"
	}
	return m
}
