package connector_test

import (
	"context"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/connector"
)

// noIncludes makes the host ignore /etc/sudoers.d, so that granting rules fails after
// the account was made.
const noIncludes = `sed -i '/includedir/d' /etc/sudoers`

func TestAFailedProvisionIsUndone_C29(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.inside(noIncludes)
	before := b.inside("cat /etc/passwd /etc/shadow /etc/group")
	_, err := b.apply(t.Context(), b.intent(sdk.Provision, "alice", "linux-sudo-nopasswd"))
	e := b.failure("provision", err, sdk.ClassUnsupported)
	if !strings.Contains(e.Message, "undone") || e.Details["residue"] != "" || !strings.Contains(e.Fix, "includedir") {
		t.Errorf("error %+v", e)
	}
	b.untouched("alice")
	if after := b.inside("cat /etc/passwd /etc/shadow /etc/group"); after != before {
		t.Errorf("the account database is not as before:\n%s", after)
	}
	if !slices.ContainsFunc(b.events, func(e sdk.Event) bool { return e.State == sdk.StepFailed && e.Step == "sudoers" }) {
		t.Errorf("events %+v", b.events)
	}
}

func TestResidueOfAFailedProvisionIsListed_C29(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.inside(noIncludes)
	// A process with the uid that alice will get keeps userdel from removing her.
	b.inside("setsid setpriv --reuid 1000 sleep 600 >/dev/null 2>&1 </dev/null &")
	_, err := b.apply(t.Context(), b.intent(sdk.Provision, "alice", "linux-sudo-nopasswd"))
	e := b.failure("provision", err, sdk.ClassUnsupported)
	if !strings.Contains(e.Details["residue"], "useradd") || !strings.Contains(e.Message, "could not be undone") {
		t.Errorf("error %+v", e)
	}
	if _, ok, _ := b.host.Passwd("alice"); !ok {
		t.Error("the residue that was listed is not there")
	}
	// The same call, once the cause is gone, completes.
	b.inside("pkill sleep; echo '@includedir /etc/sudoers.d' >> /etc/sudoers")
	b.provision("alice", "linux-sudo-nopasswd", nil)
}

func TestUndoingSparesAnAccountMadeMeanwhile_C9(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.inside("groupadd alice")
	_, err := b.apply(t.Context(), b.intent(sdk.Provision, "alice", "linux-standard"))
	b.wantClass("a name that is taken by a group", err, sdk.ClassExists)

	// Somebody makes the account after the connector looked, and before it acts.
	plan, err := (connector.Connector{}).Plan(t.Context(), b.target, b.intent(sdk.Provision, "carol", "linux-standard"))
	if err != nil {
		t.Fatal(err)
	}
	change := sdk.Change{
		Intent: b.intent(sdk.Provision, "carol", "linux-standard"), Plan: plan, Password: sdk.NewSecret([]byte(accountPassword)),
	}
	_, err = (connector.Connector{}).Apply(t.Context(), b.target, change, func(e sdk.Event) {
		if e.Step == "create" && e.State == sdk.StepStarted {
			b.inside("useradd -m -c 'somebody else' carol")
		}
	})
	b.wantClass("a name taken meanwhile", err, sdk.ClassExists)
	if e, ok, _ := b.host.Passwd("carol"); !ok || e.Comment != "somebody else" {
		t.Errorf("somebody else's account is %+v, there: %t", e, ok)
	}
	if out := b.inside("ls -d /home/carol"); strings.TrimSpace(out) != "/home/carol" {
		t.Errorf("their home directory: %q", out)
	}
}

// The useradd of an attempt that was given up for lost ends after the next attempt has looked.
func TestAnAccountThatALostAttemptMakesMeanwhileIsOurs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in := b.intent(sdk.Provision, "carol", "linux-standard")
	plan, err := (connector.Connector{}).Plan(t.Context(), b.target, in)
	if err != nil {
		t.Fatal(err)
	}
	r, err := (connector.Connector{}).Apply(t.Context(), b.target, sdk.Change{Intent: in, Plan: plan, Password: sdk.NewSecret([]byte(accountPassword))},
		func(e sdk.Event) {
			if e.Step == "create" && e.State == sdk.StepStarted {
				b.inside(plan.Steps[0].Command)
			}
		})
	if err != nil || !r.Facts.Exists || !r.Changed {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestABadSudoRuleNeverReachesSudo(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in := b.intent(sdk.Provision, "alice", "linux-standard")
	in.Role.Phases = map[sdk.Phase][]string{sdk.PhaseGrant: {"sudoers %Username% ALL=(nonsense"}}
	if _, err := b.apply(t.Context(), in); err == nil {
		t.Error("a rule that visudo refuses was accepted")
	}
	b.untouched("alice")
	b.inside("visudo -cq")

	in.Role.Phases[sdk.PhaseGrant] = []string{"sudoers %Username% ALL=(root) /bin/true"}
	b.inside("echo 'this is no rule' > /etc/sudoers.d/broken")
	_, err := b.apply(t.Context(), in)
	if e := b.failure("rules of the host that sudo does not accept", err, sdk.ClassUnsupported); !strings.Contains(e.Fix, "visudo -c") {
		t.Errorf("nothing says what to do: %+v", e)
	}
	b.untouched("alice")
}

// sudo itself takes rules whose file is not mode 0440, and many hosts have such.
func TestSudoRulesOfOthersAreTheirOwnMatter(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.inside("echo 'backup ALL=(root) /bin/true' > /etc/sudoers.d/theirs; chmod 0644 /etc/sudoers.d/theirs")
	b.provision("oper", "linux-service-operator", map[string]string{"Units": "cron"})
	if got := b.inside("su oper -c 'sudo -n -l /usr/bin/systemctl restart cron' 2>&1; stat -c %a /etc/sudoers.d/theirs"); got != "/usr/bin/systemctl restart cron\n644\n" {
		t.Errorf("the operator may not restart, or the others' file was touched: %s", got)
	}
}

func TestHostFaults(t *testing.T) {
	t.Parallel()
	fail := func(b *bench, what string, class sdk.Class) {
		b.Helper()
		_, err := b.apply(b.Context(), b.intent(sdk.Provision, "alice", "linux-standard"))
		b.wantClass(what, err, class)
	}
	t.Run("read-only", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		if err := b.host.ReadOnly(); err != nil {
			t.Fatal(err)
		}
		fail(b, "a host that is read-only", sdk.ClassBusy)
		if err := b.host.ReadWrite(); err != nil {
			t.Fatal(err)
		}
		b.untouched("alice")
	})
	t.Run("disk full", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		if err := b.host.FillDisk(); err != nil {
			t.Fatal(err)
		}
		_, err := b.apply(t.Context(), b.intent(sdk.Provision, "alice", "linux-standard"))
		if err == nil {
			t.Fatal("provision on a full disk succeeded")
		}
		t.Log(err)
		if err := b.host.FreeDisk(); err != nil {
			t.Fatal(err)
		}
		b.untouched("alice")
		b.provision("alice", "linux-standard", nil)
	})
	t.Run("deadline while the host works", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		if err := b.host.LockAccounts(); err != nil { // useradd waits for 15 s
			t.Fatal(err)
		}
		defer b.host.UnlockAccounts()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		began := time.Now()
		_, err := b.apply(ctx, b.intent(sdk.Provision, "alice", "linux-standard"))
		b.wantClass("a deadline during a change", err, sdk.ClassUnknownOutcome)
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("it took %s", took)
		}
	})
	t.Run("account database locked", func(t *testing.T) {
		t.Parallel()
		if testing.Short() {
			t.Skip("useradd waits for 15 s")
		}
		b := newBench(t)
		if err := b.host.LockAccounts(); err != nil {
			t.Fatal(err)
		}
		fail(b, "a locked account database", sdk.ClassBusy)
		b.host.UnlockAccounts()
		b.untouched("alice")
	})
	t.Run("hang", func(t *testing.T) {
		t.Parallel()
		b := newBench(t)
		if err := b.host.Hang(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.host.Resume() }()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		_, err := b.apply(ctx, b.intent(sdk.Rotate, "alice", ""))
		b.wantClass("a host that hangs", err, sdk.ClassUnreachable)
	})
}

func TestHostKeys_C83(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var c connector.Connector
	old := b.host.HostKey()
	unknown := b.target
	unknown.Trust = sdk.Trust{}
	_, err := c.Probe(t.Context(), unknown)
	e := b.failure("first contact", err, sdk.ClassHostKeyUnknown)
	if e.Details["host_key"] != old || !strings.HasPrefix(e.Details["fingerprint"], "SHA256:") {
		t.Errorf("details %v, the host's key is %s", e.Details, old)
	}
	// The line as ssh-keyscan prints it is as good, and so is one of several.
	_, other, _ := newKey(t)
	imported := b.target
	imported.Trust = sdk.Trust{HostKeys: []string{other, b.host.Addr + " " + old}}
	if _, err := c.Probe(t.Context(), imported); err != nil {
		t.Errorf("an imported key: %v", err)
	}
	if err := b.host.NewHostKey(); err != nil {
		t.Fatal(err)
	}
	_, err = c.Probe(t.Context(), b.target)
	e = b.failure("a changed key", err, sdk.ClassHostKeyChanged)
	if e.Details["host_key"] != b.host.HostKey() || e.Details["trusted_fingerprint"] == "" ||
		!strings.Contains(e.Message, e.Details["fingerprint"]) || !strings.Contains(e.Message, e.Details["trusted_fingerprint"]) {
		t.Errorf("error %+v", e)
	}
	for name, line := range map[string]string{"text": "not a key", "authority": "@cert-authority * " + old, "revoked": "@revoked * " + old} {
		bad := b.target
		bad.Trust = sdk.Trust{HostKeys: []string{line}}
		_, err := c.Probe(t.Context(), bad)
		b.wantClass(name, err, sdk.ClassInvalid)
	}
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var c connector.Connector
	for _, account := range []string{"good", "expired", "aged", "nologin", "locked"} {
		b.provision(account, "linux-standard", nil)
	}
	b.inside("usermod -e 1 expired; chage -d 0 aged; usermod -L locked; usermod -s /usr/sbin/nologin nologin")
	verify := func(account, password string) sdk.Verdict {
		v, err := c.Verify(t.Context(), b.target, sdk.Credential{Username: account, Password: sdk.NewSecret([]byte(password))})
		if err != nil {
			t.Fatalf("verify %s: %v", account, err)
		}
		return v
	}
	for account, want := range map[string]sdk.VerdictKind{
		"good": sdk.VerdictOK, "expired": sdk.VerdictExpired, "aged": sdk.VerdictMustChange, "nologin": sdk.VerdictOK,
		"nobody-here": sdk.VerdictBadCredential,
	} {
		if v := verify(account, accountPassword); v.Kind != want {
			t.Errorf("%s: %s (%s), want %s", account, v.Kind, v.Message, want)
		}
		if v := verify(account, accountPassword); (v.Kind == sdk.VerdictOK) != (v.Fix == "") {
			t.Errorf("%s: %+v", account, v)
		}
		if v := verify(account, "wrong-password"); v.Kind != sdk.VerdictBadCredential {
			t.Errorf("%s with a wrong password: %s (%s)", account, v.Kind, v.Message)
		}
	}
	// sshd does not tell; the management account may see.
	if v := verify("locked", accountPassword); v.Kind != sdk.VerdictDisabled || v.Fix == "" {
		t.Errorf("locked: %+v", v)
	}
	b.target.Management.Password = sdk.NewSecret([]byte("another"))
	if v := verify("locked", accountPassword); v.Kind != sdk.VerdictBadCredential || v.Fix == "" {
		t.Errorf("locked, and a management account that cannot log in: %+v", v)
	}
	b.target.Management = sdk.Credential{}
	if v := verify("locked", accountPassword); v.Kind != sdk.VerdictBadCredential || v.Fix == "" {
		t.Errorf("locked, without a management account: %+v", v)
	}
}

// reconfigure changes sshd's configuration and waits until it is in force.
func (b *bench) reconfigure(sed, probe string) {
	b.Helper()
	b.inside("sed -i '" + sed + "' /etc/ssh/sshd_config && " + probe + " && kill -HUP 1")
}

func TestOneLoginIsOneAttempt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.provision("alice", "linux-standard", nil)
	b.inside("chmod 600 /var/log/btmp") // or sshd does not count in it
	for _, methods := range []string{"both", "keyboard-interactive only"} {
		edit := "s/^KbdInteractiveAuthentication.*/KbdInteractiveAuthentication yes/"
		if methods != "both" {
			edit += "; s/^PasswordAuthentication.*/PasswordAuthentication no/"
		}
		b.reconfigure(edit, "sshd -t")
		var v sdk.Verdict
		b.eventually(methods, func() bool {
			var err error
			v, err = (connector.Connector{}).Verify(t.Context(), b.target,
				sdk.Credential{Username: "alice", Password: sdk.NewSecret([]byte(accountPassword))})
			return err == nil && v.Kind == sdk.VerdictOK
		})
		count := func() int { return strings.Count(b.inside("lastb 2>/dev/null; true"), "alice") }
		before := count()
		v, err := (connector.Connector{}).Verify(t.Context(), b.target,
			sdk.Credential{Username: "alice", Password: sdk.NewSecret([]byte("wrong-password"))})
		if err != nil || v.Kind != sdk.VerdictBadCredential {
			t.Errorf("%s: %+v, %v", methods, v, err)
		}
		b.eventually("the failed login is recorded", func() bool { return count() > before }) // sshd writes it on its own time
		if n := count() - before; n != 1 {
			t.Errorf("%s: one verify made %d failed logins", methods, n)
		}
	}
}

func TestManyLoginsAtOnceAreBusyNotBroken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.reconfigure("s/^MaxStartups.*/MaxStartups 1:100:1/", "sshd -t")
	address := net.JoinHostPort(b.host.Addr, strconv.Itoa(b.host.Port))
	var occupied net.Conn
	defer func() {
		if occupied != nil {
			_ = occupied.Close()
		}
	}()
	var c connector.Connector
	b.eventually("sshd drops logins", func() bool {
		if occupied != nil {
			_ = occupied.Close()
		}
		var d net.Dialer
		var err error
		if occupied, err = d.DialContext(t.Context(), "tcp", address); err != nil {
			return false
		}
		buffer := make([]byte, 64)
		_ = occupied.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := occupied.Read(buffer); err != nil || !strings.HasPrefix(string(buffer[:n]), "SSH-") {
			return false
		}
		_, err = c.Probe(t.Context(), b.target)
		return sdk.ClassOf(err) == sdk.ClassBusy
	})
	// The place becomes free while the connector tries again.
	probed := make(chan error, 1)
	go func() {
		_, err := c.Probe(t.Context(), b.target)
		probed <- err
	}()
	_ = occupied.Close()
	if err := <-probed; err != nil {
		t.Errorf("probe after the place became free: %v", err)
	}
}

func TestSudoWithoutRightIsAMissingRight(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.provision("weak", "linux-standard", nil)
	b.target.Management = sdk.Credential{Username: "weak", Password: sdk.NewSecret([]byte(accountPassword))}
	f, err := (connector.Connector{}).Probe(t.Context(), b.target)
	if err != nil || len(f.MissingRights) != 1 || !strings.Contains(f.MissingRights[0], "not in the sudoers file") {
		t.Errorf("probe: %+v, %v", f, err)
	}
	_, err = b.apply(t.Context(), b.intent(sdk.Rotate, "weak", ""))
	b.wantClass("rotate", err, sdk.ClassNotPermitted)
}

// The key's own login needs no password, and sudo's question for one cannot be answered.
func TestSudoThatAsksAKeyLogin(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.provision("admin1", "linux-admin-sudo", nil)
	_, line, private := newKey(t)
	b.inside("install -d -m700 -o admin1 /home/admin1/.ssh && echo '" + line + "' > /home/admin1/.ssh/authorized_keys && chown admin1 /home/admin1/.ssh/authorized_keys")
	b.target.Management = sdk.Credential{Username: "admin1", PrivateKey: private}
	f, err := (connector.Connector{}).Probe(t.Context(), b.target)
	if err != nil || len(f.MissingRights) != 1 {
		t.Errorf("probe: %+v, %v", f, err)
	}
}
