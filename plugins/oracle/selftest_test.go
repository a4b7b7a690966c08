package main

import (
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/internal/selftest/recorded"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

// What the connector's self-test does here is shipped, for owners of real targets to compare theirs with.
func TestTheSelfTestIsTheRecordedOne(t *testing.T) {
	t.Parallel()
	program := direct.Build(t)
	s := oracle.Start(t, oracle.Options{Major: 23})
	s.Exec(`GRANT "SELECT_CATALOG_ROLE" TO "` + oracle.Management + `" WITH ADMIN OPTION`) // to pass it on
	recorded.Check(t, program, target(s), "oracle-monitor", nil)
}
