package systemtest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// event is one of a job's log.
type event struct{ name, id, data string }

// readLog reads events of a job's log from a place on, until the stream ends or breaks.
func readLog(ctx context.Context, api *client.Client, job, after string, follow bool, got func(event)) error {
	params := &client.GetJobLogParams{Follow: &follow}
	if after != "" {
		params.LastEventID = &after
	}
	resp, err := api.GetJobLog(ctx, job, params)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		_, err := fleet.Answer[client.Problem](resp, nil)
		return err
	}
	lines := bufio.NewScanner(resp.Body)
	var e event
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "event":
			e.name = value
		case "id":
			e.id = value
		case "data":
			e.data += value
		case "":
			if e.name != "" {
				got(e)
			}
			e = event{}
		}
	}
	return lines.Err()
}

// The controllers go away in the middle of a job, while the agent writes its log and a
// reader follows it. What the reader has in the end, over several connections, is what
// the log holds, byte for byte and without a gap; and it tells of every step of the plan.
func TestJobLogSurvivesACutConnection_J5(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	a := c.Agent("logged", systemtest.AgentOptions{})
	g := c.AddAsset("logged", "logged", shared.target(t, "ssh"))
	id := c.Provision("logged", g).Id
	a.Stop()
	p := pauseAt(t, "after-apply", false)
	a.Restart(p.crash)
	job := c.Act(id, "rotate", "")

	ctx, cancel := context.WithTimeout(t.Context(), systemtest.Patience)
	defer cancel()
	followed := make(chan []event)
	seen := make(chan struct{}, 1)
	go func() {
		var all []event
		last, ended := "", false
		for !ended && ctx.Err() == nil {
			_ = readLog(ctx, c.Client(0), job, last, true, func(e event) {
				if ended = e.name == "end"; ended {
					return
				}
				all, last = append(all, e), e.id
				select {
				case seen <- struct{}{}:
				default:
				}
			})
			time.Sleep(20 * time.Millisecond) // while nobody listens
		}
		followed <- all
	}()
	p.wait(t)
	<-seen // something was shown before the cut
	c.Stop(0)
	p.letGo() // the agent goes on and writes while nobody takes its log
	c.Restart(0)
	c.AwaitJob(job, "is done", func(j client.Job) bool { return j.State == client.JobStateDone })

	live := <-followed
	var whole []event
	if err := readLog(t.Context(), c.Client(0), job, "", false, func(e event) {
		if e.name != "end" {
			whole = append(whole, e)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(whole, live, cmp.AllowUnexported(event{})); diff != "" {
		t.Errorf("the log as it is (-) and as it was followed over the cut (+):\n%s", diff)
	}
	told := map[string][]string{} // states by step
	for _, e := range whole {
		var line struct{ Step, State, Message string }
		if err := json.Unmarshal([]byte(e.data), &line); err != nil || e.name != "log" {
			t.Fatalf("event %+v: %v", e, err)
		}
		told[line.Step] = append(told[line.Step], line.State)
	}
	if s := told[""]; len(s) == 0 || s[0] != "started" || s[len(s)-1] != "done" {
		t.Errorf("the log begins and ends with %v", s)
	}
	for _, plan := range *c.Account(id).Plans {
		if plan.Action != "rotate" {
			continue
		}
		for _, step := range plan.Steps {
			if s := told[step.Id]; len(s) < 2 || s[0] != "started" || !slices.Contains([]string{"done", "skipped"}, s[len(s)-1]) {
				t.Errorf("of step %s the log tells %v", step.Id, s)
			}
		}
	}
}
