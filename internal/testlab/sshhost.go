//go:build linux

package testlab

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	_ "embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
)

//go:embed sshhost_template.sh
var hostTemplate string

//go:embed sshhost_init.sh
var hostInit string

//go:embed sshhost_restart.sh
var hostRestart string

// diskSize is the size of a host's disk; small, so that FillDisk is quick.
const diskSize = "48m"

// Sudo is what an account of a host may do with sudo.
type Sudo string

// The ways to set up sudo.
const (
	SudoNone       Sudo = ""
	SudoPassword   Sudo = "ALL=(ALL:ALL) ALL"          // asks for the account's own password
	SudoNoPassword Sudo = "ALL=(ALL:ALL) NOPASSWD:ALL" // asks for nothing
)

// TelnetPort is where a host's telnetd answers.
const TelnetPort = 23

// HostAccount is an account a host has from its start. Root has no password unless it
// is listed.
type HostAccount struct {
	Name           string
	Password       string   // empty: none, the account cannot log in with a password
	AuthorizedKeys []string // lines of the account's authorized_keys
	Sudo           Sudo
}

// HostOptions says what a host is like. The zero value is a host nobody can log in to.
type HostOptions struct {
	Name     string // host name; default "host"
	Accounts []HostAccount
	NoPAM    bool  // UsePAM no: sshd checks /etc/shadow itself
	Telnet   bool  // telnetd answers too, at TelnetPort
	Node     *Node // the network node the host is; nil: a loopback address of this machine
}

// Host is a running Linux host: OpenSSH, PAM, sudo and the account tools of Debian,
// with an account database of its own. Its processes see only each other.
type Host struct {
	Name string
	Addr string // IP address
	Port int    // always 22

	srv    *server
	opts   HostOptions
	seed   string // directory laid over the template
	mounts *os.File
	root   *os.File

	mu      sync.Mutex
	hostKey string
	accLock *os.File // open while LockAccounts holds
}

// SSHHost starts a host and returns once its sshd answers.
func (l *Lab) SSHHost(opts HostOptions) (*Host, error) {
	if opts.Name == "" {
		opts.Name = "host"
	}
	h := &Host{Name: opts.Name, Port: 22, opts: opts}
	var err error
	if opts.Node != nil {
		h.Addr = opts.Node.Addr
	} else if h.Addr, err = l.address(); err != nil {
		return nil, err
	}
	tmpl, err := template("sshhost", hostTemplate, func(dir string) error {
		cmd := exec.CommandContext(l.ctx, "/bin/sh", "-euc", hostTemplate)
		cmd.Dir, cmd.Env = dir, []string{path}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	dir, err := l.mkdir(opts.Name)
	if err != nil {
		return nil, err
	}
	h.seed = filepath.Join(dir, "seed")
	users, passwords, err := h.plant()
	if err != nil {
		return nil, err
	}
	mount := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mount, 0o755); err != nil { //nolint:gosec // sshd's users must pass
		return nil, err
	}

	h.srv = newServer(l, "ssh host "+opts.Name, dir, opts.Node)
	cmd := exec.CommandContext(l.ctx, "/bin/sh", "-euc", hostInit)
	cmd.Env = []string{path, "TEMPLATE=" + tmpl, "SEED=" + h.seed, "MOUNT=" + mount, "NAME=" + opts.Name,
		"USERS=" + strings.Join(users, " "), "DISK=" + diskSize, "TELNET=" + h.telnet()}
	cmd.Stdin = strings.NewReader(passwords)
	if err := h.srv.start(cmd, hostNamespaces|syscall.CLONE_NEWNS, h.answers); err != nil {
		return nil, err
	}
	if err := h.hold(); err != nil {
		h.stop()
		return nil, err
	}
	return h, l.onClose(h.stop)
}

// hostNamespaces are the namespaces a host gets anew with every boot.
const hostNamespaces = syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// hold opens the host's mount namespace and root directory: as long as they are open
// the disk outlives a crash, and they close when this process ends, however it ends.
func (h *Host) hold() (err error) {
	proc := fmt.Sprintf("/proc/%d", h.srv.pid())
	if h.mounts, err = os.Open(proc + "/ns/mnt"); err != nil {
		return fmt.Errorf("hold the disk of %s: %w", h.Name, err)
	}
	if h.root, err = os.Open(proc + "/root"); err != nil { //nolint:gosec // own child
		return fmt.Errorf("hold the disk of %s: %w", h.Name, err)
	}
	return nil
}

func (h *Host) stop() {
	h.srv.kill()
	h.UnlockAccounts()
	_ = h.mounts.Close()
	_ = h.root.Close()
}

// plant writes the files that make this host differ from the template. It returns the
// accounts to make and the lines for chpasswd.
func (h *Host) plant() (users []string, passwords string, err error) {
	for _, d := range []string{"etc/ssh", "etc/sudoers.d", "etc/reevelab-keys"} {
		if err := os.MkdirAll(filepath.Join(h.seed, d), 0o755); err != nil { //nolint:gosec // as on any host
			return nil, "", err
		}
	}
	files := map[string]string{}
	if files["etc/ssh/ssh_host_ed25519_key"], h.hostKey, err = newHostKey(); err != nil {
		return nil, "", err
	}
	pam := "yes"
	if h.opts.NoPAM {
		pam = "no"
	}
	files["etc/ssh/sshd_config"] = strings.Join([]string{
		"ListenAddress " + net.JoinHostPort(h.Addr, strconv.Itoa(h.Port)),
		"HostKey /etc/ssh/ssh_host_ed25519_key",
		"UsePAM " + pam,
		"PidFile none", "PermitRootLogin yes", "PasswordAuthentication yes", "KbdInteractiveAuthentication no",
		"MaxStartups 1000:30:2000", "MaxSessions 200", "UseDNS no", "PrintMotd no",
		"Subsystem sftp internal-sftp", "",
	}, "\n")
	for _, a := range h.opts.Accounts {
		if a.Name != "root" {
			users = append(users, a.Name)
		}
		if a.Password != "" {
			passwords += a.Name + ":" + a.Password + "\n"
		}
		if a.Sudo != SudoNone {
			files["etc/sudoers.d/"+a.Name] = a.Name + " " + string(a.Sudo) + "\n"
		}
		if len(a.AuthorizedKeys) > 0 {
			files["etc/reevelab-keys/"+a.Name] = strings.Join(a.AuthorizedKeys, "\n") + "\n"
		}
	}
	for name, text := range files {
		mode := os.FileMode(0o400)
		if strings.HasPrefix(name, "etc/sudoers.d/") {
			mode = 0o440 // what visudo asks for
		}
		if err := os.WriteFile(filepath.Join(h.seed, name), []byte(text), mode); err != nil {
			return nil, "", err
		}
	}
	return users, passwords, nil
}

// newHostKey returns a private key as sshd stores it and its public half.
func newHostKey() (private, public string, err error) {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", "", err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return "", "", err
	}
	line, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", "", err
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line))), nil
}

// HostKey is the host's public key as an authorized_keys line, "ssh-ed25519 AAAA…".
func (h *Host) HostKey() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hostKey
}

// PID is the process id of the host's process 1, as seen from outside.
func (h *Host) PID() int { return h.srv.pid() }

// Log is what sshd has printed: each login that was accepted, and by whom.
func (h *Host) Log() string { return h.srv.logged() }

// Login tries one password login from where the host can be reached, and runs "id -un"
// in it. It is SSHLogin, also for hosts inside a network.
func (h *Host) Login(ctx context.Context, user, password string) error {
	return login(ctx, h.dial, net.JoinHostPort(h.Addr, strconv.Itoa(h.Port)), user, password, h.HostKey())
}

func (h *Host) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if h.opts.Node != nil {
		return h.opts.Node.Dial(ctx, network, address)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// telnet is the address telnetd listens at; empty: there is none.
func (h *Host) telnet() string {
	if !h.opts.Telnet {
		return ""
	}
	return net.JoinHostPort(h.Addr, strconv.Itoa(TelnetPort))
}

// answers reports whether sshd presents the current host key, and whether telnetd, if the
// host has one, begins to talk.
func (h *Host) answers(ctx context.Context) error {
	key, err := presentedKey(ctx, h.dial, net.JoinHostPort(h.Addr, strconv.Itoa(h.Port)))
	if err != nil {
		return err
	}
	if key != h.HostKey() {
		return errors.New("it presents another host key")
	}
	if !h.opts.Telnet {
		return nil
	}
	conn, err := h.dial(ctx, "tcp", h.telnet())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// file is a path of the host as this process can open it, also when the host is down.
func (h *Host) file(name string) string {
	return filepath.Join("/proc/self/fd", strconv.Itoa(int(h.root.Fd())), name)
}

// PasswdEntry is an account's line in /etc/passwd.
type PasswdEntry struct {
	Name, Comment, Home, Shell string
	UID, GID                   int
}

// Passwd reads an account from the host's /etc/passwd; ok is false if it is not there.
func (h *Host) Passwd(user string) (entry PasswdEntry, ok bool, err error) {
	f, err := h.entry("etc/passwd", user, 7)
	if f == nil || err != nil {
		return PasswdEntry{}, false, err
	}
	uid, err := strconv.Atoi(f[2])
	gid, err2 := strconv.Atoi(f[3])
	return PasswdEntry{Name: f[0], UID: uid, GID: gid, Comment: f[4], Home: f[5], Shell: f[6]}, true,
		errors.Join(err, err2)
}

// ShadowEntry is an account's line in /etc/shadow, with empty fields kept empty.
type ShadowEntry struct {
	Name        string
	Hash        string // "!…" locked, "*" no password
	LastChanged string // days since 1970; "0": must change at next login
	Expire      string // days since 1970
}

// Locked reports whether no password is accepted.
func (e ShadowEntry) Locked() bool {
	return strings.HasPrefix(e.Hash, "!") || strings.HasPrefix(e.Hash, "*")
}

// Shadow reads an account from the host's /etc/shadow; ok is false if it is not there.
func (h *Host) Shadow(user string) (entry ShadowEntry, ok bool, err error) {
	f, err := h.entry("etc/shadow", user, 9)
	if f == nil || err != nil {
		return ShadowEntry{}, false, err
	}
	return ShadowEntry{Name: f[0], Hash: f[1], LastChanged: f[2], Expire: f[7]}, true, nil
}

// entry finds a line of an account database; nil if there is none.
func (h *Host) entry(file, user string, fields int) ([]string, error) {
	text, err := h.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if f[0] != user {
			continue
		}
		if len(f) != fields {
			return nil, fmt.Errorf("%s has a line of %d fields for %s", file, len(f), user)
		}
		return f, nil
	}
	return nil, nil
}

// ReadFile reads a file of the host, also when the host is down. Absolute symbolic
// links in the path would lead outside the host and are refused.
func (h *Host) ReadFile(name string) ([]byte, error) {
	root, err := os.OpenRoot(h.file("."))
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	return fs.ReadFile(root.FS(), strings.TrimPrefix(name, "/"))
}
