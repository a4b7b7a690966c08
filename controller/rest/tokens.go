package rest

import (
	"context"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// principal is who authenticate found.
func principal(ctx context.Context) identity.Principal {
	p, _ := ginContext(ctx).Value(principalKey).(identity.Principal)
	return p
}

// Whoami implements the contract.
func (s *Server) Whoami(ctx context.Context, _ WhoamiRequestObject) (WhoamiResponseObject, error) {
	p := principal(ctx)
	return Whoami200JSONResponse{Id: string(p.ID), Name: p.Name, Kind: string(p.Kind)}, nil
}

func showToken(t *identity.Token) client.Token {
	return client.Token{Id: string(t.ID), Name: t.Description, CreatedAt: t.Created, ExpiresAt: instant(t.Expires), LastUsedAt: instant(t.LastUsed)}
}

// ListTokens implements the contract.
func (s *Server) ListTokens(ctx context.Context, r ListTokensRequestObject) (ListTokensResponseObject, error) {
	after, err := decodeCursor(r.Params.Cursor)
	if err != nil {
		return nil, err
	}
	limit := 100
	if r.Params.Limit != nil {
		limit = *r.Params.Limit
	}
	out := client.TokenPage{Items: []client.Token{}}
	err = s.view(ctx, func(tx *store.Tx) error {
		tokens, err := identity.ListTokens(tx, "", reeve.TokenID(after), limit+1)
		if err != nil {
			return err
		}
		for i, t := range tokens {
			if i == limit {
				out.Next = optional(encodeCursor(out.Items[i-1].Id))
				break
			}
			out.Items = append(out.Items, showToken(t))
		}
		return nil
	})
	return ListTokens200JSONResponse(out), err
}

// CreateToken implements the contract.
func (s *Server) CreateToken(ctx context.Context, r CreateTokenRequestObject) (CreateTokenResponseObject, error) {
	var token *identity.Token
	var secret reeve.Secret
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (_ none, err error) {
		token, secret, err = identity.CreateToken(tx, by, identity.NewToken{
			Principal: principal(ctx).ID, Description: r.Body.Name, Expires: tx.Now().Add(seconds(r.Body.TtlSeconds, 24*time.Hour)),
		})
		return none{}, err
	})
	if err != nil {
		return nil, err
	}
	return CreateToken201JSONResponse{Token: showToken(token), Secret: secret.Reveal()}, nil
}

// RevokeToken implements the contract.
func (s *Server) RevokeToken(ctx context.Context, r RevokeTokenRequestObject) (RevokeTokenResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		return none{}, identity.RevokeToken(tx, by, reeve.TokenID(r.Token))
	})
	return RevokeToken204Response{}, err
}

// seconds is a duration given in seconds, or what it is by default.
func seconds[N ~int | ~int64](n *N, otherwise time.Duration) time.Duration {
	if n == nil {
		return otherwise
	}
	return time.Duration(*n) * time.Second
}

// instant is nil for an instant that has not happened.
func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
