package rest

import (
	"context"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/lifecycle"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// kind is a kind of object that a path names.
type kind struct {
	name  string // as in its code <name>_not_found
	param string // of the path
	sees  identity.Privilege
	find  func(tx *store.Tx, ref string) (identity.Object, error)
}

var (
	siteKind = &kind{name: "site", param: "site", sees: identity.SiteRead, find: func(tx *store.Tx, ref string) (identity.Object, error) {
		s, err := inventory.GetSite(tx, ref)
		if err != nil {
			return identity.Object{}, err
		}
		return siteObject(s), nil
	}}
	agentKind = &kind{name: "agent", param: "agent", sees: identity.AgentRead, find: func(tx *store.Tx, ref string) (identity.Object, error) {
		a, err := agent(tx, ref)
		if err != nil {
			return identity.Object{}, err
		}
		return inSite("agent", string(a.ID), a.SiteID), nil
	}}
	assetKind = &kind{name: "asset", param: "asset", sees: identity.AssetRead, find: func(tx *store.Tx, ref string) (identity.Object, error) {
		a, err := inventory.GetAsset(tx, ref)
		if err != nil {
			return identity.Object{}, err
		}
		return assetObject(a), nil
	}}
	accountKind = &kind{name: "account", param: "account", sees: identity.LifecycleView, find: func(tx *store.Tx, ref string) (identity.Object, error) {
		a, err := lifecycle.Get(tx, ref)
		if err != nil {
			return identity.Object{}, err
		}
		return accountObject(tx, a)
	}}
	jobKind = &kind{name: "job", param: "job", sees: identity.JobRead, find: func(tx *store.Tx, ref string) (identity.Object, error) {
		j, err := jobs.Get(tx, reeve.JobID(ref))
		if err != nil {
			return identity.Object{}, err
		}
		return jobObject(tx, j)
	}}
)

// placeKind is a site as the place of an asset of a type, with these tags.
func placeKind(connector string, tags map[string]string) *kind {
	k := *siteKind
	k.find = func(tx *store.Tx, ref string) (identity.Object, error) {
		o, err := siteKind.find(tx, ref)
		o.Type, o.Tags = connector, tags
		return o, err
	}
	return &k
}

func inSite(kind, id string, site reeve.SiteID) identity.Object {
	return identity.Object{Kind: kind, ID: id, Placed: true, Site: site}
}

func siteObject(s *inventory.Site) identity.Object { return inSite("site", string(s.ID), s.ID) }

func assetObject(a *inventory.Asset) identity.Object {
	o := inSite("asset", string(a.ID), a.SiteID)
	o.Name, o.Tags, o.Asset, o.Type = a.Name, a.Tags, a.ID, a.Connector
	return o
}

// onAsset is an object that lies where its asset does, tags and all.
func onAsset(tx *store.Tx, kind, id string, asset reeve.AssetID) (identity.Object, error) {
	a, err := inventory.GetAsset(tx, string(asset))
	if err != nil {
		return identity.Object{}, err
	}
	o := assetObject(a)
	o.Kind, o.ID, o.Name = kind, id, ""
	return o, nil
}

func accountObject(tx *store.Tx, a *lifecycle.Account) (identity.Object, error) {
	return onAsset(tx, "account", string(a.ID), a.AssetID)
}

func jobObject(tx *store.Tx, j *jobs.Job) (identity.Object, error) {
	if j.AssetID == "" {
		return inSite("job", string(j.ID), j.SiteID), nil
	}
	return onAsset(tx, "job", string(j.ID), j.AssetID)
}

// permission is what authenticate has found out about a call. Each transaction of the
// call proves it again: what was taken away in between counts.
type permission struct {
	who   identity.Caller
	rule  rule
	asked bool // for the objects that filtered and within calls are about
	// object is the id of what was refused; hidden says that it was answered as if it were
	// not there.
	object string
	hidden bool
	about  []allowance // what permit has allowed, to ask for again when the answer is replayed
}

// allowance is an object that a call needed a privilege for, where it lay.
type allowance struct {
	Needs identity.Privilege `cbor:"1,keyasint"`
	Kind  string             `cbor:"2,keyasint"`
	Site  reeve.SiteID       `cbor:"3,keyasint"`
	Tags  map[string]string  `cbor:"4,keyasint,omitempty"`
	Asset reeve.AssetID      `cbor:"5,keyasint,omitempty"`
	Type  string             `cbor:"6,keyasint,omitempty"`
}

func (a allowance) object() identity.Object {
	return identity.Object{Kind: a.Kind, Placed: true, Site: a.Site, Tags: a.Tags, Asset: a.Asset, Type: a.Type}
}

// permissionOf is nil for calls that need no token.
func permissionOf(ctx context.Context) *permission {
	p, _ := ginContext(ctx).Value(permissionKey).(*permission)
	return p
}

// caller is who calls.
func caller(ctx context.Context) identity.Caller {
	if p := permissionOf(ctx); p != nil {
		return p.who
	}
	return identity.Caller{}
}

// prove fails unless the call is allowed as things stand in tx. What the caller may not
// see answers as if it were not there.
func (p *permission) prove(tx *store.Tx, c *gin.Context) error {
	if err := identity.Recheck(tx, p.who); err != nil {
		return err
	}
	if err := p.allowed(tx, c); err != nil {
		return err
	}
	if p.rule.session && p.who.Session == nil {
		return sessionNeeded()
	}
	return p.proveFresh(tx)
}

// sessionNeeded refuses a token: whoever finds one must not be able to become its owner, or
// to lock them out.
func sessionNeeded() *reeve.Error {
	return reeve.Errorf(reeve.Denied, "session_needed", "no token does this: it needs somebody who is signed in").WithFix("sign in: reeve login")
}

// proveFresh fails with Denied "step_up_needed" if a person must first prove again who they
// are. A token cannot do that: one of a person must have been made for the very privilege.
func (p *permission) proveFresh(tx *store.Tx) error {
	switch {
	case !p.rule.stepUp, p.who.Kind != identity.User:
		return nil
	case p.who.Session != nil && p.who.Session.Fresh(tx.Now()), p.who.Token != nil && p.who.Token.Carries(p.rule.needs):
		return nil
	case p.who.Token != nil:
		return reeve.Errorf(reeve.Denied, "step_up_needed", "this needs somebody who is signed in, or a token made for %s", p.rule.needs).WithFix("sign in: reeve login")
	}
	return reeve.Errorf(reeve.Denied, "step_up_needed", "this needs a proof of the last %s that it is you", identity.StepUpFor).
		WithFix("prove it again: reeve session step-up")
}

func (p *permission) allowed(tx *store.Tx, c *gin.Context) error {
	if p.rule.access == own {
		return nil
	}
	sight, err := identity.Look(tx, p.who)
	if err != nil {
		return err
	}
	needs := p.rule.privilege(c)
	switch p.rule.access {
	case whole:
		return sight.Authorize(needs, identity.Installation)
	case filtered, within:
		if !sight.Anywhere(needs) {
			return sight.Authorize(needs, identity.Installation)
		}
		return nil
	case named:
		return p.proveNamed(tx, c, sight, needs)
	default:
		return reeve.Errorf(reeve.Internal, "rule_missing", "there is no rule for this call")
	}
}

func (p *permission) proveNamed(tx *store.Tx, c *gin.Context, sight identity.Sight, needs identity.Privilege) error {
	k := p.rule.kind
	ref := c.Param(k.param)
	o, err := k.find(tx, ref)
	everything := sight.Everywhere(k.sees)
	if err != nil && everything {
		return sight.Authorize(needs, identity.Installation) // the handler says what is missing, or that it is done already
	}
	return p.authorize(sight, k, ref, needs, o, err)
}

// sight is what the caller sees, for lists: they show only what it covers.
func sight(ctx context.Context, tx *store.Tx) (func(identity.Object) bool, error) {
	p := permissionOf(ctx)
	p.asked = true
	s, err := identity.Look(tx, p.who)
	return func(o identity.Object) bool { return s.Can(p.rule.needs, o) }, err
}

// permit fails unless the caller may do what the call is for to the object, which its
// body names. One that the caller does not see is one that is not there.
func permit(ctx context.Context, tx *store.Tx, k *kind, ref string) error {
	return permitFor(ctx, tx, permissionOf(ctx).rule.needs, k, ref)
}

// permitFor is permit for a privilege that the call needs besides.
func permitFor(ctx context.Context, tx *store.Tx, needs identity.Privilege, k *kind, ref string) error {
	p := permissionOf(ctx)
	p.asked = true
	s, err := identity.Look(tx, p.who)
	if err != nil {
		return err
	}
	o, err := k.find(tx, ref)
	return p.authorize(s, k, ref, needs, o, err)
}

// authorize decides about an object that was looked for. What is hidden and what is not
// there get the same answer, and are recorded alike, so that they take as long too.
func (p *permission) authorize(s identity.Sight, k *kind, ref string, needs identity.Privilege, o identity.Object, err error) error {
	missing := err != nil && strings.HasSuffix(reeve.CodeOf(err), "_not_found") || reeve.CodeOf(err) == "agent_ambiguous"
	p.object, p.hidden = o.ID, missing && !s.Everywhere(k.sees) || err == nil && !s.Can(k.sees, o) && !s.Can(needs, o)
	switch {
	case p.hidden || missing:
		return reeve.Errorf(reeve.NotFound, k.name+"_not_found", "there is no %s %q", k.name, ref)
	case err != nil:
		return err
	}
	p.about = append(p.about, allowance{needs, o.Kind, o.Site, o.Tags, o.Asset, o.Type})
	return s.Authorize(needs, o)
}

// permitAgain asks once more for what a call that is replayed was allowed then.
func (p *permission) permitAgain(tx *store.Tx, about []allowance) error {
	p.asked = true
	s, err := identity.Look(tx, p.who)
	for _, a := range about {
		if err == nil {
			err = s.Authorize(a.Needs, a.object())
		}
	}
	return err
}

// answered fails if the handler of a call about several objects forgot to ask for them:
// better no answer than too much.
func (p *permission) answered() error {
	if p != nil && !p.asked && (p.rule.access == filtered || p.rule.access == within) {
		return reeve.Errorf(reeve.Internal, "permission_forgotten", "the objects of this call were not checked")
	}
	return nil
}
