package main

import (
	"context"
	"database/sql"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// needed are the permissions on the server without which the connector cannot do its work. What roles grant is not looked at: a
// role that grants more than the management account may pass on is refused by the server when used.
var needed = []string{"ALTER ANY LOGIN", "VIEW ANY DEFINITION", "VIEW SERVER STATE", "ALTER ANY CONNECTION", "CONNECT ANY DATABASE"}

// Probe implements sdk.Prober.
func (connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	s, err := manage(ctx, t)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer s.close()
	f := sdk.Fingerprint{
		Product:    "sqlserver",
		Version:    s.server.version,
		Attributes: map[string]string{"edition": s.server.edition, "tls": "verified"},
	}
	if t.Options[optionLegacy] == "yes" {
		f.Attributes["tls"] = "none"
	}
	for _, permission := range needed {
		held, err := s.holds(ctx, permission)
		if err != nil {
			return sdk.Fingerprint{}, err
		}
		if !held {
			f.MissingRights = append(f.MissingRights, permission)
		}
	}
	_, closed, err := s.databases(ctx)
	if len(closed) > 0 {
		f.Attributes["databases_not_entered"] = strings.Join(closed, ", ")
	}
	return f, err
}

// holds reports whether the management account has a permission on the server, however it came by it.
// learn.microsoft.com/sql/t-sql/functions/has-perms-by-name-transact-sql
func (s *session) holds(ctx context.Context, permission string) (bool, error) {
	name, err := literal(permission)
	if err != nil {
		return false, err
	}
	var held sql.NullInt64 // NULL: the server does not know the permission
	err = s.query(ctx, "read the management account's rights", "SELECT HAS_PERMS_BY_NAME(NULL, NULL, "+name+")",
		func(r *sql.Rows) error { return r.Scan(&held) })
	return !held.Valid || held.Int64 == 1, err
}
