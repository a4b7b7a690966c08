package main

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Probe implements sdk.Prober, by a fresh login. What roles grant is not looked at: a role
// that grants more than the management account may pass on is refused when used.
func (connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	s, err := connect(ctx, t, t.Options[optionDatabase])
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer s.close()
	f := sdk.Fingerprint{Product: product, Version: s.number, Attributes: map[string]string{}}
	var version, encryption, readOnly string
	var standby, createRole, signal bool
	err = s.query(ctx, "read what the server is", `SELECT version(), pg_is_in_recovery(), current_setting('default_transaction_read_only'),
 current_setting('password_encryption'), r.rolcreaterole OR r.rolsuper, r.rolsuper OR pg_has_role(r.oid, 'pg_signal_backend', 'USAGE')
 FROM pg_roles r WHERE r.rolname = current_user`, func(r pgx.Rows) error {
		return r.Scan(&version, &standby, &readOnly, &encryption, &createRole, &signal)
	})
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	if !strings.HasPrefix(version, "PostgreSQL ") {
		return sdk.Fingerprint{}, sdk.Errorf(sdk.ClassUnsupported, "the server speaks PostgreSQL's language and is another product").
			WithFix("use a connector for that product")
	}
	f.Attributes["version"] = version
	f.Attributes["password_encryption"] = encryption
	if standby || readOnly == "on" {
		f.Attributes["read_only"] = "yes"
	}
	if s.super {
		f.Attributes["management_is_superuser"] = "yes"
	}
	who, err := fill("%Name%", map[string]string{"Name": t.Management.Username})
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	if !createRole {
		f.MissingRights = append(f.MissingRights, "ALTER ROLE "+who+" CREATEROLE")
	}
	if !signal {
		f.MissingRights = append(f.MissingRights, "GRANT pg_signal_backend TO "+who)
	}
	return f, nil
}
