package gateway

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Whatever an enrolled agent sends, no call panics or answers with a cause of ours, and a job of another site stays
// as it is.
func FuzzAgentMessage(f *testing.F) {
	r := newRig(f)
	a := r.enrol(reeve.NewSiteID(), "a1")
	job := r.enqueue(jobs.Spec{SiteID: reeve.NewSiteID()})
	add := func(kind byte, m proto.Message) {
		b, err := proto.Marshal(m)
		check(f, err)
		f.Add(kind, b)
	}
	_, csr, _ := request(f)
	add(0, &agentv1.EnrollRequest{Token: []byte("t"), CsrDer: csr, HpkePublicKey: a.hpke.PublicKey().Bytes(), Version: "1"})
	add(1, &agentv1.RenewRequest{CsrDer: csr, HpkePublicKey: a.hpke.PublicKey().Bytes()[1:], Generation: 1 << 63})
	add(2, &agentv1.RenewLeasesRequest{Leases: []*agentv1.LeaseRef{{Job: string(job.ID), Fence: 1}, {}}})
	add(3, &agentv1.ReportOutcomeRequest{Job: string(job.ID), Fence: 1, Attempt: 1, Result: &agentv1.Result{Outcome: "done"}})
	add(4, &agentv1.StreamLogsRequest{Chunk: &agentv1.LogChunk{Job: string(job.ID), Attempt: 1, Fence: 1, Sequence: 1, Data: []byte("{}\n")}})
	add(5, &agentv1.PullJobsRequest{Credits: 1 << 31, Connectors: []*agentv1.ConnectorInfo{{Name: "ssh"}}})
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var m proto.Message
		var call func() error
		switch kind % 6 {
		case 0:
			in := new(agentv1.EnrollRequest)
			m, call = in, func() error { _, err := a.Enroll(ctx, in); return err }
		case 1:
			in := new(agentv1.RenewRequest)
			m, call = in, func() error { _, err := a.Renew(ctx, in); return err }
		case 2:
			in := new(agentv1.RenewLeasesRequest)
			m, call = in, func() error { _, err := a.RenewLeases(ctx, in); return err }
		case 3:
			in := new(agentv1.ReportOutcomeRequest)
			m, call = in, func() error { _, err := a.ReportOutcome(ctx, in); return err }
		case 4:
			in := new(agentv1.StreamLogsRequest)
			m, call = in, func() error {
				st, err := a.StreamLogs(ctx)
				if err == nil && st.Send(in) == nil {
					_, err = st.Recv()
				}
				return err
			}
		case 5:
			in := new(agentv1.PullJobsRequest)
			m, call = in, func() error {
				st, err := a.PullJobs(ctx)
				if err == nil && st.Send(in) == nil {
					_, err = st.Recv()
				}
				return err
			}
		}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		if err := call(); status.Code(err) == codes.Internal || status.Code(err) == codes.Unknown {
			t.Fatalf("%T: %v", m, err)
		}
		check(t, r.store.View(ctx, func(tx *store.Tx) error {
			j, err := jobs.Get(tx, job.ID)
			if err == nil && j.State != jobs.StateQueued {
				t.Fatalf("the job of another site is now %s", j.State)
			}
			return err
		}))
	})
}
