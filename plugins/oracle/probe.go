package main

import (
	"context"
	"slices"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Probe implements sdk.Prober. What roles grant is not looked at: a role that grants more than the management account may
// pass on is refused by the server when used.
func (connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	s, err := connect(ctx, t)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer s.close()
	f := sdk.Fingerprint{Product: product, Version: s.server.version()}
	context, err := s.query(ctx, "ask where we are",
		"SELECT SYS_CONTEXT('USERENV', 'CON_NAME'), SYS_CONTEXT('USERENV', 'DB_NAME'), SYS_CONTEXT('USERENV', 'SERVICE_NAME') FROM dual")
	if err != nil || len(context) != 1 {
		return sdk.Fingerprint{}, err
	}
	f.Attributes = map[string]string{"container": context[0][0], "database": context[0][1], "service": context[0][2]}
	if t.Options[optionLegacy] == yes {
		f.Attributes["transport"] = "not protected"
	}
	f.MissingRights, err = s.missing(ctx, t)
	return f, err
}

// missing lists what the management account lacks.
func (s *session) missing(ctx context.Context, t sdk.Target) (missing []string, err error) {
	held := map[string]bool{}
	for _, statement := range []string{"SELECT privilege FROM session_privs", "SELECT role FROM session_roles"} {
		rows, err := s.query(ctx, "read the management account's rights", statement)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			held[r[0]] = true
		}
	}
	own, err := s.query(ctx, "read the management account's rights",
		"SELECT privilege FROM user_sys_privs WHERE privilege = 'CREATE SESSION' AND admin_option = 'YES'")
	if err != nil {
		return nil, err
	}
	if len(own) == 0 && !held["GRANT ANY PRIVILEGE"] {
		missing = append(missing, "CREATE SESSION WITH ADMIN OPTION")
	}
	needed := []string{"CREATE USER", "ALTER USER", "DROP USER", "CREATE SYNONYM"}
	if t.Options[optionKill] != rds {
		needed = append(needed, "ALTER SYSTEM")
	}
	for _, right := range needed {
		if !held[right] {
			missing = append(missing, right)
		}
	}
	if _, err := s.accounts(ctx, "username = USER"); sdk.ClassOf(err) == sdk.ClassNotPermitted {
		missing = append(missing, "SELECT_CATALOG_ROLE")
	} else if err != nil {
		return nil, err
	}
	switch err := s.try(lockBlock("a probe")); number(err) {
	case errBlock:
		missing = append(missing, "EXECUTE ON SYS.DBMS_LOCK")
	case errLockHeld:
	default:
		if err != nil {
			return nil, failure(ctx, "try a lock", err, false)
		}
	}
	return slices.Clip(missing), nil
}
