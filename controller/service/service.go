// Package service owns the switches of what a controller does by itself: named services
// that an administrator turns off and on (A1.1), and what their loops last did (A1.2). A
// service that is off refuses new work; work under way ends. The switch is state of the
// cluster, the pulse is memory of the leader.
package service

import (
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Name names a service.
type Name string

// The services there are.
const (
	AuditSinks Name = "audit-sinks" // delivery of the trail to sinks
	Lifecycle  Name = "lifecycle"   // all work on accounts
)

var names = []Name{AuditSinks, Lifecycle}

// Names lists the services there are.
func Names() []Name { return slices.Clone(names) }

// row is there for services that were ever switched; without it a service is on.
type row struct {
	Name Name `cbor:"1,keyasint,omitempty"`
	Off  bool `cbor:"2,keyasint,omitempty"`
}

var services = store.NewTable("service", store.Key(func(r *row) string { return string(r.Name) }))

// Enabled reports whether a service is on.
func Enabled(tx *store.Tx, name Name) (bool, error) {
	r, err := services.Get(tx, string(name))
	if reeve.KindOf(err) == reeve.NotFound {
		return true, nil
	}
	return err == nil && !r.Off, err
}

// Require fails with Precondition "service_disabled" while a service is off.
func Require(tx *store.Tx, name Name) error {
	on, err := Enabled(tx, name)
	if err == nil && !on {
		return reeve.Errorf(reeve.Precondition, "service_disabled", "the service %q is switched off", string(name)).
			WithFix("an administrator switches it on: reeve system enable %s", string(name))
	}
	return err
}

// Set switches a service on or off, and records it if that changes anything. There are no
// others than Names: NotFound "service_not_found".
func Set(tx *store.Tx, by audit.Actor, name Name, on bool) error {
	if !slices.Contains(names, name) {
		return reeve.Errorf(reeve.NotFound, "service_not_found", "there is no service %q", string(name)).WithFix("see what there is: reeve system services")
	}
	was, err := Enabled(tx, name)
	if err != nil || was == on {
		return err
	}
	if err := services.Put(tx, &row{Name: name, Off: !on}); err != nil {
		return err
	}
	action := "service.disable"
	if on {
		action = "service.enable"
	}
	return audit.Record(tx, audit.Event{By: by, Action: action, Object: string(name),
		Before: map[string]string{"enabled": strconv.FormatBool(was)}, After: map[string]string{"enabled": strconv.FormatBool(on)}})
}

// Pulse is what the loops of a leader last did. The zero Pulse is ready; it may be used
// from many goroutines.
type Pulse struct {
	mu    sync.Mutex
	beats map[Name]Beat
}

// Beat is the last tick of a service; instants that have not been are zero.
type Beat struct {
	LastTick  time.Time
	LastError string // "" if no tick failed since this controller began to lead
	ErrorAt   time.Time
}

// Tick notes that a service did its work, or why it could not.
func (p *Pulse) Tick(name Name, at time.Time, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.beats == nil {
		p.beats = map[Name]Beat{}
	}
	b := p.beats[name]
	b.LastTick = at
	if err != nil {
		b.LastError, b.ErrorAt = err.Error(), at
	}
	p.beats[name] = b
}

// Last is the last tick of a service.
func (p *Pulse) Last(name Name) Beat {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.beats[name]
}
