package sdktest_test

import (
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

func TestChecksOfTrustAreNotApplicableWithoutIdentity(t *testing.T) {
	t.Parallel()
	cfg := config(toy.NewMachine(t))
	cfg.Connector = toy.Connector{}
	cfg.WrongTrust = sdk.Trust{}
	if _, err := sdktest.Examine(t.Context(), cfg); err == nil {
		t.Error("a target with an identity was examined without a wrong one")
	}
	cfg.NoIdentity = true
	report, err := sdktest.Examine(t.Context(), cfg, "SDK02", "SDK03", "SDK04")
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]sdktest.Status{
		"SDK02": sdktest.Passed, "SDK03": sdktest.NotApplicable, "SDK04": sdktest.NotApplicable,
	} {
		if o, _ := report.Outcome(id); o.Status != want || want == sdktest.NotApplicable && o.Message == "" {
			t.Errorf("%s: %s (%q), want %s", id, o.Status, o.Message, want)
		}
	}
	if !report.Passed() {
		t.Error("a report of checks passed and not applicable has not passed")
	}
}
