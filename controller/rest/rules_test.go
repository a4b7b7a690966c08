package rest

import (
	"slices"
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

// No token changes how people sign in, or decides for them: whoever finds one must not be
// able to become its owner, or to lock them out (CVE-2024-12356).
func TestNoTokenChangesHowPeopleSignIn_CVE_2024_12356(t *testing.T) {
	t.Parallel()
	byToken := map[string]string{
		"EndSession": "root's token alone: the handler refuses the others",
		"InviteUser": "who has no password yet: identity refuses to replace one",
	}
	for name, r := range rules {
		of, _, _ := strings.Cut(r.records, ".")
		personal := slices.Contains([]string{"factor", "recovery_code", "password", "session", "invitation", "request", "approval"}, of)
		switch {
		case r.access == open, byToken[name] != "":
		case personal != r.session:
			t.Errorf("%s records %s; that it needs a session is %t", name, r.records, r.session)
		}
	}
}
