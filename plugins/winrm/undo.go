package main

import (
	"context"
	"errors"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// undo takes back what the role's commands gave, which Windows keeps for accounts that are gone, and removes an account that this call made
// and could not finish. Anything else, and an account whose fate is unknown, stays for the next try.
func (w *work) undo(ctx context.Context, cause error) error {
	if !w.created || w.broken || sdk.ClassOf(cause) == sdk.ClassUnknownOutcome || ctx.Err() != nil {
		return cause
	}
	var left []string
	if w.granting {
		b := builder{in: w.in}
		b.role(sdk.PhaseRevoke)
		for _, s := range b.steps {
			if _, err := s.Do(ctx, w); err != nil {
				left = append(left, "what "+s.ID+" should have taken from "+w.in.Account+" ("+w.account.SID+"): "+sdk.ErrorText(err))
			}
		}
	}
	out := sdk.Errorf(sdk.ClassOf(cause), "%s", sdk.ErrorText(cause))
	if e, ok := errors.AsType[*sdk.Error](cause); ok {
		out.Fix, out.Err = e.Fix, e.Err
	}
	if err := w.change(ctx, "remove the unfinished account", scriptRemove, nil, sdk.Secret{}, &struct{}{}); err != nil {
		left = append(left, "the account "+w.in.Account+" ("+w.account.SID+"), disabled")
		out = sdk.Errorf(sdk.ClassUnknownOutcome, "%v; and the unfinished account could not be removed: %v", cause, err).WithFix(sdk.LookFirst)
	}
	if len(left) > 0 {
		out.Details = map[string]string{"residue": strings.Join(left, "\n")}
	}
	return out
}
