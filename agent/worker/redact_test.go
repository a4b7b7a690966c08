package worker

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

const canary = "c4nary-Secret!"

func withCanary() *run {
	return &run{redact: redact.New(reeve.SecretString(canary), reeve.SecretString("app"))}
}

// A connector that puts a secret into what it reports does not get it past the agent.
// Names that happen to be short secrets stay what they are.
func TestResultsAreRedacted_J6(t *testing.T) {
	t.Parallel()
	res := &agentv1.Result{Outcome: "not_done", Class: "internal", Message: "server said " + canary + " of app", Fix: canary,
		Details: map[string]string{"x": canary, canary: "y"}, Residue: []string{"file " + canary},
		Facts:       &connectorv1.Facts{Account: "app", Groups: []string{canary}, Attributes: map[string]string{"comment": canary}},
		Fingerprint: &connectorv1.Fingerprint{MissingRights: []string{canary}},
		Observation: &agentv1.Observation{Logins: []*agentv1.LoginAttempt{{Slot: "current", Verdict: "ok"}}}}
	withCanary().clean(res)
	if s := res.String(); strings.Contains(s, canary) {
		t.Errorf("shown: %s", s)
	}
	if res.Facts.Account != "app" || res.Outcome != "not_done" || res.Observation.Logins[0].Slot != "current" {
		t.Errorf("too much was taken out: %v", res)
	}
	if res.Message != "server said [redacted] of [redacted]" {
		t.Errorf("message %q", res.Message)
	}
}

func TestPlanWithASecretIsRefused(t *testing.T) {
	t.Parallel()
	res := done()
	res.Plans = []*agentv1.PlannedAction{{Hash: "h", Plan: &connectorv1.Plan{Steps: []*connectorv1.Step{{Command: "set " + canary}}}}}
	withCanary().clean(res)
	if res.Outcome != "not_done" || len(res.Plans) != 0 || strings.Contains(res.String(), canary) {
		t.Errorf("got %v", res)
	}
}

// A result that no controller would take is made small; what is known stays.
func TestGiantResultIsMadeSmall(t *testing.T) {
	t.Parallel()
	giant := strings.Repeat("é", maxResult)
	for op, outcome := range map[string]string{"rotate": "done", "inspect": "not_done"} {
		res := done()
		res.Facts = &connectorv1.Facts{Grants: []string{giant}}
		res.Message = giant
		res.Observation = &agentv1.Observation{Logins: []*agentv1.LoginAttempt{{Slot: "candidate", Verdict: "ok"}}}
		shrink(&agentv1.Job{Work: &agentv1.Work{Operation: op}}, res)
		if proto.Size(res) > maxResult || res.Outcome != outcome || len(res.Observation.Logins) != 1 {
			t.Errorf("%s: %s with %d bytes", op, res.Outcome, proto.Size(res))
		}
	}
}
