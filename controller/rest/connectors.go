package rest

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

func showConnector(c *inventory.Connector) (client.Connector, error) {
	d := c.Description.M
	out := client.Connector{Name: c.Name, Title: d.GetTitle(), Version: d.GetVersion(), Category: d.GetCategory(), DefaultPort: int(d.GetDefaultPort()),
		NameRule: optional(d.GetNameRule().GetHelp()), NamePattern: optional(d.GetNameRule().GetPattern()), Dialect: optional(d.GetDialect()), Phases: c.Phases(), Options: []client.ConnectorOption{}, Digests: []client.ConnectorDigest{}}
	for _, o := range d.GetOptions() {
		shown := client.ConnectorOption{Name: o.GetName(), Help: o.GetHelp(), Default: optional(o.GetDefaultValue()), Required: optional(o.GetRequired())}
		if len(o.GetAllowed()) > 0 {
			shown.Allowed = &o.Allowed
		}
		out.Options = append(out.Options, shown)
	}
	for _, g := range c.Digests {
		out.Digests = append(out.Digests, client.ConnectorDigest{Sha256: g.SHA256, Version: g.Version, RegisteredAt: g.RegisteredAt, RevokedAt: instant(g.RevokedAt)})
	}
	return out, nil
}

// ListConnectors implements the contract.
func (s *Server) ListConnectors(ctx context.Context, r ListConnectorsRequestObject) (ListConnectorsResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	var out client.ConnectorPage
	err = s.view(ctx, func(tx *store.Tx) (err error) {
		out.Items, out.Next, err = page(inventory.ListConnectors(tx, after), r.Params.Limit,
			func(c *inventory.Connector) string { return c.Name }, showConnector)
		return err
	})
	return ListConnectors200JSONResponse(out), err
}

// RegisterConnector implements the contract.
func (s *Server) RegisterConnector(ctx context.Context, r RegisterConnectorRequestObject) (RegisterConnectorResponseObject, error) {
	var d connectorv1.Description
	if err := proto.Unmarshal(r.Body.Description, &d); err != nil {
		return nil, reeve.Errorf(reeve.Invalid, "description_malformed", "the connector's description cannot be read").
			WithField("/description").WithFix("register it with `reeve connector register BINARY`")
	}
	out, err := update(ctx, s, r.Params.IdempotencyKey, r.Body, func(tx *store.Tx, by audit.Actor) (client.Connector, error) {
		c, err := inventory.RegisterConnector(tx, by, &d, r.Body.Sha256)
		if err != nil {
			return client.Connector{}, err
		}
		return showConnector(c)
	})
	return RegisterConnector201JSONResponse(out), err
}

// GetConnector implements the contract.
func (s *Server) GetConnector(ctx context.Context, r GetConnectorRequestObject) (GetConnectorResponseObject, error) {
	var out client.Connector
	err := s.view(ctx, func(tx *store.Tx) error {
		c, err := inventory.GetConnector(tx, r.Connector)
		if err != nil {
			return err
		}
		out, err = showConnector(c)
		return err
	})
	return GetConnector200JSONResponse(out), err
}

// RevokeConnectorDigest implements the contract.
func (s *Server) RevokeConnectorDigest(ctx context.Context, r RevokeConnectorDigestRequestObject) (RevokeConnectorDigestResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, inventory.RevokeDigest(tx, by, r.Connector, r.Digest)
	})
	return RevokeConnectorDigest204Response{}, err
}
