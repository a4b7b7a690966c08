package connector_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/connector"
)

func TestRolesGiveWhatTheySay(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	sudo := func(account, command string) string {
		return b.inside("su " + account + " -c 'sudo -n " + command + "' 2>&1; true")
	}

	r := b.provision("admin1", "linux-admin-sudo", nil)
	if !slices.Contains(r.Facts.Groups, "sudo") || !strings.Contains(b.inside("id -Gn admin1"), "sudo") {
		t.Errorf("groups %v", r.Facts.Groups)
	}
	if got := b.inside("echo '" + accountPassword + "' | su admin1 -c \"sudo -S -p '' id -un\""); strings.TrimSpace(got) != "root" {
		t.Errorf("the administrator became %q", got)
	}

	b.provision("admin2", "linux-sudo-nopasswd", nil)
	if got := strings.TrimSpace(sudo("admin2", "id -un")); got != "root" {
		t.Errorf("without a password: %q", got)
	}
	if got := strings.TrimSpace(b.inside("stat -c '%a %U %G' /etc/sudoers.d/reeve-admin2; ls -A /etc/sudoers.d | wc -l")); got != "440 root root\n1" {
		t.Errorf("the sudoers file is %q", got)
	}

	r = b.provision("oper", "linux-service-operator", map[string]string{"Units": "nginx.service cron"})
	if len(r.Facts.Grants) != 8 {
		t.Errorf("grants %q", r.Facts.Grants)
	}
	if got := sudo("oper", "-l /usr/bin/systemctl restart cron"); !strings.Contains(got, "systemctl restart cron") {
		t.Errorf("the operator may not restart: %s", got)
	}
	for _, command := range []string{"systemctl restart sshd", "systemctl restart cron sshd", "id", "systemctl status cron"} {
		if got := sudo("oper", command); !strings.Contains(got, "password is required") {
			t.Errorf("the operator may run %q: %s", command, got)
		}
	}

	b.provision("backup1", "linux-backup-operator", map[string]string{"Paths": "/etc/pam.d"})
	if got := sudo("backup1", "tar --one-file-system -cf - /etc/pam.d | tar -t | head -1"); !strings.Contains(got, "etc/pam.d/") {
		t.Errorf("backup: %s", got)
	}
	if got := sudo("backup1", "tar --one-file-system -cf - /etc/pam.d /root"); !strings.Contains(got, "password is required") {
		t.Errorf("the backup operator may read more: %s", got)
	}

	r = b.provision("reader", "linux-log-reader", nil)
	if !slices.Contains(r.Facts.Groups, "adm") {
		t.Errorf("groups %v", r.Facts.Groups)
	}

	_, err := b.apply(t.Context(), b.intent(sdk.Provision, "docker1", "linux-docker"))
	b.wantClass("a role whose group the host lacks", err, sdk.ClassUnsupported)
	b.untouched("docker1")
}

func TestNarrowRolesGiveNoMore(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	sudo := func(account, command string) string {
		return b.inside("su " + account + " -c 'sudo -n " + command + "' 2>&1; true")
	}
	for account, c := range map[string]struct {
		role   string
		params map[string]string
		may    []string
		mayNot []string
	}{
		"webadm": {"linux-web-admin", map[string]string{"Units": "nginx.service"}, []string{"/usr/bin/systemctl reload nginx.service", "/usr/sbin/nginx -t"},
			[]string{"/usr/bin/systemctl reload sshd", "/usr/sbin/nginx -c /tmp/x", "/bin/sh"}},
		"netop": {"linux-network-operator", map[string]string{"Interfaces": "lo eth0"}, []string{"/usr/sbin/ip address show", "/usr/sbin/ip link set dev eth0 down"},
			[]string{"/usr/sbin/ip netns exec x sh", "/usr/sbin/ip link set dev eth1 down", "/usr/bin/tcpdump -nn -c 1000 -i lo -z /bin/sh", "/bin/sh"}},
		"audit": {"linux-audit-readonly", nil, []string{"/usr/bin/cat /etc/sudoers", "/usr/sbin/auditctl -l"},
			[]string{"/usr/bin/cat /etc/shadow", "/usr/bin/cat /etc/sudoers /etc/shadow", "/usr/sbin/auditctl -D", "/bin/sh"}},
	} {
		r := b.provision(account, c.role, c.params)
		if again := b.provision(account, c.role, c.params); again.Changed || len(r.Facts.Grants) == 0 {
			t.Errorf("%s: again %t, grants %q", c.role, again.Changed, r.Facts.Grants)
		}
		rules := b.inside("sudo -l -U " + account)
		for _, command := range c.may {
			if !strings.Contains(rules, command) {
				t.Errorf("%s may not run %q:\n%s", c.role, command, rules)
			}
		}
		for _, command := range c.mayNot {
			if got := sudo(account, command); !strings.Contains(got, "password is required") {
				t.Errorf("%s may run %q: %s", c.role, command, got)
			}
		}
	}
	if got := sudo("audit", "/usr/bin/cat /etc/sudoers"); !strings.Contains(got, "root") {
		t.Errorf("the auditor reads %q", got)
	}
}

func TestFileTransferAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	params := map[string]string{"Group": "sftponly"}
	in := b.intent(sdk.Provision, "files", "linux-sftp-only")
	in.Params = params
	_, err := b.apply(t.Context(), in)
	b.wantClass("without the group", err, sdk.ClassUnsupported)
	b.inside("groupadd sftponly")
	b.reconfigure("$a Match Group sftponly\\nForceCommand internal-sftp", "sshd -t")
	b.eventually("sshd listens again", func() bool {
		c, err := b.login("root", ssh.Password(rootPassword))
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	r := b.provision("files", "linux-sftp-only", params)
	if got := r.Facts.Attributes["shell"]; got != "/usr/sbin/nologin" || !slices.Contains(r.Facts.Groups, "sftponly") {
		t.Errorf("shell %q, groups %v", got, r.Facts.Groups)
	}
	if again := b.provision("files", "linux-sftp-only", params); again.Changed {
		t.Error("provisioning again changed something")
	}
	v, err := (connector.Connector{}).Verify(t.Context(), b.target, sdk.Credential{Username: "files", Password: sdk.NewSecret([]byte(accountPassword))})
	if err != nil || v.Kind != sdk.VerdictOK {
		t.Errorf("verify: %+v, %v", v, err)
	}
	client, err := b.login("files", ssh.Password(accountPassword))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := session.Output("id -u"); err == nil || !strings.Contains(string(out), "sftp connections only") {
		t.Errorf("a command runs: %q, %v", out, err)
	}
}

func TestAKeyLogsIn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	signer, line, _ := newKey(t)
	words := strings.Fields(line)
	params := map[string]string{"KeyType": words[0], "Key": words[1]}
	r := b.provision("keyed", "linux-ssh-key-only", params)
	if !strings.Contains(r.Facts.Attributes["authorized_keys"], ssh.FingerprintSHA256(signer.PublicKey())) {
		t.Errorf("attributes %v", r.Facts.Attributes)
	}
	b.inside("printf %s '# by hand' >>/home/keyed/.ssh/authorized_keys")
	other, line, _ := newKey(t)
	words = strings.Fields(line)
	if r := b.provision("keyed", "linux-ssh-key-only", map[string]string{"KeyType": words[0], "Key": words[1]}); !r.Changed {
		t.Error("another key changed nothing")
	}
	for _, s := range []ssh.Signer{signer, other} {
		c, err := b.login("keyed", ssh.PublicKeys(s))
		if err != nil {
			t.Fatalf("login with a key: %v", err)
		}
		_ = c.Close()
	}
	if again := b.provision("keyed", "linux-ssh-key-only", params); again.Changed {
		t.Error("provisioning again changed something")
	}
	if got := strings.TrimSpace(b.inside("stat -c '%a %U' /home/keyed/.ssh /home/keyed/.ssh/authorized_keys; wc -l </home/keyed/.ssh/authorized_keys")); got != "700 keyed\n600 keyed\n3" {
		t.Errorf("the files are %q", got)
	}
	// What the account made of its home does not lead root anywhere else.
	b.inside("mv /home/keyed/.ssh /home/keyed/old && mkdir -m 700 /root/.ssh && ln -s /root/.ssh /home/keyed/.ssh")
	in := b.intent(sdk.Provision, "keyed", "linux-ssh-key-only")
	in.Params = params
	if _, err := b.apply(t.Context(), in); err == nil {
		t.Error("a link to somebody else's directory was followed")
	}
	if got := b.inside("ls -A /root/.ssh"); got != "" {
		t.Errorf("root has %q", got)
	}
}

func TestRightsOfARole(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	check := func(target sdk.Target, roleName string, params map[string]string) (missing, statements []string) {
		t.Helper()
		rights, err := (connector.Connector{}).CheckRights(t.Context(), target, role(roleName), params)
		if err != nil || len(rights) == 0 {
			t.Fatalf("%s: %v, %v", roleName, rights, err)
		}
		for _, r := range rights {
			if !r.Held {
				missing, statements = append(missing, r.Name), append(statements, r.Grant)
			} else if r.Grant != "" {
				t.Errorf("a right that is held is granted: %+v", r)
			}
		}
		return missing, statements
	}
	if missing, _ := check(b.target, "linux-service-operator", map[string]string{"Units": "cron"}); len(missing) > 0 {
		t.Errorf("root lacks %q", missing)
	}
	missing, statements := check(b.target, "linux-docker", nil)
	if !slices.Equal(missing, []string{"the group docker"}) {
		t.Fatalf("missing %q", missing)
	}
	b.inside(statements[0])
	b.provision("docker1", "linux-docker", nil)

	b.provision("ops", "linux-standard", nil)
	weak := b.target
	weak.Management = sdk.Credential{Username: "ops", Password: sdk.NewSecret([]byte(accountPassword))}
	missing, statements = check(weak, "linux-standard", nil)
	if !slices.Equal(missing, []string{"root, by sudo or by login"}) {
		t.Fatalf("missing %q", missing)
	}
	b.inside(statements[0])
	if missing, _ = check(weak, "linux-standard", nil); len(missing) > 0 {
		t.Errorf("after %q: missing %q", statements, missing)
	}
	b.target = weak
	b.provision("made-by-ops", "linux-standard", nil)

	b.inside("sed -i '/includedir/d' /etc/sudoers")
	weak.Management = sdk.Credential{Username: "root", Password: sdk.NewSecret([]byte(rootPassword))}
	if missing, statements = check(weak, "linux-sudo-nopasswd", nil); len(missing) != 1 || !strings.Contains(missing[0], "includedir") {
		t.Fatalf("missing %q", missing)
	}
	b.inside(statements[0])
	if missing, _ = check(weak, "linux-sudo-nopasswd", nil); len(missing) > 0 {
		t.Errorf("missing %q", missing)
	}
	weak.Management.Password = sdk.NewSecret([]byte("Canary-wrong-1"))
	_, err := (connector.Connector{}).CheckRights(t.Context(), weak, role("linux-standard"), nil)
	b.wantClass("a wrong password", err, sdk.ClassAuthFailed)
}

func TestAccountIsTraceableAndExpires_C37(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	in := b.intent(sdk.Provision, "alice", "linux-standard")
	in.ExpiresAt = time.Date(2031, 5, 6, 23, 59, 0, 0, time.UTC)
	r := b.must(in)
	line := strings.TrimSpace(b.inside("getent passwd alice"))
	if !strings.Contains(line, ":reeve acct_alice ticket 17:/home/alice:/bin/bash") {
		t.Errorf("passwd has %q", line)
	}
	// The first day that lies wholly after the instant: 2031-05-07 is day 22406.
	if e, _, err := b.host.Shadow("alice"); err != nil || e.Expire != "22406" {
		t.Errorf("shadow expires on day %q, %v", e.Expire, err)
	}
	if want := time.Date(2031, 5, 7, 0, 0, 0, 0, time.UTC); !r.Facts.ExpiresAt.Equal(want) {
		t.Errorf("facts say %s", r.Facts.ExpiresAt)
	}
	// Enabling puts the date back that disabling overwrote.
	in.Action = sdk.Disable
	b.must(in)
	in.Action = sdk.Enable
	b.must(in)
	if e, _, _ := b.host.Shadow("alice"); e.Expire != "22406" || e.Locked() {
		t.Errorf("after enabling, shadow has %+v", e)
	}
}

func TestDisableEndsSessionsAndKeys_C24(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.provision("alice", "linux-standard", nil)
	signer, line, _ := newKey(t)
	b.inside("install -d -m700 -o alice -g alice /home/alice/.ssh && echo '" + line + "' > /home/alice/.ssh/authorized_keys && chown alice /home/alice/.ssh/authorized_keys")
	client, err := b.login("alice", ssh.PublicKeys(signer))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start("exec sleep 600"); err != nil {
		t.Fatal(err)
	}
	facts, err := (connector.Connector{}).Inspect(t.Context(), b.target, "alice")
	if err != nil || facts.Sessions < 1 || !strings.HasPrefix(facts.Attributes["authorized_keys"], "SHA256:") {
		t.Fatalf("facts %+v, %v", facts, err)
	}

	r := b.must(b.intent(sdk.Disable, "alice", ""))
	if r.Facts.Attributes["sessions_ended"] != "1" || r.Facts.Sessions != 0 {
		t.Errorf("sessions: %+v", r.Facts)
	}
	if err := session.Wait(); err == nil {
		t.Error("the session went on")
	}
	if out := b.inside("pgrep -u alice; true"); out != "" {
		t.Errorf("processes are left: %s", out)
	}
	if c, err := b.login("alice", ssh.PublicKeys(signer)); err == nil {
		_ = c.Close()
		t.Error("the key still opens the account")
	}
}

func TestDeprovisionLeavesNothingUnsaid_C27(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.provision("alice", "linux-sudo-nopasswd", nil)
	b.inside("touch /var/tmp/left && chown alice /var/tmp/left; setsid setpriv --reuid alice sleep 600 >/dev/null 2>&1 </dev/null &")
	b.eventually("a process of alice", func() bool { return b.inside("pgrep -u alice; true") != "" })
	r := b.must(b.intent(sdk.Deprovision, "alice", ""))
	if !slices.ContainsFunc(r.Residue, func(s string) bool { return strings.Contains(s, "/var/tmp/left") }) {
		t.Errorf("residue %q", r.Residue)
	}
	b.untouched("alice")

	// A sudoers file that survived a removal behind our back is still taken away.
	b.inside("echo 'bob ALL=(ALL) ALL' > /etc/sudoers.d/reeve-bob")
	if r := b.must(b.intent(sdk.Deprovision, "bob", "")); !r.Changed {
		t.Error("removing the file is no change")
	}
	b.untouched("bob")
}

func TestAnInterruptedProvisionIsCompleted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.inside("useradd -m -s /bin/bash -c 'reeve acct_alice ticket 17' alice") // the work of a crashed run
	r := b.provision("alice", "linux-admin-sudo", nil)
	if !r.Changed || !slices.Contains(r.Facts.Groups, "sudo") || !r.Facts.HasPassword || r.Facts.ExpiresAt.IsZero() {
		t.Errorf("result %+v", r)
	}
	v, err := (connector.Connector{}).Verify(t.Context(), b.target,
		sdk.Credential{Username: "alice", Password: sdk.NewSecret([]byte(accountPassword))})
	if err != nil || v.Kind != sdk.VerdictOK || v.Identity != "alice" {
		t.Errorf("verify %+v, %v", v, err)
	}
}

func TestRootAndTheManagementAccountAreNeverDisabled(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		in := b.intent(action, "root", "")
		in.Identity = "0" // adopted
		_, err := b.apply(t.Context(), in)
		b.wantClass(string(action)+" root", err, sdk.ClassInvalid)
	}
	if e, _, _ := b.host.Shadow("root"); e.Locked() {
		t.Error("root is locked")
	}
}

func TestAReusedUIDIsAnotherAccount_C27(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	r := b.provision("alice", "linux-standard", nil)
	b.inside("userdel -r alice; useradd -m -c 'somebody else' alice")
	if e, _, _ := b.host.Passwd("alice"); r.Facts.Identity != strconv.Itoa(e.UID) {
		t.Fatalf("the host did not give uid %s out again but %d", r.Facts.Identity, e.UID)
	}
	in := b.intent(sdk.Deprovision, "alice", "")
	in.Identity = r.Facts.Identity
	_, err := b.apply(t.Context(), in)
	b.wantClass("removing an account with a uid that was ours", err, sdk.ClassExists)
	if _, ok, _ := b.host.Passwd("alice"); !ok {
		t.Error("somebody else's account was removed")
	}
}

// A comment is what the account's owner says (chfn); none of it becomes a line of the host's answer.
func TestACommentDoesNotSpeakForTheHost(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.provision("alice", "linux-standard", nil)
	comment := `x\ngroups root\nend\n`
	b.inside("usermod -c '" + comment + "' alice")
	facts, err := (connector.Connector{}).Inspect(t.Context(), b.target, "alice")
	if err != nil || facts.Attributes["comment"] != comment || !facts.HasPassword || slices.Contains(facts.Groups, "root") {
		t.Errorf("facts %+v, %v", facts, err)
	}
}

func TestDiscoverListsPeople(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.provision("alice", "linux-standard", nil)
	b.inside("useradd -m carol && useradd -r daemon2")
	var names []string
	err := (connector.Connector{}).Discover(t.Context(), b.target, func(f sdk.Facts) bool {
		names = append(names, f.Account)
		return true
	})
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"alice", "carol", "root"}) {
		t.Errorf("discovered %q, %v", names, err)
	}
}

type output struct{ out, err strings.Builder }

func (o *output) Stdout(p []byte) { o.out.Write(p) }
func (o *output) Stderr(p []byte) { o.err.Write(p) }

func TestRunStreamsAndTellsTheStatus(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var o output
	status, err := (connector.Connector{}).Run(t.Context(), b.target, "echo out; echo err >&2; exit 7", &o)
	if err != nil || status != 7 || o.out.String() != "out\n" || o.err.String() != "err\n" {
		t.Errorf("status %d, %v, %q, %q", status, err, o.out.String(), o.err.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := (connector.Connector{}).Run(ctx, b.target, "echo here; exec sleep 600", new(output))
		done <- err
	}()
	b.eventually("the command", func() bool { return b.inside("pgrep -x sleep; true") != "" })
	cancel()
	select {
	case err := <-done:
		b.wantClass("a cancelled run", err, sdk.ClassUnknownOutcome)
	case <-time.After(2 * time.Second):
		t.Error("the run did not end within 2 s of its cancellation")
	}
}
