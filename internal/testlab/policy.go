//go:build linux

package testlab

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// Check is one thing the lab needs from this machine.
type Check struct {
	Name   string
	OK     bool
	Detail string // version or path, or what went wrong
	Fix    string // what to do about it; empty when OK
}

// Doctor looks at everything the lab can use and says what is there.
func Doctor() []Check {
	var all []Check
	for _, n := range []need{namespaces, overlay, sshd, sudo, telnetd, activate, mariadb, postgres, samba, slapd, chromium, rsyslog, nft, ip, fuseDevice} {
		all = append(all, n.check())
	}
	return all
}

// need is something a server of the lab cannot start without.
type need struct {
	name  string
	check func() Check
}

var (
	namespaces = newNeed("namespaces", canIsolate)
	overlay    = newNeed("overlay", canOverlay)
	sshd       = newNeed("sshd", program("sshd", "openssh-server", "-V"))
	sudo       = newNeed("sudo", program("sudo", "sudo", "-V"))
	telnetd    = newNeed("telnetd", program("telnetd", "inetutils-telnetd", "--version"))
	activate   = newNeed("systemd-socket-activate", program("systemd-socket-activate", "systemd", "--version"))
	mariadb    = newNeed("mariadbd", program("mariadbd", "mariadb-server", "--version"))
	samba      = newNeed("samba", program("samba", "samba samba-ad-provision samba-dsdb-modules samba-vfs-modules", "--version"))
	slapd      = newNeed("slapd", program("slapd", "slapd", "-VVV"))
	chromium   = newNeed("chromedriver", program("chromedriver", "chromium chromium-driver", "--version"))
	postgres   = newNeed("postgres", program(postgresBin+"postgres", "postgresql-15", "--version"))
	rsyslog    = newNeed("rsyslogd", program("rsyslogd", "rsyslog rsyslog-openssl", "-v"))
	nft        = newNeed("nft", program("nft", "nftables", "--version"))
	ip         = newNeed("ip", program("ip", "iproute2", "-V"))
	fuseDevice = newNeed("fuse", canFuse)
)

// newNeed looks once per process.
func newNeed(name string, look func() (detail, fix string, err error)) need {
	return need{name, sync.OnceValue(func() Check {
		detail, fix, err := look()
		if err != nil {
			return Check{Name: name, Detail: err.Error(), Fix: fix}
		}
		return Check{Name: name, OK: true, Detail: detail}
	})}
}

// program looks for a program and asks for its version.
func program(name, debian, flag string) func() (string, string, error) {
	return func() (string, string, error) {
		file, err := exec.LookPath(name)
		if err != nil {
			return "", "apt-get install -y --no-install-recommends " + debian, err
		}
		out, err := exec.Command(file, flag).CombinedOutput() //nolint:noctx,gosec // answers at once; fixed names
		if err != nil {
			return "", "see why " + file + " " + flag + " fails", fmt.Errorf("%w: %s", err, out)
		}
		version, _, _ := strings.Cut(string(out), "\n")
		return version, "", nil
	}
}

// canIsolate makes the namespaces every server needs.
func canIsolate() (string, string, error) {
	err := isolated("true")
	return "mount, pid, ipc, uts, net", "run as root, in a virtual machine or a privileged container", err
}

// canOverlay mounts an overlay on memory, in a mount namespace that ends with the try.
func canOverlay() (string, string, error) {
	err := isolated("mount -t tmpfs t /mnt && cd /mnt && mkdir l u w m && " +
		"mount -t overlay -o lowerdir=l,upperdir=u,workdir=w o m")
	return "on tmpfs", "use a kernel with overlayfs", err
}

// canFuse looks whether file systems can be served from here.
func canFuse() (string, string, error) {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil {
		err = f.Close()
	}
	return "/dev/fuse", "modprobe fuse, as root", err
}

// isolated runs a shell command in fresh namespaces.
func isolated(script string) error {
	cmd := exec.Command("/bin/sh", "-ec", "mount --make-rprivate /; "+script) //nolint:noctx,gosec // ends at once; constant
	cmd.Env = []string{path}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: hostNamespaces | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// policy is what REEVE_LAB says to do when a need is not met: "auto" (or nothing) skips
// the test, "require" fails it, "off" skips every test of the lab.
func policy() string { return os.Getenv("REEVE_LAB") }
