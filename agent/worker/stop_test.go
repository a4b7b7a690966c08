package worker

import (
	"context"
	"testing"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Two restarts of an agent must not make a job look poisonous: only internal failures
// count as crashes.
func TestAStoppedAgentIsNotTheJobsFault(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	res := (&run{}).interrupted(ctx, ctx.Err())
	if res.Outcome != string(reeve.NotDone) || res.Class != string(reeve.ClassBusy) || !reeve.ClassBusy.Retryable() {
		t.Errorf("a job the agent had not touched ended %s, %s", res.Outcome, res.Class)
	}
	res = (&run{touched: true}).interrupted(ctx, ctx.Err())
	if res.Outcome != string(reeve.OutcomeUncertain) {
		t.Errorf("a job that was changing the target ended %s", res.Outcome)
	}
}
