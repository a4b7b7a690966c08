package gateway

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

const soon = 10 * time.Second

// The whole way of a job over the wire: enrol, pull, open the secret, log, report. A6:
// nothing of it is in the controller's log.
func TestAgentEnrolsWorksAndReports_A6(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ref := jobs.SecretRef{Slot: "candidate", Kind: "password"}
	r.update(func(tx *store.Tx) (err error) {
		if ref.Secret, err = r.vault.Create(tx, vault.Password, "acct_1"); err != nil {
			return err
		}
		ref.Version, err = r.vault.AddCandidate(tx, ref.Secret, reeve.SecretString("canary-5e7a"))
		return err
	})
	a := r.enrol(reeve.NewSiteID(), "a1")
	messages, _ := r.pull(a, 1)
	j := r.enqueue(jobs.Spec{SiteID: a.site, AccountID: "acct_1", Mutates: true, Secrets: []jobs.SecretRef{ref}})
	got := within(t, soon, messages, "job").GetJob()
	s := got.GetSecrets()[0]
	v, err := envelope.Open(a.hpke, envelope.Binding{Cluster: cluster, Site: a.site, Agent: a.id, Job: j.ID, Fence: got.GetFence(), Connector: "ssh"},
		envelope.Ref{Slot: "candidate", Secret: ref.Secret, Version: ref.Version}, s.GetEnc(), s.GetCiphertext())
	if err != nil || v.Reveal() != "canary-5e7a" {
		t.Fatalf("secret: %v", err)
	}
	st, err := a.StreamLogs(t.Context())
	check(t, err)
	for n := range 20 {
		check(t, st.Send(&agentv1.StreamLogsRequest{Chunk: &agentv1.LogChunk{Job: got.GetId(), Attempt: 1, Fence: got.GetFence(),
			Sequence: uint64(n + 1), Offset: uint64(3 * n), Data: fmt.Appendf(nil, "%02d\n", n), Last: n == 19}})) //nolint:gosec // small
	}
	for acked := uint64(0); acked < 20; {
		ack, err := st.Recv()
		check(t, err)
		if ack.GetSequence() <= acked || ack.GetRefused() {
			t.Fatalf("ack %v after %d", ack, acked)
		}
		acked = ack.GetSequence()
	}
	check(t, st.CloseSend())
	leases, err := a.RenewLeases(t.Context(), &agentv1.RenewLeasesRequest{Leases: []*agentv1.LeaseRef{{Job: got.GetId(), Fence: got.GetFence()}}})
	check(t, err)
	if s := leases.GetLeases()[0].GetState(); s != "held" {
		t.Fatalf("lease is %s", s)
	}
	for range 2 { // the second time as after a lost answer
		res, err := a.ReportOutcome(t.Context(), &agentv1.ReportOutcomeRequest{Job: got.GetId(), Fence: got.GetFence(), Attempt: 1, Result: &agentv1.Result{Outcome: "done"}})
		check(t, err)
		if res.GetStale() {
			t.Fatal("stale")
		}
	}
	var text []byte
	for e, err := range r.broker.TailLog(t.Context(), j.ID, jobs.LogPosition{}) {
		check(t, err)
		text = append(text, e.Data...)
	}
	if len(text) != 60 || !bytes.HasSuffix(text, []byte("18\n19\n")) {
		t.Fatalf("log %q", text)
	}
	if strings.Contains(r.log.String(), "canary") {
		t.Error("the controller's log holds the secret")
	}
}

func TestEveryCallNeedsAnAgentsCertificate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stranger := r.dial()
	_, err := stranger.Renew(t.Context(), &agentv1.RenewRequest{})
	expectStatus(t, err, codes.Unauthenticated, "certificate_required")
	_, err = stranger.RenewLeases(t.Context(), &agentv1.RenewLeasesRequest{})
	expectStatus(t, err, codes.Unauthenticated, "certificate_required")
	_, err = stranger.ReportOutcome(t.Context(), &agentv1.ReportOutcomeRequest{})
	expectStatus(t, err, codes.Unauthenticated, "certificate_required")
	pull, err := stranger.PullJobs(t.Context())
	check(t, err)
	_, err = pull.Recv()
	expectStatus(t, err, codes.Unauthenticated, "certificate_required")
	logs, err := stranger.StreamLogs(t.Context())
	check(t, err)
	_, err = logs.Recv()
	expectStatus(t, err, codes.Unauthenticated, "certificate_required")

	// A certificate of the right form that another authority signed does not get past
	// the handshake.
	a := r.enrol(reeve.NewSiteID(), "a1")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	uri, err := url.Parse("spiffe://" + cluster + "/site/" + string(a.site) + "/agent/" + string(a.id))
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{uri},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(t, err)
	_, err = r.dial(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}).RenewLeases(t.Context(), &agentv1.RenewLeasesRequest{})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a forged certificate: %v", err)
	}
}

func TestJoinTokenIsGoodOnceAndItsRefusalHasACode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	token := r.token(reeve.NewSiteID(), "a1")
	_, csr, h := request(t)
	enrol := &agentv1.EnrollRequest{Token: token, CsrDer: csr, HpkePublicKey: h.PublicKey().Bytes()}
	first, err := r.dial().Enroll(t.Context(), enrol)
	check(t, err)
	again, err := r.dial().Enroll(t.Context(), enrol)
	check(t, err)
	if first.GetIdentity().GetAgent() != again.GetIdentity().GetAgent() {
		t.Error("a repeated enrolment made another agent")
	}
	_, other, _ := request(t)
	_, err = r.dial().Enroll(t.Context(), &agentv1.EnrollRequest{Token: token, CsrDer: other, HpkePublicKey: h.PublicKey().Bytes()})
	expectStatus(t, err, codes.Unauthenticated, "join_token_used")
	_, err = r.dial().Enroll(t.Context(), &agentv1.EnrollRequest{Token: []byte("guess"), CsrDer: csr, HpkePublicKey: h.PublicKey().Bytes()})
	expectStatus(t, err, codes.Unauthenticated, "join_token_unknown")
	_, err = r.dial().Enroll(t.Context(), &agentv1.EnrollRequest{Token: token, CsrDer: []byte("junk"), HpkePublicKey: h.PublicKey().Bytes()})
	expectStatus(t, err, codes.InvalidArgument, "csr_invalid")
	if log := r.log.String(); strings.Contains(log, string(token)) || strings.Contains(log, "guess") {
		t.Error("the controller's log holds a join token")
	}
}

func TestRenewedCertificateTakesOver(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.enrol(reeve.NewSiteID(), "a1")
	key, csr, h := request(t)
	res, err := a.Renew(t.Context(), &agentv1.RenewRequest{CsrDer: csr, HpkePublicKey: h.PublicKey().Bytes(), Generation: a.gen})
	check(t, err)
	if g := res.GetIdentity().GetGeneration(); g <= a.gen {
		t.Fatalf("generation %d after %d", g, a.gen)
	}
	renewed := r.dial(tls.Certificate{Certificate: [][]byte{res.GetIdentity().GetCertificateDer()}, PrivateKey: key})
	_, err = renewed.RenewLeases(t.Context(), &agentv1.RenewLeasesRequest{})
	check(t, err)
}

// A2: neither jobs, nor leases, nor logs, nor outcomes reach over to another site,
// whatever the agent asks for.
func TestAgentOfAnotherSiteLearnsNothing_A2(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	x, y := r.enrol(reeve.NewSiteID(), "a1"), r.enrol(reeve.NewSiteID(), "a1")
	fromX, _ := r.pull(x, 8)
	fromY, _ := r.pull(y, 8)
	j := r.enqueue(jobs.Spec{SiteID: x.site})
	got := within(t, soon, fromX, "job").GetJob()
	leases, err := y.RenewLeases(t.Context(), &agentv1.RenewLeasesRequest{Leases: []*agentv1.LeaseRef{{Job: got.GetId(), Fence: got.GetFence()}}})
	check(t, err)
	if s := leases.GetLeases()[0].GetState(); s != "lost" {
		t.Errorf("lease of another site is %s", s)
	}
	_, err = y.ReportOutcome(t.Context(), &agentv1.ReportOutcomeRequest{Job: got.GetId(), Fence: got.GetFence(), Result: &agentv1.Result{Outcome: "done"}})
	expectStatus(t, err, codes.NotFound, "job_not_found")
	// A job that is not there at all gives the same answer.
	_, err2 := y.ReportOutcome(t.Context(), &agentv1.ReportOutcomeRequest{Job: "job_none", Fence: 1, Result: &agentv1.Result{Outcome: "done"}})
	if a, b := strings.ReplaceAll(status.Convert(err).Message(), got.GetId(), ""), strings.ReplaceAll(status.Convert(err2).Message(), "job_none", ""); a != b {
		t.Errorf("%q tells that the job exists; of none it is %q", a, b)
	}
	st, err := y.StreamLogs(t.Context())
	check(t, err)
	check(t, st.Send(&agentv1.StreamLogsRequest{Chunk: &agentv1.LogChunk{Job: got.GetId(), Attempt: 1, Fence: got.GetFence(), Sequence: 1, Data: []byte("x\n")}}))
	ack, err := st.Recv()
	check(t, err)
	if !ack.GetRefused() {
		t.Errorf("log of another site: %v", ack)
	}
	// What is y's own does reach it, so the stream was open all the time.
	own := r.enqueue(jobs.Spec{SiteID: y.site})
	if m := within(t, soon, fromY, "own job"); m.GetJob().GetId() != string(own.ID) || len(fromY) != 0 {
		t.Errorf("y was sent %v", m)
	}
	check(t, r.store.View(t.Context(), func(tx *store.Tx) error {
		now, err := jobs.Get(tx, j.ID)
		if err == nil && now.State != jobs.StateLeased {
			t.Errorf("the job is %s", now.State)
		}
		return err
	}))
}

func TestBanClosesStreamsAndRefusesCalls_A3(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	bad, good := r.enrol(reeve.NewSiteID(), "bad"), r.enrol(reeve.NewSiteID(), "good")
	_, pullEnded := r.pull(bad, 1)
	_, goodEnded := r.pull(good, 1)
	logs, err := bad.StreamLogs(t.Context())
	check(t, err)
	logsEnded := make(chan error, 1)
	go func() {
		_, err := logs.Recv()
		logsEnded <- err
	}()
	r.update(func(tx *store.Tx) error { _, err := pki.BanAgent(tx, me, bad.id, "stolen"); return err })
	_, err = bad.RenewLeases(t.Context(), &agentv1.RenewLeasesRequest{})
	expectStatus(t, err, codes.PermissionDenied, "agent_banned")
	expectStatus(t, within(t, 5*time.Second, pullEnded, "end of the pull"), codes.PermissionDenied, "agent_banned")
	expectStatus(t, within(t, 5*time.Second, logsEnded, "end of the log stream"), codes.PermissionDenied, "agent_banned")
	if len(goodEnded) != 0 {
		t.Error("another agent's stream was closed too")
	}
}

func TestFollowerSaysWhereTheLeaderIs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.enrol(reeve.NewSiteID(), "a1")
	_, ended := r.pull(a, 1)
	r.leads.Store(false)
	expectElsewhere := func(err error) {
		t.Helper()
		st := status.Convert(err)
		i := slices.IndexFunc(st.Details(), func(d any) bool { _, ok := d.(*agentv1.NotLeader); return ok })
		if st.Code() != codes.FailedPrecondition || i < 0 {
			t.Fatalf("a follower answers %v", err)
		}
		d := st.Details()[i].(*agentv1.NotLeader) //nolint:errcheck,forcetypeassert // found above
		if d.GetLeaderAddress() != r.address || !slices.Equal(d.GetAddresses(), []string{r.address}) {
			t.Errorf("leader %q, addresses %v", d.GetLeaderAddress(), d.GetAddresses())
		}
	}
	_, err := r.dial().Enroll(t.Context(), &agentv1.EnrollRequest{})
	expectElsewhere(err)
	_, err = a.Renew(t.Context(), &agentv1.RenewRequest{})
	expectElsewhere(err)
	_, err = a.RenewLeases(t.Context(), &agentv1.RenewLeasesRequest{})
	expectElsewhere(err)
	_, err = a.ReportOutcome(t.Context(), &agentv1.ReportOutcomeRequest{})
	expectElsewhere(err)
	st, err := a.PullJobs(t.Context())
	check(t, err)
	_, err = st.Recv()
	expectElsewhere(err)
	expectElsewhere(within(t, 5*time.Second, ended, "end of the stream on the former leader"))
}

func TestHugeAndMeaninglessInputIsRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.enrol(reeve.NewSiteID(), "a1")
	_, err := a.ReportOutcome(t.Context(), &agentv1.ReportOutcomeRequest{Job: "job_1", Result: &agentv1.Result{Message: strings.Repeat("x", maxMessage)}})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a message over the limit: %v", err)
	}
	_, err = a.ReportOutcome(t.Context(), &agentv1.ReportOutcomeRequest{Job: "job_1", Result: &agentv1.Result{Outcome: "done", Message: strings.Repeat("x", jobs.MaxResult)}})
	expectStatus(t, err, codes.OutOfRange, "result_too_large")
	_, err = a.ReportOutcome(t.Context(), &agentv1.ReportOutcomeRequest{Job: "job_1"})
	expectStatus(t, err, codes.InvalidArgument, "result_invalid")
	_, err = a.RenewLeases(t.Context(), &agentv1.RenewLeasesRequest{Leases: make([]*agentv1.LeaseRef, maxLeasesAtOnce+1)})
	expectStatus(t, err, codes.OutOfRange, "too_many_leases")
	st, err := a.StreamLogs(t.Context())
	check(t, err)
	check(t, st.Send(&agentv1.StreamLogsRequest{})) // no chunk at all
	if ack, err := st.Recv(); err != nil || !ack.GetRefused() {
		t.Errorf("an empty log message: %v %v", ack, err)
	}
}

func TestServerStopsWithStreamsOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, ended := r.pull(r.enrol(reeve.NewSiteID(), "a1"), 1)
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.stop() }()
	if code := status.Code(within(t, soon, ended, "end of the stream")); code != codes.Unavailable && code != codes.FailedPrecondition {
		t.Errorf("the stream ended with %s", code)
	}
	within(t, soon, stopped, "stop")
}

func TestCausesStayInside(t *testing.T) {
	t.Parallel()
	s := New(Config{Logger: slog.New(slog.DiscardHandler)})
	cause := errors.New("canary: disk /var/lib at 10.0.0.1")
	for _, err := range []error{
		cause,
		fmt.Errorf("wrapped: %w", cause),
		reeve.Errorf(reeve.Internal, "disk_broken", "canary: inside").Wrap(cause),
		reeve.Errorf(reeve.Denied, "agent_banned", "agent a1 is banned").WithFix("ask").Wrap(cause),
	} {
		st := status.Convert(s.status(context.Background(), "m", err))
		if text := fmt.Sprint(st.Message(), st.Details()); strings.Contains(text, "canary") || st.Code() == codes.OK {
			t.Errorf("%v became %s", err, text)
		}
	}
	err := s.status(context.Background(), "m", fmt.Errorf("report: %w", reeve.Errorf(reeve.OutcomeUnknown, "commit_unknown", "unknown")))
	expectStatus(t, err, codes.Unavailable, "commit_unknown")
}
