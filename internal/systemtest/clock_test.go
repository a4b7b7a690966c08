package systemtest_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/agent"
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

const year = 365 * 24 * time.Hour

// wrongClock is a wall clock that can be set, beside a monotonic one that cannot.
type wrongClock struct{ off atomic.Int64 }

func (w *wrongClock) set(off time.Duration) { w.off.Store(int64(off)) }

func (w *wrongClock) now() time.Time { return time.Now().Add(time.Duration(w.off.Load())) }

// A leader's clock that jumps a year ahead, or back, ends nothing: leases go on, tokens
// stay valid, nothing expires. No certificate is made until the clock is right again, or
// a person says that it is.
func TestAClockThatJumpsEndsNothing(t *testing.T) {
	t.Parallel()
	shared.of(t)
	var clock wrongClock
	start := time.Now()
	c := systemtest.Start(t, systemtest.Options{Clock: clock.now, Steady: func() time.Duration { return time.Since(start) }})
	a := c.Agent("clock", systemtest.AgentOptions{})
	g := c.AddAsset("clock", "clock", shared.target(t, "ssh"))
	id := c.Provision("clock", g).Id
	soon := time.Now().Add(24 * time.Hour)
	short := c.Order("short", func(r *client.ProvisionRequest) { r.ExpiresAt = &soon }, g)[0].Id
	c.AwaitSync(short)
	later := time.Now().Add(12 * time.Hour)
	waiting := c.Order("waiting", func(r *client.ProvisionRequest) { r.StartAt = &later }, g)[0]
	ttl := int64(3600)
	token := systemtest.Call[client.CreatedToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateToken(t.Context(), client.TokenRequest{Name: "hour", TtlSeconds: &ttl})
	})
	join := systemtest.Call[client.JoinToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateAgentJoinToken(t.Context(), client.AgentJoinTokenRequest{Name: "late", Site: "clock"})
	})
	a.Stop()
	p := pauseAt(t, "after-apply", false)
	a.Restart(p.crash)
	job := c.Act(id, "rotate", "")
	p.wait(t)
	attempt := c.Job(job).Attempt

	late := filepath.Join(t.TempDir(), "late")
	doubt := func() *client.ClockDoubt {
		return systemtest.Call[client.Cluster](c, func(api *client.Client) (*http.Response, error) { return api.GetCluster(t.Context()) }).Clock
	}
	for what, off := range map[string]time.Duration{"forward": year, "back": -year} {
		clock.set(off)
		d := doubt()
		if d == nil || d.Reason != "jumped" || math.Abs(d.AheadSeconds-off.Seconds()) > 60 {
			t.Fatalf("%s: the cluster says of its clock: %+v", what, d)
		}
		// The enrolment is tried for several ticks of the lifecycle and of the leases.
		var err error
		for range 4 { // on a busy machine the last call may end with the context, not with an answer
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			_, err = agent.Enroll(ctx, late, reeve.SecretString(join.Token), quiet)
			cancel()
			if err == nil || strings.Contains(err.Error(), "clock_in_doubt") {
				break
			}
		}
		if err == nil || !strings.Contains(err.Error(), "clock_in_doubt") {
			t.Errorf("%s: an agent enrols: %v", what, err)
		}
		if j := c.Job(job); j.State != client.JobStateLeased || j.Attempt != attempt {
			t.Errorf("%s: the job at work is %s, attempt %d after %d", what, j.State, j.Attempt, attempt)
		}
		if _, err := fleet.Answer[client.SitePage](c.Stranger(0, token.Secret).ListSites(t.Context(), nil)); err != nil { //nolint:bodyclose // Answer does
			t.Errorf("%s: a token of an hour: %v", what, err)
		}
		if s := c.Account(short).State; s != "active" {
			t.Errorf("%s: an account that expires tomorrow is %s", what, s)
		}
		if s := c.Account(waiting.Id).State; s != waiting.State {
			t.Errorf("%s: an account that begins in 12 hours was %s and is %s", what, waiting.State, s)
		}
		clock.set(0) // and that ends it, without a word from anybody
		if d := doubt(); d != nil {
			t.Fatalf("%s: the clock is right again, and in doubt: %+v", what, d)
		}
	}

	if _, err := agent.Enroll(t.Context(), late, reeve.SecretString(join.Token), quiet); err != nil {
		t.Errorf("a join token from before the jumps: %v", err)
	}
	p.letGo()
	c.AwaitJob(job, "is done", func(j client.Job) bool { return j.State == client.JobStateDone })
	check(t, c, id, g)

	clock.set(time.Hour)
	accept := func() error {
		_, err := fleet.Answer[[]byte](c.Client(0).AcceptClock(t.Context())) //nolint:bodyclose // Answer does
		return err
	}
	if err := accept(); err != nil || doubt() != nil {
		t.Errorf("the clock was accepted (%v), and it is in doubt: %v", err, doubt())
	}
	if problem, ok := errors.AsType[*fleet.ErrProblem](accept()); !ok || problem.Code != "clock_agrees" {
		t.Errorf("accepting a clock that nobody doubts: %v", problem)
	}
	told := 0
	for _, r := range verifyAudit(t, c) {
		if r.Action == "cluster.accept_clock" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the trail tells %d times that the clock was accepted", told)
	}
}
