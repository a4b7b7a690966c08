// Package toy is a target and a connector for it, for tests of everything that hosts
// connectors. A Machine is a small account server on a TCP port of the test process;
// Connector is a complete connector for it, and connector-toy beside this package is
// that connector as a plugin program. Tests look at a Machine directly, not through
// the connector. Tests import it, and the command line, which gives authors a copy of
// the connector to begin with.
package toy

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Management is the user name of every machine's management account.
const Management = "root"

// NoGroup is a group that no machine has.
const NoGroup = "nogroup"

// Machine is a target. Its methods are safe for concurrent use.
type Machine struct {
	listener net.Listener
	key      string
	password string // of the management account
	conns    sync.WaitGroup

	mu       sync.Mutex
	accounts map[string]Account
	nextID   int
	open     map[net.Conn]string // who is logged in
	faults   Faults
	requests []string
	refused  map[string]int // logins, by name
}

// Faults is what a Machine does wrong, until set otherwise. Names are those of
// requests: login, get, list, run, create, expire, password, lock, unlock, group, remove.
type Faults struct {
	Hang      string // never answer this request
	CutBefore string // close the connection instead of doing this request
	CutAfter  string // do this request, then close the connection without an answer
	Refuse    string // answer "not permitted" to this request
}

// NewMachine starts a machine that ends with the test.
func NewMachine(t testing.TB) *Machine {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{
		listener: listener,
		key:      "toy " + rand.Text(),
		password: rand.Text(),
		accounts: map[string]Account{},
		nextID:   1000,
		open:     map[net.Conn]string{},
		refused:  map[string]int{},
	}
	m.conns.Go(m.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		m.mu.Lock()
		for c := range m.open {
			_ = c.Close()
		}
		m.mu.Unlock()
		m.conns.Wait()
	})
	return m
}

// Target returns the machine as a target with pinned key and management credential.
func (m *Machine) Target() sdk.Target {
	host, port, _ := net.SplitHostPort(m.listener.Addr().String())
	n, _ := strconv.Atoi(port)
	return sdk.Target{
		Address: host,
		Port:    n,
		Trust:   sdk.Trust{HostKeys: []string{m.key}},
		Management: sdk.Credential{
			Username: Management, Password: sdk.NewSecret([]byte(m.password)),
		},
	}
}

// Set makes the machine misbehave.
func (m *Machine) Set(f Faults) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = f
}

// Account returns an account as it is.
func (m *Machine) Account(name string) (Account, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, ok := m.accounts[name]
	return a, ok
}

// Accounts returns all accounts as they are.
func (m *Machine) Accounts() map[string]Account {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.accounts)
}

// Put creates or replaces an account behind everybody's back.
func (m *Machine) Put(name string, a Account) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.ID == "" {
		a.ID = m.newID()
	}
	m.accounts[name] = a
}

// LoginWorks reports whether name could log in with password right now.
func (m *Machine) LoginWorks(name, password string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.login(name, password) == ""
}

// Requests returns the names of all requests so far, logins included.
func (m *Machine) Requests() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.requests)
}

// Refused returns how many logins as name were refused so far.
func (m *Machine) Refused(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.refused[name]
}

func (m *Machine) newID() string {
	m.nextID++
	return strconv.Itoa(m.nextID)
}

func (m *Machine) accept() {
	for {
		conn, err := m.listener.Accept()
		if err != nil {
			return
		}
		m.mu.Lock()
		m.open[conn] = ""
		m.mu.Unlock()
		m.conns.Go(func() { m.serve(conn) })
	}
}

func (m *Machine) serve(conn net.Conn) {
	defer func() {
		_ = conn.Close()
		m.mu.Lock()
		delete(m.open, conn)
		m.mu.Unlock()
	}()
	out := json.NewEncoder(conn)
	if out.Encode(response{Key: m.key}) != nil {
		return
	}
	var user string
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		var req request
		if json.Unmarshal(lines.Bytes(), &req) != nil {
			return
		}
		m.mu.Lock()
		m.requests = append(m.requests, req.Op)
		f := m.faults
		m.mu.Unlock()
		switch req.Op {
		case f.Hang:
			continue
		case f.CutBefore:
			return
		case f.Refuse:
			if out.Encode(response{Error: "not_permitted"}) != nil {
				return
			}
			continue
		}
		if req.Op == "run" && user == Management {
			if !run(conn, out, req.Text) {
				return
			}
			continue
		}
		res := m.do(&user, req)
		m.mu.Lock()
		m.open[conn] = user
		m.mu.Unlock()
		if req.Op == f.CutAfter || out.Encode(res) != nil {
			return
		}
	}
}

// longest is how long the command "wait" waits.
const longest = 30 * time.Second

// run does a command: "say WORDS", "warn WORDS", "many LINES", "wait" and "exit STATUS",
// separated by ";". It reports whether the client is still there.
func run(conn net.Conn, out *json.Encoder, command string) bool {
	status := 0
	for part := range strings.SplitSeq(command, ";") {
		word, rest, _ := strings.Cut(strings.TrimSpace(part), " ")
		n, _ := strconv.Atoi(rest)
		var err error
		switch word {
		case "say":
			err = out.Encode(response{Out: rest + "\n"})
		case "warn":
			err = out.Encode(response{Err: rest + "\n"})
		case "many":
			for i := range n {
				if err == nil {
					err = out.Encode(response{Out: fmt.Sprintf("line %d\n", i+1)})
				}
			}
		case "wait": // until the client hangs up
			_ = conn.SetReadDeadline(time.Now().Add(longest))
			_, err = conn.Read(make([]byte, 1))
		case "exit":
			status = n
		default:
			status = 127
		}
		if err != nil {
			return false
		}
	}
	return out.Encode(response{Status: &status}) == nil
}

func (m *Machine) do(user *string, req request) response {
	m.mu.Lock()
	defer m.mu.Unlock()
	if req.Op == "login" {
		if why := m.login(req.Name, req.Text); why != "" {
			m.refused[req.Name]++
			return response{Error: why}
		}
		*user = req.Name
		return response{}
	}
	if *user != Management {
		return response{Error: "not_permitted"}
	}
	if req.Op == "list" {
		all := maps.Clone(m.accounts)
		for name, a := range all {
			all[name] = a.public()
		}
		return response{Accounts: all}
	}
	a, exists := m.accounts[req.Name]
	if req.Op == "get" {
		if !exists {
			return response{}
		}
		a = a.public()
		a.Refused = m.refused[req.Name]
		for _, user := range m.open {
			if user == req.Name {
				a.Sessions++
			}
		}
		return response{Account: &a}
	}
	if exists == (req.Op == "create") {
		return response{Error: map[bool]string{true: "exists", false: "not_found"}[exists]}
	}
	switch req.Op {
	case "create":
		a = Account{ID: m.newID(), Owner: req.Account.Owner, Comment: req.Account.Comment, Expires: req.Account.Expires, Locked: true}
	case "password":
		a.Password, a.Changed, a.Change = req.Text, time.Now().UTC(), false
	case "expire":
		a.Expires = req.Account.Expires
	case "lock":
		a.Locked = true
		m.end(req.Name)
	case "unlock":
		a.Locked = false
	case "group":
		if req.Text == NoGroup {
			return response{Error: "not_found"}
		}
		if !slices.Contains(a.Groups, req.Text) {
			a.Groups = append(slices.Clone(a.Groups), req.Text)
		}
	case "remove":
		delete(m.accounts, req.Name)
		m.end(req.Name)
		return response{}
	default:
		return response{Error: "unknown"}
	}
	m.accounts[req.Name] = a
	return response{}
}

// end ends the sessions of an account. m.mu is held.
func (m *Machine) end(name string) {
	for conn, user := range m.open {
		if user == name {
			_ = conn.Close()
		}
	}
}

// Session logs in and stays until end is called.
func (m *Machine) Session(name, password string) (end func(), err error) {
	conn, err := net.Dial("tcp", m.listener.Addr().String())
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(conn)
	err = json.NewEncoder(conn).Encode(request{Op: "login", Name: name, Text: password})
	greeted := lines.Scan()
	if answered := lines.Scan(); !greeted || !answered || err != nil || lines.Text() != "{}" {
		_ = conn.Close()
		return nil, fmt.Errorf("toy: no login as %s: %s %w", name, lines.Text(), err)
	}
	return func() { _ = conn.Close() }, nil
}

// public is what the machine tells about an account.
func (a Account) public() Account {
	if a.Password != "" {
		a.Password = "x"
	}
	return a
}

func (a Account) expired() bool { return !a.Expires.IsZero() && time.Now().After(a.Expires) }

// login returns why name cannot log in, or "".
func (m *Machine) login(name, password string) string {
	if name == Management {
		if password == m.password {
			return ""
		}
		return "bad_credential"
	}
	a, ok := m.accounts[name]
	switch {
	case !ok || a.Password == "" || a.Password != password:
		return "bad_credential"
	case a.Disabled:
		return "bad_credential"
	case a.Locked:
		return "locked"
	case a.expired():
		return "expired"
	case a.Change:
		return "must_change"
	default:
		return ""
	}
}
