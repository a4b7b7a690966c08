// Package recipe is a list of steps: what a plan shows, together with how each is done. Connectors whose Apply goes through such a list from
// top to bottom import it.
package recipe

import (
	"context"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Step is a step of a plan and how it is done. W is what one Apply works with.
type Step[W any] struct {
	sdk.Step
	// Do makes sure of the step; done is false if there was nothing to do.
	Do func(ctx context.Context, work W) (done bool, err error)
}

// Plan is what the steps look like to those who approve them.
func Plan[W any](in sdk.Intent, steps []Step[W]) sdk.Plan {
	p := sdk.Plan{Action: in.Action, Account: in.Account, Steps: []sdk.Step{}}
	for _, s := range steps {
		p.Steps = append(p.Steps, s.Step)
	}
	return p
}

// Follow does the steps in their order, tells of each, and ends with the first error, which it returns as it is. Before each step it calls begin
// with what adds a line about that step to the live log. changed says that a step was done.
func Follow[W any](ctx context.Context, steps []Step[W], work W, progress sdk.Progress, begin func(s sdk.Step, note func(string))) (changed bool, err error) {
	for _, s := range steps {
		tell := func(state sdk.StepState, message string) {
			progress(sdk.Event{Step: s.ID, State: state, Message: message})
		}
		begin(s.Step, func(m string) { tell(sdk.StepInfo, m) })
		tell(sdk.StepStarted, s.Title)
		done, err := s.Do(ctx, work)
		if err != nil {
			tell(sdk.StepFailed, sdk.ErrorText(err))
			return changed, err
		}
		state := sdk.StepSkipped
		if done {
			state, changed = sdk.StepDone, true
		}
		tell(state, "")
	}
	return changed, nil
}
