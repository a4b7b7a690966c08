package unix_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/connector"
)

func TestVerdictsAreToldApart(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, setup := range []string{
		"useradd -m -s /bin/bash good", "useradd -m -s /bin/sh dash", "useradd -m -s /usr/sbin/nologin noshell",
		"useradd -m -s /bin/bash expired", "useradd -m -s /bin/bash mustchange", "useradd -m -s /bin/bash locked",
		"useradd -m -s /bin/bash odd && echo \"PS1='\\e[32m ⟩ \\e[0m'; echo 'last login: never'\" >>/home/odd/.bashrc",
		"useradd -m -s /bin/bash slow && echo 'sleep 6' >>/home/slow/.bashrc",
		"useradd -m -s /bin/bash noisy && echo 'echo Login incorrectly; echo x login: y; printf \"password: \"; echo; id' >>/home/noisy/.bashrc",
	} {
		b.inside(setup)
	}
	for name := range strings.FieldsSeq("good dash noshell expired mustchange locked odd slow noisy") {
		if err := b.host.SetPassword(name, accountPassword); err != nil {
			t.Fatal(err)
		}
	}
	b.inside("usermod -e 1 expired; chage -d 0 mustchange; usermod -L locked; cat >/etc/motd <<.\nWelcome # \nlogin: \n.")
	for name, want := range map[string]sdk.VerdictKind{
		"good": sdk.VerdictOK, "dash": sdk.VerdictOK, "noshell": sdk.VerdictOK, "odd": sdk.VerdictOK, "slow": sdk.VerdictOK,
		"noisy": sdk.VerdictOK, "expired": sdk.VerdictExpired, "mustchange": sdk.VerdictMustChange,
		"locked": sdk.VerdictDisabled, "nobody-here": sdk.VerdictBadCredential,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := connector.Connector{}.Verify(t.Context(), b.target, credential(name, accountPassword))
			b.tell(v, err)
			if err != nil || v.Kind != want || (want == sdk.VerdictOK && v.Identity != name) || (want == sdk.VerdictOK) != (v.Fix == "") {
				t.Errorf("%+v, %v; want %s", v, err, want)
			}
			if want != sdk.VerdictOK {
				return
			}
			v, err = connector.Connector{}.Verify(t.Context(), b.target, credential(name, "C4nary-wrong"))
			if err != nil || v.Kind != sdk.VerdictBadCredential {
				t.Errorf("a wrong password: %+v, %v", v, err)
			}
		})
	}
}

func TestManagementAccountThatMayNotBecomeRootIsMissingRights(t *testing.T) {
	t.Parallel()
	b := newBench(t, testlab.HostAccount{Name: "ops", Password: accountPassword})
	b.target.Management = credential("ops", accountPassword)
	f, err := connector.Connector{}.Probe(t.Context(), b.target)
	b.tell(f, err)
	if err != nil || len(f.MissingRights) != 1 || !strings.Contains(f.MissingRights[0], "cannot become root") {
		t.Errorf("%+v, %v", f, err)
	}
	before := b.inside("cat /etc/passwd /etc/shadow")
	in := intent(sdk.Provision, "alice")
	if _, err := b.apply(t.Context(), in); sdk.ClassOf(err) != sdk.ClassNotPermitted {
		t.Errorf("%v", err)
	}
	if b.inside("cat /etc/passwd /etc/shadow") != before {
		t.Error("accounts changed")
	}
	b.target.Management = sdk.Credential{Username: "root"}
	if _, err = (connector.Connector{}).Probe(t.Context(), b.target); sdk.ClassOf(err) != sdk.ClassInvalid {
		t.Errorf("without a password: %v", err)
	}
}

func TestHostThatHangsIsUnreachable(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if err := b.host.Hang(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := connector.Connector{}.Probe(ctx, b.target)
	if sdk.ClassOf(err) != sdk.ClassUnreachable || time.Since(began) > 2500*time.Millisecond {
		t.Errorf("%v after %s", err, time.Since(began))
	}
	if err := b.host.Resume(); err != nil {
		t.Fatal(err)
	}
}
