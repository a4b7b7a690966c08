package main_test

import (
	"testing"

	"github.com/reeve-pam/reeve/internal/selftest/recorded"
	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// What the connector's self-test does here is shipped, for owners of real targets to compare theirs with.
func TestTheSelfTestIsTheRecordedOne(t *testing.T) {
	t.Parallel()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	const password = "Mgmt.'$(id) 7\"pw"
	h := testlab.SSHHost(t, testlab.HostOptions{Accounts: []testlab.HostAccount{{Name: "root", Password: password}}, Telnet: true})
	recorded.Check(t, path, hooks(h, sdk.Credential{Username: "root", Password: sdk.NewSecret([]byte(password))}).Target, "", nil)
}
