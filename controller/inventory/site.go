// Package inventory owns what there is to work on: sites, assets with their
// management accounts and what is trusted of them, connectors and their registered
// builds, and the role catalogue. It touches no target and opens no secret.
//
// Everything is a function over a transaction and leaves its audit record in it.
// controller/lifecycle and controller/rest change the inventory; controller/jobs and
// the gateway read it. Accounts live above: they announce with Hold what they stand
// on, so that nothing under a live account can be retired.
package inventory

import (
	"iter"
	"regexp"
	"time"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Site is a network segment. Agents and assets belong to one site.
type Site struct {
	ID          reeve.SiteID `cbor:"1,keyasint"`
	Name        string       `cbor:"2,keyasint"`
	Description string       `cbor:"3,keyasint,omitempty"`
	CreatedAt   time.Time    `cbor:"4,keyasint"`
	RetiredAt   time.Time    `cbor:"5,keyasint,omitzero"` // zero: in use
}

var sites = store.NewTable("site",
	store.Key(func(s *Site) string { return string(s.ID) }),
	store.Unique("name", func(s *Site) []string { return unlessRetired(s.RetiredAt, s.Name) }))

// unlessRetired gives a retired object's name free for another.
func unlessRetired(at time.Time, parts ...string) []string {
	if !at.IsZero() {
		return nil
	}
	return parts
}

var objectName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// checkObjectName is the grammar of the names of sites, assets and connectors.
func checkObjectName(name string) error {
	if objectName.MatchString(name) {
		return nil
	}
	return reeve.Errorf(reeve.Invalid, "object_name_invalid", "%q cannot be the name of a site, an asset or a connector", name).
		WithFix("use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting and ending with a letter or digit").WithField("/name")
}

func checkText(field, s string) error {
	if utf8.ValidString(s) && utf8.RuneCountInString(s) <= 1024 {
		return nil
	}
	return reeve.Errorf(reeve.Invalid, "text_invalid", "the %s is longer than 1024 characters or not UTF-8", field).WithField("/" + field)
}

// NewSite is what AddSite is asked for.
type NewSite struct{ Name, Description string }

// AddSite adds a site. A taken name is a Conflict "site_name_taken".
func AddSite(tx *store.Tx, by audit.Actor, in NewSite) (*Site, error) {
	if err := checkObjectName(in.Name); err != nil {
		return nil, err
	}
	if err := checkText("description", in.Description); err != nil {
		return nil, err
	}
	s := &Site{ID: reeve.NewSiteID(), Name: in.Name, Description: in.Description, CreatedAt: tx.Now()}
	if err := sites.Insert(tx, s); err != nil {
		return nil, err
	}
	return s, record(tx, by, "site.add", string(s.ID), map[string]string{"name": s.Name})
}

// GetSite finds a site by id, or by name among those in use.
func GetSite(tx *store.Tx, ref string) (*Site, error) {
	if reeve.ValidID("site", ref) {
		return sites.Get(tx, ref)
	}
	return sites.Find(tx, "name", ref)
}

// ListSites yields the sites in use with an id after the given one, oldest first.
func ListSites(tx *store.Tx, after string) iter.Seq2[*Site, error] {
	return inUse(sites.List(tx, after), func(s *Site) bool { return s.RetiredAt.IsZero() })
}

// RetireSite takes a site out of use. While assets belong to it, it is refused with
// Conflict "site_in_use".
func RetireSite(tx *store.Tx, by audit.Actor, id reeve.SiteID) error {
	s, err := sites.Get(tx, string(id))
	if err != nil || !s.RetiredAt.IsZero() {
		return err
	}
	if n, err := count(assets.Scan(tx, "site", store.Range{Prefix: []string{string(id)}})); err != nil || n > 0 {
		return inUseError(err, "site", s.Name, n, "asset(s) belong to it", "retire its assets first")
	}
	s.RetiredAt = tx.Now()
	if err := sites.Put(tx, s); err != nil {
		return err
	}
	return record(tx, by, "site.retire", string(id), map[string]string{"name": s.Name})
}

// record is the audit record of a change that succeeded.
func record(tx *store.Tx, by audit.Actor, action, object string, details map[string]string) error {
	return audit.Record(tx, audit.Event{By: by, Action: action, Object: object, Outcome: audit.OK, Details: details})
}

func inUse[T any](all iter.Seq2[*T, error], keep func(*T) bool) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for v, err := range all {
			if err == nil && !keep(v) {
				continue
			}
			if !yield(v, err) {
				return
			}
		}
	}
}

func count[T any](all iter.Seq2[*T, error]) (n int, err error) {
	for _, err := range all {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// inUseError is the refusal to retire something others stand on, unless counting
// them failed already.
func inUseError(err error, noun, name string, n int, why, fix string) error {
	if err != nil {
		return err
	}
	return reeve.Errorf(reeve.Conflict, noun+"_in_use", "%s %q cannot be retired: %d %s", noun, name, n, why).WithFix("%s", fix)
}
