// Package identity owns who may talk to Reeve: principals and the bearer tokens they
// show. The API's edge imports it to turn a token into a principal; it imports
// audit and store.
//
// Sessions, second factors, groups and the privileges of PAM roles will live here
// too; until then [Authorize] is the one place that decides.
package identity

import (
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Kind is what a principal is.
type Kind string

// The kinds.
const (
	User    Kind = "user"    // a person
	Service Kind = "service" // a program
	Root    Kind = "root"    // made at bootstrap, to set everything else up
)

// Principal is somebody who may talk to Reeve.
type Principal struct {
	ID      reeve.PrincipalID `cbor:"1,keyasint,omitempty"`
	Name    string            `cbor:"2,keyasint,omitempty"` // unique
	Kind    Kind              `cbor:"3,keyasint,omitempty"`
	Created time.Time         `cbor:"4,keyasint,omitempty"`
}

// Actor is the principal as audit names it; from is the remote address, node the
// controller that took the call.
func (p Principal) Actor(from, node string) audit.Actor {
	return audit.Actor{Kind: string(p.Kind), ID: string(p.ID), Name: p.Name, From: from, Node: node}
}

var principals = store.NewTable("principal",
	store.Key(func(p *Principal) string { return string(p.ID) }),
	store.Unique("name", func(p *Principal) []string { return []string{p.Name} }),
)

// CreatePrincipal adds a principal. Names are 1 to 64 of a-z, 0-9, dot, dash and
// underscore, and unique: code principal_name_taken. Only one root can be made:
// code root_exists.
func CreatePrincipal(tx *store.Tx, by audit.Actor, name string, kind Kind) (*Principal, error) {
	if !validName(name) {
		return nil, reeve.Errorf(reeve.Invalid, "name_invalid", "the name of a principal is 1 to 64 of a-z, 0-9, '.', '-' and '_'").WithField("/name")
	}
	switch kind {
	case User, Service:
	case Root:
		for p, err := range principals.List(tx, "") {
			if err != nil {
				return nil, err
			}
			if p.Kind == Root {
				return nil, reeve.Errorf(reeve.Conflict, "root_exists", "there is a root principal already")
			}
		}
	default:
		return nil, reeve.Errorf(reeve.Invalid, "principal_kind_invalid", "a principal is a user or a service").WithField("/kind")
	}
	p := &Principal{ID: reeve.NewPrincipalID(), Name: name, Kind: kind, Created: tx.Now()}
	if err := principals.Insert(tx, p); err != nil {
		return nil, err
	}
	return p, audit.Record(tx, audit.Event{By: by, Action: "principal.create", Object: string(p.ID),
		After: map[string]string{"name": name, "kind": string(kind)}})
}

// GetPrincipal returns a principal; code principal_not_found.
func GetPrincipal(tx *store.Tx, id reeve.PrincipalID) (*Principal, error) {
	return principals.Get(tx, string(id))
}

func validName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= 64
}
