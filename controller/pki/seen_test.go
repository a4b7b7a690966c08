package pki_test

import (
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
)

// A crowd of agents that calls after an absence costs one write together, not one each,
// and is known to have been seen.
func TestACrowdIsNotedTogether(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	var crowd []*device
	for _, name := range []string{"edge-1", "edge-2", "edge-3"} {
		crowd = append(crowd, c.enrolled(siteX, name))
	}
	revision := func() (r uint64) {
		if err := c.st.View(t.Context(), func(tx *store.Tx) error { r = tx.Revision(); return nil }); err != nil {
			t.Fatal(err)
		}
		return r
	}
	c.clock.Advance(time.Hour)
	before := revision()
	for _, d := range crowd {
		for range 2 {
			if err := d.call(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := revision(); got != before {
		t.Errorf("calls wrote %d times", got-before)
	}
	for range 2 {
		if err := c.auth.NoteSeen(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := revision(); got != before+1 {
		t.Errorf("%d writes", got-before)
	}
	for _, d := range crowd {
		if a := c.agent(d.id); a.LastSeen.Sub(a.Enrolled) < time.Hour {
			t.Errorf("%s was seen at %s", a.Name, a.LastSeen)
		}
	}
}
