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
