package rest

import (
	"context"
	"net/netip"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Whoami implements the contract.
func (s *Server) Whoami(ctx context.Context, _ WhoamiRequestObject) (WhoamiResponseObject, error) {
	p := caller(ctx)
	return Whoami200JSONResponse{Id: string(p.ID), Name: p.Name, Kind: string(p.Kind)}, nil
}

func showToken(tx *store.Tx, t *identity.Token) client.Token {
	out := client.Token{Id: string(t.ID), Name: t.Description, Principal: optional(identity.SubjectName(tx, string(t.Principal))), CreatedAt: t.Created,
		ExpiresAt: instant(t.Expires), LastUsedAt: instant(t.LastUsed), Networks: showNetworks(t.Networks)}
	if t.Limited {
		limits := words(t.Privileges)
		out.Privileges = &limits
	}
	if t.Scope != nil {
		scope := showScope(tx, *t.Scope)
		out.Scope = &scope
	}
	return out
}

// ofWhom is whose tokens the caller sees and revokes: its own, or "" for everybody's.
func ofWhom(ctx context.Context, tx *store.Tx) (reeve.PrincipalID, error) {
	sight, err := identity.Look(tx, caller(ctx))
	if err == nil && sight.Can(identity.TokenManage, identity.Installation) {
		return "", nil
	}
	return caller(ctx).ID, err
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
		whose, err := ofWhom(ctx, tx)
		if err != nil {
			return err
		}
		tokens, err := identity.ListTokens(tx, whose, reeve.TokenID(after), limit+1)
		if err != nil {
			return err
		}
		for i, t := range tokens {
			if i == limit {
				out.Next = optional(encodeCursor(out.Items[i-1].Id))
				break
			}
			out.Items = append(out.Items, showToken(tx, t))
		}
		return nil
	})
	return ListTokens200JSONResponse(out), err
}

// CreateToken implements the contract.
func (s *Server) CreateToken(ctx context.Context, r CreateTokenRequestObject) (CreateTokenResponseObject, error) {
	in := r.Body
	networks, err := asNetworks(value(in.Networks))
	if err != nil {
		return nil, err
	}
	var secret reeve.Secret
	token, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (client.Token, error) {
		p, err := whoseToken(ctx, tx, in.Principal)
		if err != nil {
			return client.Token{}, err
		}
		var scope *identity.Scope
		if in.Scope != nil {
			for _, site := range value(in.Scope.Sites) { // anybody makes tokens: nobody learns of sites by it
				if err := permitFor(ctx, tx, identity.SiteRead, siteKind, site); err != nil {
					return client.Token{}, err
				}
			}
			if err := seesAssetGroups(ctx, tx, value(in.Scope.AssetGroups)); err != nil {
				return client.Token{}, err
			}
			limit, err := asScope(tx, *in.Scope)
			if err != nil {
				return client.Token{}, err
			}
			scope = &limit
		}
		var t *identity.Token
		t, secret, err = identity.IssueToken(tx, by, caller(ctx), identity.NewToken{
			Principal: p, Description: in.Name, Expires: tx.Now().Add(seconds(in.TtlSeconds, 24*time.Hour)),
			Limited: in.Privileges != nil, Privileges: asPrivileges(value(in.Privileges)), Networks: networks, Scope: scope,
		})
		if err != nil {
			return client.Token{}, err
		}
		return showToken(tx, t), nil
	})
	if err != nil {
		return nil, err
	}
	return CreateToken201JSONResponse{Token: token, Secret: secret.Reveal()}, nil
}

// seesAssetGroups fails for who may not see asset groups, as if there were none.
func seesAssetGroups(ctx context.Context, tx *store.Tx, named []string) error {
	if len(named) == 0 {
		return nil
	}
	sight, err := identity.Look(tx, caller(ctx))
	if err == nil && !sight.Can(identity.AssetGroupRead, identity.Installation) {
		err = reeve.Errorf(reeve.NotFound, "asset_group_not_found", "there is no asset group %q", named[0])
	}
	return err
}

// whoseToken is who a new token is for: the caller, or a service account if the caller
// manages tokens.
func whoseToken(ctx context.Context, tx *store.Tx, ref *string) (reeve.PrincipalID, error) {
	me := caller(ctx)
	if ref == nil || *ref == me.Name || *ref == string(me.ID) {
		return me.ID, nil
	}
	sight, err := identity.Look(tx, me)
	if err == nil {
		err = sight.Authorize(identity.TokenManage, identity.Installation)
	}
	if err != nil {
		return "", err
	}
	p, err := identity.FindPrincipal(tx, *ref)
	if err != nil {
		return "", err
	}
	return p.ID, nil
}

// asNetworks reads the networks a token may be used from: code network_invalid.
func asNetworks(in []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range in {
		n, err := netip.ParsePrefix(s)
		if err != nil || n != n.Masked() {
			return nil, reeve.Errorf(reeve.Invalid, "network_invalid", "a network is written like 192.0.2.0/24 or 2001:db8::/32").WithField("/networks")
		}
		out = append(out, n)
	}
	return out, nil
}

func showNetworks(in []netip.Prefix) *[]string {
	if len(in) == 0 {
		return nil
	}
	out := []string{}
	for _, n := range in {
		out = append(out, n.String())
	}
	return &out
}

// RevokeToken implements the contract.
func (s *Server) RevokeToken(ctx context.Context, r RevokeTokenRequestObject) (RevokeTokenResponseObject, error) {
	_, err := update(ctx, s, r.Params.IdempotencyKey, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		whose, err := ofWhom(ctx, tx)
		if err != nil {
			return none{}, err
		}
		if t, err := identity.GetToken(tx, reeve.TokenID(r.Token)); err == nil && whose != "" && t.Principal != whose {
			return none{}, reeve.Errorf(reeve.NotFound, "token_not_found", "there is no token %q", r.Token)
		}
		if mine := caller(ctx).Token; mine != nil && mine.Narrow() && whose != "" && r.Token != string(mine.ID) {
			return none{}, reeve.Errorf(reeve.Denied, "token_limited", "a token that is limited makes and revokes no other tokens").WithFix("use one that is not limited")
		}
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
