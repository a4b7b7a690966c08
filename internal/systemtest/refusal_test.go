package systemtest_test

import (
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// An account that its server shuts out says which way and what to do; Reeve leaves its
// password alone until that is mended, by a person or by a rotation.
func TestAnAccountThatIsShutOutSaysWhy(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	c.Agent("lan", systemtest.AgentOptions{})
	g := c.AddAsset("lan", "shut", shared.target(t, "mysql"))
	a := c.Provision("shutout", g)
	root := func(statement string) {
		t.Helper()
		if err := g.DB.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	before := c.Reveal(a.Id)
	says := func(class, fix, once string) {
		t.Helper()
		job := c.Act(a.Id, "verify", once)
		a = c.AwaitAccount(a.Id, "says why", func(a client.Account) bool { return c.Idle(a) && a.LastError != nil })
		if e := a.LastError; e.Class != class || e.Fix == nil || !strings.Contains(*e.Fix, fix) {
			t.Errorf("it says %+v", *e)
		}
		if a.Sync != "uncertain" || c.Reveal(a.Id) != before {
			t.Errorf("the account is %s", a.Sync)
		}
		leased := false // committed before the agent has it
		for _, r := range verifyAudit(t, c) {
			leased = leased || r.Action == "secret.lease" && r.Object == job && strings.Contains(r.Details["secrets"], "management=")
		}
		if !leased {
			t.Error("no record says that the agent was given the management account for it")
		}
	}
	root("ALTER USER 'shutout'@'%' ACCOUNT LOCK")
	says("disabled", "ACCOUNT UNLOCK", "locked")
	root("ALTER USER 'shutout'@'%' ACCOUNT UNLOCK")
	c.Act(a.Id, "verify", "open")
	c.AwaitSync(a.Id)
	root("ALTER USER 'shutout'@'%' PASSWORD EXPIRE")
	says("must_change_password", "reeve account rotate shutout@shut", "expired")
	c.Act(a.Id, "rotate", "")
	c.AwaitSync(a.Id)
	if err := g.Login(t.Context(), "shutout", c.Reveal(a.Id)); err != nil {
		t.Errorf("a login after the rotation: %v", err)
	}
}
