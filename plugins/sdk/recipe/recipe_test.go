package recipe_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

type work struct {
	note func(string)
	did  []string
}

// step is one that notes that it was done, and ends as is said.
func step(id string, done bool, err error) recipe.Step[*work] {
	return recipe.Step[*work]{
		Step: sdk.Step{ID: id, Title: "Title " + id, Command: "do " + id, Changes: true},
		Do: func(_ context.Context, w *work) (bool, error) {
			w.did = append(w.did, id)
			w.note("note " + id)
			return done, err
		},
	}
}

func TestStepsAreFollowedUntilOneFails(t *testing.T) {
	t.Parallel()
	ours := sdk.Errorf(sdk.ClassBusy, "it is busy")
	foreign := errors.New("near 'Sup3rSecret'")
	for _, c := range []struct {
		name    string
		steps   []recipe.Step[*work]
		changed bool
		err     error
		did     []string
		last    sdk.Event
	}{
		{"all there", []recipe.Step[*work]{step("a", false, nil), step("b", false, nil)}, false, nil, []string{"a", "b"}, sdk.Event{Step: "b", State: sdk.StepSkipped}},
		{"one to do", []recipe.Step[*work]{step("a", true, nil), step("b", false, nil)}, true, nil, []string{"a", "b"}, sdk.Event{Step: "b", State: sdk.StepSkipped}},
		{"done last", []recipe.Step[*work]{step("a", false, nil), step("b", true, nil)}, true, nil, []string{"a", "b"}, sdk.Event{Step: "b", State: sdk.StepDone}},
		{
			"a failure", []recipe.Step[*work]{step("a", true, nil), step("b", false, ours), step("c", true, nil)}, true, ours,
			[]string{"a", "b"}, sdk.Event{Step: "b", State: sdk.StepFailed, Message: "it is busy"},
		},
		{
			"an error of somebody else is not quoted", []recipe.Step[*work]{step("a", true, foreign)}, false, foreign,
			[]string{"a"}, sdk.Event{Step: "a", State: sdk.StepFailed, Message: "an unforeseen failure"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := &work{}
			var events []sdk.Event
			begun := 0
			changed, err := recipe.Follow(t.Context(), c.steps, w, func(e sdk.Event) { events = append(events, e) },
				func(s sdk.Step, note func(string)) {
					if s.ID != c.steps[begun].ID || len(w.did) != begun {
						t.Errorf("%s has begun after %v", s.ID, w.did)
					}
					begun++
					w.note = note
				})
			if changed != c.changed || err != c.err { //nolint:errorlint // it is returned as it is
				t.Errorf("changed %t, %v", changed, err)
			}
			if d := cmp.Diff(c.did, w.did); d != "" {
				t.Error(d)
			}
			first := []sdk.Event{{Step: "a", State: sdk.StepStarted, Message: "Title a"}, {Step: "a", State: sdk.StepInfo, Message: "note a"}}
			if d := cmp.Diff(first, events[:2]); d != "" {
				t.Error(d)
			}
			if d := cmp.Diff(c.last, events[len(events)-1]); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestAPlanShowsTheSteps(t *testing.T) {
	t.Parallel()
	in := sdk.Intent{Action: sdk.Rotate, Account: "anna"}
	a, b := step("a", true, nil), step("b", true, nil)
	want := sdk.Plan{Action: sdk.Rotate, Account: "anna", Steps: []sdk.Step{a.Step, b.Step}}
	if d := cmp.Diff(want, recipe.Plan(in, []recipe.Step[*work]{a, b})); d != "" {
		t.Error(d)
	}
	if p := recipe.Plan[*work](in, nil); p.Steps == nil {
		t.Error("no steps are not an empty list")
	}
}
