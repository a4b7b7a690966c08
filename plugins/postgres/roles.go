package main

import "github.com/reeve-pam/reeve/plugins/sdk"

// name is a parameter that holds a name of the server.
func name(param, help string) sdk.RoleParam {
	return sdk.RoleParam{Name: param, Required: true, Pattern: `^[^\x00-\x1f\x7f]{1,63}$`, Help: help}
}

var (
	inDatabase = name(paramDatabase, "the name of a database, in which the role's commands run")
	inSchema   = name("Schema", "the name of a schema, such as public")
)

// roles is the catalogue. Commands are SQL; render.go says what they may be. What they give
// is taken away with the account, so they need no commands for that.
func roles() []sdk.Role {
	grant := func(name, title, description string, params []sdk.RoleParam, grants ...string) sdk.Role {
		return sdk.Role{
			Name: name, Title: title, Description: description, Version: 1, Params: params,
			Phases: map[sdk.Phase][]string{sdk.PhaseGrant: grants},
		}
	}
	highRisk := func(r sdk.Role) sdk.Role {
		r.HighRisk = true
		return r
	}
	return []sdk.Role{
		highRisk(grant("pg-superuser", "Superuser",
			"Everything on the whole server; no right is checked. Only a superuser can give it, or end such sessions.", nil,
			"ALTER ROLE %Username% SUPERUSER")),
		highRisk(grant("pg-createdb-createrole", "Account and database administrator",
			"Make databases and roles. Before version 16 that includes giving itself almost any right.", nil,
			"ALTER ROLE %Username% CREATEDB CREATEROLE")),
		grant("pg-readonly-all", "Read everything",
			"Read every table, view and sequence of every database. From version 14.", nil,
			"GRANT pg_read_all_data TO %Username%"),
		grant("pg-readwrite-all", "Read and write everything",
			"Read and write the rows of every table of every database. From version 14.", nil,
			"GRANT pg_read_all_data TO %Username%",
			"GRANT pg_write_all_data TO %Username%"),
		grant("pg-monitor", "Monitoring",
			"See settings, sessions and statistics, and no data.", nil,
			"GRANT pg_monitor TO %Username%"),
		grant("pg-signal", "End sessions",
			"Cancel statements and end sessions of everybody but superusers.", nil,
			"GRANT pg_signal_backend TO %Username%"),
		grant("pg-db-owner", "Owner of a database",
			"Everything the role that owns a database may do.",
			[]sdk.RoleParam{inDatabase, name("Owner", "the role that owns the database")},
			"GRANT CONNECT ON DATABASE %Database% TO %Username%",
			"GRANT %Owner% TO %Username%"),
		grant("pg-db-ro", "Read a schema",
			"Read the tables, views and sequences that a schema of one database has now.",
			[]sdk.RoleParam{inDatabase, inSchema},
			"GRANT CONNECT ON DATABASE %Database% TO %Username%",
			"GRANT USAGE ON SCHEMA %Schema% TO %Username%",
			"GRANT SELECT ON ALL TABLES IN SCHEMA %Schema% TO %Username%",
			"GRANT SELECT ON ALL SEQUENCES IN SCHEMA %Schema% TO %Username%"),
		grant("pg-db-rw", "Read and write a schema",
			"Read and write the tables and sequences of a schema of one database, and those its owner makes later.",
			[]sdk.RoleParam{inDatabase, inSchema, name("Owner", "the role that makes the tables of the schema")},
			"GRANT CONNECT ON DATABASE %Database% TO %Username%",
			"GRANT USAGE ON SCHEMA %Schema% TO %Username%",
			"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA %Schema% TO %Username%",
			"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA %Schema% TO %Username%",
			"ALTER DEFAULT PRIVILEGES FOR ROLE %Owner% IN SCHEMA %Schema% GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO %Username%",
			"ALTER DEFAULT PRIVILEGES FOR ROLE %Owner% IN SCHEMA %Schema% GRANT USAGE, SELECT ON SEQUENCES TO %Username%"),
		highRisk(grant("pg-replication", "Replica",
			"Stream the whole server's changes, as a standby or a backup does.", nil,
			"ALTER ROLE %Username% REPLICATION")),
		grant("pg-checkpoint", "Checkpoints",
			"Run CHECKPOINT. From version 15.", nil,
			"GRANT pg_checkpoint TO %Username%"),
		grant("pg-maintain", "Maintenance",
			"VACUUM, ANALYZE, REINDEX and their like on every table. From version 17.", nil,
			"GRANT pg_maintain TO %Username%"),
		grant("pg-backup", "Backup of a database",
			"What pg_dump needs to copy one database. From version 14.",
			[]sdk.RoleParam{inDatabase},
			"GRANT CONNECT ON DATABASE %Database% TO %Username%",
			"GRANT pg_read_all_data TO %Username%",
			"GRANT pg_read_all_settings TO %Username%"),
	}
}
