package sdk_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestTheErrorOfALoginIsAVerdictIfItIsAboutTheAccount(t *testing.T) {
	t.Parallel()
	for class, kind := range map[sdk.Class]sdk.VerdictKind{
		sdk.ClassAuthFailed: sdk.VerdictBadCredential, sdk.ClassLocked: sdk.VerdictLocked, sdk.ClassExpired: sdk.VerdictExpired,
		sdk.ClassDisabled: sdk.VerdictDisabled, sdk.ClassMustChange: sdk.VerdictMustChange, sdk.ClassUnreachable: sdk.VerdictUnreachable,
		sdk.ClassBusy: sdk.VerdictUnknown, sdk.ClassProtocol: sdk.VerdictUnknown, sdk.ClassNotPermitted: sdk.VerdictUnknown,
		sdk.ClassHostKeyUnknown: "", sdk.ClassHostKeyChanged: "", sdk.ClassInvalid: "", sdk.ClassUnsupported: "", sdk.ClassInternal: "",
		sdk.ClassCancelled: "",
	} {
		cause := sdk.Errorf(class, "message").WithFix("fix")
		want, wantErr := sdk.Verdict{Kind: kind, Message: "message", Fix: "fix"}, error(nil)
		if kind == "" {
			want, wantErr = sdk.Verdict{}, cause
		}
		got, err := sdk.VerdictOf(cause)
		if d := cmp.Diff(want, got); d != "" || err != wantErr { //nolint:errorlint // it comes back as it is
			t.Errorf("%s: %s, %v", class, d, err)
		}
	}
	if _, err := sdk.VerdictOf(fmt.Errorf("x: %w", sdk.Errorf(sdk.ClassLocked, "m"))); err != nil {
		t.Errorf("a wrapped one: %v", err)
	}
	foreign := errors.New("near 'Sup3rSecret'")
	if v, err := sdk.VerdictOf(foreign); v != (sdk.Verdict{}) || !errors.Is(err, foreign) {
		t.Errorf("somebody else's error: %+v, %v", v, err)
	}
}
