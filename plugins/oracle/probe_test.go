package main

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestProbeSaysWhatTheServerIsAndWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	f, err := connector{}.Probe(t.Context(), target(s))
	if err != nil || f.Product != product || f.Version != "19.0" || len(f.MissingRights) != 0 || f.Attributes["container"] != oracle.Service {
		t.Errorf("probe: %+v, %v", f, err)
	}
	s.Exec(`CREATE USER WEAK IDENTIFIED BY "WEAK-1"`, "GRANT CREATE SESSION TO WEAK",
		`CREATE USER ALLOWED IDENTIFIED BY "ALLOWED-1"`, "GRANT DBA TO ALLOWED", "GRANT EXECUTE ON SYS.DBMS_LOCK TO ALLOWED")
	for user, want := range map[string][]string{
		"WEAK": {
			"CREATE SESSION WITH ADMIN OPTION", "CREATE USER", "ALTER USER", "DROP USER", "CREATE SYNONYM", "ALTER SYSTEM",
			"SELECT_CATALOG_ROLE", "EXECUTE ON SYS.DBMS_LOCK",
		},
		"ALLOWED": nil,
	} {
		tgt := target(s)
		tgt.Management = sdk.Credential{Username: strings.ToLower(user), Password: secret(user + "-1")}
		f, err := connector{}.Probe(t.Context(), tgt)
		if err != nil || !slices.Equal(f.MissingRights, want) {
			t.Errorf("%s: missing %q (%v), want %q", user, f.MissingRights, err, want)
		}
		tgt.Options[optionKill] = rds
		if f, err = (connector{}).Probe(t.Context(), tgt); err != nil || slices.Contains(f.MissingRights, "ALTER SYSTEM") {
			t.Errorf("%s on RDS: missing %q (%v)", user, f.MissingRights, err)
		}
	}
	tgt := target(s)
	tgt.Management.Password = secret(canary)
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "probe with a wrong password", err, sdk.ClassAuthFailed)
}

func TestServerIsTrustedOnlyByItsCertificate(t *testing.T) {
	t.Parallel()
	// It would take any password, and the driver would not notice.
	s, other := oracle.Start(t, oracle.Options{Faults: oracle.Faults{Rogue: true}}), oracle.Start(t, oracle.Options{})
	tgt := target(s)
	approved := rig.Trusts(t, tgt, other.CAPEM)
	if log := s.DB.Log(); len(log) > 0 {
		t.Errorf("a server that is not trusted got %q", log)
	}
	s.SetFaults(oracle.Faults{})
	if _, err := (connector{}).Probe(t.Context(), approved); err != nil {
		t.Errorf("approved: %v", err)
	}
	tgt.Trust = sdk.Trust{CAPEM: s.CAPEM, ServerName: "oracle.example"}
	if _, err := (connector{}).Probe(t.Context(), tgt); err != nil {
		t.Errorf("by its name: %v", err)
	}
}

func TestPlainServerIsRefusedUnlessTheTargetIsMarkedLegacy(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{Plain: true})
	tgt := target(s)
	tgt.Trust.CAPEM = oracle.Start(t, oracle.Options{}).CAPEM
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // a listener may just wait for more
	defer cancel()
	_, err := connector{}.Probe(ctx, tgt)
	if c := sdk.ClassOf(err); c != sdk.ClassUnsupported && c != sdk.ClassUnreachable {
		t.Errorf("class %q: %v", c, err)
	}
	tgt.Options[optionLegacy] = yes
	f, err := connector{}.Probe(t.Context(), tgt)
	if err != nil || f.Attributes["transport"] != "not protected" {
		t.Errorf("legacy: %+v, %v", f, err)
	}
	must(t, tgt, intent(sdk.Provision), first)
	must(t, tgt, intent(sdk.Deprovision), "")
}

func TestListenerThatLeadsAwayIsNotFollowed(t *testing.T) {
	t.Parallel()
	there := oracle.Start(t, oracle.Options{Plain: true, Faults: oracle.Faults{Rogue: true}})
	for _, protocol := range []string{"tcp", "tcps"} {
		s := oracle.Start(t, oracle.Options{Faults: oracle.Faults{
			Redirect: "(ADDRESS=(PROTOCOL=" + protocol + ")(HOST=127.0.0.1)(PORT=" + strconv.Itoa(there.Port) + "))",
		}})
		_, err := connector{}.Probe(t.Context(), target(s))
		wantClass(t, "redirect by "+protocol, err, sdk.ClassUnsupported)
	}
	if log := there.DB.Log(); len(log) > 0 {
		t.Errorf("it was followed: %q", log)
	}
}

func TestServiceOrSIDIsNeeded(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	for _, c := range []struct {
		service, sid string
		want         sdk.Class
	}{
		{oracle.Service, "", ""},
		{"", oracle.SID, ""},
		{"", "", sdk.ClassInvalid},
		{oracle.Service, oracle.SID, sdk.ClassInvalid},
		{"a)(SID=ORCL", "", sdk.ClassInvalid},
		{"nope", "", sdk.ClassUnreachable},
		{"", "nope", sdk.ClassUnreachable},
	} {
		tgt := target(s)
		tgt.Options[optionService], tgt.Options[optionSID] = c.service, c.sid
		_, err := connector{}.Probe(t.Context(), tgt)
		wantClass(t, "service "+c.service+", SID "+c.sid, err, c.want)
	}
}

func TestEveryRoleOfTheCatalogueWorks(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{Rights: []string{
		"DBA TO REEVE WITH ADMIN OPTION", "EXECUTE ON SYS.DBMS_LOCK TO REEVE", "SYSBACKUP TO REEVE",
	}})
	for _, r := range roles() {
		in := intent(sdk.Provision)
		in.Role, in.Account, in.AccountID = r, strings.ToUpper(strings.ReplaceAll(r.Name, "-", "_")), "acct_"+r.Name
		if len(r.Params) > 0 {
			in.Params = map[string]string{"Tablespace": "USERS", paramQuota: "5G"}
		}
		res, err := apply(t.Context(), target(s), in, first)
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		if r.Name != "oracle-connect" && len(res.Facts.Grants)+len(res.Facts.Groups) < 2 {
			t.Errorf("%s grants nothing: %q %q", r.Name, res.Facts.Grants, res.Facts.Groups)
		}
		wantLogin(t, s, in.Account, first, true)
		if again := must(t, target(s), in, first); again.Changed {
			t.Errorf("%s: provisioning again changed something", r.Name)
		}
		in.Action, in.Identity = sdk.Deprovision, res.Facts.Identity
		must(t, target(s), in, "")
	}
}

func TestGrantedRoleIsActiveAtLogin(t *testing.T) {
	t.Parallel()
	s := withGrants(t, oracle.Options{})
	made := must(t, target(s), monitor(t), first)
	if !slices.Equal(made.Facts.Groups, []string{"SELECT_CATALOG_ROLE"}) || made.Facts.Attributes["inactive_roles"] != "" {
		t.Errorf("facts: %+v", made.Facts)
	}
	s.Exec("ALTER USER ALICE DEFAULT ROLE NONE")
	if r := must(t, target(s), monitor(t), first); !r.Changed || r.Facts.Attributes["inactive_roles"] != "" {
		t.Errorf("after a DBA took it back: %+v", r)
	}
}

func TestDiscoverLeavesOutWhatCameWithTheDatabase(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	s.Exec("CREATE USER X IDENTIFIED BY y", `CREATE USER "x" IDENTIFIED BY y ACCOUNT LOCK`)
	var got []string
	err := connector{}.Discover(t.Context(), target(s), func(f sdk.Facts) bool {
		got = append(got, f.Account)
		return true
	})
	if d := cmp.Diff([]string{oracle.Management, "X", "x"}, got); d != "" || err != nil {
		t.Errorf("%s, %v", d, err)
	}
	n := 0
	_ = connector{}.Discover(t.Context(), target(s), func(sdk.Facts) bool { n++; return false })
	if n != 1 {
		t.Errorf("%d yields after the first said stop", n)
	}
}

func TestOldServersTakeShortNames(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{Major: 12})
	in := intent(sdk.Provision)
	in.Account = strings.Repeat("A", 31)
	_, err := apply(t.Context(), target(s), in, first)
	wantClass(t, "31 bytes", err, sdk.ClassInvalid)
	in.Account = strings.Repeat("A", 30)
	must(t, target(s), in, first)
	old := oracle.Start(t, oracle.Options{Major: 11})
	_, err = connector{}.Probe(t.Context(), target(old))
	wantClass(t, "Oracle 11", err, sdk.ClassUnsupported)
}

func TestRootOfAContainerDatabaseIsExplained(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{Root: true})
	_, err := apply(t.Context(), target(s), intent(sdk.Provision), first)
	wantClass(t, "a local name", err, sdk.ClassInvalid)
	in := intent(sdk.Provision)
	in.Account = "C##ALICE"
	must(t, target(s), in, first)
	wantLogin(t, s, "C##ALICE", first, true)
}

func TestPlanOfAProbedServerNeedsNoConnection(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	tgt := target(s)
	s.Close()
	tgt.Fingerprint = sdk.Fingerprint{Product: product, Version: "19.0"}
	in := monitor(t)
	plan, err := connector{}.Plan(t.Context(), tgt, in)
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, s := range plan.Steps {
		commands = append(commands, s.Command)
	}
	want := []string{
		`CREATE USER "ALICE" IDENTIFIED EXTERNALLY AS 'CN=acct_1,OU=reeve' DEFAULT TABLESPACE "USERS" TEMPORARY TABLESPACE "TEMP" PROFILE "DEFAULT" ACCOUNT LOCK`,
		`CREATE OR REPLACE SYNONYM "` + markName("acct_1") + `" FOR "ALICE"."ID<user id>_<created>"`,
		`GRANT CREATE SESSION TO "ALICE"`,
		`GRANT CREATE SESSION TO "ALICE"`,
		`GRANT SELECT_CATALOG_ROLE TO "ALICE"`,
		`ALTER USER "ALICE" DEFAULT ROLE ALL`,
		`ALTER USER "ALICE" IDENTIFIED BY "********"`,
		`ALTER USER "ALICE" EXPIRE PASSWORD ROLLOVER PERIOD`,
		`ALTER USER "ALICE" ACCOUNT UNLOCK`,
	}
	if d := cmp.Diff(want, commands); d != "" {
		t.Error(d)
	}
	in.Account = oracle.Management
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		in.Action = action
		_, err := connector{}.Plan(t.Context(), tgt, in)
		wantClass(t, string(action)+" of the management account", err, sdk.ClassInvalid)
	}
	tgt.Options[optionSpace] = `U" QUOTA 1G ON "X`
	_, err = connector{}.Plan(t.Context(), tgt, intent(sdk.Provision))
	wantClass(t, "a tablespace that is none", err, sdk.ClassInvalid)
}

func TestPlanOfAnotherServerIsNotApplied(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{})
	tgt := target(s)
	tgt.Fingerprint = sdk.Fingerprint{Product: product, Version: "12.2"}
	_, err := apply(t.Context(), tgt, intent(sdk.Provision), first)
	wantClass(t, "provision", err, sdk.ClassPlanChanged)
	if s.DB.Exists("ALICE") {
		t.Error("the account is there")
	}
}
