package tds_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/tds"
)

// Clients that others wrote keep the emulator honest: what it and our driver agree upon alone
// could be one misunderstanding.

func TestTediousLivesWithTheEmulator(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("testdata/crosscheck/node_modules/tedious"); err != nil {
		t.Fatal("the npm package tedious is not installed: run make setup")
	}
	for name, encrypt := range map[string]any{"TDS 7.4": true, "TDS 8": "strict"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tds.Start(t, tds.Options{})
			given, err := json.Marshal(map[string]any{
				"port": s.Port, "ca": s.CAPEM, "encrypt": encrypt, "user": "sa", "password": tds.Administrator,
			})
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "node", "life.mjs")
			cmd.Dir = "testdata/crosscheck"
			cmd.Stdin = strings.NewReader(string(given))
			out, err := cmd.CombinedOutput()
			want := `[["tedious] x","00112233445566778899aabbccddeeff",false]]
exists 15025
wrong ELOGIN
[["tedious] x"]]
no right 15151
gone 15151
`
			if err != nil || string(out) != want {
				t.Errorf("%v, it printed:\n%s", err, out)
			}
		})
	}
}

func TestFreeTDSLivesWithTheEmulator(t *testing.T) {
	t.Parallel()
	s := tds.Start(t, tds.Options{Databases: []string{"app"}})
	dir := t.TempDir()
	ca, conf := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "freetds.conf")
	config := "[emulator]\nhost = 127.0.0.1\nport = " + strconv.Itoa(s.Port) +
		"\ntds version = 7.4\nencryption = require\nca file = " + ca + "\ncheck certificate hostname = no\nclient charset = UTF-8\n"
	if err := os.WriteFile(ca, []byte(s.CAPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	tsql := func(user, password, script string) string {
		cmd := exec.CommandContext(t.Context(), "tsql", "-S", "emulator", "-U", user, "-P", password, "-o", "q")
		cmd.Env = []string{"FREETDSCONF=" + conf, "HOME=" + dir, "LC_ALL=C.UTF-8"}
		cmd.Stdin = strings.NewReader(script)
		out, err := cmd.CombinedOutput()
		return string(out) + "\n" + cmd.ProcessState.String() + errText(err)
	}
	out := tsql("sa", tds.Administrator, `CREATE LOGIN [free] WITH PASSWORD = N'It''s-first-1'
go
USE [app]
go
CREATE USER [free] FOR LOGIN [free]
go
ALTER ROLE [db_owner] ADD MEMBER [free]
go
SELECT name, is_disabled FROM sys.sql_logins WHERE name = N'free'
go
DROP LOGIN [nobody]
go
`)
	if !strings.Contains(out, "free\t0") || !strings.Contains(out, "Msg 15151 (severity 16, state 1)") || strings.Count(out, "Msg ") != 1 {
		t.Errorf("as sa: %s", out)
	}
	if out := tsql("free", "It's-first-1", "SELECT ORIGINAL_LOGIN()\ngo\n"); !strings.Contains(out, "free\n") {
		t.Errorf("as the new login: %s", out)
	}
	if out := tsql("free", "wrong", "SELECT 1\ngo\n"); !strings.Contains(out, "Msg 18456") {
		t.Errorf("with a wrong password: %s", out)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}
