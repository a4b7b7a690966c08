package shadow

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

const answer = `passwd alice:x:1004:1004:reeve acct_1 ticket:/home/alice:/bin/bash
password locked
aging 20000:0:99999:7::22406:
hash 0123456789abcdef
groups alice sudo adm
sudoers alice ALL=(ALL:ALL) NOPASSWD: ALL
process 12 sshd
process 40 bash
process 40 sleep
key 256 SHA256:abc alice@host (ED25519)
end
`

func TestStateIsParsed(t *testing.T) {
	t.Parallel()
	got, ok := parseState(answer, "alice")
	want := State{
		Exists: true, UID: 1004, Comment: "reeve acct_1 ticket", Home: "/home/alice", Shell: "/bin/bash",
		Hash: "0123456789abcdef", Password: "locked", Changed: 20000, MaxAge: 99999, Inactive: -1, Expires: 22406,
		Groups: []string{"adm", "alice", "sudo"}, Sudoers: []string{"alice ALL=(ALL:ALL) NOPASSWD: ALL"},
		Sessions: 1, Keys: []string{"SHA256:abc"},
	}
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Errorf("ok %t: %s", ok, diff)
	}
	if got.Owner() != "acct_1" || !got.locked() || !got.Facts("alice").Locked {
		t.Errorf("owner %q, locked %t", got.Owner(), got.locked())
	}
	for name, text := range map[string]string{
		"cut off":         strings.TrimSuffix(answer, "end\n"),
		"another account": strings.Replace(answer, "passwd alice", "passwd bob", 1),
		"no uid":          strings.Replace(answer, ":1004:1004:", ":x:1004:", 1),
		"empty":           "",
	} {
		if _, ok := parseState(text, "alice"); ok {
			t.Errorf("%s: accepted", name)
		}
	}
	if s, ok := parseState("exists no\nend\n", "alice"); !ok || s.Exists {
		t.Errorf("absent: %+v, %t", s, ok)
	}
}

func FuzzParseState(f *testing.F) {
	f.Add(answer)
	f.Add("exists no\nend\n")
	f.Add("passwd alice:::::\nend")
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseState(text, "alice")
		if !ok && s.Exists {
			t.Error("an answer that is not whole made an account")
		}
		if ok && s.Exists && (s.UID < 0 || s.Sessions < 0) {
			t.Errorf("state %+v", s)
		}
		_ = s.Facts("alice")
	})
}

func TestExpiryIsNeverEarly(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"2031-05-06T00:00:00Z", "2031-05-06T23:59:59Z", "2028-02-29T12:00:00+14:00", "1999-12-31T23:00:00-11:00"} {
		instant, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		refused := dayOf(expiryDay(instant))
		if refused.Before(instant) || refused.Sub(instant) > 24*time.Hour {
			t.Errorf("an account that ends at %s is refused from %s", at, refused)
		}
	}
	if expiryDay(time.Time{}) != -1 || date(time.Time{}) != "''" {
		t.Error("an account without an end has one")
	}
}

// TestAPasswordArrivesWholeOrNotAtAll runs the password step's own shell code, with
// chpasswd replaced by a program that shows what it was given.
func TestAPasswordArrivesWholeOrNotAtAll_C34(t *testing.T) {
	t.Parallel()
	ops, err := Steps(sdk.Intent{Action: sdk.Rotate, Account: "alice"}, "", func(...sdk.Phase) ([]Step, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	script := "getent() { :; }; chpasswd() { cat; }; " + ops[0].Command
	for input, want := range map[string]string{
		`alice:a'"$(id)\n\\ %s x` + "\n": `alice:a'"$(id)\n\\ %s x` + "\n",
		"alice:  two spaces  \n":         "alice:  two spaces  \n",
		"alice:cut off":                  "", // the connection ended in the middle
		"alice:one\nroot:two\n":          "alice:one\n",
		"":                               "",
	} {
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script)
		cmd.Stdin = strings.NewReader(input)
		out, _ := cmd.Output() // its status is not zero when nothing was done
		if string(out) != want {
			t.Errorf("given %q, chpasswd read %q, want %q", input, out, want)
		}
	}
}

// FuzzProbe reads anything as what probeScript printed.
func FuzzProbe(f *testing.F) {
	f.Add("product debian\nversion 12\nkernel Linux 6\nmissing x\nunreadable shadow\nend\n")
	f.Add("product \nend")
	f.Fuzz(func(t *testing.T, text string) {
		if fp, ok := parseProbe(text); ok && (fp.Product == "" || fp.Version == "") {
			t.Errorf("%+v", fp)
		}
	})
}

func TestFaillockIsReadByItsRule(t *testing.T) {
	t.Parallel()
	const three = "failed When                Type  Source                                           Valid\n" +
		"failed 2026-11-30 12:00:01 RHOST 192.0.2.1                                            V\n" +
		"failed 2026-11-30 12:00:02 TTY   /dev/pts/1                                           V\n" +
		"failed 2026-11-30 12:00:03 RHOST 192.0.2.1                                            V\nend\n"
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"not in use":      {"end\n", false},
		"three":           {"now 2026-11-30 12:05:00\n" + three, true},
		"open again":      {"now 2026-11-30 12:10:03\n" + three, false},
		"longer":          {"now 2026-11-30 12:10:03\nset unlock_time = 700\n" + three, true},
		"never":           {"now 2026-12-30 12:10:03\nset unlock_time=never\n" + three, true},
		"five are wanted": {"now 2026-11-30 12:05:00\nset deny = 5\n" + three, false},
		"pam.d wins":      {"now 2026-11-30 12:05:00\nset deny = 5\nset auth required pam_faillock.so preauth deny=3\n" + three, true},
		"long ago":        {"now 2026-11-30 12:05:00\nset fail_interval = 2\n" + three, false},
		"one is void":     {"now 2026-11-30 12:05:00\n" + strings.Replace(three, " V\n", " I\n", 1), false},
		"cut off":         {"now 2026-11-30 12:05:00\n" + strings.TrimSuffix(three, "end\n"), false},
	} {
		if got := parseFaillock(c.text); got != c.want {
			t.Errorf("%s: locked %t", name, got)
		}
	}
}

// FuzzFaillock reads anything as what faillockScript printed.
func FuzzFaillock(f *testing.F) {
	f.Add("now 2026-11-30 12:05:00\nset deny = 1\nfailed 2026-11-30 12:00:01 RHOST x V\nend\n")
	f.Fuzz(func(t *testing.T, text string) {
		if parseFaillock(text) && !strings.Contains(text, " V") {
			t.Errorf("%q is of a locked account", text)
		}
	})
}

func TestExpiryAndAgeAreThoseOfShadow(t *testing.T) {
	t.Parallel()
	now := dayOf(20000).Add(time.Hour)
	fine := State{Changed: 19990, MaxAge: -1, Inactive: -1, Expires: -1}
	for name, c := range map[string]struct {
		change              func(*State)
		expired, mustChange bool
	}{
		"fine":             {func(*State) {}, false, false},
		"expires tomorrow": {func(s *State) { s.Expires = 20001 }, false, false},
		"expires today":    {func(s *State) { s.Expires = 20000 }, true, false},
		"changed never":    {func(s *State) { s.Changed = 0 }, false, true},
		"unknown":          {func(s *State) { s.Changed = -1; s.MaxAge = 1 }, false, false},
		"ten days old":     {func(s *State) { s.MaxAge = 10 }, false, false},
		"too old":          {func(s *State) { s.MaxAge = 9 }, false, true},
		"old and inactive": {func(s *State) { s.MaxAge = 5; s.Inactive = 4 }, true, true},
		"grace":            {func(s *State) { s.MaxAge = 5; s.Inactive = 5 }, false, true},
	} {
		s := fine
		c.change(&s)
		if s.expired(now) != c.expired || s.mustChange(now) != c.mustChange {
			t.Errorf("%s: expired %t, must change %t", name, s.expired(now), s.mustChange(now))
		}
	}
}
