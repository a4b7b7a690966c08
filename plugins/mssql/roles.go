package main

import "github.com/reeve-pam/reeve/plugins/sdk"

// inDatabase is the parameter of every role that is about one database.
var inDatabase = []sdk.RoleParam{{
	Name: "Database", Required: true, Pattern: `^[A-Za-z0-9_$.-]{1,128}$`,
	Help: "the name of a database: 1 to 128 of A-Z, a-z, 0-9, _, $, . and -",
}}

// roles is the catalogue. Commands are T-SQL; render.go says what is special about them.
func roles() []sdk.Role {
	role := func(name, title, description string, params []sdk.RoleParam, grant, revoke []string) sdk.Role {
		return sdk.Role{
			Name: name, Title: title, Description: description, Version: 1, Params: params,
			Phases: map[sdk.Phase][]string{sdk.PhaseGrant: grant, sdk.PhaseRevoke: revoke},
		}
	}
	onServer := func(fixed, title, description string) sdk.Role {
		return role("mssql-"+fixed, title, description, nil,
			[]string{"ALTER SERVER ROLE [" + fixed + "] ADD MEMBER %Username%"},
			[]string{"ALTER SERVER ROLE [" + fixed + "] DROP MEMBER %Username%"})
	}
	within := func(name, database, inside, title, description string, params []sdk.RoleParam) sdk.Role {
		return role(name, title, description, params,
			[]string{"USE " + database, "CREATE USER %Username% FOR LOGIN %Username% WITH DEFAULT_SCHEMA = [dbo]",
				"ALTER ROLE [" + inside + "] ADD MEMBER %Username%"},
			[]string{"USE " + database, "ALTER ROLE [" + inside + "] DROP MEMBER %Username%"})
	}
	database := func(name, fixed, title, description string) sdk.Role {
		return within(name, "%Database%", fixed, title, description, inDatabase)
	}
	highRisk := func(r sdk.Role) sdk.Role {
		r.HighRisk = true
		return r
	}
	return []sdk.Role{
		highRisk(onServer("sysadmin", "System administrator", "Everything on the whole server.")),
		highRisk(onServer("securityadmin", "Security administrator",
			"Manage logins and their rights. Who may do that can become a system administrator.")),
		onServer("serveradmin", "Server administrator", "Change the server's settings, and shut it down."),
		onServer("dbcreator", "Database creator", "Create, change, drop and restore databases."),
		onServer("processadmin", "Process administrator", "End sessions of others."),
		onServer("bulkadmin", "Bulk loader", "Run BULK INSERT."),
		onServer("setupadmin", "Linked server administrator", "Add and remove linked servers."),
		onServer("diskadmin", "Disk administrator", "Manage backup devices and disk files."),

		highRisk(database("mssql-db-owner", "db_owner", "Owner of a database", "Everything in one database.")),
		database("mssql-db-datareader", "db_datareader", "Read a database", "Read every table and view of one database."),
		database("mssql-db-datawriter", "db_datawriter", "Write a database", "Add, change and delete the rows of one database."),
		database("mssql-db-ddladmin", "db_ddladmin", "Change the schema of a database", "Run any DDL statement in one database."),
		highRisk(database("mssql-db-securityadmin", "db_securityadmin", "Security of a database",
			"Manage roles and rights in one database. Who may do that can become its owner.")),
		database("mssql-db-accessadmin", "db_accessadmin", "Access to a database", "Decide who is a user of one database."),
		database("mssql-db-backupoperator", "db_backupoperator", "Back up a database", "Back up one database."),
		database("mssql-db-denydatawriter", "db_denydatawriter", "Never write a database",
			"Change no row of one database, whatever else is granted."),

		role("mssql-readonly-all", "Read everything", "Enter every database and read every table and view. From SQL Server 2014 on.", nil,
			[]string{"GRANT CONNECT ANY DATABASE TO %Username%", "GRANT SELECT ALL USER SECURABLES TO %Username%"},
			[]string{"REVOKE SELECT ALL USER SECURABLES FROM %Username%", "REVOKE CONNECT ANY DATABASE FROM %Username%"}),
		role("mssql-monitor", "Monitor", "See the server's state and every definition, and change nothing.", nil,
			[]string{"GRANT VIEW SERVER STATE TO %Username%", "GRANT VIEW ANY DEFINITION TO %Username%"},
			[]string{"REVOKE VIEW ANY DEFINITION FROM %Username%", "REVOKE VIEW SERVER STATE FROM %Username%"}),
		within("mssql-agent-operator", "[msdb]", "SQLAgentOperatorRole", "Operator of SQL Server Agent",
			"See, start and stop every job of SQL Server Agent.", nil),
		highRisk(role("mssql-auditor", "Auditor", "Manage and read the server's audits. Who may do that can also switch them off.", nil,
			[]string{"GRANT ALTER ANY SERVER AUDIT TO %Username%", "GRANT VIEW ANY DEFINITION TO %Username%"},
			[]string{"REVOKE VIEW ANY DEFINITION FROM %Username%", "REVOKE ALTER ANY SERVER AUDIT FROM %Username%"})),
	}
}
