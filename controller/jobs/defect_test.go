package jobs

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// A defect in a handler must not end the leader, and the next one, and the next.
func TestAHandlerThatPanicsBuriesTheJobAlone_J3(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.broker.handlers["test"] = func(*store.Tx, *Job, *agentv1.Result) error { panic("canary") }
		a := r.agent("site_1").attach(8)
		reported := r.enqueue(Spec{SiteID: "site_1"})
		a.report(a.takeOne(), reeve.Done, "")
		if j := r.expect(reported.ID, StateDead); j.Failure != "the controller could not take the result: handler_panic" {
			t.Errorf("failure %q", j.Failure)
		}
		lost := r.enqueue(Spec{SiteID: "site_1"})
		a.takeOne()
		time.Sleep(2 * LeaseTerm) // the broker's own loop meets the defect
		r.expect(lost.ID, StateDead)
	})
}

// An agent gets back the credit of a job that was granted to it and never sent.
func TestAGrantThatCameTooLateCostsNoCredit(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		a := r.agent("site_1")
		p, err := r.broker.Attach(Puller{ID: a.id, SiteID: a.site, Connectors: []string{"ssh"}})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		p.AddCredits(1)
		r.enqueue(Spec{SiteID: "site_1"})
		synctest.Wait()
		time.Sleep(LeaseTerm + time.Second) // the stream is stuck meanwhile
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		m, err := p.Next(ctx)
		if err != nil || m.GetJob() == nil {
			t.Fatalf("sent %v, %v", m, err)
		}
	})
}
