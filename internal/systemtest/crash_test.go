package systemtest_test

import (
	"slices"
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// points are where an agent can die over a job (C4–C8, C10).
var points = []string{"before-journal", "after-journal", "before-plan", "before-apply", "after-apply", "before-verify",
	"after-verify", "before-outbox", "after-outbox", "before-report", "after-report"}

// An agent dies at every point of a provisioning, a rotation and a deprovisioning, on
// two kinds of target, and at the points that matter most on PostgreSQL and in a domain. While it is dead some kept password opens the account; when it is
// back everything comes right by itself, once.
func TestAgentDiesAtEveryPoint_R1_R2_R3_R4_J1_J2(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	t.Run("all", func(t *testing.T) { // so that the cluster outlives them
		for _, kind := range kinds {
			for _, point := range points {
				t.Run(kind+"/"+point, func(t *testing.T) {
					t.Parallel()
					liveThrough(t, c.For(t), kind, point)
				})
			}
		}
		for _, kind := range []string{"postgres", "ad"} { // at the points between which these differ from the first two
			for _, point := range []string{"before-apply", "after-apply"} {
				t.Run(kind+"/"+point, func(t *testing.T) {
					t.Parallel()
					liveThrough(t, c.For(t), kind, point)
				})
			}
		}
	})
}

func liveThrough(t *testing.T, c *systemtest.Cluster, kind, point string) {
	name := slug(kind, point)
	a := c.Agent(name, systemtest.AgentOptions{Connectors: []string{kind}})
	g := c.AddAsset(name, name, shared.target(t, kind))
	user := "u-" + point

	a.Stop()
	a.Restart(systemtest.CrashAt(point))
	id := c.Order(user, nil, g)[0].Id
	a.Crashed()
	if r, err := g.Record(t.Context(), user); err != nil {
		t.Error(err)
	} else if r.Exists { // it is there, so its password must be kept
		if k := c.Kept(id); len(k.Works(t.Context(), g)) == 0 {
			t.Errorf("R1: provisioning was interrupted at %s and no kept password opens the account", point)
		}
	}
	a.Restart(nil)
	c.AwaitSync(id)
	k := check(t, c, id, g)
	if k.Info.Current != 1 || len(k.Secrets) != 1 {
		t.Errorf("after provisioning version %d of %d is current", k.Info.Current, len(k.Secrets))
	}

	a.Stop()
	a.Restart(systemtest.CrashAt(point))
	c.Act(id, "rotate", "")
	a.Crashed()
	check(t, c, id, g)
	a.Restart(nil)
	c.AwaitAccount(id, "is rotated", func(a client.Account) bool {
		return a.Sync == "in_sync" && *a.PasswordVersion == 2 && c.Idle(a)
	})
	k = check(t, c, id, g)
	if works := k.Works(t.Context(), g); k.Info.Candidate != 0 || !slices.Equal(works, []uint32{2}) {
		t.Errorf("after rotation candidate is %d, and %v open the account", k.Info.Candidate, works)
	}

	a.Stop()
	a.Restart(systemtest.CrashAt(point))
	job := c.Act(id, "deprovision", "")
	if point != "before-verify" && point != "after-verify" { // there is nothing to log in to
		a.Crashed()
		a.Restart(nil)
	}
	c.AwaitAccount(id, "is removed", func(a client.Account) bool { return a.State == "removed" })
	if r, err := g.Record(t.Context(), user); err != nil || r.Exists {
		t.Errorf("the account is removed, and its target shows %+v, %v", r, err)
	}
	c.AwaitJob(job, "ends", systemtest.Final)
}
