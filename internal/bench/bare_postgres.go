package main

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/jackc/pgx/v5"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// barePostgres is pgx with connections that are kept, as plugins/postgres keeps them, and a fresh one for each proof.
type barePostgres struct {
	target sdk.Target
	kept   shelf[*pgx.Conn]
}

func newBarePostgres(t sdk.Target) (keeper, error) {
	return &barePostgres{t, newShelf[*pgx.Conn]()}, nil
}

func (b *barePostgres) close() error {
	return b.kept.clear(func(c *pgx.Conn) error { return c.Close(context.Background()) })
}

// postgresSettings are those of the connector's sessions.
var postgresSettings = map[string]string{
	"application_name": "reeve", "client_encoding": "UTF8", "standard_conforming_strings": "on", "search_path": "pg_catalog",
	"client_min_messages": "warning", "TimeZone": "UTC", "DateStyle": "ISO", "lock_timeout": "10000", "idle_in_transaction_session_timeout": "60000",
}

func (b *barePostgres) connect(ctx context.Context, database, user, password string, settings map[string]string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig("host=target user=bench sslmode=disable passfile=/dev/null")
	if err != nil {
		return nil, err
	}
	cfg.Host, cfg.Port = b.target.Address, uint16(b.target.Port) //nolint:gosec // the lab's
	cfg.User, cfg.Password, cfg.Database, cfg.RuntimeParams = user, password, database, settings
	cfg.TLSConfig, cfg.Fallbacks = tlsOf(b.target), nil
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	return pgx.ConnectConfig(ctx, cfg)
}

// What plugins/postgres reads of an account and of the place it has in the server.
const (
	pgReadAccount = `SELECT r.oid::text, r.rolname::text, r.rolcanlogin, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolreplication,
 r.rolbypassrls, r.rolinherit, r.rolconnlimit::int,
 CASE WHEN isfinite(r.rolvaliduntil) THEN r.rolvaliduntil WHEN r.rolvaliduntil < 'epoch' THEN 'epoch' END,
 COALESCE(shobj_description(r.oid, 'pg_authid'), ''), true FROM pg_roles r WHERE r.rolname = $1 ORDER BY r.rolname`
	pgSessions    = "SELECT pid::text FROM pg_stat_activity WHERE usesysid = $1::oid AND pid <> pg_backend_pid()"
	pgMemberships = `SELECT DISTINCT g.rolname::text FROM pg_auth_members m
 JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = $1::oid ORDER BY 1`
	pgSharedRights = `SELECT e.privilege_type || ' ON DATABASE ' || quote_ident(d.datname) ||
 CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
 FROM pg_database d, aclexplode(d.datacl) e WHERE e.grantee = $1::oid
 UNION ALL
 SELECT 'MEMBER OF ' || quote_ident(g.rolname) || ' WITH ADMIN OPTION'
 FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = $1::oid AND m.admin_option
 UNION ALL
 SELECT COALESCE(d.datname || ': ', '') || 'OWNER OF ' || count(*) || ' OBJECTS'
 FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1::oid AND s.deptype = 'o' GROUP BY d.datname`
	pgDependence = `SELECT name FROM (
 SELECT DISTINCT COALESCE(d.datname, current_database())::text AS name
 FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = $1::oid) AS places ORDER BY name <> current_database(), name`
	pgLocalRights = `SELECT current_database() || ': ' || privilege || ' ON ' || place ||
 CASE WHEN passed THEN ' WITH GRANT OPTION' ELSE '' END FROM (
  SELECT e.privilege_type AS privilege, 'SCHEMA ' || quote_ident(n.nspname) AS place, e.is_grantable AS passed
   FROM pg_namespace n, aclexplode(n.nspacl) e WHERE e.grantee = $1::oid
  UNION ALL
  SELECT e.privilege_type, count(*) || CASE c.relkind WHEN 'S' THEN ' SEQUENCES' ELSE ' TABLES' END ||
    ' IN SCHEMA ' || quote_ident(n.nspname), e.is_grantable
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) e WHERE e.grantee = $1::oid
   GROUP BY e.privilege_type, c.relkind = 'S', c.relkind, n.nspname, e.is_grantable
  UNION ALL
  SELECT e.privilege_type, count(*) || ' FUNCTIONS IN SCHEMA ' || quote_ident(n.nspname), e.is_grantable
   FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, aclexplode(p.proacl) e WHERE e.grantee = $1::oid
   GROUP BY e.privilege_type, n.nspname, e.is_grantable
  UNION ALL
  SELECT e.privilege_type, 'NEW ' || CASE d.defaclobjtype WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
    WHEN 'T' THEN 'TYPES' ELSE 'SCHEMAS' END || ' OF ' || quote_ident(pg_get_userbyid(d.defaclrole)) ||
    COALESCE(' IN SCHEMA ' || quote_ident(n.nspname), ''), e.is_grantable
   FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) e WHERE e.grantee = $1::oid
 ) AS rights ORDER BY 1`

	pgGrantors = `SELECT grantor <> r.oid, quote_ident(pg_get_userbyid(grantor)),
 'REVOKE ' || privilege || ' ON ' || kind || ' ' || string_agg(place, ', ') || ' FROM ' || $2 || ' CASCADE' FROM (
  SELECT e.grantor, e.grantee, e.privilege_type AS privilege, 'DATABASE' AS kind, quote_ident(d.datname) AS place, d.datdba AS owner
   FROM pg_database d, aclexplode(d.datacl) e
  UNION ALL
  SELECT e.grantor, e.grantee, e.privilege_type, 'SCHEMA', quote_ident(n.nspname), n.nspowner FROM pg_namespace n, aclexplode(n.nspacl) e
  UNION ALL
  SELECT e.grantor, e.grantee, e.privilege_type, CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.oid::regclass::text, c.relowner
   FROM pg_class c, aclexplode(c.relacl) e
  UNION ALL
  SELECT e.grantor, e.grantee, e.privilege_type || ' (' || quote_ident(a.attname) || ')', 'TABLE', c.oid::regclass::text, c.relowner
   FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid, aclexplode(a.attacl) e WHERE a.attacl IS NOT NULL
  UNION ALL
  SELECT e.grantor, e.grantee, e.privilege_type, $3, p.oid::regprocedure::text, p.proowner FROM pg_proc p, aclexplode(p.proacl) e
 ) AS given JOIN pg_roles r ON r.rolname = current_user
 WHERE grantee = $1::oid AND grantor <> owner AND pg_has_role(grantor, $4) GROUP BY grantor, r.oid, privilege, kind`
	pgWorks = `SELECT rolsuper FROM pg_roles
 WHERE rolname = session_user AND rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > now())`
	pgBegin = "BEGIN ISOLATION LEVEL READ COMMITTED"
	pgGuard = "SELECT pg_advisory_xact_lock($1::bigint)::text"
)

// The statements of plugins/postgres for an account with the role pg-db-ro, in their order.

func (b *barePostgres) provision(ctx context.Context, a *account) error {
	hash, err := scramVerifier(a.password)
	if err != nil {
		return err
	}
	return errors.Join(b.change(ctx, a, true, func(string) []statement {
		return []statement{
			sqlOf(pgBegin),
			sqlOf(`CREATE ROLE "` + a.name + `" LOGIN PASSWORD '` + hash + `' CONNECTION LIMIT 10`),
			sqlOf(`COMMENT ON ROLE "` + a.name + `" IS 'reeve:` + a.id + " " + comment + `'`),
			sqlOf(pgGuard, lockKey("rights")),
			sqlOf(`GRANT CONNECT ON DATABASE "app" TO "` + a.name + `"`),
			sqlOf(`GRANT USAGE ON SCHEMA "public" TO "` + a.name + `"`),
			sqlOf(`GRANT SELECT ON ALL TABLES IN SCHEMA "public" TO "` + a.name + `"`),
			sqlOf(`GRANT SELECT ON ALL SEQUENCES IN SCHEMA "public" TO "` + a.name + `"`),
			sqlOf("COMMIT"),
		}
	}), b.login(ctx, a.name, a.password))
}

func (b *barePostgres) rotate(ctx context.Context, a *account, password string) error {
	hash, err := scramVerifier(password)
	if err != nil {
		return err
	}
	return errors.Join(b.change(ctx, a, true, func(string) []statement {
		return []statement{sqlOf(pgBegin), sqlOf(`ALTER ROLE "` + a.name + `" PASSWORD '` + hash + `'`), sqlOf("COMMIT")}
	}), b.login(ctx, a.name, password))
}

func (b *barePostgres) deprovision(ctx context.Context, a *account) error {
	return b.change(ctx, a, false, func(oid string) []statement {
		return []statement{
			sqlOf(pgBegin), sqlOf(`ALTER ROLE "` + a.name + `" NOLOGIN`), sqlOf("COMMIT"),
			sqlOf(pgSessions, oid), sqlOf(pgDependence, oid), sqlOf(pgSharedRights, oid),
			sqlOf(pgBegin), sqlOf(pgGuard, lockKey("rights")),
			sqlOf(pgGrantors, oid, `"`+a.name+`"`, "ROUTINE", "MEMBER"),
			sqlOf("SELECT pg_has_role(session_user, $1::oid, 'USAGE')::text", oid),
			sqlOf(`GRANT "` + a.name + `" TO CURRENT_USER`), sqlOf(`REASSIGN OWNED BY "` + a.name + `" TO CURRENT_USER`),
			sqlOf(`DROP OWNED BY "` + a.name + `"`), sqlOf("COMMIT"),
			sqlOf(pgBegin), sqlOf(`DROP ROLE "` + a.name + `"`), sqlOf("COMMIT"),
		}
	})
}

func lockKey(of string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("bench " + of)) // never fails
	return int64(h.Sum64())               //nolint:gosec // any number will do
}

// change sends statements about an account that is locked and was read before, and is read after them; if it is
// there then, with all that the connector tells about it.
func (b *barePostgres) change(ctx context.Context, a *account, stays bool, statements func(oid string) []statement) error {
	conn, err := b.kept.take(
		func(c *pgx.Conn) error { return query(ctx, c, sqlOf(pgWorks), nil) },
		func() (*pgx.Conn, error) {
			return b.connect(ctx, "app", b.target.Management.Username, b.target.Management.Password.Reveal(), postgresSettings)
		})
	if err != nil {
		return err
	}
	if err := b.tell(ctx, conn, a, stays, statements); err != nil {
		return errors.Join(err, conn.Close(context.WithoutCancel(ctx)))
	}
	b.kept.give(conn)
	return nil
}

func (b *barePostgres) tell(ctx context.Context, conn *pgx.Conn, a *account, stays bool, statements func(oid string) []statement) error {
	if err := query(ctx, conn, sqlOf("SELECT pg_advisory_lock($1::bigint)::text", lockKey(a.name)), nil); err != nil {
		return err
	}
	var oid string
	find := sqlOf(pgReadAccount, a.name)
	if err := query(ctx, conn, find, &oid); err != nil {
		return err
	}
	for _, s := range append(statements(oid), find) {
		into := (*string)(nil)
		if s.text == pgReadAccount {
			into = &oid
		}
		if err := query(ctx, conn, s, into); err != nil {
			return err
		}
	}
	if stays {
		for _, text := range []string{pgSessions, pgMemberships, pgSharedRights, pgDependence, pgLocalRights} {
			if err := query(ctx, conn, sqlOf(text, oid), nil); err != nil {
				return err
			}
		}
	}
	return query(ctx, conn, sqlOf("DISCARD ALL"), nil)
}

// query sends a statement and reads all it answers; into gets the first column of a row, if there is one.
func query(ctx context.Context, conn *pgx.Conn, s statement, into *string) error {
	rows, err := conn.Query(ctx, s.text, s.args...)
	if err != nil {
		return fmt.Errorf("%s: %w", s.text, err)
	}
	defer rows.Close()
	for rows.Next() {
		values := rows.RawValues()
		if into != nil && len(values) > 0 {
			*into = string(values[0])
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", s.text, err)
	}
	return nil
}

// login is the proof: a fresh connection as the account.
func (b *barePostgres) login(ctx context.Context, user, password string) error {
	conn, err := b.connect(ctx, "postgres", user, password, map[string]string{"application_name": "reeve", "client_encoding": "UTF8"})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var name string
	err = query(ctx, conn, sqlOf("SELECT r.rolname::text, r.oid::text FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) session_user"), &name)
	if err == nil && name != user {
		err = fmt.Errorf("logged in as %q", name)
	}
	return err
}

// scramVerifier is what the server stores of a password: RFC 5802, with the server's own number of rounds.
func scramVerifier(password string) (string, error) {
	const rounds = 4096
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	key, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	if err != nil {
		return "", err
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, key)
		_, _ = h.Write([]byte(text)) // never fails
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", rounds, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}
