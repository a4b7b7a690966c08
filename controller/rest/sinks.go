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
		LastError: optional(p.Error), ErrorAt: instant(p.ErrorAt), Paused: optional(s.Paused), OverLimit: optional(s.Exceeded(p))}, err
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

// EditAuditSink implements the contract.
func (s *Server) EditAuditSink(ctx context.Context, r EditAuditSinkRequestObject) (EditAuditSinkResponseObject, error) {
	in := r.Body
	ch := sink.Change{Kind: (*sink.Kind)(in.Kind), Address: in.Address, URL: in.Url, File: in.File, CA: in.Ca, Secret: secret(in.Secret), AllowLocal: in.AllowLocal, Paused: in.Paused}
	defer ch.Secret.Wipe()
	if in.MaxLagRecords != nil {
		ch.MaxRecords = new(uint64(*in.MaxLagRecords)) //nolint:gosec // bounded by the contract
	}
	if in.MaxLagSeconds != nil {
		ch.MaxAge = new(time.Duration(*in.MaxLagSeconds) * time.Second)
	}
	out, err := update(ctx, s, r.Params.IdempotencyKey, in, func(tx *store.Tx, by audit.Actor) (client.AuditSink, error) {
		changed, err := sink.Edit(tx, by, r.Sink, ch)
		if err != nil {
			return client.AuditSink{}, err
		}
		return showSink(tx, changed)
	})
	return EditAuditSink200JSONResponse(out), err
}

// TestAuditSink implements the contract. The sink is dialled when the record of it is
// committed, and in no transaction.
func (s *Server) TestAuditSink(ctx context.Context, r TestAuditSinkRequestObject) (TestAuditSinkResponseObject, error) {
	var tested *sink.Sink
	var who audit.Actor
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (_ none, err error) {
		who = by
		tested, err = sink.RecordTest(tx, by, r.Sink)
		return none{}, err
	})
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := s.Sinks.Probe(ginContext(ctx).Request.Context(), tested, who); err != nil {
		return nil, err
	}
	return TestAuditSink200JSONResponse{To: tested.To(), From: s.Name, Milliseconds: time.Since(begin).Milliseconds()}, nil
}

// RemoveAuditSink implements the contract.
func (s *Server) RemoveAuditSink(ctx context.Context, r RemoveAuditSinkRequestObject) (RemoveAuditSinkResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, sink.Remove(tx, by, r.Sink)
	})
	return RemoveAuditSink204Response{}, err
}
