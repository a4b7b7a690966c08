package winrm

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// openssl.cnf lets the client have MD4, which NTLM is made of.
const opensslConfig = `openssl_conf = init
[init]
providers = providers
[providers]
default = on
legacy = on
[on]
activate = 1
`

// TestAnIndependentClientTakesItForAHost lets pywinrm (Debian's python3-winrm) work on the emulator. If it does not understand the
// emulator, the emulator is wrong.
func TestAnIndependentClientTakesItForAHost(t *testing.T) {
	t.Parallel()
	type outcome struct {
		Out, Err string
		Status   int
	}
	for name, c := range map[string]struct {
		options   Options
		transport string
		binding   bool
		refused   bool
	}{
		"ntlm":                           {options: Options{}, transport: "ntlm", binding: true},
		"ntlm, binding demanded":         {options: Options{RequireBinding: true}, transport: "ntlm", binding: true},
		"ntlm, binding demanded but not": {options: Options{RequireBinding: true}, transport: "ntlm", refused: true},
		"basic":                          {options: Options{Basic: true}, transport: "ssl"},
		"basic, not allowed":             {options: Options{}, transport: "ssl", refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := Start(t, c.options)
			dir := t.TempDir()
			for file, content := range map[string]string{"ca.pem": s.CAPEM, "openssl.cnf": opensslConfig} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			line := func(v string) string { return base64.StdEncoding.EncodeToString([]byte(v)) + "\n" }
			job, err := json.Marshal(map[string]any{
				"url": fmt.Sprintf("https://localhost:%d/wsman", s.Port), "transport": c.transport, "binding": c.binding,
				"user": Administrator, "password": AdministratorPassword, "ca": filepath.Join(dir, "ca.pem"),
				"line":  powershell + base64.StdEncoding.EncodeToString(utf16le(probeScript(t))),
				"input": base64.StdEncoding.EncodeToString([]byte(line("{}") + line(""))),
			})
			if err != nil {
				t.Fatal(err)
			}
			client := exec.CommandContext(t.Context(), "/usr/bin/python3", "-W", "ignore", filepath.Join("testdata", "client.py"))
			client.Stdin = bytes.NewReader(job)
			client.Env = []string{"PATH=/usr/bin:/bin", "OPENSSL_CONF=" + filepath.Join(dir, "openssl.cnf"), "HOME=" + dir, "PYTHONDONTWRITEBYTECODE=1"}
			var stderr bytes.Buffer
			client.Stderr = &stderr
			printed, err := client.Output()
			if err != nil {
				t.Fatalf("python3-winrm is needed: %v: %s", err, stderr.String())
			}
			var got struct {
				Refused bool
				Wrong   string
				Whoami  outcome
				Script  outcome
			}
			if err := json.Unmarshal(printed, &got); err != nil {
				t.Fatal(err)
			}
			if got.Wrong != "refused" || got.Refused != c.refused {
				t.Errorf("a wrong password was %s; the right one refused: %t", got.Wrong, got.Refused)
			}
			if c.refused {
				return
			}
			if got.Whoami.Out != strings.ToLower(HostName)+"\\administrator\r\n" || got.Whoami.Status != 0 {
				t.Errorf("whoami: %+v", got.Whoami)
			}
			if !strings.HasPrefix(got.Script.Out, "reeve ") || got.Script.Status != 0 || got.Script.Err != "" {
				t.Errorf("script: %+v", got.Script)
			}
			if s.Shells() != 0 {
				t.Errorf("%d shells are left", s.Shells())
			}
		})
	}
}

// probeScript is the connector's script "probe", put together as the connector does it.
func probeScript(t *testing.T) string {
	var text strings.Builder
	for _, name := range []string{"head", "probe", "tail"} {
		file, err := os.ReadFile(filepath.Join("..", "..", "..", "plugins", "winrm", "scripts", name+".ps1"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(file)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				text.WriteString(line + "\n")
			}
		}
	}
	return text.String()
}
