package template_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

func is(v string) func(template.Slot) (string, error) {
	return func(template.Slot) (string, error) { return v, nil }
}

func TestValuesAreWrittenForWhereTheyStand(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in             *template.Dialect
		command, value string
		want           string // "": refused
	}{
		{template.TSQL, `CALL master..sp_addsrvrolemember @loginame = N'%U%', @rolename = N'sysadmin'`, `o'brien`,
			`CALL master..sp_addsrvrolemember @loginame = N'o''brien', @rolename = N'sysadmin'`},
		{template.TSQL, `ALTER SERVER ROLE [sysadmin] ADD MEMBER %U%`, `a]b`, `ALTER SERVER ROLE [sysadmin] ADD MEMBER [a]]b]`},
		{template.TSQL, `ALTER ROLE r ADD MEMBER [DOM\%U%]`, `x]; DROP`, `ALTER ROLE r ADD MEMBER [DOM\x]]; DROP]`},
		{template.TSQL, `PRINT 'hello %U%'`, `é`, ``},
		{template.TSQL, `PRINT N'hello %U%'`, `é`, `PRINT N'hello é'`},
		{template.TSQL, `GRANT x TO %U%`, strings.Repeat("a", 129), ``},
		{template.TSQL, `GRANT x TO %U% /* a /* nested */ note */`, `a`, `GRANT x TO [a] /* a /* nested */ note */`},
		{template.PLSQL, `GRANT DBA TO %U%`, `C##ADMIN`, `GRANT DBA TO "C##ADMIN"`},
		{template.PLSQL, `GRANT DBA TO "%U%"`, `A"B`, ``},
		{template.PLSQL, `BEGIN x('%U%'); END;`, `a'b`, `BEGIN x('a''b'); END;`},
		{template.MySQL, "GRANT SELECT ON `%U%`.* TO x", "a`b", "GRANT SELECT ON `a``b`.* TO x"},
		{template.MySQL, `SET x = '%U%'`, `\'`, `SET x = '\'''`},
		{template.PostgreSQL, `GRANT r TO %U%`, `we"ird'; --`, `GRANT r TO "we""ird'; --"`},
		{template.PostgreSQL, `SELECT '%U%', $$it's$$`, `a'b`, `SELECT 'a''b', $$it's$$`},
		{template.PostgreSQL, `GRANT r TO %U%`, strings.Repeat("é", 32), ``},
		{template.Shell, `usermod -aG wheel -- %U%`, `a'b`, `usermod -aG wheel -- "a'b"`},
		{template.Shell, `echo "user %U%: $HOME"`, `$(id)"`, `echo "user \$(id)\": $HOME"`},
		{template.Shell, `echo 'user %U%'`, `a"b$c`, `echo 'user a"b$c'`},
		{template.Shell, `echo 'user %U%'`, `a'b`, ``},
		{template.Shell, `openssl s_client -connect %U%:443 | openssl x509`, `h;id`, `openssl s_client -connect "h;id":443 | openssl x509`},
		{template.Shell, `echo "[%U%]"`, ``, `echo "[]"`},
		{template.PowerShell, `Get-Service -Name %U% | select Name`, `a’b'c`, `Get-Service -Name 'a’’b''c' | select Name`},
		{template.PowerShell, `Write-Output "is $x: %U%"`, "$(id)`“", "Write-Output \"is $x: `$(id)```“\""},
		{template.PowerShell, `Write-Output 'is %U%'`, `‛`, `Write-Output 'is ‛‛'`},
		{template.LDAPName, `CN=%U%,OU=People,DC=lab`, ` a,b=c `, `CN=\20a\2Cb\3Dc\20,OU=People,DC=lab`},
		{template.LDAPName, `CN=pam %U% x,DC=lab`, `é`, `CN=pam \C3\A9 x,DC=lab`},
		{template.LDAPFilter, `(&(objectClass=user)(sAMAccountName=%U%*))`, `*)(cn=\`, `(&(objectClass=user)(sAMAccountName=\2a\29\28cn=\5c*))`},
		{template.LDAPCommand, `add "CN=%U% x,DC=lab"`, `a",DC=b`, `add "CN=a\22\2CDC\3Db x,DC=lab"`},
		{template.LDAPCommand, `add "(cn=%U%)"`, `a")(b=*`, `add "(cn=a\22\29\28b=\2a)"`},
		{template.LDAPCommand, `add name %U%`, `x=,"`, ``},
		{template.LDAPCommand, `add name %U%`, `a b`, ``},
		{template.LDAPCommand, `add name %U%`, `x=,(`, `add name x=,(`},
		{template.LDAPCommand, `add name "a=(b" %U%`, `x`, `add name "a=(b" x`},
	} {
		cmd, err := c.in.Parse(c.command)
		if err != nil {
			t.Errorf("%s: %s: %v", c.in, c.command, err)
			continue
		}
		got, err := cmd.Render(is(c.value), nil)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s: %s with %q: %q, %v; want %q", c.in, c.command, c.value, got, err, c.want)
		}
		if err != nil && len(c.value) > 3 && strings.Contains(err.Error(), c.value) {
			t.Errorf("the error quotes the value: %v", err)
		}
	}
}

func TestCommandsThatAreNeverSafeAreRefused(t *testing.T) {
	t.Parallel()
	for in, commands := range map[*template.Dialect][]string{
		template.TSQL: {`SELECT 1 -- %U%`, `SELECT 1 /* %U% */`, `SELECT x%U%`, `SELECT %U%y`, `SELECT 'a`, `SELECT [a`, `/* /* */`, `SELECT X'%U%'`,
			`PRINT '%U`, `100%`, strings.Repeat("%U% ", 65), strings.Repeat(" ", 16<<10) + "%U%"},
		template.PLSQL:      {`SELECT q'[%U%]' FROM dual`, `SELECT "a""b" FROM dual`, `x q'[`, `-- %U%`, `SELECT "%U`},
		template.MySQL:      {`SELECT "%U%"`, `SELECT 1 # %U%`, `SELECT _latin1'%U%'`, `SELECT a%U%`, "SELECT `a"},
		template.PostgreSQL: {`SELECT E'%U%'`, `SELECT E'a'`, `SELECT $$%U%$$`, `SELECT U&'%U%'`, `SELECT U&"%U%"`, `DO $a$ x`, `/* /* %U% */ */`, `SELECT $1%U%`},
		template.Shell: {"cat <<E\n%U%\nE", "echo `id %U%`", `echo $(id %U%)`, `echo ${x:-%U%}`, `%U% x`, `a; %U%`, `a | %U%`, `echo $%U%`, `echo \%U%`, `echo "\%U%"`,
			`echo # %U%`, `echo 'a`, `echo "a`, `echo $'%U%'`, `echo $x%U%`, `echo \`},
		template.PowerShell: {"@'\n%U%\n'@", `& %U%`, `. %U%`, `$%U%`, `echo -Name:%U%`, `echo %U%x`, `"$(%U%)"`, `# %U%`, `<# %U% #>`, `cmd --% %U%`, `${%U%}`, `'a`, `"a`,
			"echo `%U%", "echo \"`%U%\"", `[%U%]`},
		template.LDAPName:   {`%U%`, `%U%=x,DC=lab`, `CN=#%U%`, `CN="%U%"`, `CN=a,`, `CN=\%U%`},
		template.LDAPFilter: {`%U%`, `(%U%=x)`, `(cn=a`, `(cn=\%U%)`, `(cn=((%U%)`, `cn=%U%`},
		template.LDAPCommand: {
			`add x%U%`, `add "x %U%"`, `add name "%U%"`, `add "CN=a`, `add "CN=%U%"x`, `add "(%U%=x)"`, `add "(cn=%U%"`, `add "CN=a,%U%"`, `add "x"y"%U%"`,
		},
	} {
		for _, command := range commands {
			if c, err := in.Parse(command); err == nil {
				got, err := c.Render(is("x"), nil)
				t.Errorf("%s: %q was accepted: %q, %v", in, command, got, err)
			}
		}
	}
}

func TestASlotTellsWhereItStands(t *testing.T) {
	t.Parallel()
	c, err := template.MySQL.Parse("GRANT SELECT ON %Database%.* TO %Username% WITH 'x %P%'")
	if err != nil {
		t.Fatal(err)
	}
	got := c.Slots()
	if len(got) != 3 || got[0].Kind != template.Word || got[0].After != ".* TO " || got[0].Before != "GRANT SELECT ON " ||
		got[2].Kind != template.Text || got[2].Name != "P" {
		t.Errorf("slots %+v", got)
	}
	// A way of its own: an account is a pair.
	pair := func(s template.Slot, v string) (string, error) {
		if s.Name == "Username" {
			return "'" + strings.ReplaceAll(v, "'", "''") + "'@'%'", nil
		}
		return "", nil
	}
	out, err := c.Render(is("o'b"), pair)
	if want := "GRANT SELECT ON `o'b`.* TO 'o''b'@'%' WITH 'x o''b'"; err != nil || out != want {
		t.Errorf("got %q, %v", out, err)
	}
	// One that does not quote is found out.
	if out, err := c.Render(is("o'b"), func(_ template.Slot, v string) (string, error) { return "'" + v + "'", nil }); err == nil {
		t.Errorf("got %q", out)
	}
}

func TestDialectsAreFoundByName(t *testing.T) {
	t.Parallel()
	for _, d := range template.Dialects {
		if got, ok := template.DialectOf(d.String()); !ok || got != d {
			t.Errorf("%s: %v, %t", d, got, ok)
		}
	}
	if _, ok := template.DialectOf("cobol"); ok {
		t.Error("there is no such dialect")
	}
}

// hostile are values that have ended strings, names and commands somewhere.
var hostile = []string{"", "a", "a b", "'", "''", `"`, "`", "]", "]]", `\`, `\\`, `\'`, `\"`, "$x", "$(id)", "`id`", "${x}", "$'a'", "!x", "*", "?", "[a]", "~", "~root",
	"-n", "--", ";id", "|id", "&id", ">x", "<x", "(id)", "{a,b}", "#x", "a#b", "%", "%U%", "%%", "'; DROP TABLE x; --", "/*", "*/", "a\u2019b", "‘’‚‛", "“”„", "é", "😀",
	"=x", "a=b", "x\u00a0y", "\u2028"}

// Real shells print each hostile value back, from every place where a command may have it.
func TestRealShellsReadValuesAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, command := range []string{`printf '<%%s>' %U%`, `printf '<%%s>' "%U%"`, `printf '<%%s>' '%U%'`, `x=1; printf '<%%s>' a"$x"%U%b`, `printf '<%%s>' "$(echo a)"'' "%U%"`,
		`case x%U% in (x*) printf '<%%s>' %U%;; esac`} {
		c, err := template.Shell.Parse(command)
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		for _, v := range hostile {
			text, err := c.Render(is(v), nil)
			if err != nil {
				if strings.Contains(v, "'") && strings.Contains(command, "'%U%'") {
					continue // no single quotes hold one
				}
				t.Errorf("%s with %q: %v", command, v, err)
				continue
			}
			want := v
			switch {
			case strings.HasPrefix(command, "x=1"):
				want = "a1" + v + "b"
			case strings.Contains(command, "echo a"):
				want = "a><" + v
			}
			for _, shell := range []string{"dash", "bash"} {
				out, err := exec.CommandContext(t.Context(), shell, "-c", text).Output() //nolint:gosec // that is the question
				if err != nil || string(out) != "<"+want+">" {
					t.Errorf("%s -c %s: %q, %v; want %q", shell, text, out, err, want)
				}
			}
		}
	}
}

// FuzzRender: whatever the value, a command keeps its tokens, and each slot's token means the value.
func FuzzRender(f *testing.F) {
	for i, command := range []string{`EXEC x @a = N'%U%', @b = %U%`, `BEGIN x('%U%', "%U%"); END;`, "GRANT a ON `%U%`.* TO %U%", `GRANT "%U%" TO %U%`,
		`echo "a %U% $x" '%U%' b%U%`, `Get-X -N %U% "a $b %U%"`, `CN=%U%,OU=a %U%`, `(&(a=%U%)(b=*%U%*))`} {
		for _, v := range hostile {
			f.Add(uint(i), command, v)
		}
	}
	f.Fuzz(func(t *testing.T, which uint, command, v string) {
		d := template.Dialects[which%uint(len(template.Dialects))]
		c, err := d.Parse(command)
		if err != nil {
			return
		}
		out, err := c.Render(is(v), nil)
		if err != nil {
			return
		}
		calm, err := c.Render(is("x"), nil)
		if err != nil {
			t.Fatalf("%s: %q takes %q and not x: %v", d, command, v, err)
		}
		as, err := d.Tokens(calm)
		if err != nil {
			t.Fatal(err)
		}
		bs, err := d.Tokens(out)
		if err != nil {
			t.Fatalf("%s: %q with %q gives %q: %v", d, command, v, out, err)
		}
		if v != "" && !slices.EqualFunc(as, bs, func(a, b template.Token) bool { return a.Kind == b.Kind }) {
			t.Errorf("%s: %q with %q gives %q, which has other tokens", d, command, v, out)
		}
		var all strings.Builder
		for _, b := range bs {
			all.WriteString(b.Text)
		}
		if all.String() != out {
			t.Errorf("%s: the tokens of %q are %q", d, out, all.String())
		}
	})
}
