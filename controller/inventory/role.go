package inventory

import (
	"iter"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// Role is one version of an entry of the role catalogue. A version never changes and
// is never deleted: accounts made with it keep its commands.
type Role struct {
	Key       RoleKey                          `cbor:"1,keyasint"`
	Category  string                           `cbor:"2,keyasint"`
	BuiltIn   bool                             `cbor:"3,keyasint,omitempty"` // came with the connector; not editable
	Role      store.Message[*connectorv1.Role] `cbor:"4,keyasint"`
	CreatedAt time.Time                        `cbor:"5,keyasint"`
	RetiredAt time.Time                        `cbor:"6,keyasint,omitzero"`  // zero: may be chosen
	CreatedBy string                           `cbor:"7,keyasint,omitempty"` // who wrote this version of a custom role
}

var roles = store.NewTable("role",
	store.Key(func(r *Role) string { return r.Key.String() }),
	store.Unique("current", func(r *Role) []string { return unlessRetired(r.RetiredAt, r.Key.Connector, r.Key.Name) }))

// registerRoles makes the catalogue of a connector what its description says.
func registerRoles(tx *store.Tx, d *connectorv1.Description) error {
	var stale []*Role
	have := map[string]bool{}
	for r, err := range roles.Scan(tx, "current", store.Range{Prefix: []string{d.GetName()}}) {
		if err != nil {
			return err
		}
		i := slices.IndexFunc(d.GetRoles(), func(x *connectorv1.Role) bool { return x.GetName() == r.Key.Name })
		if i >= 0 && !r.BuiltIn {
			return roleTaken(r.Key.Name).WithFix("clone that role to another name and retire it, then register the connector again")
		}
		if i >= 0 && d.GetRoles()[i].GetVersion() == r.Key.Version {
			have[r.Key.Name] = true
		} else if r.BuiltIn {
			stale = append(stale, r)
		}
	}
	for _, r := range stale {
		r.RetiredAt = tx.Now()
		if err := roles.Put(tx, r); err != nil {
			return err
		}
	}
	for _, r := range d.GetRoles() {
		if have[r.GetName()] {
			continue
		}
		fresh := &Role{Key: RoleKey{Connector: d.GetName(), Name: r.GetName(), Version: r.GetVersion()}, Category: d.GetCategory(),
			BuiltIn: true, Role: store.Wrap(r), CreatedAt: tx.Now()}
		if old, err := roles.Get(tx, fresh.Key.String()); err == nil { // a connector that was downgraded
			if !old.BuiltIn {
				return roleTaken(old.Key.Name).WithFix("accounts may have that role; ask the connector's author for another name or version")
			}
			old.RetiredAt = time.Time{}
			fresh = old
		} else if reeve.KindOf(err) != reeve.NotFound {
			return err
		}
		if err := roles.Put(tx, fresh); err != nil {
			return err
		}
	}
	return nil
}

// CurrentRole is the version of a role that may be chosen now. An unknown or retired
// one is NotFound "role_unknown"; a role of another connector is Invalid
// "role_wrong_connector".
func CurrentRole(tx *store.Tx, connector, name string) (*Role, error) {
	r, err := roles.Find(tx, "current", connector, name)
	if reeve.KindOf(err) != reeve.NotFound {
		return r, err
	}
	for other, err := range ListRoles(tx, "") {
		if err != nil {
			return nil, err
		}
		if other.Key.Name == name {
			return nil, reeve.Errorf(reeve.Invalid, "role_wrong_connector", "role %q is for connector %s, the asset is reached with %s",
				name, other.Key.Connector, connector).WithFix("choose a role of %s: reeve role list", connector).WithField("/role")
		}
	}
	return nil, reeve.Errorf(reeve.NotFound, "role_unknown", "connector %s has no role %q", connector, name).
		WithFix("see what there is: reeve role list").WithField("/role")
}

// GetRole returns one version of a role, also a retired one.
func GetRole(tx *store.Tx, key RoleKey) (*Role, error) { return roles.Get(tx, key.String()) }

// ListRoles yields the roles that may be chosen, by connector and name, after the
// given key (RoleKey.String).
func ListRoles(tx *store.Tx, after string) iter.Seq2[*Role, error] {
	return inUse(roles.List(tx, after), func(r *Role) bool { return r.RetiredAt.IsZero() })
}

// CheckParams says whether the values fit the role: all that are required, none that
// it does not know, each matching its pattern.
func (r *Role) CheckParams(values map[string]string) error {
	params := r.Role.M.GetParams()
	for _, p := range params {
		value, given := values[p.GetName()]
		field := "/params/" + p.GetName()
		if !given || value == "" {
			if p.GetRequired() {
				return reeve.Errorf(reeve.Invalid, "param_missing", "role %s needs the parameter %q", r.Key.Name, p.GetName()).
					WithFix("%s", p.GetHelp()).WithField(field)
			}
			continue
		}
		re, err := anchored(p.GetPattern())
		if err != nil {
			return reeve.Errorf(reeve.Internal, "role_invalid", "the pattern of parameter %q does not compile", p.GetName()).Wrap(err)
		}
		if !re.MatchString(value) {
			return reeve.Errorf(reeve.Invalid, "param_invalid", "%q cannot be the parameter %q of role %s", value, p.GetName(), r.Key.Name).
				WithFix("%s", p.GetHelp()).WithField(field)
		}
	}
	for name := range values {
		if !slices.ContainsFunc(params, func(p *connectorv1.RoleParam) bool { return p.GetName() == name }) {
			return reeve.Errorf(reeve.Invalid, "param_unknown", "role %s has no parameter %q", r.Key.Name, name).WithField("/params/" + name)
		}
	}
	return nil
}
