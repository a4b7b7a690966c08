package lifecycle

import (
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// service is the switch of all lifecycle work (A1.1), in a table of one row; without
// the row it is on.
type service struct {
	Off bool `cbor:"1,keyasint,omitempty"`
}

const serviceKey = "lifecycle"

var services = store.NewTable("lifecycle_service", store.Key(func(*service) string { return serviceKey }))

// SetEnabled switches all lifecycle work on or off. While it is off every request for
// work is refused with Precondition "service_disabled"; jobs at work finish.
func SetEnabled(tx *store.Tx, by audit.Actor, enabled bool) error {
	if err := services.Put(tx, &service{Off: !enabled}); err != nil {
		return err
	}
	action := "lifecycle.disable"
	if enabled {
		action = "lifecycle.enable"
	}
	return audit.Record(tx, audit.Event{By: by, Action: action, Object: serviceKey})
}

// Enabled reports whether lifecycle work is switched on.
func Enabled(tx *store.Tx) (bool, error) {
	s, err := services.Get(tx, serviceKey)
	if reeve.KindOf(err) == reeve.NotFound {
		return true, nil
	}
	return err == nil && !s.Off, err
}

func serviceEnabled(tx *store.Tx) error {
	on, err := Enabled(tx)
	if err == nil && !on {
		return reeve.Errorf(reeve.Precondition, "service_disabled", "the account lifecycle service is switched off").
			WithFix("an administrator switches it on")
	}
	return err
}
