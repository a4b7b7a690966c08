// Package service owns the names of what a controller does by itself, and what each of
// these services last did (A1.2); some of them an administrator turns off and on (A1.1). A
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
	Checkpoints Name = "audit-checkpoints"
	AuditSinks  Name = "audit-sinks"
	Directories Name = "directories"
	Jobs        Name = "jobs"
	Keys        Name = "keys"
	Lifecycle   Name = "lifecycle"
	Tidying     Name = "tidying"
)

// Info says what a service does.
type Info struct {
	Name Name
	Does string
	// Switched marks what the cluster can do without for a while. The others only ever keep
	// promises that were made: what is due must end, expire and be on record.
	Switched bool
}

var services = []Info{
	{Checkpoints, "signs the audit trail", false},
	{AuditSinks, "sends the audit trail to its sinks", true},
	{Directories, "asks directories who was shut out there, every 5 minutes", false},
	{Jobs, "hands jobs to agents and ends those that are late", false},
	{Keys, "replaces old keys and seals everything under the new ones", false},
	{Lifecycle, "all work on accounts", true},
	{Tidying, "deletes old versions of passwords and old join tokens, every hour", false},
}

// All lists the services there are, by name.
func All() []Info { return slices.Clone(services) }

// Find returns a service; code service_not_found.
func Find(name Name) (Info, error) {
	i := slices.IndexFunc(services, func(s Info) bool { return s.Name == name })
	if i < 0 {
		return Info{}, reeve.Errorf(reeve.NotFound, "service_not_found", "there is no service %q", string(name)).WithFix("see what there is: reeve system services")
	}
	return services[i], nil
}

// row is there for services that were ever switched; without it a service is on.
type row struct {
	Name Name `cbor:"1,keyasint,omitempty"`
	Off  bool `cbor:"2,keyasint,omitempty"`
}

var switches = store.NewTable("service", store.Key(func(r *row) string { return string(r.Name) }))

// Enabled reports whether a service is on.
func Enabled(tx *store.Tx, name Name) (bool, error) {
	r, err := switches.Get(tx, string(name))
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

// Set switches a service on or off, and records it if that changes anything. Codes
// service_not_found; service_always_on for one that has no switch.
func Set(tx *store.Tx, by audit.Actor, name Name, on bool) error {
	s, err := Find(name)
	if err != nil {
		return err
	}
	if !s.Switched {
		return reeve.Errorf(reeve.Conflict, "service_always_on", "the service %q has no switch: the cluster does not hold without it", string(name)).
			WithFix("see which have one: reeve system services")
	}
	was, err := Enabled(tx, name)
	if err != nil || was == on {
		return err
	}
	if err := switches.Put(tx, &row{Name: name, Off: !on}); err != nil {
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

// Reset forgets everything, as when a controller begins to lead.
func (p *Pulse) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.beats = nil
}

// Tick notes that a service did its work, or why it could not. A nil Pulse notes nothing.
func (p *Pulse) Tick(name Name, at time.Time, err error) {
	if p == nil {
		return
	}
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
