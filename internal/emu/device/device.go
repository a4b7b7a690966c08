// Package device is a network device for tests, where no real one can be had: a Telnet
// server with a dialogue like that of Cisco IOS. It is strict: what it does not know it
// refuses, and every breach of the protocol is kept in Violations. It keeps state: accounts,
// interfaces, a running and a saved configuration, sessions. Only tests import it.
package device

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// User is an account of a device.
type User struct {
	Privilege int
	Kind      string // of the secret, "8" or "5"; other kinds let nobody in
	Secret    string
}

// Options say what a device is like.
type Options struct {
	Hostname     string            // default "R1"
	Users        map[string]User   // accounts from the start
	EnableSecret string            // plain; empty: nobody becomes privileged with "enable"
	Interfaces   map[string]bool   // name, and whether it is up
	Banner       string            // before the login, lines ended by "\n"
	Motd         string            // after the login
	ARP          map[string]string // address and hardware address
	MaxFail      int               // "aaa local authentication attempts max-fail"; level 15 is never locked. 0: none is
}

// Faults is what goes wrong. The zero value is nothing.
type Faults struct {
	HangAt     string // a command that begins so is not answered, nor done
	CutAt      string // the connection ends when a command begins so, before it is done
	CutAfter   string // … after it was done, before the answer
	Deaf       bool   // configuration is accepted and not done
	SaveFails  bool   // "write memory" fails
	EchoSecret bool   // passwords are echoed
	Dribble    bool   // every byte is sent by itself
	AlwaysPage bool   // "terminal length 0" is refused
	OldSecrets bool   // secrets of type 8 are not known
}

// Device is a running device.
type Device struct {
	Addr string
	Port int

	listener net.Listener
	stop     context.CancelFunc
	wg       sync.WaitGroup

	mu         sync.Mutex
	options    Options
	users      map[string]User
	saved      string
	interfaces map[string]bool
	events     []string // of interfaces
	faults     Faults
	sessions   map[*session]bool
	commands   []string
	violations []string
	failed     map[string]int // wrong passwords since the last right one
}

// Start starts a device on a loopback port of its own.
func Start(o Options) (*Device, error) {
	if o.Hostname == "" {
		o.Hostname = "R1"
	}
	ctx, stop := context.WithCancel(context.Background())
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		stop()
		return nil, err
	}
	address := listener.Addr().(*net.TCPAddr)
	d := &Device{
		Addr: address.IP.String(), Port: address.Port, listener: listener, stop: stop, options: o,
		users: maps.Clone(o.Users), interfaces: maps.Clone(o.Interfaces), sessions: map[*session]bool{}, failed: map[string]int{},
	}
	if d.users == nil {
		d.users = map[string]User{}
	}
	d.saved = strings.Join(d.config(), "\n")
	d.wg.Go(func() { d.accept(ctx) })
	return d, nil
}

// Close ends the device and every session.
func (d *Device) Close() {
	d.stop()
	_ = d.listener.Close()
	d.mu.Lock()
	for s := range d.sessions {
		_ = s.conn.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

func (d *Device) accept(ctx context.Context) {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		number := 2 // absolute; 0 is the console
		for slices.ContainsFunc(slices.Collect(maps.Keys(d.sessions)), func(s *session) bool { return s.number == number }) {
			number++
		}
		s := newSession(d, conn, number)
		d.sessions[s] = true
		d.mu.Unlock()
		d.wg.Go(func() {
			defer func() {
				_ = conn.Close()
				d.mu.Lock()
				delete(d.sessions, s)
				d.mu.Unlock()
			}()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			s.serve()
		})
	}
}

// SetFaults changes what goes wrong from now on.
func (d *Device) SetFaults(f Faults) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = f
}

func (d *Device) fault() Faults {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.faults
}

// User is an account as it is now.
func (d *Device) User(name string) (User, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	u, ok := d.users[name]
	return u, ok
}

// SetUser makes or changes an account behind everybody's back.
func (d *Device) SetUser(name string, u User) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users[name] = u
}

// Failed is how many wrong passwords were given for an account since the last right one.
func (d *Device) Failed(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed[name]
}

// LockOut counts as many wrong passwords for an account as lock it.
func (d *Device) LockOut(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed[name] = max(d.failed[name], d.options.MaxFail)
}

// LockedOut are the accounts that are locked after wrong passwords.
func (d *Device) LockedOut() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(d.failed)) {
		if u, ok := d.users[name]; ok && u.Privilege < 15 && d.options.MaxFail > 0 && d.failed[name] >= d.options.MaxFail {
			names = append(names, name)
		}
	}
	return names
}

// tries is a login that counts.
func (d *Device) tries(name, password string) bool {
	ok := d.LoginWorks(name, password) && !slices.Contains(d.LockedOut(), name)
	d.mu.Lock()
	defer d.mu.Unlock()
	if ok {
		delete(d.failed, name)
	} else {
		d.failed[name]++
	}
	return ok
}

// LoginWorks reports whether the device would let a user in.
func (d *Device) LoginWorks(name, password string) bool {
	u, ok := d.User(name)
	return ok && u.Kind == "8" && fits(u.Secret, password)
}

// Running is the running configuration.
func (d *Device) Running() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.config(), "\n")
}

// Saved is the configuration the device would start with.
func (d *Device) Saved() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.saved
}

// InterfaceEvents are the changes of interfaces, as "NAME down" and "NAME up".
func (d *Device) InterfaceEvents() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.events)
}

// Commands are the lines typed at prompts, without passwords.
func (d *Device) Commands() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.commands)
}

// Violations are breaches of Telnet by clients.
func (d *Device) Violations() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.violations)
}

// Sessions are the users logged in.
func (d *Device) Sessions() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var users []string
	for s := range d.sessions {
		if s.user != "" {
			users = append(users, s.user)
		}
	}
	slices.Sort(users)
	return users
}

func (d *Device) violation(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.violations = append(d.violations, fmt.Sprintf(format, args...))
}

// config writes the running configuration; d.mu is held.
func (d *Device) config() []string {
	lines := []string{"version 15.7", "hostname " + d.options.Hostname}
	if d.options.EnableSecret != "" {
		lines = append(lines, "enable secret 8 "+Secret(d.options.EnableSecret, "enableenableen"))
	}
	for _, name := range slices.Sorted(maps.Keys(d.users)) {
		u := d.users[name]
		line := "username " + name
		if u.Privilege != 1 {
			line += fmt.Sprintf(" privilege %d", u.Privilege)
		}
		if u.Kind != "" {
			line += " secret " + u.Kind + " " + u.Secret
		}
		lines = append(lines, line)
	}
	for _, name := range slices.Sorted(maps.Keys(d.interfaces)) {
		lines = append(lines, "interface "+name)
		if !d.interfaces[name] {
			lines = append(lines, " shutdown")
		}
	}
	return append(lines, "snmp-server community s3cr3t-community RO", "line vty 0 4", " login local", " transport input telnet", "end")
}

var (
	crypt64    = base64.NewEncoding("./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz").WithPadding(base64.NoPadding)
	secretForm = regexp.MustCompile(`^\$8\$[./0-9A-Za-z]{14}\$[./0-9A-Za-z]{43}$`)
)

// Secret hashes a password as type 8, with 14 characters of salt.
func Secret(password, salt string) string {
	key, err := pbkdf2.Key(sha256.New, password, []byte(salt), 20000, 32)
	if err != nil {
		panic(err)
	}
	return "$8$" + salt + "$" + crypt64.EncodeToString(key)
}

func fits(secret, password string) bool {
	return secretForm.MatchString(secret) && Secret(password, secret[3:17]) == secret
}
