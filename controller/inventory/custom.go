package inventory

import (
	"crypto/sha256"
	"encoding/hex"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// Custom roles are written by people. They go to connectors as predefined ones do, and
// like theirs their versions never change: an edit makes the next one.

// AddRole adds a custom role for a connector, with version 1, or the next if there was a
// role of that name before. A name that any other role has, or a predefined one had, is
// Conflict "role_taken"; faults of the role are Invalid, see checkCustom.
func AddRole(tx *store.Tx, by audit.Actor, connector string, r *connectorv1.Role) (*Role, error) {
	return addRole(tx, by, "role.add", connector, r, nil)
}

// CloneRole adds a custom role that is another one under a new name.
func CloneRole(tx *store.Tx, by audit.Actor, ref, name string) (*Role, error) {
	from, err := FindRole(tx, ref, 0)
	if err != nil {
		return nil, err
	}
	r := proto.CloneOf(from.Role.M)
	r.Name = name
	return addRole(tx, by, "role.clone", from.Key.Connector, r, map[string]string{"from": from.Key.String()})
}

func addRole(tx *store.Tx, by audit.Actor, action, connector string, r *connectorv1.Role, details map[string]string) (*Role, error) {
	c, err := usableConnector(tx, connector)
	if err != nil {
		return nil, err
	}
	r.Version = 1
	for old, err := range namesakes(tx, r.GetName()) {
		switch {
		case err != nil:
			return nil, err
		case old.BuiltIn || old.RetiredAt.IsZero():
			return nil, roleTaken(r.GetName()).WithFix("choose another name; see what there is: reeve role list")
		case old.Key.Connector == connector:
			r.Version = max(r.GetVersion(), old.Key.Version+1)
		}
	}
	return saveRole(tx, by, action, c, r, details)
}

func roleTaken(name string) *reeve.Error {
	return reeve.Errorf(reeve.Conflict, "role_taken", "there is, or was, another role %q", name).WithField("/name")
}

func saveRole(tx *store.Tx, by audit.Actor, action string, c *Connector, r *connectorv1.Role, details map[string]string) (*Role, error) {
	if err := checkCustom(c.Description.M, r); err != nil {
		return nil, err
	}
	saved := &Role{Key: RoleKey{Connector: c.Name, Name: r.GetName(), Version: r.GetVersion()}, Category: c.Description.M.GetCategory(),
		Role: store.Wrap(r), CreatedAt: tx.Now(), CreatedBy: by.Name}
	if err := roles.Insert(tx, saved); err != nil {
		return nil, err
	}
	raw, err := saved.Role.MarshalBinary()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	all := map[string]string{"sha256": hex.EncodeToString(sum[:])}
	for k, v := range details {
		all[k] = v
	}
	return saved, record(tx, by, action, saved.Key.String(), all)
}

// EditRole makes the next version of a custom role; accounts keep the one they were
// made with. from is the version the edit began with: if another was made meanwhile it
// is refused with Conflict "role_changed". An edit that changes nothing makes no version.
func EditRole(tx *store.Tx, by audit.Actor, name string, from uint32, r *connectorv1.Role) (*Role, error) {
	old, err := customRole(tx, name)
	if err != nil {
		return nil, err
	}
	if old.Key.Version != from {
		return nil, reeve.Errorf(reeve.Conflict, "role_changed", "role %q has version %d now, and the edit began with version %d", name, old.Key.Version, from).
			WithFix("look at it again, then edit that: reeve role show %s", name)
	}
	c, err := usableConnector(tx, old.Key.Connector)
	if err != nil {
		return nil, err
	}
	r.Name, r.Version = name, from
	if proto.Equal(r, old.Role.M) {
		return old, nil
	}
	r.Version = from + 1
	old.RetiredAt = tx.Now()
	if err := roles.Put(tx, old); err != nil {
		return nil, err
	}
	return saveRole(tx, by, "role.edit", c, r, map[string]string{"from": old.Key.String()})
}

// RetireRole takes a custom role out of the catalogue. Accounts that have it keep it,
// with the commands that remove it (C14).
func RetireRole(tx *store.Tx, by audit.Actor, name string) error {
	r, err := customRole(tx, name)
	if reeve.CodeOf(err) == "role_retired" {
		return nil
	}
	if err != nil {
		return err
	}
	r.RetiredAt = tx.Now()
	if err := roles.Put(tx, r); err != nil {
		return err
	}
	return record(tx, by, "role.retire", r.Key.String(), nil)
}

// customRole finds a custom role for a change.
func customRole(tx *store.Tx, name string) (*Role, error) {
	r, err := FindRole(tx, name, 0)
	switch {
	case err != nil:
		return nil, err
	case r.BuiltIn:
		return nil, reeve.Errorf(reeve.Conflict, "role_predefined", "role %q came with connector %s and is as it is", name, r.Key.Connector).
			WithFix("clone it and change the clone: reeve role clone %s NEW-NAME", name)
	case !r.RetiredAt.IsZero():
		return nil, reeve.Errorf(reeve.Conflict, "role_retired", "role %q was retired", name).WithFix("add one with that name: reeve role add")
	}
	return r, nil
}

// FindRole finds a role by name: the given version, or with 0 the one that may be chosen,
// or the newest of those that were retired. A name that roles of two connectors have is
// Conflict "role_ambiguous".
func FindRole(tx *store.Tx, name string, version uint32) (*Role, error) {
	var best *Role
	for r, err := range namesakes(tx, name) {
		if err != nil {
			return nil, err
		}
		switch {
		case version != 0 && r.Key.Version != version:
		case best == nil, !best.RetiredAt.IsZero() && (r.RetiredAt.IsZero() || r.Key.Version > best.Key.Version):
			best = r
		case best.Key.Connector != r.Key.Connector && (version != 0 || r.RetiredAt.IsZero()):
			return nil, reeve.Errorf(reeve.Conflict, "role_ambiguous", "connectors %s and %s both have a role %q", best.Key.Connector, r.Key.Connector, name).
				WithFix("look at both in the list: reeve role list -o json")
		}
	}
	if best == nil {
		return nil, reeve.Errorf(reeve.NotFound, "role_not_found", "there is no such role, or not in that version").
			WithFix("see what there is: reeve role list")
	}
	return best, nil
}

// namesakes yields every version of every role with the name, also retired ones.
func namesakes(tx *store.Tx, name string) func(yield func(*Role, error) bool) {
	return inUse(roles.List(tx, ""), func(r *Role) bool { return r.Key.Name == name })
}
