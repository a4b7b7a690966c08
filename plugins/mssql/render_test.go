package main

import (
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

func TestRenderedCommands(t *testing.T) {
	t.Parallel()
	params := map[string]string{"Database": "a]b", "Text": "it's"}
	for command, want := range map[string]string{
		"ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%":                                  "ALTER SERVER ROLE [sysadmin] ADD MEMBER [o'x]",
		"CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'": "EXEC master..sp_addsrvrolemember @loginame = N'o''x', @rolename = N'sysadmin'",
		"  call\tdbo.p N'%Text%'":               "EXEC\tdbo.p N'it''s'",
		"USE %Database%":                        "USE [a]]b]",
		"GRANT SELECT ON [%Database%].t TO [u]": "GRANT SELECT ON [a]]b].t TO [u]",
		"CALLED_PROCEDURE":                      "CALLED_PROCEDURE",
	} {
		r, err := render(command, "o'x", params)
		if err != nil || r.sql != want {
			t.Errorf("%s: %s, %v", command, r.sql, err)
		}
	}
	for _, command := range []string{
		"", "-- nothing", "GO", "SELECT 1\nGO\n", "USE %Database%; DROP TABLE t", "SELECT 1; USE %Database%", "USE",
		"ALTER LOGIN %Username% WITH PASSWORD = N'x'", "SELECT %Missing%", "SELECT '%Text%", "SELECT x%Text%", "SELECT 1 -- %Text%",
	} {
		_, err := render(command, "alice", params)
		wantClass(t, command, err, sdk.ClassInvalid)
	}
}

func TestModernFormOfOldCommands(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'":    "ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%",
		"EXEC sp_addsrvrolemember N'%Username%', N'sysadmin'":                                    "ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%",
		"execute [master].[dbo].[sp_addsrvrolemember] '%Username%', @rolename = 'bulkadmin';":    "ALTER SERVER ROLE [bulkadmin] ADD MEMBER %Username%",
		"EXEC master.sys.sp_dropsrvrolemember @rolename = N'a]b', @loginame = N'pre_%Username%'": "ALTER SERVER ROLE [a]]b] DROP MEMBER [pre_%Username%]",
		"EXEC sp_addrolemember N'db_owner', N'%Username%'":                                       "ALTER ROLE [db_owner] ADD MEMBER %Username%",
		"EXEC sp_droprolemember @membername = N'%Username%', @rolename = N'db_owner'":            "ALTER ROLE [db_owner] DROP MEMBER %Username%",
		"ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%":                                     "",
		"EXEC sp_addsrvrolemember N'%Username%'":                                                 "",
		"EXEC sp_addsrvrolemember N'%Username%', N'sysadmin', N'third'":                          "",
		"EXEC sp_addsrvrolemember N'%Username%', N'sysadmin' EXEC sp_who":                        "",
		"EXEC sp_other @loginame = N'%Username%', @rolename = N'sysadmin'":                       "",
		"SELECT 1": "",
		"'":        "",
	} {
		got, ok := modern(command)
		if got != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
		if ok {
			if _, err := render(got, "alice", nil); err != nil {
				t.Errorf("%s: the modern form is not accepted: %v", command, err)
			}
		}
	}
}

func TestEveryCommandOfTheCatalogueIsUnderstood(t *testing.T) {
	t.Parallel()
	if err := (connector{}).Describe().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, r := range roles() {
		for phase, commands := range r.Phases {
			for _, c := range commands {
				if _, err := render(c, "alice", map[string]string{"Database": "app"}); err != nil {
					t.Errorf("%s, %s: %v", r.Name, phase, err)
				}
			}
		}
	}
}

// FuzzRender looks for a value that makes another command, and for a command that breaks render.
func FuzzRender(f *testing.F) {
	for _, command := range []string{
		"ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%", "CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'",
		"USE %Database%", "EXEC sp_addrolemember 'x', '%Username%'", "CALL", "USE [", "EXEC @",
	} {
		f.Add(command, "alice", "app")
		f.Add(command, "a]; DROP LOGIN sa--", "x' OR 1=1 /*")
	}
	f.Fuzz(func(t *testing.T, command, username, database string) {
		hostile, err := render(command, username, map[string]string{"Database": database})
		if err != nil {
			return
		}
		if m, ok := modern(command); ok && hostile.member != nil {
			r, err := render(m, username, map[string]string{"Database": database})
			if err == nil && (r.member == nil || *r.member != *hostile.member) {
				t.Errorf("%q means %+v, its modern form %q something else", command, *hostile.member, m)
			}
		}
		if strings.EqualFold(strings.TrimSpace(hostile.sql), "") {
			t.Errorf("%q: empty", command)
		}
		harmless, err := render(command, "alice", map[string]string{"Database": "app"})
		if err != nil {
			return // a value that is refused there may do here
		}
		a, b := must2(wordsOf(harmless.sql)), must2(wordsOf(hostile.sql))
		if len(a) != len(b) {
			t.Errorf("%q: %q and %q have different tokens", command, harmless.sql, hostile.sql)
		}
	})
}

func must2(words []template.Token, err error) []template.Token {
	if err != nil {
		panic(err)
	}
	return words
}

func FuzzMajorOf(f *testing.F) {
	for _, v := range []string{"16.0.4135.4", "11", "", "9999999999999999999.1", "-1.0", "x.y"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, version string) {
		if n, err := majorOf(version); err == nil && (n < 1 || n > 1000) {
			t.Errorf("%q: %d", version, n)
		}
	})
}

func TestCommandsThatDoNotReadAreRefusedWhenARoleIsSaved(t *testing.T) {
	t.Parallel()
	for command, fits := range map[string]bool{
		"SELECT 1": true, "/* why */ select 1": true, "USE master": true, "ALTER SERVER ROLE dbcreator ADD MEMBER %Username%": false, "PRINT 1": false,
	} {
		for _, phase := range []sdk.Phase{sdk.PhaseVerify, sdk.PhaseFacts} {
			r := sdk.Role{Name: "r", Version: 1, Phases: map[sdk.Phase][]string{phase: {command}}}
			if err := (connector{}).Describe().CheckRole(r); (err == nil) != fits {
				t.Errorf("%q in %s: %v", command, phase, err)
			}
		}
	}
}
