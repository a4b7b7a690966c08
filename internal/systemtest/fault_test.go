package systemtest_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/systemtest"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// fault is what befalls a target in the middle of a change, and how it passes.
type fault struct {
	kind, name string
	on, off    func(*testing.T, *systemtest.Target) error
}

var faults = []fault{
	{"ssh", "hangs",
		func(_ *testing.T, g *systemtest.Target) error { return g.Host.Hang() },
		func(_ *testing.T, g *systemtest.Target) error { return g.Host.Resume() }},
	{"ssh", "crashes",
		func(_ *testing.T, g *systemtest.Target) error { g.Host.Crash(); return nil },
		func(_ *testing.T, g *systemtest.Target) error { return g.Host.Restart() }},
	{"ssh", "disk-full",
		func(_ *testing.T, g *systemtest.Target) error { return g.Host.FillDisk() },
		func(_ *testing.T, g *systemtest.Target) error { return g.Host.FreeDisk() }},
	{"ssh", "read-only",
		func(_ *testing.T, g *systemtest.Target) error { return g.Host.ReadOnly() },
		func(_ *testing.T, g *systemtest.Target) error { return g.Host.ReadWrite() }},
	{"ssh", "accounts-locked",
		func(_ *testing.T, g *systemtest.Target) error { return g.Host.LockAccounts() },
		func(_ *testing.T, g *systemtest.Target) error { g.Host.UnlockAccounts(); return nil }},
	{"mysql", "hangs",
		func(_ *testing.T, g *systemtest.Target) error { return g.DB.Hang() },
		func(_ *testing.T, g *systemtest.Target) error { return g.DB.Resume() }},
	{"mysql", "crashes",
		func(_ *testing.T, g *systemtest.Target) error { g.DB.Crash(); return nil },
		func(_ *testing.T, g *systemtest.Target) error { return g.DB.Restart() }},
	{"mysql", "read-only",
		func(t *testing.T, g *systemtest.Target) error { return g.DB.ReadOnly(t.Context()) },
		func(t *testing.T, g *systemtest.Target) error { return g.DB.ReadWrite(t.Context()) }},
	{"postgres", "hangs",
		func(_ *testing.T, g *systemtest.Target) error { return g.Postgres.Hang() },
		func(_ *testing.T, g *systemtest.Target) error { return g.Postgres.Resume() }},
	{"postgres", "crashes",
		func(_ *testing.T, g *systemtest.Target) error { g.Postgres.Crash(); return nil },
		func(_ *testing.T, g *systemtest.Target) error { return g.Postgres.Restart() }},
	{"postgres", "read-only",
		func(t *testing.T, g *systemtest.Target) error { return g.Postgres.ReadOnly(t.Context()) },
		func(t *testing.T, g *systemtest.Target) error { return g.Postgres.ReadWrite(t.Context()) }},
	{"ad", "crashes",
		func(_ *testing.T, g *systemtest.Target) error { g.Domain.Crash(); return nil },
		func(_ *testing.T, g *systemtest.Target) error { return g.Domain.Restart() }},
}

// A target fails between the logins and the change of a provisioning, a rotation and a
// deprovisioning, and comes back. No password is lost, no account is there twice or half
// owned, and what is asked for again in the end is done.
func TestTargetFailsInTheMiddleOfAChange_C6_R1_R2_R3_R4(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	t.Run("all", func(t *testing.T) {
		for _, f := range faults {
			t.Run(f.kind+"/"+f.name, func(t *testing.T) {
				t.Parallel()
				f.strike(t, c.For(t))
			})
		}
	})
}

func (f fault) strike(t *testing.T, c *systemtest.Cluster) {
	name := slug(f.kind, f.name)
	a := c.Agent(name, systemtest.AgentOptions{Connectors: []string{f.kind}})
	g := c.AddAsset(name, name, shared.own(t, f.kind))

	// Making an account. It ends as one that works, or is provably not there.
	made := c.Order("made", nil, g)[0].Id
	f.during(t, c, a, g, made, func() string { return *c.Account(made).Job })
	account := settle(c, made)
	r, err := g.Record(t.Context(), "made")
	switch {
	case err != nil:
		t.Fatal(err)
	case account.State == "active" && account.Sync == "in_sync":
		check(t, c, made, g)
	case account.State == "failed" && r.Exists:
		t.Errorf("the account could not be made, it says, and the target has it: %+v", account.LastError)
	case account.State == "partial":
		c.AwaitJob(c.Act(made, "deprovision", "partial"), "is done", func(j client.Job) bool { return j.State == client.JobStateDone })
		if r, err := g.Record(t.Context(), "made"); err != nil || r.Exists {
			t.Errorf("cleaned up, the target shows %+v, %v", r, err)
		}
	case account.State != "failed":
		t.Errorf("making the account ended as %s, %s: %+v", account.State, account.Sync, account.LastError)
	}

	// Changing its password. Afterwards the account is in sync or says that it is not;
	// asked again, Reeve goes on with the same candidate.
	id := c.Provision("changed", g).Id
	f.during(t, c, a, g, id, func() string { return c.Act(id, "rotate", "fault") })
	account = settle(c, id)
	check(t, c, id, g)
	if account.Sync != "in_sync" {
		c.Act(id, "verify", "after")
		c.AwaitSync(id)
		check(t, c, id, g)
	}
	if account = c.Account(id); *account.PasswordVersion == 1 {
		c.Act(id, "rotate", "again")
	}
	c.AwaitAccount(id, "is rotated", func(a client.Account) bool { return a.Sync == "in_sync" && *a.PasswordVersion == 2 && c.Idle(a) })
	k := check(t, c, id, g)
	if works := k.Works(t.Context(), g); len(k.Secrets) != 2 || !slices.Equal(works, []uint32{2}) {
		t.Errorf("of %d versions %v open the account", len(k.Secrets), works)
	}

	// Removing it. It is gone when Reeve says so, not before.
	f.during(t, c, a, g, id, func() string { return c.Act(id, "deprovision", "fault") })
	if account = settle(c, id); account.State != "removed" {
		if _, err := g.Record(t.Context(), "changed"); err != nil {
			t.Error(err)
		}
		c.Act(id, "deprovision", "again")
	}
	c.AwaitAccount(id, "is removed", func(a client.Account) bool { return a.State == "removed" })
	if r, err := g.Record(t.Context(), "changed"); err != nil || r.Exists {
		t.Errorf("removed, the target shows %+v, %v", r, err)
	}
}

// during has the fault strike when the agent is about to apply the change, and pass when
// the first delivery of the job has come to something.
func (f fault) during(t *testing.T, c *systemtest.Cluster, a *systemtest.Agent, g *systemtest.Target, account string, begin func() string) {
	t.Helper()
	p := pauseAt(t, "before-apply", false)
	a.Stop()
	a.Restart(p.crash)
	begin()
	p.wait(t)
	job := *c.Account(account).Job
	if err := f.on(t, g); err != nil {
		t.Fatal(err)
	}
	p.letGo()
	c.AwaitJob(job, "comes to something", func(j client.Job) bool { return j.State != client.JobStateLeased })
	if k := c.Kept(account); f.name == "disk-full" || f.name == "accounts-locked" || f.name == "read-only" {
		if r, err := g.Record(t.Context(), k.Account.Name); err == nil && r.Exists && !r.Locked && len(k.Works(t.Context(), g)) == 0 {
			t.Errorf("R1: while the target %s no kept password opens the account", f.name)
		}
	}
	if err := f.off(t, g); err != nil {
		t.Fatal(err)
	}
}

// settle waits until nothing is under way for an account, and asks for logins if they
// alone can say how it stands.
func settle(c *systemtest.Cluster, id string) client.Account {
	a := c.AwaitIdle(id)
	if a.State == "partial" {
		c.Act(id, "verify", "settle")
		a = c.AwaitIdle(id)
	}
	return a
}

// Somebody changes the password behind Reeve's back: before a rotation, in the middle of
// one, and with none under way. Reeve notices and heals with the management account.
func TestPasswordChangedBehindReevesBack_C13_R2(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	t.Run("all", func(t *testing.T) {
		for _, kind := range kinds {
			t.Run(kind, func(t *testing.T) {
				t.Parallel()
				c := c.For(t)
				name := slug("oob", kind)
				a := c.Agent(name, systemtest.AgentOptions{})
				g := c.AddAsset(name, name, shared.target(t, kind))
				change := func(user, password string) {
					t.Helper()
					var err error
					if g.Host != nil {
						err = g.Host.SetPassword(user, password)
					} else {
						err = g.DB.Exec(t.Context(), fmt.Sprintf("ALTER USER '%s'@'%%' IDENTIFIED BY '%s'", user, password))
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				user := "oob-" + kind
				id := c.Provision(user, g).Id

				change(user, "Behind-the-back-1")
				c.Act(id, "rotate", "1")
				c.AwaitAccount(id, "is rotated", func(a client.Account) bool { return a.Sync == "in_sync" && *a.PasswordVersion == 2 })
				check(t, c, id, g)

				a.Stop()
				p := pauseAt(t, "after-apply", false)
				a.Restart(p.crash)
				c.Act(id, "rotate", "2")
				p.wait(t)
				change(user, "Behind-the-back-2")
				p.letGo()
				c.AwaitSync(id)
				check(t, c, id, g)

				change(user, "Behind-the-back-3")
				job := c.Act(id, "verify", "3")
				c.AwaitJob(job, "ends", systemtest.Final)
				if got := c.Account(id); got.Sync == "in_sync" && *got.Job == job {
					t.Error("R2: no password works and the account says in_sync")
				}
				if a := c.AwaitIdle(id); a.Sync != "in_sync" {
					c.Act(id, "reconcile", "3")
				}
				c.AwaitSync(id)
				check(t, c, id, g)
				if err := g.Login(t.Context(), user, "Behind-the-back-3"); !errors.Is(err, testlab.ErrRefused) {
					t.Errorf("the stranger's password: %v", err)
				}
			})
		}
	})
}

// The target refuses every password Reeve makes (C12): after three the rotation stops
// with the target's own words, the old password is still the current one and works, and
// when the target has become reasonable a rotation works again.
func TestTargetRefusesEveryPassword_C12_R1_R2_R3(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	c.Agent("strict", systemtest.AgentOptions{})
	g := c.AddAsset("strict", "strict", shared.own(t, "mysql"))
	id := c.Provision("strict", g).Id
	for _, s := range []string{"INSTALL SONAME 'simple_password_check'", "SET GLOBAL simple_password_check_minimal_length = 100"} {
		if err := g.DB.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	c.Act(id, "rotate", "1")
	a := c.AwaitIdle(id)
	if a.Sync != "in_sync" || a.LastError == nil || a.LastError.Class != "policy_rejected" {
		t.Errorf("the account is %s: %+v", a.Sync, a.LastError)
	}
	k := check(t, c, id, g)
	var states []vault.State
	for _, s := range k.Secrets {
		states = append(states, s.State)
	}
	if want := []vault.State{vault.Current, vault.Abandoned, vault.Abandoned, vault.Abandoned}; !slices.Equal(states, want) || k.Info.Candidate != 0 {
		t.Errorf("versions are %v, candidate %d", states, k.Info.Candidate)
	}
	if err := g.DB.Exec(t.Context(), "UNINSTALL SONAME 'simple_password_check'"); err != nil {
		t.Fatal(err)
	}
	c.Act(id, "rotate", "2")
	c.AwaitAccount(id, "is rotated", func(a client.Account) bool { return *a.PasswordVersion == 5 && a.Sync == "in_sync" && c.Idle(a) })
	check(t, c, id, g)
}
