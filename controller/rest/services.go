package rest

import (
	"context"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
)

func (s *Server) showService(tx *store.Tx, one service.Info) (client.Service, error) {
	on, err := service.Enabled(tx, one.Name)
	b := s.Pulse.Last(one.Name)
	return client.Service{Name: string(one.Name), Does: one.Does, Switched: one.Switched, Enabled: on, LastTick: instant(b.LastTick), LastError: optional(b.LastError), ErrorAt: instant(b.ErrorAt)}, err
}

// ListServices implements the contract.
func (s *Server) ListServices(ctx context.Context, _ ListServicesRequestObject) (ListServicesResponseObject, error) {
	out := client.ServiceList{Items: []client.Service{}, Leader: s.Name}
	err := s.view(ctx, func(tx *store.Tx) error {
		for _, info := range service.All() {
			one, err := s.showService(tx, info)
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
		one, err := service.Find(service.Name(name))
		if err == nil {
			err = service.Set(tx, by, one.Name, on)
		}
		if err != nil {
			return client.Service{}, err
		}
		return s.showService(tx, one)
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
