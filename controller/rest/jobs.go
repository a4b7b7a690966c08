package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// ListJobs implements the contract.
func (s *Server) ListJobs(ctx context.Context, r ListJobsRequestObject) (ListJobsResponseObject, error) {
	before, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	limit := 100
	if r.Params.Limit != nil {
		limit = *r.Params.Limit
	}
	out := client.JobPage{Items: []client.Job{}}
	err = s.view(ctx, func(tx *store.Tx) error {
		sees, err := sight(ctx, tx)
		if err != nil {
			return err
		}
		f := jobs.Filter{Sees: func(j *jobs.Job) (bool, error) {
			o, err := jobObject(tx, j)
			return err == nil && sees(o), err
		}, State: jobs.State(value(r.Params.State))}
		if r.Params.Account != nil {
			if err := permit(ctx, tx, accountKind, *r.Params.Account); err != nil {
				return err
			}
			acc, err := lifecycle.Get(tx, *r.Params.Account)
			if err != nil {
				return err
			}
			f.Account = acc.ID
		}
		list, more, err := jobs.List(tx, f, reeve.JobID(before), limit)
		if err != nil {
			return err
		}
		for _, j := range list {
			shown, err := showJob(tx, j)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, shown)
		}
		if more {
			out.Next = optional(encodeCursor(string(list[len(list)-1].ID)))
		}
		return nil
	})
	return ListJobs200JSONResponse(out), err
}

func showJob(tx *store.Tx, j *jobs.Job) (client.Job, error) {
	n := names{tx}
	out := client.Job{Id: string(j.ID), Site: n.site(j.SiteID), Connector: j.Connector, Operation: j.Operation, Class: j.Class.String(),
		State: client.JobState(j.State), Attempt: int(j.Attempt), Owner: optional(j.Owner), CancelRequested: optional(j.CancelRequested),
		CreatedAt: j.CreatedAt, NotBefore: instant(j.NotBefore), Deadline: instant(j.Deadline), FinishedAt: instant(j.FinishedAt),
		Asset: optional(n.asset(j.AssetID)), Legacy: n.legacy(j.AssetID), Account: optional(n.account(j.AccountID)), Agent: optional(n.agent(j.Lease.Agent))}
	res, err := j.DecodeResult()
	if err != nil {
		return out, err
	}
	if res != nil {
		out.Outcome = optional(res.GetOutcome())
		out.Rights = showRights(res.GetRights())
		out.Logins = showLogins(res.GetObservation())
		if res.GetClass() != "" {
			out.Error = &client.Failure{Class: res.GetClass(), Message: res.GetMessage(), Fix: optional(res.GetFix())}
		}
	}
	if out.Error == nil && j.Failure != "" {
		out.Error = &client.Failure{Class: string(j.State), Message: j.Failure}
	}
	return out, nil
}

func showLogins(o *agentv1.Observation) *[]client.Login {
	shown := []client.Login{}
	for _, l := range o.GetLogins() {
		shown = append(shown, client.Login{Slot: l.GetSlot(), Version: int(l.GetVersion()), Verdict: l.GetVerdict()})
	}
	if len(shown) == 0 {
		return nil
	}
	return &shown
}

func showRights(rights []*connectorv1.Right) *[]client.Right {
	if len(rights) == 0 {
		return nil
	}
	shown := []client.Right{}
	for _, r := range rights {
		shown = append(shown, client.Right{Name: r.GetName(), Reason: r.GetReason(), Held: r.GetHeld(), Grant: optional(r.GetGrant())})
	}
	return &shown
}

// GetJob implements the contract.
func (s *Server) GetJob(ctx context.Context, r GetJobRequestObject) (GetJobResponseObject, error) {
	out, err := s.job(ctx, r.Job)
	return GetJob200JSONResponse(out), err
}

func (s *Server) job(ctx context.Context, id string) (out client.Job, err error) {
	err = s.view(ctx, func(tx *store.Tx) error {
		j, err := jobs.Get(tx, reeve.JobID(id))
		if err != nil {
			return err
		}
		out, err = showJob(tx, j)
		return err
	})
	return out, err
}

// CancelJob implements the contract.
func (s *Server) CancelJob(ctx context.Context, r CancelJobRequestObject) (CancelJobResponseObject, error) {
	out, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (client.Job, error) {
		j, err := s.Broker.CancelIn(tx, by, reeve.JobID(r.Job))
		if err != nil {
			return client.Job{}, err
		}
		return showJob(tx, j)
	})
	return CancelJob200JSONResponse(out), err
}

// RetryJob implements the contract.
func (s *Server) RetryJob(ctx context.Context, r RetryJobRequestObject) (RetryJobResponseObject, error) {
	out, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (client.Job, error) {
		j, err := s.Lifecycle.RetryJob(tx, by, reeve.JobID(r.Job))
		if err != nil {
			return client.Job{}, err
		}
		return showJob(tx, j)
	})
	return RetryJob200JSONResponse(out), err
}
