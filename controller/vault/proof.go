package vault

import (
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Proof says that a fresh login with one version worked. It is the only key to
// Promote, and only NewProof makes one.
type Proof struct {
	job     reeve.JobID
	fence   uint64
	secret  reeve.SecretID
	version uint32
}

// NewProof takes a login from the report of a job whose fence was live when the
// report was accepted. A login with any verdict but "ok" is no proof: Conflict
// "not_proven".
func NewProof(job reeve.JobID, fence uint64, login *agentv1.LoginAttempt) (Proof, error) {
	if login.GetVerdict() != "ok" {
		return Proof{}, reeve.Errorf(reeve.Conflict, "not_proven", "the login of job %s was answered %q, not ok", job, login.GetVerdict())
	}
	return Proof{job: job, fence: fence, secret: reeve.SecretID(login.GetSecret()), version: login.GetVersion()}, nil
}
