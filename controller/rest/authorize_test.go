package rest

import (
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/controller/identity"
)

func TestEveryOperationHasAnAction_Z1(t *testing.T) {
	t.Parallel()
	ct, err := newContract()
	if err != nil {
		t.Fatal(err)
	}
	if err := ct.checkActions(); err != nil {
		t.Error(err)
	}
	r := ct.routes["GET /v1/sites"]
	renamed := *r
	operation := *r.Operation
	operation.OperationID = "somethingNew"
	renamed.Operation = &operation
	ct.routes["GET /v1/sites"] = &renamed
	if err := ct.checkActions(); err == nil || !strings.Contains(err.Error(), "somethingNew") {
		t.Errorf("an operation nobody thought of: %v", err)
	}
}

// Who may do nothing is refused by every operation that needs a token.
func TestAPrincipalWithoutPrivilegesIsRefusedEverything_Z1(t *testing.T) {
	t.Parallel()
	ct, err := newContract()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{contract: ct, log: slog.New(slog.DiscardHandler)}
	for key, r := range ct.routes {
		if open[key] {
			continue
		}
		method, path, _ := strings.Cut(key, " ")
		w := httptest.NewRecorder()
		_, engine := gin.CreateTestContext(w)
		reached := false
		engine.Handle(method, path, func(c *gin.Context) { c.Set(principalKey, identity.Principal{Kind: "stranger"}) },
			s.authorize, func(*gin.Context) { reached = true })
		engine.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, strings.ReplaceAll(path, ":", "x"), nil))
		if reached || w.Code != 403 {
			t.Errorf("%s: answered %d, reached %t", r.Operation.OperationID, w.Code, reached)
		}
	}
}
