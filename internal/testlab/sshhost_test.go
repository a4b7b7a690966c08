//go:build linux

package testlab_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
)

const rootPassword, svcPassword = "root-Pass-1", "svc-Pass-1"

func startHost(t *testing.T) *testlab.Host {
	t.Helper()
	return testlab.SSHHost(t, testlab.HostOptions{Name: "web01", Accounts: []testlab.HostAccount{
		{Name: "root", Password: rootPassword},
		{Name: "svc", Password: svcPassword, Sudo: testlab.SudoPassword},
		{Name: "auto", Password: "auto-Pass-1", Sudo: testlab.SudoNoPassword},
	}})
}

func TestHostAcceptsTheRightPasswordsOnly(t *testing.T) {
	t.Parallel()
	for _, noPAM := range []bool{false, true} {
		t.Run(fmt.Sprintf("NoPAM=%t", noPAM), func(t *testing.T) {
			t.Parallel()
			h := testlab.SSHHost(t, testlab.HostOptions{NoPAM: noPAM, Accounts: []testlab.HostAccount{
				{Name: "root", Password: rootPassword}, {Name: "svc"},
			}})
			addr := fmt.Sprintf("%s:%d", h.Addr, h.Port)
			if err := testlab.SSHLogin(t.Context(), addr, "root", rootPassword, h.HostKey()); err != nil {
				t.Errorf("right password: %v", err)
			}
			for _, c := range [][2]string{{"root", "wrong"}, {"svc", ""}, {"nobody-here", rootPassword}} {
				if err := h.Login(t.Context(), c[0], c[1]); !errors.Is(err, testlab.ErrRefused) {
					t.Errorf("login as %q with %q: %v, want ErrRefused", c[0], c[1], err)
				}
			}
			if err := h.SetPassword("svc", "Other:1 '\""); err != nil {
				t.Fatal(err)
			}
			if err := h.Login(t.Context(), "svc", "Other:1 '\""); err != nil {
				t.Errorf("after SetPassword: %v", err)
			}
		})
	}
}

func TestHostHasSudoAsAskedFor(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	if out, err := h.OutOfBand("su - auto -c 'sudo -n id -un'"); err != nil || strings.TrimSpace(out) != "root" {
		t.Errorf("sudo without a password: %q, %v", out, err)
	}
	if out, err := h.OutOfBand("su - svc -c 'sudo -n id -un'"); err == nil {
		t.Errorf("sudo -n worked for an account that has to give a password: %q", out)
	}
	out, err := h.OutOfBand("echo " + svcPassword + " | su - svc -c \"sudo -S -k -p '' id -un\"")
	if err != nil || strings.TrimSpace(out) != "root" {
		t.Errorf("sudo with a password: %q, %v", out, err)
	}
	if out, err := h.OutOfBand("visudo -c"); err != nil {
		t.Errorf("the host's sudo rules are not as a distribution leaves them: %s", out)
	}
}

func TestHostShowsItsAccountDatabase(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	if _, err := h.OutOfBand("useradd -m -c 'made by hand' alice && usermod -L alice"); err != nil {
		t.Fatal(err)
	}
	p, ok, err := h.Passwd("alice")
	if err != nil || !ok || p.Comment != "made by hand" || p.UID < 1000 || p.Home != "/home/alice" {
		t.Errorf("Passwd = %+v, %t, %v", p, ok, err)
	}
	s, ok, err := h.Shadow("alice")
	if err != nil || !ok || !s.Locked() {
		t.Errorf("Shadow = %+v, %t, %v", s, ok, err)
	}
	if s, ok, err = h.Shadow("svc"); err != nil || !ok || s.Locked() {
		t.Errorf("Shadow(svc) = locked %t, %t, %v", s.Locked(), ok, err)
	}
	if _, ok, err := h.Passwd("bob"); ok || err != nil {
		t.Errorf("Passwd of an absent account = %t, %v", ok, err)
	}
}

func TestHungHostAcceptsAndStaysSilent(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	if err := h.Hang(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := h.Login(ctx, "root", rootPassword); err == nil || errors.Is(err, testlab.ErrRefused) {
		t.Errorf("login on a hung host: %v", err)
	}
	if err := h.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := h.WaitLogin("root", rootPassword); err != nil {
		t.Errorf("after Resume: %v", err)
	}
}

func TestCrashedHostKeepsItsDisk(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	if err := h.SetPassword("svc", "before-the-crash"); err != nil {
		t.Fatal(err)
	}
	h.Crash()
	if err := h.Login(t.Context(), "root", rootPassword); err == nil {
		t.Error("a crashed host still answers")
	}
	if _, ok, err := h.Shadow("svc"); !ok || err != nil {
		t.Errorf("Shadow of a crashed host: %t, %v", ok, err)
	}
	if err := h.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := h.Login(t.Context(), "svc", "before-the-crash"); err != nil {
		t.Errorf("after Restart: %v", err)
	}
	if out, err := h.OutOfBand("ps -e -o comm="); err != nil || !strings.Contains(out, "sshd") {
		t.Errorf("processes after Restart: %q, %v", out, err)
	}
}

func TestDiskFaultsStopAccountTools(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	before, _, err := h.Shadow("svc")
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range []struct {
		name     string
		do, undo func() error
	}{
		{"full", h.FillDisk, h.FreeDisk},
		{"read-only", h.ReadOnly, h.ReadWrite},
	} {
		if err := fault.do(); err != nil {
			t.Fatalf("%s: %v", fault.name, err)
		}
		if err := h.SetPassword("svc", "never"); err == nil {
			t.Errorf("a password was set on a disk that is %s", fault.name)
		}
		if after, _, err := h.Shadow("svc"); err != nil || after != before {
			t.Errorf("shadow entry on a disk that is %s changed, or: %v", fault.name, err)
		}
		if err := fault.undo(); err != nil {
			t.Fatalf("%s: %v", fault.name, err)
		}
	}
	if err := h.SetPassword("svc", "at-last"); err != nil {
		t.Errorf("after the faults: %v", err)
	}
}

func TestLockedAccountsMakeToolsWait(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	if err := h.LockAccounts(); err != nil {
		t.Fatal(err)
	}
	if out, err := h.OutOfBand("echo svc:never | timeout 0.3 chpasswd; echo $?"); err != nil || strings.TrimSpace(out) != "124" {
		t.Errorf("chpasswd under the lock: %q, %v; want to be timed out", out, err)
	}
	h.UnlockAccounts()
	if err := h.SetPassword("svc", "now"); err != nil {
		t.Errorf("after UnlockAccounts: %v", err)
	}
}

func TestNewHostKeyIsPresented(t *testing.T) {
	t.Parallel()
	h := startHost(t)
	old := h.HostKey()
	if err := h.NewHostKey(); err != nil {
		t.Fatal(err)
	}
	if err := h.Login(t.Context(), "root", rootPassword); err != nil {
		t.Errorf("with the new key: %v", err)
	}
	err := testlab.SSHLogin(t.Context(), fmt.Sprintf("%s:%d", h.Addr, h.Port), "root", rootPassword, old)
	if err == nil || errors.Is(err, testlab.ErrRefused) {
		t.Errorf("with the old key: %v", err)
	}
}
