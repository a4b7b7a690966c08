package main

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/secure/precis"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

func TestRoleCommandsThatAreNotFitAreRefused(t *testing.T) {
	t.Parallel()
	params := map[string]string{"X": "x", "Empty": ""}
	for command, want := range map[string]string{
		"GRANT %X% TO %Username%":                          `GRANT "x" TO "al""ice"`,
		`ALTER ROLE %Username% SET "search_path" = '%X%'`:  `ALTER ROLE "al""ice" SET "search_path" = 'x'`,
		`COMMENT ON SCHEMA "a_%X%" IS '100%% of %X%'`:      `COMMENT ON SCHEMA "a_x" IS '100% of x'`,
		"DO $$ BEGIN PERFORM 1; END $$":                    "DO $$ BEGIN PERFORM 1; END $$",
		`SELECT "password" FROM t WHERE x = 'PASSWORD ;'`:  `SELECT "password" FROM t WHERE x = 'PASSWORD ;'`,
		"REVOKE CONNECT ON DATABASE %X% FROM %Username%\n": "REVOKE CONNECT ON DATABASE \"x\" FROM \"al\"\"ice\"\n",
	} {
		if got, err := render(command, `al"ice`, params); err != nil || got != want {
			t.Errorf("%s\n got %s, %v\nwant %s", command, got, err, want)
		}
	}
	for _, command := range []string{
		"", "  ", "SELECT 1;", "SELECT 1; SELECT 2", "SELECT 1 -- x", "/* x */ SELECT 1", "GRANT a%X% TO b", "SELECT %Missing%", "SELECT %Empty%",
		"SELECT E'%X%'", "SELECT '%X%", "DO $$ %X% $$", "SELECT 100%", "SELECT\x001", "ALTER ROLE %Username% PASSWORD 'x'",
		"alter role %Username% encrypted password 'x'", "DO $$ BEGIN EXECUTE 'ALTER ROLE x password ''y'''; END $$",
		"COMMIT", "rollback", "BEGIN", "SET ROLE %X%", "RESET ALL", "COPY t FROM STDIN", "SAVEPOINT x", "comment on role %Username% IS 'mine'",
	} {
		if got, err := render(command, "alice", params); sdk.ClassOf(err) != sdk.ClassInvalid {
			t.Errorf("%q is accepted: %q, %v", command, got, err)
		}
	}
}

func TestRenderedTextIsTheSameToTheServer(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	s, err := connect(t.Context(), target(p), "app")
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, text := range []string{`'`, `\`, `\'`, `' OR 1=1 -- `, `"`, `""`, "ü €", ";", "$(x)", "$$", `{{x}}`, `E'\x27'`, "/*", "a\u202eb"} {
		command, err := render(`SELECT '%X%' AS "%X%"`, "alice", map[string]string{"X": text})
		if err != nil {
			t.Fatal(err)
		}
		r := s.conn.PgConn().ExecParams(t.Context(), command, nil, nil, nil, nil).Read()
		if r.Err != nil || string(r.Rows[0][0]) != text || r.FieldDescriptions[0].Name != text {
			t.Errorf("%q became %q, %v", text, r.Rows, r.Err)
		}
	}
}

// FuzzRender checks that a value stays one token, whatever it is, and that nothing unfit gets through.
func FuzzRender(f *testing.F) {
	f.Add("GRANT %X% TO %Username%", "a'b\"c")
	f.Add("SELECT '%X%', \"%X%\"", `\' -- `)
	f.Add("DO $a$ x $a$", "")
	f.Fuzz(func(t *testing.T, command, value string) {
		got, err := render(command, "alice", map[string]string{"X": value})
		if err != nil {
			return
		}
		harmless, err := render(command, "alice", map[string]string{"X": "a"})
		if err != nil {
			t.Fatalf("only a harmless value is refused: %v", err)
		}
		if a, b := kinds(t, got), kinds(t, harmless); !slices.Equal(a, b) {
			t.Errorf("%q with %q\n%s\n%s", command, value, a, b)
		}
	})
}

func kinds(t *testing.T, command string) (all []template.Kind) {
	t.Helper()
	tokens, err := template.PostgreSQL.Tokens(command)
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range tokens {
		if token.Kind == template.Comment || token.Text == ";" {
			t.Errorf("%q got through", command)
		}
		all = append(all, token.Kind)
	}
	return all
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for reported, want := range map[string]string{
		"15.18 (Debian 15.18-0+deb12u1)": "15.18", "10.0": "10.0", "17rc1": "17rc1", "18devel": "18devel", "16.4": "16.4",
		"9.6.24": "", "": "", "devel": "", "-15": "", "99999999999999999999": "",
	} {
		major, got, err := versionOf(reported)
		if got != want || (err == nil) != (want != "") || want != "" && major < oldest {
			t.Errorf("%q is %q (%d), %v, want %q", reported, got, major, err, want)
		}
	}
}

func FuzzVersionOf(f *testing.F) {
	f.Add("15.18 (Debian 15.18-0+deb12u1)")
	f.Fuzz(func(t *testing.T, reported string) {
		major, number, err := versionOf(reported)
		if err != nil {
			return
		}
		if again, _, err := versionOf(number); err != nil || again != major {
			t.Errorf("%q is %d, then %d, %v", reported, major, again, err)
		}
	})
}

func FuzzMarks(f *testing.F) {
	f.Add("reeve:acct_1 for alice", "acct_1", "for alice")
	f.Add("reeve:", "", "x")
	f.Fuzz(func(t *testing.T, comment, id, said string) {
		markOf(comment)
		if strings.ContainsAny(id+said, ": ") { // as the SDK sees to, and spaces for simplicity
			return
		}
		gotID, gotSaid := markOf(marked(sdk.Intent{AccountID: id, Comment: said}))
		if gotID != id || strings.TrimSpace(gotSaid) != strings.TrimSpace(said) {
			t.Errorf("%q, %q came back as %q, %q", id, said, gotID, gotSaid)
		}
	})
}

func FuzzGreeting(f *testing.F) {
	f.Add([]byte("R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"), 3)
	f.Add([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00"), 9)
	f.Fuzz(func(t *testing.T, said []byte, at int) {
		var whole, parts greeting
		_, _ = whole.Write(said)
		at = max(0, min(at, len(said)))
		_, _ = parts.Write(said[:at])
		_, _ = parts.Write(said[at:])
		a, ok := whole.asks()
		if b, ok2 := parts.asks(); a != b || ok != ok2 {
			t.Errorf("%q cut at %d: %q, then %q", said, at, a, b)
		}
	})
}

// A password that is accepted is the same to programs that prepare it by either rule. That
// libpq agrees is shown by TestVerifiersSuitTheServersOwnClient.
func FuzzUnambiguous(f *testing.F) {
	for _, s := range []string{"plain", "ünï", "ﬁ", "u\u0308", "a\u00a0b", "密码🔑", "\u00ad", "Ａ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, password string) {
		if !unambiguous(password) {
			return
		}
		if prepared, err := precis.OpaqueString.String(password); err == nil && prepared != password {
			t.Errorf("%q becomes %q", password, prepared)
		}
	})
}

// The verifier of a password and a salt is the one the server itself makes of them.
func TestVerifierIsWhatTheServerStores(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	asRoot(t, p, "CREATE ROLE theirs PASSWORD 'pencil'")
	stored := wantRole(t, p, "theirs", true).Verifier
	_, rest, _ := strings.Cut(stored, ":")
	salt, _, _ := strings.Cut(rest, "$")
	if got, err := salted(secret("pencil"), decoded(t, salt)); err != nil || got != stored {
		t.Errorf("verifier %s, want %s (%v)", got, stored, err)
	}
	a, _ := verifier(secret("pencil"))
	b, _ := verifier(secret("pencil"))
	if a == b {
		t.Error("two verifiers have one salt")
	}
}

func TestCatalogueIsValid(t *testing.T) {
	t.Parallel()
	if err := (connector{}).Describe().Validate(); err != nil {
		t.Error(err)
	}
	for _, r := range roles() {
		params := map[string]string{}
		for _, p := range r.Params {
			params[p.Name] = "x"
		}
		for _, commands := range r.Phases {
			for _, command := range commands {
				if _, err := render(command, "alice", params); err != nil {
					t.Errorf("%s: %v", r.Name, err)
				}
			}
		}
	}
}

func decoded(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
