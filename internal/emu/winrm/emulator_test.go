package winrm

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestCommandsAreReadByTheRulesOfPowerShell(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"Add-LocalGroupMember -SID 'S-1-5-32-544' -Member 'alice'":      "alice",
		"Add-LocalGroupMember -SID 'S-1-5-32-544' -Member 'o''brien'":   "o'brien",
		"Add-LocalGroupMember -SID 'S-1-5-32-544' -Member 'o’‘x'":       "o’x", // two of them, of whatever kind, are the first
		"Add-LocalGroupMember -SID 'S-1-5-32-544' -Member '$(x)`\"; y'": "$(x)`\"; y",
		"Add-LocalGroupMember -SID S-1-5-32-544 -Member alice":          "alice",
		"Add-LocalGroupMember -SID 'S-1-5-32-544' -Member 'o'brien'":    "",
		"Add-LocalGroupMember -SID 'S-1-5-32-544' -Member 'o’; x '":     "",
		"Add-LocalGroupMember -SID 'S-1-5-32-544' -Member 'a'; whoami":  "",
		"Add-LocalGroupMember -SID 'S-1-5-32-544' -Member $(whoami)":    "",
		"Add-LocalGroupMember -SID 'S-1-5-32-544' -Member 'a":           "",
		"Add-LocalGroupMember -SID 'S-1-5-32-544' -Member \"a\"":        "",
		"Add-LocalGroupMember 'x' -Member 'a'":                          "",
		"":                                                              "",
	} {
		_, p, err := parseCommand(command)
		if (err != nil) != (want == "") || p["Member"] != want {
			t.Errorf("%s: %q, %v; want %q", command, p["Member"], err, want)
		}
	}
}

func FuzzCommand(f *testing.F) {
	f.Add("Add-LocalGroupMember -SID 'S-1-5-32-544' -Member 'o''brien'")
	f.Add("A-B -C '’")
	f.Fuzz(func(t *testing.T, s string) {
		cmdlet, p, err := parseCommand(s)
		if err == nil && (cmdlet == "" || strings.ContainsAny(cmdlet, " ;|$")) {
			t.Fatalf("%q is a command with %v", cmdlet, p)
		}
	})
}

func FuzzProof(f *testing.F) {
	f.Add([]byte("NTLMSSP\x00\x03\x00\x00\x00" + strings.Repeat("\x00", 80)))
	f.Fuzz(func(t *testing.T, message []byte) {
		p, err := readProof(message)
		if err == nil && (&ntlm{}).fits(p, "never") {
			t.Fatal("a made-up proof fits")
		}
	})
}

// What it does not know it refuses, and says so to the test.
func TestWhatIsNotModelledIsRefused(t *testing.T) {
	t.Parallel()
	s := Start(t, Options{Basic: true, Tolerant: true})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.CAPEM))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	post := func(kind, body, user, password string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("https://localhost:%d/wsman", s.Port), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", kind)
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	const soap = "application/soap+xml;charset=UTF-8"
	envelope := func(action, body string) string {
		return `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" ` +
			`xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"><s:Header><a:Action>` + action + `</a:Action><a:MessageID>uuid:1</a:MessageID>` +
			`<w:ResourceURI>` + nsShell + `/cmd</w:ResourceURI></s:Header><s:Body>` + body + `</s:Body></s:Envelope>`
	}
	problems := 0
	for name, c := range map[string]struct {
		kind, body, user, password string
		status                     int
		problem                    bool
	}{
		"nobody":               {soap, envelope(nsTransfer+"Create", ""), "", "", 401, false},
		"a wrong password":     {soap, envelope(nsTransfer+"Create", ""), Administrator, "x", 401, false},
		"another content type": {"text/plain", "x", Administrator, AdministratorPassword, 415, true},
		"no XML":               {soap, "<x", Administrator, AdministratorPassword, 400, true},
		"no shell":             {soap, envelope(nsShell+"/Command", ""), Administrator, AdministratorPassword, 500, false},
		"a bare Create":        {soap, envelope(nsTransfer+"Create", ""), Administrator, AdministratorPassword, 500, true},
	} {
		status, text := post(c.kind, c.body, c.user, c.password)
		if status != c.status || strings.Contains(text, "ShellId>") {
			t.Errorf("%s: HTTP status %d, %.80q; want %d", name, status, text, c.status)
		}
		if got := len(s.Problems()) - problems; (got > 0) != c.problem {
			t.Errorf("%s: %d new problems", name, got)
		}
		problems = len(s.Problems())
	}
}
