package systemtest_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/systemtest"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// An account's whole life on every kind of real target, over API, controller, agent and
// connector: each step is seen at the target itself.
func TestAccountLivesOnEveryKindOfTarget_A3(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	t.Run("all", func(t *testing.T) {
		for _, kind := range slices.Concat(kinds, others) {
			t.Run(kind, func(t *testing.T) {
				t.Parallel()
				live(t, c.For(t), kind)
			})
		}
	})
}

func live(t *testing.T, c *systemtest.Cluster, kind string) {
	name, user := slug("life", kind), "life-"+kind
	c.Agent(name, systemtest.AgentOptions{Connectors: []string{kind}})
	g := c.AddAsset(name, name, shared.target(t, kind))
	id := c.Provision(user, g).Id
	do := func(action string) {
		t.Helper()
		c.AwaitJob(c.Act(id, action, ""), "is done", func(j client.Job) bool { return j.State == client.JobStateDone })
		c.AwaitIdle(id)
	}
	at := func(step string) (r systemtest.Record, password string) {
		t.Helper()
		r, err := g.Record(t.Context(), user)
		if err != nil || !r.Exists {
			t.Fatalf("%s: the target shows %+v, %v", step, r, err)
		}
		return r, c.Reveal(id)
	}
	made, first := at("provisioned")
	if err := g.Login(t.Context(), user, first); err != nil || made.Locked {
		t.Fatalf("provisioned: locked %v, login %v", made.Locked, err)
	}

	do("verify")
	if same, password := at("verified"); same != made || password != first {
		t.Error("verifying changed the account")
	}

	do("rotate")
	rotated, second := at("rotated")
	if err := g.Login(t.Context(), user, second); err != nil || second == first || rotated.Hash == made.Hash {
		t.Errorf("rotated: login with the password in the vault: %v", err)
	}
	if err := g.Login(t.Context(), user, first); !errors.Is(err, testlab.ErrRefused) {
		t.Errorf("rotated: login with the password before: %v", err)
	}

	do("disable")
	if r, _ := at("disabled"); !r.Locked {
		t.Error("disabled: the target's own record says it is not locked")
	}
	if err := g.Login(t.Context(), user, second); !errors.Is(err, testlab.ErrRefused) {
		t.Errorf("disabled: %v", err)
	}

	do("enable")
	r, third := at("enabled")
	if err := g.Login(t.Context(), user, third); err != nil || r.Locked {
		t.Errorf("enabled: locked %v, login %v", r.Locked, err)
	}
	check(t, c, id, g)

	do("deprovision")
	if r, err := g.Record(t.Context(), user); err != nil || r.Exists {
		t.Errorf("removed, the target shows %+v, %v", r, err)
	}
	if a := c.Account(id); a.State != "removed" {
		t.Errorf("the account is %s", a.State)
	}
}

// The connection to a target is cut while a password is changed, at several places in the
// conversation; the change may have been made or not. Once the line is mended the account
// is in sync again, and the password in the vault logs in.
func TestConnectionIsCutInTheMiddleOfARotation_C6_R1_R2_R3_R4(t *testing.T) {
	t.Parallel()
	shared.of(t)
	patient := terms                                             // the rotation that is cut is the first delivery, on a busy machine too
	patient.Lease, patient.Work = 30*time.Second, 15*time.Second // a change of unknown outcome waits as long as work may take
	c := systemtest.Start(t, systemtest.Options{Terms: patient})
	t.Run("all", func(t *testing.T) {
		for _, kind := range others {
			for _, at := range cuts[kind] {
				t.Run(fmt.Sprintf("%s/%d", kind, at.bytes), func(t *testing.T) {
					t.Parallel()
					at.strike(t, c.For(t), kind)
				})
			}
		}
	})
}

// cut is a place in a rotation's conversation: so many bytes have gone to the target.
type cut struct {
	bytes   int64
	changed bool // the password, by then
}

var cuts = map[string][]cut{
	"postgres": {{1500, false}, {4000, true}}, "ad": {{1200, false}, {4000, true}}, "telnet": {{600, false}, {2400, true}},
}

func (at cut) strike(t *testing.T, c *systemtest.Cluster, kind string) {
	name := slug("cut", kind, fmt.Sprint(at.bytes))
	a := c.Agent(name, systemtest.AgentOptions{Connectors: []string{kind}})
	g := c.AddAsset(name, name, shared.target(t, kind).Behind(t))
	user := "cut-" + fmt.Sprint(at.bytes)
	id := c.Provision(user, g).Id
	before, err := g.Record(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	a.Stop()
	p := pauseAt(t, "before-apply", false)
	a.Restart(p.crash)
	job := c.Act(id, "rotate", "")
	p.wait(t)
	g.Line.CutAfter(at.bytes)
	p.letGo()
	c.AwaitJob(job, "comes to something", func(j client.Job) bool { return j.State != client.JobStateLeased })
	if !g.Line.IsCut() {
		t.Fatal("the rotation ended before the line was cut")
	}
	after, err := g.Record(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	if changed := after.Hash != before.Hash; changed != at.changed {
		t.Errorf("after %d bytes the password had been changed: %v; find out where the change is in the conversation now", at.bytes, changed)
	}
	check(t, c, id, g)
	g.Line.Mend()
	if c.AwaitIdle(id).Sync != "in_sync" {
		c.Act(id, "verify", "mended")
	}
	c.AwaitSync(id)
	k := check(t, c, id, g)
	if works := k.Works(t.Context(), g); !slices.Equal(works, []uint32{k.Info.Current}) {
		t.Errorf("version %d is current, and %v open the account", k.Info.Current, works)
	}
	if err := g.Login(t.Context(), user, c.Reveal(id)); err != nil {
		t.Errorf("the password in the vault: %v", err)
	}
}
