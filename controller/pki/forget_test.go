package pki_test

import (
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func TestJoinTokensAreForgottenLongAfterTheirEnd(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "test.cluster")
	forget := func() (n int) {
		c.update(func(tx *store.Tx) (err error) {
			n, err = pki.ForgetJoinTokens(tx, 100)
			return err
		})
		return n
	}
	c.agentToken(reeve.NewSiteID(), "edge-1")
	c.clock.Advance(30 * 24 * time.Hour)
	if n := forget(); n != 0 {
		t.Errorf("%d tokens forgotten within 30 days of their end", n)
	}
	c.clock.Advance(time.Hour)
	c.agentToken(reeve.NewSiteID(), "edge-2")
	if n := forget(); n != 1 {
		t.Errorf("%d tokens forgotten, want the old one", n)
	}
	if n := forget(); n != 0 {
		t.Errorf("%d more tokens forgotten, want none", n)
	}
}
