package main

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/tds"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

func TestLifeOfAnAccount(t *testing.T) {
	t.Parallel()
	for _, encrypt := range []string{"true", "strict"} {
		t.Run("encrypt="+encrypt, func(t *testing.T) {
			t.Parallel()
			s := emulator(t, tds.Options{})
			tgt := target(s)
			tgt.Options[optionEncrypt] = encrypt
			in := intent(sdk.Provision)
			in.Role, in.Params = role(t, "mssql-db-datawriter"), map[string]string{"Database": "app"}
			r := must(t, tgt, in, first)
			if f := r.Facts; !r.Changed || f.Identity != "0x"+hex.EncodeToString(mark(id)) || !slices.Equal(f.Grants, []string{"app: ROLE db_datawriter"}) ||
				time.Since(f.PasswordChangedAt).Abs() > time.Minute {
				t.Errorf("provisioned: %+v", r)
			}
			wantLogin(t, s, "alice", first, true)
			in.Identity = r.Facts.Identity
			in.Action = sdk.Rotate
			must(t, tgt, in, second)
			wantLogin(t, s, "alice", first, false)
			wantLogin(t, s, "alice", second, true)
			in.Action = sdk.Disable
			if f := must(t, tgt, in, "").Facts; !f.Locked {
				t.Errorf("disabled: %+v", f)
			}
			in.Action = sdk.Provision
			if f := must(t, tgt, in, second).Facts; f.Locked {
				t.Errorf("provisioned again: %+v", f)
			}
			in.Action = sdk.Deprovision
			if r := must(t, tgt, in, ""); r.Facts.Exists || len(r.Residue) > 0 {
				t.Errorf("deprovisioned: %+v", r)
			}
			if snapshot := s.Snapshot(); strings.Contains(snapshot, "alice") {
				t.Errorf("left behind: %s", snapshot)
			}
		})
	}
}

func TestEveryRoleOfTheCatalogueGrantsAndIsRevoked(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"mssql-sysadmin": "sysadmin", "mssql-securityadmin": "securityadmin", "mssql-serveradmin": "serveradmin", "mssql-dbcreator": "dbcreator",
		"mssql-processadmin": "processadmin", "mssql-bulkadmin": "bulkadmin", "mssql-setupadmin": "setupadmin", "mssql-diskadmin": "diskadmin",
		"mssql-db-owner": "app: ROLE db_owner", "mssql-db-datareader": "app: ROLE db_datareader", "mssql-db-datawriter": "app: ROLE db_datawriter",
		"mssql-db-ddladmin": "app: ROLE db_ddladmin", "mssql-db-securityadmin": "app: ROLE db_securityadmin",
		"mssql-db-accessadmin": "app: ROLE db_accessadmin", "mssql-db-backupoperator": "app: ROLE db_backupoperator",
		"mssql-db-denydatawriter": "app: ROLE db_denydatawriter",
		"mssql-readonly-all":      "GRANT CONNECT ANY DATABASE, GRANT SELECT ALL USER SECURABLES",
		"mssql-monitor":           "GRANT VIEW ANY DEFINITION, GRANT VIEW SERVER STATE",
		"mssql-agent-operator":    "msdb: ROLE SQLAgentOperatorRole",
		"mssql-auditor":           "GRANT ALTER ANY SERVER AUDIT, GRANT VIEW ANY DEFINITION",
	}
	if len(roles()) != len(want) {
		t.Errorf("%d roles, want %d", len(roles()), len(want))
	}
	s := emulator(t, tds.Options{})
	tgt := asSA(s)
	for _, r := range roles() {
		in := intent(sdk.Provision)
		in.Role = r
		if len(r.Params) > 0 {
			in.Params = map[string]string{"Database": "app"}
		}
		for i := range 2 {
			result := must(t, tgt, in, first)
			if got := strings.Join(append(result.Facts.Groups, result.Facts.Grants...), ", "); got != want[r.Name] || result.Changed != (i == 0) {
				t.Errorf("%s, time %d: %s, changed %t; want %s", r.Name, i+1, got, result.Changed, want[r.Name])
			}
		}
		in.Action = sdk.Deprovision
		must(t, tgt, in, "")
	}
}

func TestSampleWithTheOldProcedureIsTakenAsWritten_A2_8(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	in := intent(sdk.Provision)
	in.Role = sdk.Role{Name: "custom", Version: 1, Phases: map[sdk.Phase][]string{
		sdk.PhaseGrant: {`CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'`},
	}}
	plan, err := connector{}.Plan(t.Context(), asSA(s), in)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(plan.Steps, func(s sdk.Step) bool { return s.ID == "grant-1" })
	if step := plan.Steps[i]; step.Command != `EXEC master..sp_addsrvrolemember @loginame = N'alice', @rolename = N'sysadmin'` ||
		!strings.Contains(step.Title, "ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%") {
		t.Errorf("planned: %+v", step)
	}
	if r := must(t, asSA(s), in, first); !slices.Equal(r.Facts.Groups, []string{"sysadmin"}) {
		t.Errorf("groups %q", r.Facts.Groups)
	}
	// The least privileged management account may not: the new login goes again, and is not kept half-made.
	in.Account, in.AccountID = "bob", "acct_bob"
	_, err = apply(t.Context(), target(s), in, first)
	wantClass(t, "provision by a management account that may not", err, sdk.ClassNotPermitted)
	if _, there := s.Login("bob"); there {
		t.Error("the unfinished login was left")
	}
}

func TestWhatAnAccountOwnsIsGivenAwayBeforeItGoes(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	in := intent(sdk.Provision)
	in.Role, in.Params = role(t, "mssql-db-datareader"), map[string]string{"Database": "app"}
	must(t, asSA(s), in, first)
	asRoot(t, s, "app", "CREATE SCHEMA [hers] AUTHORIZATION [alice]", "CREATE ROLE [her role] AUTHORIZATION [alice]")
	asRoot(t, s, "crm", "CREATE USER [other name] FOR LOGIN [alice]")
	asRoot(t, s, "master", "ALTER AUTHORIZATION ON DATABASE::[tempdb] TO [alice]")
	s.AddJob("6A1E8C2E-0000-0000-0000-000000000001", "alice")
	in.Action = sdk.Deprovision
	// The least privileged management account sees that it may not.
	_, err := apply(t.Context(), target(s), in, "")
	wantClass(t, "deprovision by the least privileged", err, sdk.ClassNotPermitted)
	r := must(t, asSA(s), in, "")
	if len(r.Residue) > 0 || strings.Contains(s.Snapshot(), "alice") || strings.Contains(s.Snapshot(), "other name") {
		t.Errorf("residue %q, %s", r.Residue, s.Snapshot())
	}
}

func TestWhatOthersTookAwayAlreadyDoesNotStandInTheWayOfRemoval(t *testing.T) {
	t.Parallel()
	for name, takeAway := range map[string]func(*testing.T, *tds.Server){
		"the user": func(t *testing.T, s *tds.Server) { t.Helper(); asRoot(t, s, "app", "DROP USER [alice]") },
		"the membership": func(t *testing.T, s *tds.Server) {
			t.Helper()
			asRoot(t, s, "app", "ALTER ROLE [db_datareader] DROP MEMBER [alice]")
		},
		"the database": func(_ *testing.T, s *tds.Server) { s.DropDatabase("app") },
		"the login":    func(t *testing.T, s *tds.Server) { t.Helper(); asRoot(t, s, "master", "DROP LOGIN [alice]") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := emulator(t, tds.Options{})
			in := intent(sdk.Provision)
			in.Role, in.Params = role(t, "mssql-db-datareader"), map[string]string{"Database": "app"}
			must(t, target(s), in, first)
			takeAway(t, s)
			in.Action = sdk.Deprovision
			if r := must(t, target(s), in, ""); r.Facts.Exists {
				t.Errorf("%+v", r)
			}
			if strings.Contains(s.Snapshot(), "alice") {
				t.Errorf("left behind: %s", s.Snapshot())
			}
		})
	}
}

func TestJobOfAnAccountThatTheManagerCannotSeeIsExplained(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	s.AddJob("1", "alice")
	_, err := apply(t.Context(), target(s), intent(sdk.Deprovision), "")
	wantClass(t, "deprovision", err, sdk.ClassNotPermitted)
	if err != nil && !strings.Contains(err.Error(), "jobs of SQL Server Agent") {
		t.Error(err)
	}
	wantLogin(t, s, "alice", first, false) // it is disabled all the same
}

func TestUserWhereTheManagerMayNotDropIsReported_C25(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	asRoot(t, s, "crm", "CREATE USER [alice] FOR LOGIN [alice]")
	r := must(t, target(s), intent(sdk.Deprovision), "")
	if len(r.Residue) != 1 || !strings.Contains(r.Residue[0], "database crm") || r.Facts.Exists {
		t.Errorf("%+v", r)
	}
}

func TestSessionsEndWithDisableAndDeprovision_C24(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		must(t, target(s), intent(sdk.Enable), "")
		db := login(s, "alice", first, "")
		if err := db.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f, err := (connector{}).Inspect(t.Context(), target(s), "alice"); err != nil || f.Sessions != 1 {
			t.Errorf("%d sessions, %v", f.Sessions, err)
		}
		must(t, target(s), intent(action), "")
		if n := s.Sessions("alice"); n != 0 {
			t.Errorf("after %s: %d sessions", action, n)
		}
		_ = db.Close()
	}
}

func TestWithoutTheRightToSeeSessionsNothingIsClaimed(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	asRoot(t, s, "master", "REVOKE VIEW SERVER STATE FROM ["+manager+"]")
	_, err := apply(t.Context(), target(s), intent(sdk.Disable), "")
	wantClass(t, "disable", err, sdk.ClassNotPermitted)
	f, err := connector{}.Probe(t.Context(), target(s))
	if err != nil || !slices.Equal(f.MissingRights, []string{"VIEW SERVER STATE"}) {
		t.Errorf("missing %q, %v", f.MissingRights, err)
	}
}

func TestUserOfTheSameNameThatIsNotOursIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	asRoot(t, s, "master", "CREATE LOGIN [mallory] WITH PASSWORD = N'Theirs-123'")
	asRoot(t, s, "app", "CREATE USER [alice] FOR LOGIN [mallory]")
	in := intent(sdk.Provision)
	in.Role, in.Params = role(t, "mssql-db-owner"), map[string]string{"Database": "app"}
	_, err := apply(t.Context(), target(s), in, first)
	wantClass(t, "provision", err, sdk.ClassExists)
	if _, there := s.Login("alice"); there {
		t.Error("the unfinished login was left")
	}
	if !strings.Contains(s.Snapshot(), " alice ") {
		t.Error("mallory's user is gone")
	}
}

func TestNamesTakenByOthersAreRefused(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	in := intent(sdk.Provision)
	in.Account = "sysadmin" // a role of the server
	_, err := apply(t.Context(), target(s), in, first)
	wantClass(t, "a server role's name", err, sdk.ClassExists)
	must(t, target(s), intent(sdk.Provision), first)
	in.Account = "renamed" // the same account by another name
	_, err = apply(t.Context(), target(s), in, first)
	wantClass(t, "our SID at another name", err, sdk.ClassExists)
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		in := intent(action)
		in.Account = strings.ToUpper(manager)
		_, err := apply(t.Context(), target(s), in, "")
		wantClass(t, string(action)+" of the management account", err, sdk.ClassInvalid)
	}
}

func TestPasswordsThatTheServersPolicyRefuses(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	_, err := apply(t.Context(), target(s), intent(sdk.Provision), "nocomplexity")
	wantClass(t, "provision", err, sdk.ClassPolicyRejected)
	must(t, target(s), intent(sdk.Provision), first)
	_, err = apply(t.Context(), target(s), intent(sdk.Rotate), "Has-alice-1")
	wantClass(t, "rotate", err, sdk.ClassPolicyRejected)
	wantLogin(t, s, "alice", first, true)
}

func TestLockedOutAccountIsUnlockedByRotation(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{Lockout: 2})
	must(t, target(s), intent(sdk.Provision), first)
	s.Change("alice", func(l *tds.Login) { l.LockedOut = true })
	f, err := connector{}.Inspect(t.Context(), target(s), "alice")
	if err != nil || f.Attributes["locked_out"] != "yes" {
		t.Errorf("%+v, %v", f, err)
	}
	must(t, target(s), intent(sdk.Rotate), second)
	wantLogin(t, s, "alice", second, true)
}

func TestDiscoverListsLoginsWithTheirRights(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	s.AddTable("app", "orders")
	in := intent(sdk.Provision)
	in.Role, in.Params = role(t, "mssql-db-datareader"), map[string]string{"Database": "app"}
	must(t, target(s), in, first)
	asRoot(t, s, "app", "GRANT SELECT ON [dbo].[orders] TO [alice]", "CREATE SCHEMA [s] AUTHORIZATION [dbo]", "GRANT UPDATE ON SCHEMA::[s] TO [alice]",
		"GRANT EXECUTE TO [alice]")
	asRoot(t, s, "master", `CREATE LOGIN [DOM\bob] FROM WINDOWS`)
	found := map[string]sdk.Facts{}
	err := connector{}.Discover(t.Context(), target(s), func(f sdk.Facts) bool { found[f.Account] = f; return true })
	if err != nil || len(found) != 3 || !found["sa"].Exists || !found[manager].Exists {
		t.Fatalf("found %v, %v", found, err)
	}
	want := []string{"app: GRANT EXECUTE", "app: GRANT SELECT ON dbo.orders", "app: GRANT UPDATE ON SCHEMA s", "app: ROLE db_datareader"}
	if got := found["alice"].Grants; !slices.Equal(got, want) {
		t.Errorf("grants %q", got)
	}
	n := 0
	if err := (connector{}).Discover(t.Context(), target(s), func(sdk.Facts) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("went on after it was told to stop: %d, %v", n, err)
	}
}

// output collects what a command prints.
func TestRunPrintsResultsAndTellsErrorsByNumber(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{LetItUnknown: true})
	var o direct.Output
	status, err := connector{}.Run(t.Context(), target(s), "SELECT 1 AS [n], N'a\tb' AS [text], NULL AS [nothing], 0x0A AS [bytes]; SELECT DB_NAME() AS [db]", &o)
	if want := "n\ttext\tnothing\tbytes\n1\ta\\tb\tNULL\t0x0a\n\ndb\nmaster\n\n"; err != nil || status != 0 || o.Out.String() != want {
		t.Errorf("status %d, %v, %q", status, err, o.Out.String())
	}
	status, err = connector{}.Run(t.Context(), target(s), "SELECT 'canary-7' FROM nowhere", &o)
	if err != nil || status != 1 || !strings.Contains(o.Err.String(), "error 208") || strings.Contains(o.Err.String(), "canary") {
		t.Errorf("status %d, %v, %q", status, err, o.Err.String())
	}
	o = direct.Output{}
	status, err = connector{}.Run(t.Context(), target(s), "PRINT N'before'; DROP LOGIN [nobody]; SELECT 1 AS [never]", &o)
	if err != nil || status != 1 || o.Out.String() != "before\n" || o.Err.String() != "error 15151, severity 16, state 1, line 1\n" {
		t.Errorf("status %d, %v, %q, %q", status, err, o.Out.String(), o.Err.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.SetFaults(tds.Faults{Statement: func(text string) tds.Fault {
		if strings.HasPrefix(text, "WAITFOR") {
			cancel()
		}
		return tds.Fault{}
	}})
	_, err = connector{}.Run(ctx, target(s), "WAITFOR DELAY '00:10:00'", &o)
	wantClass(t, "a command that is cancelled", err, sdk.ClassUnknownOutcome)
}

func TestTwoAgentsAtOneAccountTakeTurns_C88(t *testing.T) {
	t.Parallel()
	s := emulator(t, tds.Options{})
	in := intent(sdk.Provision)
	in.Role, in.Params = role(t, "mssql-db-datareader"), map[string]string{"Database": "app"}
	errs := make([]error, 4)
	var changed [4]bool
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			var r sdk.Result
			r, errs[i] = apply(t.Context(), target(s), in, first)
			changed[i] = r.Changed
		})
	}
	wg.Wait()
	n := 0
	for i := range errs {
		if errs[i] != nil {
			t.Error(errs[i])
		}
		if changed[i] {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of them say that they changed something, want 1", n)
	}
}
