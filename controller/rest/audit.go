package rest

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/audit/sink"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
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
		p := r.Params
		search, err := auditSearch(tx, p.Object, p.Action, p.Actor, p.Outcome, p.Since, p.Until)
		if err != nil {
			return err
		}
		records, err := audit.List(tx, uint64(value(p.After)), limit, search)
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

// auditSearch is what a caller looks for. The name of a user stands for their id, also
// after they were removed.
func auditSearch(tx *store.Tx, object, action, actor, outcome *string, since, until *time.Time) (audit.Filter, error) {
	f := audit.Filter{Object: value(object), Action: value(action), Actor: value(actor), Outcome: value(outcome), Since: value(since), Until: value(until)}
	if f.Actor == "" {
		return f, nil
	}
	p, err := identity.FindPrincipal(tx, f.Actor)
	switch {
	case err == nil:
		f.Actor = string(p.ID)
	case reeve.KindOf(err) != reeve.NotFound: // an agent, a controller, the system
		return f, err
	}
	return f, nil
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

// RotateAuditKey implements the contract.
func (s *Server) RotateAuditKey(ctx context.Context, r RotateAuditKeyRequestObject) (RotateAuditKeyResponseObject, error) {
	out, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (client.RotatedAuditKey, error) {
		last, err := audit.RotateKey(tx, by, s.Cluster)
		if err != nil {
			return client.RotatedAuditKey{}, err
		}
		key, err := audit.VerifyingKey(tx)
		return client.RotatedAuditKey{Key: key, Checkpoint: showCheckpoint(last)}, err
	})
	return RotateAuditKey200JSONResponse(out), err
}

// ExportAudit implements the contract. It is refused while a sink is over its limit.
func (s *Server) ExportAudit(ctx context.Context, r ExportAuditRequestObject) (ExportAuditResponseObject, error) {
	p := r.Params
	out := auditExport{ctx: ginContext(ctx).Request.Context(), s: s, csv: value(p.Format) == client.Csv, after: uint64(value(p.After))} //nolint:gosec // not negative by the contract
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (_ none, err error) {
		if err := sink.CheckLag(tx); err != nil {
			return none{}, err
		}
		if out.search, err = auditSearch(tx, p.Object, p.Action, p.Actor, p.Outcome, p.Since, p.Until); err != nil {
			return none{}, err
		}
		out.search.Through = uint64(value(p.Through)) //nolint:gosec // not negative by the contract
		return none{}, audit.Record(tx, audit.Event{By: by, Action: "audit.export", Object: "audit", Details: out.details()})
	})
	if reeve.KindOf(err) == reeve.Precondition {
		_, failed := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
			return none{}, audit.Record(tx, audit.Event{By: by, Action: "audit.export", Object: "audit", Outcome: audit.Denied, Details: map[string]string{"code": reeve.CodeOf(err)}})
		})
		err = cmp.Or(failed, err)
	}
	return out, err
}

// auditExport streams the trail: it may be far larger than memory.
type auditExport struct {
	ctx    context.Context
	s      *Server
	after  uint64
	search audit.Filter
	csv    bool
}

// details says what of the trail went out.
func (e auditExport) details() map[string]string {
	f := e.search
	d := map[string]string{"object": f.Object, "actor": f.Actor, "action": f.Action, "outcome": f.Outcome}
	for name, at := range map[string]time.Time{"since": f.Since, "until": f.Until} {
		if !at.IsZero() {
			d[name] = at.UTC().Format(time.RFC3339Nano)
		}
	}
	for name, n := range map[string]uint64{"after": e.after, "through": f.Through} {
		if n > 0 {
			d[name] = strconv.FormatUint(n, 10)
		}
	}
	if e.csv {
		d["format"] = "csv"
	}
	maps.DeleteFunc(d, func(_, v string) bool { return v == "" })
	return d
}

// VisitExportAuditResponse implements ExportAuditResponseObject.
func (e auditExport) VisitExportAuditResponse(w http.ResponseWriter) (err error) {
	if e.csv {
		w.Header().Set("Content-Type", "text/csv; charset=utf-8; header=present")
		w.Header().Set("Content-Disposition", `attachment; filename="audit.csv"`)
		err = audit.ExportCSV(e.ctx, e.s.Store, e.after, e.search, w)
	} else {
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, err = audit.Export(e.ctx, e.s.Store, e.after, e.search, w)
	}
	if err != nil {
		e.s.log.ErrorContext(e.ctx, "audit export broke off", "error", err)
		panic(http.ErrAbortHandler) // the caller must see that the stream is not whole
	}
	return nil
}
