package sdk

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
)

// PlanHash identifies a plan: the lower-case hex SHA-256 of its canonical form. The
// canonical form is what encoding/json writes for Plan: the members in the order of
// the struct, no white space, "compensation" left out when empty, "steps" always an
// array, and within strings <, > and & as \u003c, \u003e and \u0026. Approvals, jobs and Apply refer to a plan by this hash, so its definition
// never changes within a protocol version.
func PlanHash(p Plan) string {
	if p.Steps == nil {
		p.Steps = []Step{}
	}
	canonical, err := json.Marshal(p)
	if err != nil { // strings and booleans always marshal
		panic("sdk: plan: " + err.Error())
	}
	sum := sha256.Sum256(canonical)
	return hex.EncodeToString(sum[:])
}
