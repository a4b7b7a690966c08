package systemtest_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/agent/link"
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/internal/systemtest"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// An agent sleeps over its lease, before or after it changed the target. Another agent of
// the site takes the job over once nothing the first began can still happen. When the
// sleeper wakes it changes nothing, its report is refused, and the version has stepped
// once.
func TestSleepingAgentWakesWithAStaleFence_C17_J1_J3_R4(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	t.Run("all", func(t *testing.T) {
		for _, kind := range kinds {
			for _, point := range []string{"before-apply", "after-apply", "before-outbox"} {
				t.Run(kind+"/"+point, func(t *testing.T) {
					t.Parallel()
					sleepOver(t, c.For(t), kind, point)
				})
			}
		}
	})
}

func sleepOver(t *testing.T, c *systemtest.Cluster, kind, point string) {
	name := slug("zombie", kind, point)
	sleeper := c.Agent(name, systemtest.AgentOptions{Concurrency: 1}) // so that it takes no other job in its sleep
	g := c.AddAsset(name, name, shared.target(t, kind))
	id := c.Provision("z-"+point, g).Id
	sleeper.Stop()
	p := pauseAt(t, point, true)
	sleeper.Restart(p.crash)
	job := c.Act(id, "rotate", "")
	p.wait(t)
	other := c.Agent(name, systemtest.AgentOptions{})

	c.AwaitJob(job, "is done by the other agent", func(j client.Job) bool { return j.State == client.JobStateDone })
	if got := c.Job(job); got.Agent == nil || *got.Agent != other.Name {
		t.Errorf("the job was done by %v, not %s", got.Agent, other.Name)
	}
	before := check(t, c, id, g)
	record, err := g.Record(t.Context(), before.Account.Name)
	if err != nil {
		t.Fatal(err)
	}
	p.letGo()
	c.Eventually("the sleeper's report is refused", func() (bool, string) {
		return bytes.Contains(c.Log.Bytes(), []byte(`msg="outcome is stale" agent=`+sleeper.Name)), "no such line in the log"
	})
	after := check(t, c, id, g)
	if now, err := g.Record(t.Context(), before.Account.Name); err != nil || now != record {
		t.Errorf("the sleeper changed the target: %+v, then %+v, %v", record, now, err)
	}
	if after.Info.Current != 2 || len(after.Secrets) != 2 || after.Info.Candidate != 0 {
		t.Errorf("after all version %d of %d is current, candidate %d", after.Info.Current, len(after.Secrets), after.Info.Candidate)
	}
	for _, j := range after.Jobs {
		if string(j.ID) != job {
			continue
		}
		var endings []jobs.Ending
		for i, d := range j.Deliveries {
			endings = append(endings, d.Ending)
			if i > 0 && d.Fence <= j.Deliveries[i-1].Fence {
				t.Errorf("J1: fence %d after %d", d.Fence, j.Deliveries[i-1].Fence)
			}
			if i > 0 && d.At.Before(j.Deliveries[i-1].EndedAt) {
				t.Errorf("J1: two leases at once: %+v", j.Deliveries)
			}
		}
		last := len(endings) - 1 // the sleeper may have been given it again, and lost it again
		if endings[0] != jobs.EndLost || slices.Index(endings, jobs.EndReported) != last {
			t.Errorf("the deliveries ended as %v", endings)
		}
	}
}

// A connector is killed while the target is at work on its change (C11), which then
// happens later, behind everybody's back (C6): a probe finds out, and the version steps
// once.
func TestConnectorIsKilledInTheMiddleOfAChange_C11_C6_R1_R2_R3(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	a := c.Agent("killed", systemtest.AgentOptions{})
	g := c.AddAsset("killed", "killed", shared.own(t, "ssh"))
	id := c.Provision("killed", g).Id
	a.Stop()
	p := pauseAt(t, "before-apply", false)
	a.Restart(p.crash)
	job := c.Act(id, "rotate", "")
	p.wait(t)
	if err := g.Host.LockAccounts(); err != nil { // chpasswd will wait for it
		t.Fatal(err)
	}
	p.letGo()
	c.Eventually("the change waits on the host", func() (bool, string) {
		out, err := g.Host.OutOfBand("ps -e -o comm=")
		return err == nil && strings.Contains(out, "chpasswd"), out
	})
	connector := connectedTo(t, g.Host.Addr, g.Host.Port)
	if err := syscall.Kill(connector, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	c.AwaitJob(job, "is in doubt", func(j client.Job) bool { return j.State == client.JobStateQueued && j.Attempt == 1 })
	check(t, c, id, g)
	g.Host.UnlockAccounts()
	c.AwaitAccount(id, "is rotated", func(a client.Account) bool { return a.Sync == "in_sync" && *a.PasswordVersion == 2 && c.Idle(a) })
	if k := check(t, c, id, g); len(k.Secrets) != 2 || !slices.Equal(k.Works(t.Context(), g), []uint32{2}) {
		t.Errorf("%d versions", len(k.Secrets))
	}
}

// connectedTo finds the one child of this process that has a connection to the address.
func connectedTo(t *testing.T, addr string, port int) int {
	t.Helper()
	ip := net.ParseIP(addr).To4()
	remote := fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], port)
	raw, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[string]bool{}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 9 && f[2] == remote {
			inodes["socket:["+f[9]+"]"] = true
		}
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range links {
		to, err := os.Readlink(l)
		if err != nil || !inodes[to] {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(l, "/")[2])
		if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && pid != os.Getpid() {
			if f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:])); len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
				return pid
			}
		}
	}
	t.Fatalf("no child of ours is connected to %s", remote)
	return 0
}

// Two sites work at the same time. No agent is given a job or a secret of the other
// site, and one that asks for what is another's is told that it does not exist.
func TestAgentGetsNothingOfAnotherSite_A2(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	agents, accounts := map[string]*systemtest.Agent{}, map[string]string{}
	for i, site := range []string{"here", "there"} {
		agents[site] = c.Agent(site, systemtest.AgentOptions{})
		g := c.AddAsset(site, "a-"+site, shared.target(t, kinds[i]))
		accounts[site] = c.Provision("a2-"+site, g).Id
	}
	spy := agents["there"]
	spy.Stop()
	p := pauseAt(t, "before-apply", false)
	agents["here"].Stop()
	agents["here"].Restart(p.crash)
	job := c.Act(accounts["here"], "rotate", "")
	p.wait(t)
	fence := uint64(0)
	for _, j := range c.Kept(accounts["here"]).Jobs {
		if string(j.ID) == job {
			fence = j.Lease.Fence
		}
	}

	// The spy's own identity, and everything it may know of the job.
	l, err := link.Open(link.Config{Dir: spy.Data, Version: "test", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = l.Call(t.Context(), func(ctx context.Context, api agentv1.AgentServiceClient) error {
		_, err := api.ReportOutcome(ctx, &agentv1.ReportOutcomeRequest{Job: job, Fence: fence, Attempt: 1, Result: &agentv1.Result{Outcome: "done"}})
		if status.Code(err) != codes.NotFound {
			t.Errorf("a report about another site's job: %v", err)
		}
		_, unknown := api.ReportOutcome(ctx, &agentv1.ReportOutcomeRequest{Job: "job_06h07ns1nqtgvkxx08kv5zv82g", Fence: fence, Attempt: 1,
			Result: &agentv1.Result{Outcome: "done"}})
		if got, want := status.Convert(err).Message(), status.Convert(unknown).Message(); strings.ReplaceAll(got, job, "") !=
			strings.ReplaceAll(want, "job_06h07ns1nqtgvkxx08kv5zv82g", "") {
			t.Errorf("another site's job can be told from none: %q, %q", got, want)
		}
		res, err := api.RenewLeases(ctx, &agentv1.RenewLeasesRequest{Leases: []*agentv1.LeaseRef{{Job: job, Fence: fence}}})
		if err != nil || len(res.Leases) != 1 || res.Leases[0].State != "lost" {
			t.Errorf("renewal of another site's lease: %v, %v", res, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	p.letGo()
	c.AwaitJob(job, "is done", func(j client.Job) bool { return j.State == client.JobStateDone })

	for site, id := range accounts {
		k := c.Kept(id)
		for _, e := range k.Exposed {
			if string(e.Agent) != agents[site].ID {
				t.Errorf("a secret of site %s was given to %s", site, e.Agent)
			}
		}
		for _, j := range k.Jobs {
			for _, d := range j.Deliveries {
				if string(d.Agent) != agents[site].ID {
					t.Errorf("a job of site %s was given to %s", site, d.Agent)
				}
			}
		}
	}
}
