//go:build linux

package doctest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
)

// programs builds what the pages use, once: bin and bin/connectors as `make build` does.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "reeve-doctest-")
	if err != nil {
		return "", err
	}
	for out, pkgs := range map[string][]string{
		dir + "/":                           {"./controller/cmd/reeved", "./agent/cmd/reeve-agent", "./api/cmd/reeve"},
		dir + "/connectors/connector-ssh":   {"./plugins/ssh"},
		dir + "/connectors/connector-mysql": {"./plugins/mysql"},
	} {
		cmd := exec.Command("go", append([]string{"build", "-tags", "nomsgpack", "-o", out}, pkgs...)...)
		cmd.Dir = root
		if text, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build: %w\n%s", err, text)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	status := m.Run()
	if dir, err := programs(); err == nil {
		_ = os.RemoveAll(dir)
	}
	os.Exit(status)
}

// reader is somebody who follows a page.
type reader struct {
	t       *testing.T
	page    page
	home    string
	state   string
	env     []string
	replace [][2]string       // what the page says, what it is here; longest first
	answers map[string]string // prompt, what is typed
	last    map[string]string // of each kind of id, the one printed last
	after   map[string]func() // what must be so after a command that begins like this
	passed  map[string]bool
	output  string   // of the last command
	secrets []string // must be in no output from here on
	shows   string   // the command that is for showing one
}

// newReader gives a reader a home with the programs on the path.
func newReader(t *testing.T, path string) *reader {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	r := &reader{t: t, page: readPage(t, path), home: home, state: newState(t, home), last: map[string]string{}, passed: map[string]bool{},
		answers: map[string]string{}, after: map[string]func(){},
		env: []string{"PATH=" + bin + ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + home, "TERM=dumb", "LC_ALL=C.UTF-8", "TZ=UTC"}}
	if err := os.Symlink(bin, filepath.Join(home, "bin")); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reader) here(text string) string {
	for _, p := range r.replace {
		text = strings.ReplaceAll(text, p[0], p[1])
	}
	return text
}

func (r *reader) asOnPage(text string) string {
	for _, p := range r.replace {
		text = strings.ReplaceAll(text, p[1], p[0])
	}
	return text
}

var (
	idInText   = regexp.MustCompile(`\b(job|acct|tok|agent|node|rekey|fact|wrap)_[0-9a-z]{26}\b|\bSHA256:[A-Za-z0-9+/]{43}`)
	idOnPage   = regexp.MustCompile(`\b(job|acct|tok|agent|node|rekey|fact|wrap)_0[0-9a-z]+…?|\bSHA256:[A-Za-z0-9+/]+…`)
	onlyReads  = regexp.MustCompile(`^(reeve (\S+ )*(list|show|status|whoami)\b|curl )`)
	patience   = 20 * time.Second
	kindOfID   = func(id string) string { return id[:strings.IndexAny(id, "_:")] }
	endOfShown = regexp.MustCompile(`(?s)\n?$`)
)

// follow does what the page says, from top to bottom.
func (r *reader) follow() {
	r.t.Helper()
	for _, b := range r.page.blocks {
		switch {
		case b.is("yaml") && len(b.lines) > 0 && strings.HasPrefix(b.lines[0], "# /"):
			r.write(strings.TrimPrefix(b.lines[0], "# "), strings.Join(b.lines, "\n")+"\n")
		case !b.is("console") || b.marked("not-run"):
		case b.marked("keeps-running"):
			for _, c := range b.commands() {
				r.keepRunning(c)
			}
		default:
			for _, c := range b.commands() {
				r.do(c)
			}
		}
	}
	for prefix := range r.after {
		if !r.passed[prefix] {
			r.t.Errorf("%s has no command that begins with %q", r.page.path, prefix)
		}
	}
}

func (r *reader) write(path, text string) {
	r.t.Helper()
	path = r.here(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(r.here(text)), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// typed is the command as it is typed here.
func (r *reader) typed(c command) string {
	return idOnPage.ReplaceAllStringFunc(r.here(c.text), func(id string) string {
		if known := r.last[kindOfID(id)]; known != "" {
			return known
		}
		return id
	})
}

func (r *reader) begin(ctx context.Context, c command) *session {
	r.t.Helper()
	s, err := begin(ctx, r.state, r.env, r.typed(c), r.answers)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// do runs a command and compares. One that only reads is repeated for a while: a
// reader is slower than a test, and what was started may not be there yet.
func (r *reader) do(c command) {
	r.t.Helper()
	until := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
		s := r.begin(ctx, c)
		<-s.ended
		cancel()
		r.output = s.output()
		complaint := r.judge(c, s.failed)
		if complaint == "" {
			break
		}
		if onlyReads.MatchString(c.text) && time.Now().Before(until) {
			time.Sleep(200 * time.Millisecond)
			continue
		}
		r.t.Fatalf("%s:%d: %s\n$ %s\n%s", r.page.path, c.line, complaint, r.typed(c), r.output)
	}
	for prompt, answer := range r.answers {
		if strings.Contains(r.output, answer) {
			r.t.Errorf("%s:%d: what was typed at %q is on the screen", r.page.path, c.line, prompt)
		}
	}
	for _, secret := range r.secrets {
		if strings.Contains(r.output, secret) && c.text != r.shows {
			r.t.Errorf("%s:%d: a secret is in the output of %s", r.page.path, c.line, c.text)
		}
	}
	for _, id := range idInText.FindAllString(r.output, -1) {
		r.last[kindOfID(id)] = id
	}
	for prefix, check := range r.after {
		if strings.HasPrefix(c.text, prefix) {
			r.passed[prefix] = true
			check()
		}
	}
}

// judge says what is wrong with how a command ended and what it printed.
func (r *reader) judge(c command, failed error) string {
	switch {
	case failed == nil && c.mustFail():
		return "it succeeds, and the page shows it failing"
	case failed != nil && !c.mustFail():
		return "it fails: " + failed.Error()
	case !matches(r.asOnPage(r.output), c.shown):
		return "it prints something else than the page shows:\n" + strings.Join(c.shown, "\n") + "\n--- it prints:"
	}
	return ""
}

// keepRunning starts a program and waits until it has printed what the page shows.
func (r *reader) keepRunning(c command) {
	r.t.Helper()
	s := r.begin(context.WithoutCancel(r.t.Context()), c)
	r.t.Cleanup(func() {
		if err := s.interrupt(); err != nil {
			r.t.Errorf("%s:%d: %s, stopped by Ctrl-C: %v\n%s", r.page.path, c.line, c.text, err, s.output())
		}
	})
	for until := time.Now().Add(patience); !matches(r.asOnPage(s.output()), c.shown); {
		select {
		case <-s.ended:
			r.t.Fatalf("%s:%d: %s has ended: %v\n%s", r.page.path, c.line, c.text, s.failed, s.output())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(until) {
			r.t.Fatalf("%s:%d: %s does not print what the page shows\n%s", r.page.path, c.line, c.text, s.output())
		}
	}
}

func TestAReaderOfUsersMdCanAddProvisionSeeAndRemove(t *testing.T) {
	t.Parallel()
	r := newReader(t, "docs/users.md")
	lab := testlab.New(t)
	dev, err := lab.Address()
	if err != nil {
		t.Fatal(err)
	}
	web01 := testlab.NewHost(t, lab, testlab.HostOptions{Name: "web01", Accounts: []testlab.HostAccount{{Name: "root", Password: "root's secret"}}})
	web02 := testlab.NewHost(t, lab, testlab.HostOptions{Name: "web02",
		Accounts: []testlab.HostAccount{{Name: "ops", Password: "ops's secret", Sudo: testlab.SudoPassword}}})
	shop := testlab.NewMariaDB(t, lab, testlab.MariaDBOptions{})
	r.write(filepath.Join(r.home, "web02.pub"), web02.HostKey()+"\n")
	r.write(filepath.Join(r.home, "db-ca.pem"), shop.CAPEM)
	r.replace = [][2]string{
		{"192.0.2.10", web01.Addr}, {"192.0.2.11", web02.Addr}, {"192.0.2.20", shop.Addr},
		{"reeved dev --data", "reeved dev --host " + dev + " --data"}, {"127.0.0.1:8443", dev + ":8443"},
	}
	r.answers = map[string]string{
		"Password of root: ": "root's secret", "Password of ops: ": "ops's secret", "Password of reeve: ": shop.ManagementPassword,
	}

	exists := func(want bool) func() {
		return func() {
			if _, ok, err := web01.Passwd("pam_alice"); err != nil || ok != want {
				t.Errorf("pam_alice is in web01's /etc/passwd: %v (%v), want %v", ok, err, want)
			}
		}
	}
	logsIn := func(password string) error { return web01.Login(t.Context(), "pam_alice", password) }
	var revealed string
	r.shows = "reeve unwrap alice.wrap"
	r.after = map[string]func(){
		"reeve account provision alice --prefix pam_ --role linux-admin-sudo --asset web01 --dry-run": exists(false),
		"reeve account provision alice --prefix pam_ --role linux-admin-sudo --asset web01 --owner":   exists(true),
		"reeve account reveal pam_alice@web01 --reason 'ticket": func() {
			revealed = endOfShown.ReplaceAllString(r.output, "")
			if err := logsIn(revealed); err != nil {
				t.Errorf("the revealed password: %v", err)
			}
			r.secrets = append(r.secrets, revealed, tokenIn(t, filepath.Join(r.home, "reeve-dev/admin.yaml")))
		},
		"reeve unwrap alice.wrap": func() {
			if got := endOfShown.ReplaceAllString(r.output, ""); got != revealed && !strings.Contains(got, "wrap_used") {
				t.Error("the password that was wrapped is not the one that was revealed")
			}
		},
		"reeve account rotate": func() {
			if err := logsIn(revealed); !errors.Is(err, testlab.ErrRefused) {
				t.Errorf("the old password after a rotation: %v", err)
			}
		},
		"reeve account disable": func() {
			if e, ok, err := web01.Shadow("pam_alice"); err != nil || !ok || !e.Locked() {
				t.Errorf("pam_alice is not locked in /etc/shadow: %v, %v", ok, err)
			}
		},
		"reeve account deprovision pam_alice": exists(false),
		"reeve account provision report": func() {
			if _, ok, err := shop.GlobalPriv(t.Context(), "report", "%"); err != nil || !ok {
				t.Errorf("report is in mysql.global_priv: %v, %v", ok, err)
			}
		},
	}
	r.follow()
	for _, view := range []string{
		"status", "cluster status", "whoami", "token list", "site list", "agent list", "connector list", "role list", "role show linux-standard",
		"asset list", "asset show web01", "account list", "account show carol@web01", "job list", "audit list",
	} {
		r.do(command{text: "reeve " + view + " -o json"})
		if !json.Valid([]byte(r.output)) {
			t.Errorf("reeve %s -o json prints no JSON:\n%s", view, r.output)
		}
	}
}

// tokenIn is the token of a context file.
func tokenIn(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	token := regexp.MustCompile(`reevet_\w+`).FindString(string(raw))
	if token == "" {
		t.Fatalf("%s holds no token", path)
	}
	return token
}

func TestAReaderOfOperatorsMdGetsAClusterOfThree(t *testing.T) {
	t.Parallel()
	r := newReader(t, "docs/operators.md")
	lab := testlab.New(t)
	for _, host := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		addr, err := lab.Address()
		if err != nil {
			t.Fatal(err)
		}
		r.replace = append(r.replace, [2]string{host + ":", addr + ":"})
	}
	siem := testlab.NewSyslog(t, lab)
	r.write(filepath.Join(r.home, "siem-ca.pem"), siem.CAPEM)
	r.replace = append(r.replace, [2]string{"--syslog-tls siem.example.com:6514", "--allow-local --syslog-tls " + siem.Addr}, [2]string{"siem.example.com:6514", siem.Addr})
	r.after = map[string]func(){"reeve audit sink test siem": func() {
		came := func(m testlab.SyslogMessage) bool {
			return m.ID == "audit_sink.test" && strings.Contains(m.Message, `"sequence":0,`)
		}
		for until := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) { // it writes what it has read a little later
			all, err := siem.Received()
			if err == nil && slices.ContainsFunc(all, came) {
				return
			}
			if time.Now().After(until) {
				t.Errorf("of the test, the server has %+v (%v)", all, err)
				return
			}
		}
	}}
	r.replace = append(r.replace, [2]string{"/etc/reeve/", r.home + "/etc/"}, [2]string{"/var/lib/reeve", r.home + "/data"},
		[2]string{"/usr/lib/reeve/connectors", r.home + "/bin/connectors"})
	r.follow()
}

func TestAReaderOfPeopleMdMakesAnAdministratorATeamAndAProgram(t *testing.T) {
	t.Parallel()
	r := newReader(t, "docs/people.md")
	dev, err := testlab.New(t).Address()
	if err != nil {
		t.Fatal(err)
	}
	r.replace = [][2]string{{"reeved dev --data", "reeved dev --host " + dev + " --data"}, {"127.0.0.1:8443", dev + ":8443"}}
	const password = "Canary ferret umbrella quartz 7"
	r.answers = map[string]string{"New password: ": password, "Password of ada: ": password, "Password: ": password}
	r.after = map[string]func(){
		"reeve login ada": func() {
			if raw, err := os.ReadFile(filepath.Join(r.home, "ada.yaml")); err != nil || strings.Contains(string(raw), "reevet_") || !strings.Contains(string(raw), "reeves_") {
				t.Errorf("the context file of ada holds a token, or no session (%v)", err)
			}
		},
		"mv reeve-dev/admin.yaml": func() { r.secrets = append(r.secrets, tokenIn(t, filepath.Join(r.home, "to-the-safe.yaml"))) },
	}
	r.follow()
	r.do(command{text: "reeve --token-file ci.token whoami", shown: []string{"reeve: this token was revoked or never existed [token_unknown]", "…"}})
}

func TestAReaderOfTheReadmeSeesAnAccountComeAndGo(t *testing.T) {
	t.Parallel()
	r := newReader(t, "README.md")
	lab := testlab.New(t)
	dev, err := lab.Address()
	if err != nil {
		t.Fatal(err)
	}
	web01 := testlab.NewHost(t, lab, testlab.HostOptions{Name: "web01", Accounts: []testlab.HostAccount{{Name: "root", Password: "root's secret"}}})
	r.write(filepath.Join(r.home, "web01.pub"), web01.HostKey()+"\n")
	r.replace = [][2]string{{"192.0.2.10", web01.Addr}, {"bin/reeved dev", "bin/reeved dev --host " + dev}, {"127.0.0.1:8443", dev + ":8443"}}
	r.answers = map[string]string{"Password of root: ": "root's secret"}
	exists := func(want bool) func() {
		return func() {
			if _, ok, err := web01.Passwd("pam_alice"); err != nil || ok != want {
				t.Errorf("pam_alice is in web01's /etc/passwd: %v (%v), want %v", ok, err, want)
			}
		}
	}
	r.after = map[string]func(){"reeve account provision": exists(true), "reeve account deprovision": exists(false)}
	r.follow()
}
