package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

func TestPlaceholdersAreEscapedForWhereTheyStand(t *testing.T) {
	t.Parallel()
	params := map[string]string{"Database": "a_%`'b", "Text": "it's", "Empty": ""}
	for _, c := range []struct{ command, want, role string }{
		{"GRANT SELECT ON %Database%.* TO %Username%", "GRANT SELECT ON `a\\_\\%``'b`.* TO 'al''ice'@'10.%'", ""},
		{"GRANT SELECT ON %Database%.%Text% TO %Username%", "GRANT SELECT ON `a_%``'b`.`it's` TO 'al''ice'@'10.%'", ""},
		{"GRANT SELECT ON `x_%Database%`.* TO %Username%", "GRANT SELECT ON `x_a\\_\\%``'b`.* TO 'al''ice'@'10.%'", ""},
		{"GRANT SELECT ON `x%%_%Database%`.t TO %Username%", "GRANT SELECT ON `x%_a_%``'b`.t TO 'al''ice'@'10.%'", ""},
		{"SET @x = 'a''%Text%''b %%'", "SET @x = 'a''it''s''b %'", ""},
		{"grant `r``1`, 'r2' to %Username% WITH ADMIN OPTION", "grant `r``1`, 'r2' to 'al''ice'@'10.%' WITH ADMIN OPTION", "`r``1`"},
		{"GRANT %Text% TO %Username%", "GRANT `it's` TO 'al''ice'@'10.%'", "`it's`"},
		{"GRANT `TO` TO %Username%", "GRANT `TO` TO 'al''ice'@'10.%'", "`TO`"},
	} {
		got, err := render(c.command, "al'ice", "10.%", params)
		if err != nil || got.sql != c.want || got.role() != c.role {
			t.Errorf("%s\n got %s, role %q, %v\nwant %s, role %q", c.command, got.sql, got.role(), err, c.want, c.role)
		}
	}
	for _, command := range []string{
		"", "  ", "GRANT SELECT ON app_%Database%.* TO %Username%", "GRANT %Database%x TO %Username%",
		"GRANT SELECT ON %Database%.* TO %Username%@'localhost'", `SELECT "%Text%"`, "SELECT 1; SELECT 2", "SELECT 1 -- x",
		"SELECT 1 # x", "SELECT /* x */ 1", "SELECT '%Text%", "SELECT `x", "SELECT 100%", "SELECT '100%'", "SELECT %Missing%",
		"SELECT %Empty%", "SELECT '%Text' %", "ALTER USER %Username% IDENTIFIED BY 'x'", "SET PASSWORD FOR %Username% = 'x'",
		"GRANT USAGE ON *.* TO %Username% WITH max_connections_per_hour 1", "SELECT\x001",
	} {
		if got, err := render(command, "al'ice", "10.%", params); sdk.ClassOf(err) != sdk.ClassInvalid {
			t.Errorf("%q is accepted: %q, %v", command, got.sql, err)
		}
	}
}

func TestRenderedTextIsTheSameToTheServer_C35(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	s, err := connect(t.Context(), target(d), target(d).Management)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, text := range []string{`'`, `\`, `\'`, `' OR 1=1 -- `, `%_`, "`", "ü €", `"`, ";", "$(x)", `{{x}}`} {
		r, err := render("SELECT '%X%'", "alice", "%", map[string]string{"X": text})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.strings(t.Context(), "select", r.sql)
		if err != nil || len(got) != 1 || got[0] != text {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	}
}

// FuzzRender checks that a value cannot leave the place it was put into: with the
// quotes closed again, the command has the same words as with a harmless value.
func FuzzRender(f *testing.F) {
	f.Add("GRANT SELECT ON %X%.* TO %Username%", "a'b`c")
	f.Add("SELECT '%X%', `%X%`", `\' -- `)
	f.Add("GRANT `a%X%`.* ''%%", "%_;#/*")
	f.Fuzz(func(t *testing.T, command, value string) {
		got, err := render(command, value, "%", map[string]string{"X": value})
		if err != nil {
			return
		}
		harmless, err := render(command, "a", "%", map[string]string{"X": "a"})
		if err != nil {
			t.Fatalf("only a harmless value is refused: %v", err)
		}
		if a, b := outside(t, got.sql), outside(t, harmless.sql); a != b {
			t.Errorf("%q with %q\n%s\n%s", command, value, a, b)
		}
	})
}

// outside is what stands outside quotes, each quoted text as one sign.
func outside(t *testing.T, sql string) string {
	t.Helper()
	var out strings.Builder
	for sql != "" {
		if c := sql[0]; c != '\'' && c != '`' {
			out.WriteByte(c)
			sql = sql[1:]
			continue
		}
		q := sql[:1]
		sql = sql[1:]
		for {
			text, rest, ok := strings.Cut(sql, q)
			if !ok {
				t.Fatalf("a quote is open after %q", text)
			}
			if !strings.HasPrefix(rest, q) {
				sql = rest
				break
			}
			sql = rest[1:]
		}
		out.WriteString(q)
	}
	return out.String()
}

func TestServersAreToldApart(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"10.11.14-MariaDB-0+deb12u2":      "mariadb 10.11.14",
		"5.5.5-10.6.22-MariaDB-log":       "mariadb 10.6.22",
		"11.8.3-MariaDB":                  "mariadb 11.8.3",
		"8.0.36-28":                       "mysql 8.0.36",
		"8.4.6":                           "mysql 8.4.6",
		"5.7.44-log":                      "mysql 5.7.44",
		"10.3.39-MariaDB":                 "",
		"5.6.51":                          "",
		"8.0":                             "",
		"":                                "",
		"-8.0.1":                          "",
		"8.0.99999999999999999999":        "",
		"5.7.25-TiDB-v7.1.0 (compatible)": "mysql 5.7.25",
	} {
		s, err := serverOf(version)
		got := ""
		if err == nil {
			got = s.product + " " + s.number()
		}
		if got != want {
			t.Errorf("%q is %q, want %q", version, got, want)
		}
	}
}

func FuzzServerOf(f *testing.F) {
	f.Add("5.5.5-10.6.22-MariaDB-log")
	f.Fuzz(func(t *testing.T, version string) {
		s, err := serverOf(version)
		if err != nil {
			return
		}
		again, err := parsed(s.product, s.number())
		if err != nil || again != s {
			t.Errorf("%q is %v, then %v, %v", version, s, again, err)
		}
	})
}

func TestHashesNeverShowInGrants(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"GRANT USAGE ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*AB' REQUIRE SSL WITH MAX_CONNECTIONS_PER_HOUR 3": "GRANT USAGE ON *.* TO `a`@`%`",
		"GRANT ALL PRIVILEGES ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*AB' WITH GRANT OPTION":                  "GRANT ALL PRIVILEGES ON *.* TO `a`@`%` WITH GRANT OPTION",
		"GRANT ALL ON *.* TO `a`@`%` IDENTIFIED VIA x USING 'y' WITH GRANT OPTION MAX_QUERIES_PER_HOUR 1":        "GRANT ALL ON *.* TO `a`@`%` WITH GRANT OPTION",
		"GRANT SELECT ON `x`.* TO `a`@`%` WITH GRANT OPTION":                                                     "GRANT SELECT ON `x`.* TO `a`@`%` WITH GRANT OPTION",
	} {
		if got := withoutHash(line); got != want {
			t.Errorf("%s\n got %s\nwant %s", line, got, want)
		}
	}
}

func FuzzGrants(f *testing.F) {
	f.Add("GRANT ALL PRIVILEGES ON *.* TO `a`@`%` IDENTIFIED BY PASSWORD '*AB' WITH GRANT OPTION")
	f.Fuzz(func(t *testing.T, line string) {
		globalRights([]string{line})
		if strings.Contains(withoutHash(line), " IDENTIFIED ") {
			t.Errorf("%q keeps its authentication", line)
		}
	})
}

func TestHashIsWhatTheServerStores(t *testing.T) {
	t.Parallel()
	if got, want := hash(secret("password")), "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"; got != want {
		t.Errorf("hash %s, want %s", got, want) // MariaDB: SELECT PASSWORD('password')
	}
}

func TestMarksDifferAndAreRecognised(t *testing.T) {
	t.Parallel()
	old := server{mariaDB, [3]int{10, 11, 0}}
	seen := map[string]string{}
	for _, id := range []string{"acct_1", "acct_2", "acct_3"} {
		m := old.mark(id)
		if other, dup := seen[m]; dup || len(m) != 10 {
			t.Errorf("%s has mark %q, as has %q", id, m, other)
		}
		seen[m] = id
	}
	for limit, want := range map[int64]string{0: "", 500: "", markBit - 1: "", markBit: "2147483648", 1<<32 - 1: "4294967295"} {
		if got := markOf(limit); got != want {
			t.Errorf("a limit of %d is mark %q, want %q", limit, got, want)
		}
	}
}

func TestCatalogueIsValid(t *testing.T) {
	t.Parallel()
	if err := (connector{}).Describe().Validate(); err != nil {
		t.Error(err)
	}
	for _, r := range roles() {
		for _, commands := range r.Phases {
			for _, command := range commands {
				if _, err := template.Placeholders(command); err != nil || !utf8.ValidString(command) {
					t.Errorf("%s: %q: %v", r.Name, command, err)
				}
			}
		}
	}
}

func TestCommandsThatDoNotReadAreRefusedWhenARoleIsSaved(t *testing.T) {
	t.Parallel()
	for command, fits := range map[string]bool{
		"SELECT 1": true, "  (select 1)": true, "SHOW GRANTS FOR %Username%": true, "GRANT SELECT ON *.* TO %Username%": false, "DO 1": false,
	} {
		for _, phase := range []sdk.Phase{sdk.PhaseVerify, sdk.PhaseFacts} {
			r := sdk.Role{Name: "r", Version: 1, Phases: map[sdk.Phase][]string{phase: {command}}}
			if err := (connector{}).Describe().CheckRole(r); (err == nil) != fits {
				t.Errorf("%q in %s: %v", command, phase, err)
			}
		}
	}
}
