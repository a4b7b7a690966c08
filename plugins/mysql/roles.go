package main

import "github.com/reeve-pam/reeve/plugins/sdk"

// database is the parameter of every role that is about one database.
var database = []sdk.RoleParam{{
	Name: "Database", Required: true, Pattern: `^[A-Za-z0-9_$-]{1,64}$`,
	Help: "the name of a database: 1 to 64 of A-Z, a-z, 0-9, _, $ and -",
}}

// roles is the catalogue. Commands are SQL; render.go says what placeholders become.
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
		highRisk(grant("mysql-dba", "Database administrator",
			"Everything on the whole server, and the right to pass it on.", nil,
			"GRANT ALL PRIVILEGES ON *.* TO %Username% WITH GRANT OPTION")),
		grant("mysql-readonly-all", "Read everything",
			"Read every table and view definition of the server, the account tables included.", nil,
			"GRANT SELECT, SHOW VIEW ON *.* TO %Username%"),
		grant("mysql-db-owner", "Owner of a database",
			"Everything in one database.", database,
			"GRANT ALL PRIVILEGES ON %Database%.* TO %Username%"),
		grant("mysql-db-rw", "Read and write a database",
			"Read and write the rows of one database and call its routines.", database,
			"GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON %Database%.* TO %Username%"),
		grant("mysql-db-ro", "Read a database",
			"Read the rows of one database.", database,
			"GRANT SELECT ON %Database%.* TO %Username%"),
		grant("mysql-backup", "Backup",
			"What mysqldump and mariadb-dump need to copy the whole server.", nil,
			"GRANT SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS, REPLICATION CLIENT ON *.* TO %Username%"),
		grant("mysql8-backup", "Backup, MySQL 8",
			"What mysqldump and physical backups of MySQL 8 need. MariaDB does not know the right BACKUP_ADMIN.", nil,
			"GRANT SELECT, LOCK TABLES, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS, REPLICATION CLIENT ON *.* TO %Username%",
			"GRANT BACKUP_ADMIN ON *.* TO %Username%"),
		grant("mysql-monitor", "Monitoring",
			"See sessions, replication and the performance schema, and no data.", nil,
			"GRANT PROCESS, REPLICATION CLIENT ON *.* TO %Username%",
			"GRANT SELECT ON `performance_schema`.* TO %Username%"),
		grant("mysql-replication", "Replica",
			"What a replica's connection to its source needs.", nil,
			"GRANT REPLICATION SLAVE ON *.* TO %Username%"),
		highRisk(grant("mysql-useradmin", "Account administrator",
			"Create, change and drop accounts, those with more rights included.", nil,
			"GRANT CREATE USER ON *.* TO %Username%")),
		highRisk(grant("mysql8-useradmin", "Account administrator, MySQL 8",
			"As mysql-useradmin, and grant every role of the server. MariaDB does not know the right ROLE_ADMIN.", nil,
			"GRANT CREATE USER ON *.* TO %Username%",
			"GRANT ROLE_ADMIN ON *.* TO %Username%")),
		grant("mysql-schema-migrator", "Schema migration",
			"Create, alter and drop the tables of one database.", database,
			"GRANT CREATE, ALTER, DROP, INDEX, REFERENCES ON %Database%.* TO %Username%"),
	}
}
