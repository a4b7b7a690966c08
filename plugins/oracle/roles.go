package main

import "github.com/reeve-pam/reeve/plugins/sdk"

// paramCascade is a parameter any role may have: whether removal drops the account's objects too.
const paramCascade = "Cascade"

// paramQuota is written as a size wherever it stands behind QUOTA.
const paramQuota = "Quota"

// roles is the catalogue. Commands are SQL or a PL/SQL block; render.go says what placeholders become.
func roles() []sdk.Role {
	grant := func(name, title, description string, what ...string) sdk.Role {
		r := sdk.Role{Name: name, Title: title, Description: description, Version: 1, Phases: map[sdk.Phase][]string{}}
		for _, w := range what {
			r.Phases[sdk.PhaseGrant] = append(r.Phases[sdk.PhaseGrant], "GRANT "+w+" TO %Username%")
			r.Phases[sdk.PhaseRevoke] = append(r.Phases[sdk.PhaseRevoke], "REVOKE "+w+" FROM %Username%")
		}
		return r
	}
	highRisk := func(r sdk.Role) sdk.Role {
		r.HighRisk = true
		return r
	}
	return []sdk.Role{
		grant("oracle-connect", "Log in", "Log in and nothing more.", "CREATE SESSION"),
		highRisk(grant("oracle-dba", "Database administrator", "Everything in the database.", "DBA")),
		grant("oracle-resource", "Resource", "Create objects of its own, by the role RESOURCE; a quota is not in it.", "RESOURCE"),
		grant("oracle-select-catalog", "Read the data dictionary", "Read the views of the data dictionary.", "SELECT_CATALOG_ROLE"),
		highRisk(grant("oracle-readonly-any", "Read every table", "Read the tables of every schema but SYS.", "READ ANY TABLE")),
		highRisk(grant("oracle-datapump-exp", "Data Pump export", "Export the whole database.", "DATAPUMP_EXP_FULL_DATABASE")),
		highRisk(grant("oracle-datapump-imp", "Data Pump import", "Import into the whole database.", "DATAPUMP_IMP_FULL_DATABASE")),
		grant("oracle-monitor", "Monitoring", "See sessions, waits and settings, and no data.", "CREATE SESSION", "SELECT_CATALOG_ROLE"),
		grant("oracle-audit-viewer", "Audit viewer", "Read the audit trail.", "AUDIT_VIEWER"),
		schemaDeveloper(grant("oracle-schema-developer", "Schema developer", "Create tables, views, procedures and sequences in a schema of its own.",
			"CREATE TABLE", "CREATE VIEW", "CREATE PROCEDURE", "CREATE SEQUENCE")),
		grant("oracle-scheduler-admin", "Scheduler administrator", "Manage the jobs of every schema, which run with its rights.", "SCHEDULER_ADMIN"),
		highRisk(grant("oracle-backup", "Backup", "Log in AS SYSBACKUP, for RMAN. The server needs a password file.", "SYSBACKUP")),
	}
}

func schemaDeveloper(r sdk.Role) sdk.Role {
	r.Params = []sdk.RoleParam{
		{Name: "Tablespace", Required: true, Pattern: `^[A-Z][A-Z0-9_$#]{0,29}$`, Help: "where its objects lie, in upper case, e.g. USERS"},
		{Name: paramQuota, Required: true, Pattern: sizePattern, Help: "how much of the tablespace it may use, e.g. 100M"},
		{Name: paramCascade, Pattern: `^(yes|no)$`, Help: "yes: when the account is removed, its tables and other objects are dropped with it"},
	}
	r.Phases[sdk.PhaseGrant] = append(r.Phases[sdk.PhaseGrant], "ALTER USER %Username% QUOTA %Quota% ON %Tablespace%")
	return r
}
