package link

import (
	"context"
	"crypto/tls"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Enroll makes the data directory that of a new agent: it trades the join token for a
// certificate. After a failure, or a crash at any point, calling it again with the same
// token gives the same agent. Codes: join_token_invalid, agent_enrolled (the directory
// already is an agent's), controller_unreachable, controller_untrusted (who answers is
// not of the token's cluster), the controller's own when it refuses (join_token_used,
// join_token_expired, join_token_unknown, agent_banned, …), and enrolment_refused when it
// gives none.
func Enroll(ctx context.Context, dir string, token reeve.Secret, version string, log *slog.Logger) (Identity, error) {
	tok, err := jointoken.Parse(token)
	if err != nil {
		return Identity{}, err
	}
	defer tok.Secret.Wipe()
	f, err := readFile(dir)
	if err != nil {
		return Identity{}, err
	}
	if f == nil || f.Cluster != tok.Cluster && f.Agent == "" {
		f = &file{Cluster: tok.Cluster}
	}
	if f.Agent != "" {
		return Identity{}, reeve.Errorf(reeve.Conflict, "agent_enrolled", "%s already holds agent %s (%s) of cluster %s", dir, f.Name, f.Agent, f.Cluster).
			WithFix("run this agent, or enrol another one in an empty directory")
	}
	f.Seeds = tok.Addresses
	if f.Pending == nil {
		if f.Pending, err = newKeys(); err != nil {
			return Identity{}, err
		}
	}
	if err := f.write(dir); err != nil { // the keys, before they are shown to anybody
		return Identity{}, err
	}
	if err := askToEnroll(ctx, f, tok, version, log); err != nil {
		return Identity{}, err
	}
	if err := f.write(dir); err != nil {
		return Identity{}, err
	}
	return f.identity(f.Next)
}

func askToEnroll(ctx context.Context, f *file, tok jointoken.Token, version string, log *slog.Logger) error {
	csr, public, err := f.Pending.request()
	if err != nil {
		return err
	}
	var untrusted atomic.Pointer[error]
	d := newDialer(f.known(), log, func() (*tls.Config, error) {
		config := controllerTLS(tok.Cluster, nil, nil, &tok.CASPKIHash)
		verify := config.VerifyConnection
		config.VerifyConnection = func(s tls.ConnectionState) error {
			err := verify(s)
			if err != nil {
				untrusted.Store(&err)
			}
			return err
		}
		return config, nil
	})
	defer d.close()
	var res *agentv1.EnrollResponse
	err = d.call(ctx, func(ctx context.Context, c agentv1.AgentServiceClient) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		res, err = c.Enroll(ctx, &agentv1.EnrollRequest{Token: tok.Secret.Bytes(), CsrDer: csr, HpkePublicKey: public, Version: version})
		if err != nil && untrusted.Load() != nil { // no use in asking again
			return status.Error(codes.Unauthenticated, "untrusted")
		}
		return err
	})
	if cause := untrusted.Load(); err != nil && cause != nil {
		return reeve.Errorf(reeve.Denied, "controller_untrusted", "who answers at %s is not a controller of the cluster the join token names", strings.Join(tok.Addresses, ", ")).
			WithFix("have a new join token made on the cluster this agent is to serve").Wrap(*cause)
	}
	if err != nil {
		return enrollError(err)
	}
	return f.take(res.GetIdentity())
}

// enrollError is the controller's error as the controller meant it, or what became of
// asking.
func enrollError(err error) error {
	for _, detail := range status.Convert(err).Details() {
		info, ok := detail.(*errdetails.ErrorInfo)
		if !ok || info.GetReason() == "" || !permanent(status.Code(err)) {
			continue
		}
		text := strings.TrimPrefix(status.Convert(err).Message(), info.GetReason()+": ")
		fix := info.GetMetadata()["fix"]
		return reeve.Errorf(reeve.Denied, info.GetReason(), "%s", strings.TrimSuffix(text, " ("+fix+")")).WithFix("%s", fix)
	}
	if status.Code(err) == codes.Unimplemented {
		return reeve.Errorf(reeve.Denied, "enrolment_refused", "agents cannot enrol at the addresses in this join token").
			WithFix("have an agent's token made, with `reeve agent join-token`: one for a controller is of no use here").Wrap(err)
	}
	if permanent(status.Code(err)) {
		return reeve.Errorf(reeve.Denied, "enrolment_refused", "the controller refused to enrol this agent: %s", status.Convert(err).Message()).
			WithFix("have a new join token made for this agent's site").Wrap(err)
	}
	return reeve.Errorf(reeve.Unavailable, "controller_unreachable", "no controller could be asked to enrol this agent").
		WithFix("check that the addresses in the join token can be reached from here, then try again").Wrap(err)
}

// identity describes the agent with a credential.
func (f *file) identity(c *credential) (Identity, error) {
	if c == nil {
		return Identity{}, reeve.Errorf(reeve.Precondition, "agent_not_enrolled", "this data directory holds no agent").
			WithFix("enrol it first: reeve-agent enroll")
	}
	cert, err := c.tls()
	if err != nil {
		return Identity{}, err
	}
	return Identity{Cluster: f.Cluster, Site: f.Site, Agent: f.Agent, Name: f.Name, Generation: c.Generation,
		NotBefore: cert.Leaf.NotBefore.In(time.UTC), NotAfter: cert.Leaf.NotAfter.In(time.UTC)}, nil
}
