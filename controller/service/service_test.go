package service_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func recorded(t *testing.T, st *store.Store) (actions []string) {
	t.Helper()
	if err := st.View(t.Context(), func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 100, audit.Filter{})
		for _, e := range all {
			actions = append(actions, e.Action+" "+e.Object)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return actions
}

// A1.1: what is off is refused until it is on, each change is recorded once, and what has
// no switch stays on.
func TestAServiceIsSwitchedOffAndOn_A1_1(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	set := func(name service.Name, on bool) error {
		return st.Update(t.Context(), func(tx *store.Tx) error { return service.Set(tx, audit.System("test"), name, on) })
	}
	var want []string
	for _, s := range service.All() {
		code := map[bool]string{true: "", false: "service_always_on"}[s.Switched]
		require := func(want string) {
			t.Helper()
			err := st.View(t.Context(), func(tx *store.Tx) error { return service.Require(tx, s.Name) })
			if reeve.CodeOf(err) != want {
				t.Errorf("%s: %v", s.Name, err)
			}
		}
		for range 2 { // twice is once
			if err := set(s.Name, false); reeve.CodeOf(err) != code {
				t.Errorf("%s off: %v", s.Name, err)
			}
		}
		if !s.Switched {
			require("")
			continue
		}
		require("service_disabled")
		for range 2 {
			if err := set(s.Name, true); err != nil {
				t.Errorf("%s on: %v", s.Name, err)
			}
		}
		require("")
		want = append(want, "service.disable "+string(s.Name), "service.enable "+string(s.Name))
	}
	if got := recorded(t, st); !slices.Equal(got, want) {
		t.Errorf("on record: %v, want %v", got, want)
	}
	if err := set("mail-in", true); reeve.CodeOf(err) != "service_not_found" {
		t.Errorf("one that does not exist: %v", err)
	}
}

// A1.2: the last error stays beside the last tick, until somebody else leads.
func TestAPulseKeepsTheLastError_A1_2(t *testing.T) {
	t.Parallel()
	var p service.Pulse
	first, second := time.Unix(100, 0), time.Unix(200, 0)
	p.Tick(service.Jobs, first, errors.New("no quorum"))
	p.Tick(service.Jobs, second, nil)
	if got, want := p.Last(service.Jobs), (service.Beat{LastTick: second, LastError: "no quorum", ErrorAt: first}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := p.Last(service.Keys); got != (service.Beat{}) {
		t.Errorf("another one: %+v", got)
	}
	p.Reset()
	if got := p.Last(service.Jobs); got != (service.Beat{}) {
		t.Errorf("as a new leader: %+v", got)
	}
	(*service.Pulse)(nil).Tick(service.Jobs, first, nil)
}
