package rest

import (
	"strings"
	"testing"
)

func TestARouteWithoutADeclarationStopsTheStart_Z1(t *testing.T) {
	t.Parallel()
	ct, err := newContract()
	if err != nil {
		t.Fatal(err)
	}
	if err := ct.checkRules(); err != nil {
		t.Error(err)
	}
	r := ct.routes["GET /v1/sites"]
	renamed := *r
	operation := *r.Operation
	operation.OperationID = "somethingNew"
	renamed.Operation = &operation
	ct.routes["GET /v1/sites"] = &renamed
	if err := ct.checkRules(); err == nil || !strings.Contains(err.Error(), "somethingNew") {
		t.Errorf("an operation nobody thought of: %v", err)
	}
}
