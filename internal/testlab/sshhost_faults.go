//go:build linux

package testlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// OutOfBand runs a shell command on the host as root, not over the network, and
// returns what it printed.
func (h *Host) OutOfBand(command string) (string, error) { return h.srv.inside("", command) }

// SetPassword changes a password behind the product's back.
func (h *Host) SetPassword(user, password string) error {
	_, err := h.srv.inside(user+":"+password+"\n", "chpasswd -c SHA256 -s 1000")
	return err
}

// Hang stops every process of the host: connections open and nobody answers.
func (h *Host) Hang() error {
	if err := h.srv.stop(); err != nil {
		return err
	}
	_, err := h.srv.inside("", "kill -STOP -1 || true") // all but process 1 and the shell itself
	return err
}

// Resume undoes Hang.
func (h *Host) Resume() error {
	_, err := h.srv.inside("", "kill -CONT -1 || true")
	return errors.Join(err, h.srv.signal(syscall.SIGCONT))
}

// Crash ends the host as a power cut would. Its disk stays for Restart.
func (h *Host) Crash() { h.srv.kill() }

// Restart boots a crashed host from the same disk, at the same address.
func (h *Host) Restart() error {
	cmd := exec.CommandContext(h.srv.ctx, "nsenter", "--mount=/proc/self/fd/3",
		"--root=/proc/self/fd/4", "--wd=/proc/self/fd/4", "--", "/bin/sh", "-euc", hostRestart)
	cmd.Env = []string{path, "NAME=" + h.Name, "TELNET=" + h.telnet()}
	cmd.ExtraFiles = []*os.File{h.mounts, h.root}
	return h.srv.start(cmd, hostNamespaces, h.answers)
}

const filler = "var/tmp/.reevelab-fill"

// FillDisk writes until the host's disk has no byte left.
func (h *Host) FillDisk() error {
	f, err := os.OpenFile(h.file(filler), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("fill the disk of %s: %w", h.Name, err)
	}
	defer func() { _ = f.Close() }()
	for size := 1 << 20; size > 0; size /= 16 { // the last pages go in small pieces
		_, err = io.Copy(f, endless(make([]byte, size)))
		if !errors.Is(err, syscall.ENOSPC) {
			return fmt.Errorf("fill the disk of %s: %w", h.Name, err)
		}
	}
	return nil
}

// FreeDisk undoes FillDisk.
func (h *Host) FreeDisk() error { return os.Remove(h.file(filler)) }

// endless is a reader that repeats its bytes for ever.
type endless []byte

func (e endless) Read(p []byte) (int, error) { return copy(p, e), nil }

// ReadOnly makes the host's disk refuse every write.
func (h *Host) ReadOnly() error {
	_, err := h.srv.inside("", "mount -o remount,ro /")
	return err
}

// ReadWrite undoes ReadOnly.
func (h *Host) ReadWrite() error {
	_, err := h.srv.inside("", "mount -o remount,rw /")
	return err
}

// CountFailures makes the host lock accounts after five wrong passwords, with pam_faillock as its manual page has it. Root is let be.
func (h *Host) CountFailures() error {
	_, err := h.srv.inside("", `printf 'deny = 5\nnodelay\n' >/etc/security/faillock.conf &&
printf '%s\n' 'auth required pam_faillock.so preauth' 'auth [success=2 default=ignore] pam_unix.so nullok nodelay' \
  'auth [default=die] pam_faillock.so authfail' 'auth requisite pam_deny.so' 'auth required pam_permit.so' >/etc/pam.d/common-auth &&
echo 'account required pam_faillock.so' >>/etc/pam.d/common-account`)
	return err
}

// FailedLogins is how many wrong passwords pam_faillock counts for the account.
func (h *Host) FailedLogins(name string) (int, error) {
	out, err := h.srv.inside("", "faillock --user "+name+" | grep -c 'V$'; true")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}

// LockAccounts holds /etc/.pwd.lock, as another account tool at work would: useradd,
// chpasswd and their kind wait for it up to 15 seconds and then give up (lckpwdf(3)).
func (h *Host) LockAccounts() error {
	f, err := os.OpenFile(h.file("etc/.pwd.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		_ = f.Close()
		return fmt.Errorf("lock the accounts of %s: %w", h.Name, err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.accLock = f
	return nil
}

// UnlockAccounts undoes LockAccounts; without one it does nothing.
func (h *Host) UnlockAccounts() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.accLock != nil {
		_ = h.accLock.Close()
		h.accLock = nil
	}
}

// NewHostKey gives the host another key, as a reinstalled or a false host would have,
// and returns once sshd presents it. Open sessions go on.
func (h *Host) NewHostKey() error {
	private, public, err := newHostKey()
	if err != nil {
		return err
	}
	const replace = "umask 077 && cat > /etc/ssh/new && mv -f /etc/ssh/new /etc/ssh/ssh_host_ed25519_key"
	if _, err := h.srv.inside(private, replace); err != nil {
		return err
	}
	h.mu.Lock()
	h.hostKey = public
	h.mu.Unlock()
	starts := func() int { return strings.Count(h.srv.logged(), "Server listening on") }
	before := starts()
	if err := h.srv.signal(syscall.SIGHUP); err != nil { // sshd starts itself again
		return err
	}
	return h.srv.await(func(ctx context.Context) error {
		if starts() == before {
			return errors.New("sshd has not started itself again")
		}
		return h.answers(ctx)
	})
}

// WaitLogin tries logins until one is accepted, for a host that is coming back.
func (h *Host) WaitLogin(user, password string) error {
	return h.srv.await(func(ctx context.Context) error { return h.Login(ctx, user, password) })
}
