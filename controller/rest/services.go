package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
)

func (s *Server) showService(tx *store.Tx, name service.Name) (client.Service, error) {
	on, err := service.Enabled(tx, name)
	b := s.Pulse.Last(name)
	return client.Service{Name: string(name), Enabled: on, LastTick: instant(b.LastTick), LastError: optional(b.LastError), ErrorAt: instant(b.ErrorAt)}, err
}

// ListServices implements the contract.
func (s *Server) ListServices(ctx context.Context, _ ListServicesRequestObject) (ListServicesResponseObject, error) {
	out := client.ServiceList{Items: []client.Service{}, Leader: s.Name}
	err := s.view(ctx, func(tx *store.Tx) error {
		for _, name := range service.Names() {
			one, err := s.showService(tx, name)
			if err != nil {
				return err
			}
			out.Items = append(out.Items, one)
		}
		return nil
	})
	return ListServices200JSONResponse(out), err
}

func (s *Server) switchService(ctx context.Context, key *string, name string, on bool) (client.Service, error) {
	return update(ctx, s, key, nil, func(tx *store.Tx, by audit.Actor) (client.Service, error) {
		if err := service.Set(tx, by, service.Name(name), on); err != nil {
			return client.Service{}, err
		}
		return s.showService(tx, service.Name(name))
	})
}

// EnableService implements the contract.
func (s *Server) EnableService(ctx context.Context, r EnableServiceRequestObject) (EnableServiceResponseObject, error) {
	out, err := s.switchService(ctx, r.Params.IdempotencyKey, r.Service, true)
	return EnableService200JSONResponse(out), err
}

// DisableService implements the contract.
func (s *Server) DisableService(ctx context.Context, r DisableServiceRequestObject) (DisableServiceResponseObject, error) {
	out, err := s.switchService(ctx, r.Params.IdempotencyKey, r.Service, false)
	return DisableService200JSONResponse(out), err
}
