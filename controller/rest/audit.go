package rest

import (
	"context"
	"net/http"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
)

// ListAudit implements the contract.
func (s *Server) ListAudit(ctx context.Context, r ListAuditRequestObject) (ListAuditResponseObject, error) {
	limit := 100
	if r.Params.Limit != nil {
		limit = *r.Params.Limit
	}
	out := client.AuditPage{Items: []client.AuditRecord{}}
	err := s.view(ctx, func(tx *store.Tx) error {
		head, err := audit.Head(tx)
		if err != nil {
			return err
		}
		out.Head = head.Hash
		records, err := audit.List(tx, uint64(value(r.Params.After)), limit, audit.Filter{Object: value(r.Params.Object), Action: value(r.Params.Action)})
		for _, e := range records {
			out.Items = append(out.Items, showRecord(e))
		}
		if len(records) == limit {
			out.Next = optional(int64(records[limit-1].Sequence))
		}
		return err
	})
	return ListAudit200JSONResponse(out), err
}

func showRecord(e *audit.Entry) client.AuditRecord {
	actor := map[string]string{"kind": e.Actor.Kind, "id": e.Actor.ID, "name": e.Actor.Name, "from": e.Actor.From, "node": e.Actor.Node, "session": e.Actor.Session}
	for k, v := range actor {
		if v == "" {
			delete(actor, k)
		}
	}
	return client.AuditRecord{Sequence: int64(e.Sequence), Time: e.Time, Actor: actor, Action: e.Action, Object: e.Object, Outcome: e.Outcome,
		Details: mapped(e.Details), Before: mapped(e.Before), After: mapped(e.After), Prev: e.Prev, Hash: e.Hash}
}

// mapped is nil for an empty map.
func mapped(m map[string]string) *map[string]string {
	if len(m) == 0 {
		return nil
	}
	return &m
}

// ListAuditCheckpoints implements the contract.
func (s *Server) ListAuditCheckpoints(ctx context.Context, r ListAuditCheckpointsRequestObject) (ListAuditCheckpointsResponseObject, error) {
	limit := 100
	if r.Params.Limit != nil {
		limit = *r.Params.Limit
	}
	out := client.AuditCheckpointPage{Items: []client.AuditCheckpoint{}}
	err := s.view(ctx, func(tx *store.Tx) error {
		key, err := audit.VerifyingKey(tx)
		if err != nil {
			return err
		}
		newest, err := audit.NewestCheckpoint(tx)
		if err != nil || newest == nil {
			return err
		}
		shown := showCheckpoint(newest)
		out.Newest, out.Key = &shown, &key
		page, err := audit.Checkpoints(tx, uint64(value(r.Params.After)), limit)
		for _, c := range page {
			out.Items = append(out.Items, showCheckpoint(c))
		}
		if len(page) == limit {
			out.Next = optional(int64(page[limit-1].Sequence))
		}
		return err
	})
	return ListAuditCheckpoints200JSONResponse(out), err
}

func showCheckpoint(c *audit.Checkpoint) client.AuditCheckpoint {
	return client.AuditCheckpoint{Sequence: int64(c.Sequence), Hash: c.Hash, Root: c.Root, Time: c.Time, Note: string(c.Note)}
}

// ExportAudit implements the contract.
func (s *Server) ExportAudit(ctx context.Context, _ ExportAuditRequestObject) (ExportAuditResponseObject, error) {
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, audit.Record(tx, audit.Event{By: by, Action: "audit.export", Object: "audit"})
	})
	return auditExport{ctx: ginContext(ctx).Request.Context(), s: s}, err
}

// auditExport streams the trail: it may be far larger than memory.
type auditExport struct {
	ctx context.Context
	s   *Server
}

// VisitExportAuditResponse implements ExportAuditResponseObject.
func (e auditExport) VisitExportAuditResponse(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "application/x-ndjson")
	if _, err := audit.Export(e.ctx, e.s.Store, 0, w); err != nil {
		e.s.log.ErrorContext(e.ctx, "audit export broke off", "error", err)
		panic(http.ErrAbortHandler) // the caller must see that the stream is not whole
	}
	return nil
}
