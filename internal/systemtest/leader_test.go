package systemtest_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// The leader is stopped while a rotation is at each of its steps: the candidate is
// committed and not dispatched (C3), leased and not begun (C4), applied (C7), proven and
// not reported (C8, C9), reported (C10). The next leader goes on with the same candidate,
// and the version steps once.
func TestLeaderStopsAtEveryStepOfARotation_R1_R2_R3_R4_J2_O1(t *testing.T) {
	t.Parallel()
	shared.of(t)
	patient := terms // no lease may be lost over an election on a busy machine
	patient.Lease, patient.Work = 3*time.Minute, 3*time.Minute
	c := systemtest.Start(t, systemtest.Options{Nodes: 3, Terms: patient})
	steps := []string{"undispatched", "before-journal", "before-apply", "after-apply", "before-report", "after-report"}
	for i, step := range steps {
		kind := kinds[i%len(kinds)]
		t.Run(kind+"/"+step, func(t *testing.T) {
			c := c.For(t)
			name := slug(kind, step)
			a := c.Agent(name, systemtest.AgentOptions{})
			g := c.AddAsset(name, name, shared.target(t, kind))
			account := c.Provision("l-"+step, g)
			a.Stop()
			a.Gone()
			p := pauseAt(t, step, false)
			if step != "undispatched" {
				a.Restart(p.crash)
			}
			job := c.Act(account.Id, "rotate", "")
			if step != "undispatched" {
				p.wait(t)
			}
			old := c.Leader()
			c.Stop(old)
			t.Cleanup(func() {
				if t.Failed() { // the next step needs a majority that does not hang on one node
					c.Restart(old)
				}
			})
			check(t, c, account.Id, g)
			p.letGo()
			if step == "undispatched" {
				a.Restart(nil)
			}
			c.AwaitJob(job, "is done", func(j client.Job) bool { return j.State == client.JobStateDone })
			c.AwaitAccount(account.Id, "is rotated", func(a client.Account) bool { return a.Sync == "in_sync" && *a.PasswordVersion == 2 })
			k := check(t, c, account.Id, g)
			if works := k.Works(t.Context(), g); k.Info.Candidate != 0 || len(k.Secrets) != 2 || !slices.Equal(works, []uint32{2}) {
				t.Errorf("candidate %d, %d versions, %v open the account", k.Info.Candidate, len(k.Secrets), works)
			}
			for _, j := range k.Jobs {
				if len(j.Deliveries) != 1 {
					t.Errorf("J2: %s was delivered %d times: %+v", j.Operation, len(j.Deliveries), j.Deliveries)
				}
			}
			c.Restart(old)
			c.AwaitVoters(3)
		})
	}
}

// Leaders are killed with kill -9, one after the other, while passwords rotate. Nothing
// acknowledged is lost (O1), no password is (R1), and left alone every account is in sync.
func TestLeadersAreKilledWhilePasswordsRotate_C2_C9_O1_R1_R2_R3_R4_U1(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Nodes: 3, Processes: true})
	var accounts []client.Account
	targets := map[string]*systemtest.Target{}
	for _, kind := range kinds {
		c.Agent("killed-"+kind, systemtest.AgentOptions{})
		g := c.AddAsset("killed-"+kind, "killed-"+kind, shared.target(t, kind))
		for n := range 3 {
			a := c.Provision(fmt.Sprintf("k-%d", n), g)
			accounts, targets[a.Id] = append(accounts, a), g
		}
	}
	const rounds = 3
	for round := range rounds {
		var asked []string
		for _, a := range accounts {
			asked = append(asked, c.Act(a.Id, "rotate", fmt.Sprint(round)))
		}
		time.Sleep(time.Duration(round*150) * time.Millisecond) // not a wait: where in the work the kill falls
		old := c.Leader()
		c.Kill(old)
		for _, job := range asked {
			c.AwaitJob(job, "is done", func(j client.Job) bool { return j.State == client.JobStateDone })
		}
		c.Restart(old)
		c.AwaitVoters(3)
	}
	for _, a := range accounts {
		a = c.AwaitSync(a.Id)
		if *a.PasswordVersion != rounds+1 {
			t.Errorf("%s@%s has version %d after %d acknowledged rotations", a.Name, a.Asset, *a.PasswordVersion, rounds)
		}
		k := check(t, c, a.Id, targets[a.Id])
		if works := k.Works(t.Context(), targets[a.Id]); !slices.Equal(works, []uint32{rounds + 1}) {
			t.Errorf("%v open %s", works, a.Name)
		}
		for _, j := range k.Jobs {
			if j.State != jobs.StateDone {
				t.Errorf("%s is %s", j.Operation, j.State)
			}
		}
	}
	verifyAudit(t, c)
}
