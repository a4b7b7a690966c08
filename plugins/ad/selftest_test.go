package main

import (
	"testing"

	"github.com/reeve-pam/reeve/internal/selftest/recorded"
	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

// What the connector's self-test does here is shipped, for owners of real targets to compare theirs with.
func TestTheSelfTestIsTheRecordedOne(t *testing.T) {
	t.Parallel()
	program := direct.Build(t)
	d := testlab.NewSambaAD(t, testlab.New(t), testlab.SambaOptions{})
	recorded.Check(t, program, target(d), "ad-domain-user", nil)
}
