package rest

import (
	"context"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/audit/sink"
	"github.com/reeve-pam/reeve/controller/store"
)

func showSink(tx *store.Tx, s *sink.Sink) (client.AuditSink, error) {
	p, err := sink.ProgressOf(tx, s)
	return client.AuditSink{Name: s.Name, Kind: string(s.Kind), To: s.To(), AllowLocal: optional(s.AllowLocal),
		MaxLagRecords: optional(int64(s.MaxRecords)), MaxLagSeconds: optional(int64(s.MaxAge / time.Second)), CreatedAt: s.CreatedAt.UTC(), //nolint:gosec // bounded by the contract
		Sequence: int64(p.Sequence), SentAt: instant(p.SentAt), LagRecords: int64(p.Records), LagSeconds: int64(p.Age / time.Second), //nolint:gosec // counts records
		LastError: optional(p.Error), ErrorAt: instant(p.ErrorAt)}, err
}

// ListAuditSinks implements the contract.
func (s *Server) ListAuditSinks(ctx context.Context, _ ListAuditSinksRequestObject) (ListAuditSinksResponseObject, error) {
	out := client.AuditSinkList{Items: []client.AuditSink{}}
	err := s.view(ctx, func(tx *store.Tx) error {
		for one, err := range sink.List(tx) {
			if err != nil {
				return err
			}
			shown, err := showSink(tx, one)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, shown)
		}
		return nil
	})
	return ListAuditSinks200JSONResponse(out), err
}

// AddAuditSink implements the contract.
func (s *Server) AddAuditSink(ctx context.Context, r AddAuditSinkRequestObject) (AddAuditSinkResponseObject, error) {
	in := r.Body
	key := secret(in.Secret)
	defer key.Wipe()
	out, err := update(ctx, s, r.Params.IdempotencyKey, in, func(tx *store.Tx, by audit.Actor) (client.AuditSink, error) {
		made, err := sink.Add(tx, by, sink.New{Name: in.Name, Kind: sink.Kind(in.Kind), Address: value(in.Address), URL: value(in.Url), File: value(in.File),
			CA: value(in.Ca), Secret: key, AllowLocal: value(in.AllowLocal), MaxRecords: uint64(value(in.MaxLagRecords)), //nolint:gosec // bounded by the contract
			MaxAge: time.Duration(value(in.MaxLagSeconds)) * time.Second})
		if err != nil {
			return client.AuditSink{}, err
		}
		return showSink(tx, made)
	})
	return AddAuditSink201JSONResponse(out), err
}

// RemoveAuditSink implements the contract.
func (s *Server) RemoveAuditSink(ctx context.Context, r RemoveAuditSinkRequestObject) (RemoveAuditSinkResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, sink.Remove(tx, by, r.Sink)
	})
	return RemoveAuditSink204Response{}, err
}
