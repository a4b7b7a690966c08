package inventory

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

const sample = "CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'"

// withSQL has the connector mssql beside ssh.
func withSQL(t *testing.T) *rig {
	r := newRig(t)
	d := description()
	d.Name, d.Category, d.Dialect, d.Roles = "mssql", "database", "tsql", []*connectorv1.Role{{Name: "mssql-monitor", Version: 1}}
	r.do(func(tx *store.Tx) error {
		_, err := RegisterConnector(tx, alice, d, strings.Repeat("5", 64))
		return err
	})
	return r
}

func sysadmin(commands ...string) *connectorv1.Role {
	return &connectorv1.Role{Name: "our-sysadmin", Title: "Ours",
		Params: []*connectorv1.RoleParam{{Name: "Level", Pattern: `^[a-z]+$`}},
		Phases: []*connectorv1.RolePhase{{Phase: "grant", Commands: commands}}}
}

func (r *rig) role(name string, version uint32) (found *Role) {
	r.t.Helper()
	r.do(func(tx *store.Tx) (err error) {
		found, err = FindRole(tx, name, version)
		return err
	})
	return found
}

func TestTheSampleIsAcceptedAsWrittenAndTheModernFormOffered(t *testing.T) {
	t.Parallel()
	r := withSQL(t)
	r.do(func(tx *store.Tx) error { _, err := AddRole(tx, alice, "mssql", sysadmin(sample)); return err })
	got := r.role("our-sysadmin", 0)
	if commands := got.Role.M.GetPhases()[0].GetCommands(); !slices.Equal(commands, []string{sample}) {
		t.Errorf("stored %q", commands)
	}
	if got.BuiltIn || got.Key.Version != 1 || got.CreatedBy != "alice" || got.Category != "database" {
		t.Errorf("role %+v", got)
	}
	want := []Advice{{Phase: "grant", Command: sample, Modern: "ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%",
		Reason: "sp_addsrvrolemember is kept by SQL Server for old scripts and will be removed"}}
	if diff := cmp.Diff(want, got.Advice("tsql")); diff != "" {
		t.Errorf("advice (-want +got):\n%s", diff)
	}
}

func TestModernFormsMeanTheSame(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"EXEC sp_addsrvrolemember '%Username%', 'sysadmin'":                                      "ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%",
		"sp_addsrvrolemember @rolename='a]b', @loginame='DOM\\%Username%';":                      "ALTER SERVER ROLE [a]]b] ADD MEMBER [DOM\\%Username%]",
		"execute master.sys.sp_dropsrvrolemember N'%Username%', N'sysadmin'":                     "ALTER SERVER ROLE [sysadmin] DROP MEMBER %Username%",
		"EXEC sales.dbo.sp_addrolemember 'db_owner', N'%Username%'":                              "ALTER ROLE [db_owner] ADD MEMBER %Username%",
		"EXEC [sp_droprolemember] @membername = N'it''s' /* x */ , @rolename = N'100%% %Level%'": "ALTER ROLE [100%% %Level%] DROP MEMBER [it's]",
		// What is not understood to its end gets no advice.
		"EXEC sp_addsrvrolemember @loginame = @who, @rolename = N'sysadmin'": "",
		"EXEC sp_addsrvrolemember N'%Username%'":                             "",
		"EXEC sp_addsrvrolemember N'a', N'b', N'c'":                          "",
		"EXEC sp_addsrvrolemember @loginame = N'a', @loginame = N'b'":        "",
		"EXEC sp_addsrvrolemember N'a', N'b'; SELECT 1":                      "",
		"EXEC sp_addsrvrolemember N'a' + N'b', N'c'":                         "",
		"EXEC sp_who '%Username%', 'x'":                                      "",
		"ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%":                 "",
		"EXEC": "", ".": "", "a..": "", "": "", "EXEC sp_addsrvrolemember": "",
	} {
		if got, _ := modernTSQL("tsql", command); got != want {
			t.Errorf("%q\n got %q\nwant %q", command, got, want)
		}
	}
	if got, _ := modernTSQL("mysql", sample); got != "" {
		t.Errorf("advice for another language: %q", got)
	}
}

func TestARoleInWhichAValueIsNotSafeIsRefusedWhenItIsSaved(t *testing.T) {
	t.Parallel()
	r := withSQL(t)
	for name, c := range map[string]struct {
		change                     func(*connectorv1.Role)
		code, field, says, mention string
	}{
		"unknown placeholder": {func(m *connectorv1.Role) { m.Phases[0].Commands = []string{"GO", "GRANT x TO %Who%"} },
			"placeholder_unknown", "/phases/0/commands/1", "phase grant, command 2, character 12", "%Username%, %Level%"},
		"comment": {func(m *connectorv1.Role) { m.Phases[0].Commands = []string{"SELECT 1 -- %Username%"} },
			"placeholder_unsafe", "/phases/0/commands/0", "character 13", "comment"},
		"touching": {func(m *connectorv1.Role) { m.Phases[0].Commands = []string{"GRANT x TO pam_%Username%"} },
			"placeholder_unsafe", "/phases/0/commands/0", "character 16", "quotes"},
		"open string": {func(m *connectorv1.Role) { m.Phases[0].Commands = []string{"PRINT N'%Username%"} },
			"command_malformed", "/phases/0/commands/0", "character 7", "tsql"},
		"percent sign": {func(m *connectorv1.Role) { m.Phases[0].Commands = []string{"PRINT 'canary 50% off'"} },
			"command_malformed", "/phases/0/commands/0", "character 17", "%%"},
		"empty command": {func(m *connectorv1.Role) { m.Phases[0].Commands = []string{" "} },
			"command_malformed", "/phases/0/commands/0", "character 1", ""},
		"no command":    {func(m *connectorv1.Role) { m.Phases[0].Commands = nil }, "role_invalid", "/phases/0/commands", "", ""},
		"other phase":   {func(m *connectorv1.Role) { m.Phases[0].Phase = "later" }, "role_phase_unsupported", "/phases/0/phase", "", "revoke"},
		"phase not run": {func(m *connectorv1.Role) { m.Phases[0].Phase = "facts" }, "role_phase_unsupported", "/phases/0/phase", "", "revoke"},
		"phase twice":   {func(m *connectorv1.Role) { m.Phases = append(m.Phases, m.Phases[0]) }, "role_invalid", "/phases/1/phase", "", ""},
		"name":          {func(m *connectorv1.Role) { m.Name = "Bad Name" }, "role_invalid", "/name", "", "a-z"},
		"loose pattern": {func(m *connectorv1.Role) { m.Params[0].Pattern = "a" }, "role_invalid", "/params/0/pattern", "", "^"},
		"no pattern":    {func(m *connectorv1.Role) { m.Params[0].Pattern = "^($" }, "role_invalid", "/params/0/pattern", "", ""},
		"Username":      {func(m *connectorv1.Role) { m.Params[0].Name = "Username" }, "role_invalid", "/params/0/name", "", ""},
		"param name":    {func(m *connectorv1.Role) { m.Params[0].Name = "1" }, "role_invalid", "/params/0/name", "", ""},
		"long text":     {func(m *connectorv1.Role) { m.Title = strings.Repeat("x", 2000) }, "text_invalid", "/title", "", ""},
		"long command": {func(m *connectorv1.Role) { m.Phases[0].Commands[0] = strings.Repeat("x", 5000) },
			"role_invalid", "/phases/0/commands/0", "", ""},
	} {
		m := sysadmin(sample)
		c.change(m)
		err := r.try(func(tx *store.Tx) error { _, err := AddRole(tx, alice, "mssql", m); return err })
		e, ok := err.(*reeve.Error) //nolint:errorlint // it is not wrapped
		if !ok || e.Kind != reeve.Invalid || e.Code != c.code || e.Field != c.field || !strings.Contains(e.Message, c.says) ||
			!strings.Contains(e.Message+e.Fix, c.mention) {
			t.Errorf("%s: %#v", name, err)
		}
		if ok && strings.Contains(e.Error(), "canary") {
			t.Errorf("%s: the command is quoted: %v", name, e)
		}
	}
	r.wantCode("role_not_found", func(tx *store.Tx) error { _, err := FindRole(tx, "our-sysadmin", 0); return err })
}

func TestAnEditMakesAVersionAndAccountsKeepTheirs_C14(t *testing.T) {
	t.Parallel()
	r := withSQL(t)
	first := sysadmin(sample)
	r.do(func(tx *store.Tx) error { _, err := AddRole(tx, alice, "mssql", first); return err })
	r.do(func(tx *store.Tx) error { return Hold(tx, "acct_1", "asset_1", RoleKey{"mssql", "our-sysadmin", 1}) })

	second := sysadmin("ALTER SERVER ROLE [sysadmin] ADD MEMBER %Username%")
	edit := func(from uint32, m *connectorv1.Role) (got *Role) {
		r.do(func(tx *store.Tx) (err error) {
			got, err = EditRole(tx, alice, "our-sysadmin", from, proto.CloneOf(m))
			return err
		})
		return got
	}
	if got := edit(1, second); got.Key.Version != 2 {
		t.Errorf("version %d", got.Key.Version)
	}
	if got := edit(2, second); got.Key.Version != 2 {
		t.Errorf("an edit that changes nothing made version %d", got.Key.Version)
	}
	r.wantCode("role_changed", func(tx *store.Tx) error {
		_, err := EditRole(tx, alice, "our-sysadmin", 1, sysadmin(sample))
		return err
	})
	r.wantCode("placeholder_unsafe", func(tx *store.Tx) error {
		_, err := EditRole(tx, alice, "our-sysadmin", 2, sysadmin("SELECT 1 -- %Username%"))
		return err
	})
	r.do(func(tx *store.Tx) error {
		current, err := CurrentRole(tx, "mssql", "our-sysadmin")
		if err == nil && current.Key.Version != 2 {
			t.Errorf("current version %d", current.Key.Version)
		}
		return err
	})
	if old := r.role("our-sysadmin", 1); old.Role.M.GetPhases()[0].GetCommands()[0] != sample || old.RetiredAt.IsZero() {
		t.Errorf("the version an account has is %v", old)
	}
	// Retired and added again, its versions go on.
	r.do(func(tx *store.Tx) error { return RetireRole(tx, alice, "our-sysadmin") })
	r.do(func(tx *store.Tx) error { return RetireRole(tx, alice, "our-sysadmin") }) // nothing changes
	r.wantCode("role_unknown", func(tx *store.Tx) error { _, err := CurrentRole(tx, "mssql", "our-sysadmin"); return err })
	r.wantCode("role_retired", func(tx *store.Tx) error { _, err := EditRole(tx, alice, "our-sysadmin", 2, second); return err })
	if got := r.role("our-sysadmin", 0); got.Key.Version != 2 {
		t.Errorf("of a retired role version %d is shown", got.Key.Version)
	}
	r.do(func(tx *store.Tx) error { _, err := AddRole(tx, alice, "mssql", sysadmin(sample)); return err })
	if got := r.role("our-sysadmin", 0); got.Key.Version != 3 {
		t.Errorf("version %d", got.Key.Version)
	}
	want := []string{"role.add", "role.edit", "role.retire", "role.add"}
	if got := r.actions(); !slices.Equal(got[len(got)-4:], want) {
		t.Errorf("audit %v", got)
	}
	r.do(func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 1000, audit.Filter{Action: "role.edit"})
		if len(all) != 1 || all[0].Details["from"] != "mssql/our-sysadmin/0000000001" || len(all[0].Details["sha256"]) != 64 {
			t.Errorf("audit of the edit: %+v", all)
		}
		return err
	})
}

func TestPredefinedRolesAreClonedAndNotEdited(t *testing.T) {
	t.Parallel()
	r := withSQL(t)
	r.wantCode("role_predefined", func(tx *store.Tx) error { _, err := EditRole(tx, alice, "linux-standard", 1, sysadmin()); return err })
	r.wantCode("role_predefined", func(tx *store.Tx) error { return RetireRole(tx, alice, "linux-standard") })
	for _, taken := range []string{"mssql-monitor", "linux-standard"} { // of the same and of another connector
		r.wantCode("role_taken", func(tx *store.Tx) error { _, err := CloneRole(tx, alice, "mssql-monitor", taken); return err })
	}
	r.wantCode("role_not_found", func(tx *store.Tx) error { _, err := CloneRole(tx, alice, "nosuch", "x"); return err })
	r.wantCode("connector_unknown", func(tx *store.Tx) error { _, err := AddRole(tx, alice, "nosuch", sysadmin()); return err })
	r.do(func(tx *store.Tx) error { _, err := CloneRole(tx, alice, "mssql-monitor", "our-monitor"); return err })
	if got := r.role("our-monitor", 0); got.BuiltIn || got.Key.Connector != "mssql" {
		t.Errorf("clone %+v", got)
	}
	// A connector that comes with that name later does not take the role over.
	d := description()
	d.Version, d.Name, d.Category, d.Roles = "2.0.0", "mssql", "database", []*connectorv1.Role{{Name: "our-monitor", Version: 2}}
	register := func(tx *store.Tx) error {
		_, err := RegisterConnector(tx, alice, d, strings.Repeat("6", 64))
		return err
	}
	r.wantCode("role_taken", register)
	r.do(func(tx *store.Tx) error { return RetireRole(tx, alice, "our-monitor") })
	r.do(register)
	r.do(func(tx *store.Tx) error {
		got, err := CurrentRole(tx, "mssql", "our-monitor")
		if err == nil && !got.BuiltIn {
			t.Errorf("got %+v", got)
		}
		return err
	})
	// Custom roles survive what the connector's own do not.
	r.do(func(tx *store.Tx) error { _, err := CloneRole(tx, alice, "our-monitor", "ours"); return err })
	d.Version, d.Roles = "3.0.0", nil
	r.do(func(tx *store.Tx) error {
		_, err := RegisterConnector(tx, alice, d, strings.Repeat("7", 64))
		return err
	})
	r.do(func(tx *store.Tx) error { _, err := CurrentRole(tx, "mssql", "ours"); return err })
}

func TestConnectorsWithRolesNobodyCanReadAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := description()
	d.Name, d.Dialect = "mssql", "tsql"
	d.Roles[0].Phases = []*connectorv1.RolePhase{{Phase: "grant", Commands: []string{"SELECT 1 -- %Username%"}}}
	register := func(tx *store.Tx) error {
		_, err := RegisterConnector(tx, alice, d, strings.Repeat("8", 64))
		return err
	}
	r.wantCode("connector_invalid", register)
	d.Dialect = "cobol"
	r.wantCode("connector_invalid", register)
}

func TestAConnectorsOwnGrammarIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := description()
	d.Version, d.CommandRule = "1.1.0", &connectorv1.CommandRule{Pattern: `^group [a-z%U]+.*$`, Help: "group NAME"}
	d.PhaseRules = []*connectorv1.PhaseRule{{Phase: "remove", Rule: &connectorv1.CommandRule{Pattern: "^run .*$", Help: "run COMMAND"}}}
	r.do(func(tx *store.Tx) error {
		_, err := RegisterConnector(tx, alice, d, strings.Repeat("9", 64))
		return err
	})
	add := func(command string) func(tx *store.Tx) error {
		m := sysadmin(command)
		m.Name = "ours"
		return func(tx *store.Tx) error { _, err := AddRole(tx, alice, "ssh", m); return err }
	}
	r.wantCode("command_malformed", add("grup adm"))
	r.wantCode("placeholder_unsafe", add("group x%Username%"))
	r.do(add("group %Username%"))
	later := func(name, command string) func(tx *store.Tx) error {
		m := sysadmin(command)
		m.Name, m.Phases[0].Phase = name, "remove"
		return func(tx *store.Tx) error { _, err := AddRole(tx, alice, "ssh", m); return err }
	}
	r.wantCode("command_malformed", later("later", "group %Username%"))
	r.do(later("later", "run x"))
	d = description()
	d.Version, d.CommandRule = "1.2.0", &connectorv1.CommandRule{Pattern: "("}
	d.Roles[0].Phases = []*connectorv1.RolePhase{{Phase: "grant", Commands: []string{"x"}}}
	r.wantCode("connector_invalid", func(tx *store.Tx) error {
		_, err := RegisterConnector(tx, alice, d, strings.Repeat("a", 64))
		return err
	})
}

// FuzzAdvice: what is offered instead is a command that can be read.
func FuzzAdvice(f *testing.F) {
	f.Add(sample)
	f.Add("EXEC a.b.sp_addrolemember 'x', N'%Username%' ;")
	f.Fuzz(func(t *testing.T, command string) {
		modern, reason := modernTSQL("tsql", command)
		if modern == "" {
			return
		}
		m := sysadmin(modern)
		m.Version = 1
		m.Params = nil
		err := checkRole(&connectorv1.Description{Name: "mssql", Dialect: "tsql"}, m)
		if reason == "" || err != nil && reeve.CodeOf(err) != "placeholder_unknown" && reeve.CodeOf(err) != "command_malformed" {
			t.Errorf("%q became %q: %v", command, modern, err)
		}
	})
}
