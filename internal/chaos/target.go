//go:build linux

package main

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the hash of mysql_native_password
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// target is a system accounts are made on, with a view of it that owes nothing to Reeve:
// plain clients and its own files.
type target struct {
	name, site, connector, role, address string
	management, password                 string
	ca                                   *string // of a server with TLS
	params, options                      *map[string]string

	server server
	host   *testlab.Host // the server, as one of these
	db     *testlab.Database
	pg     *testlab.PostgresServer
	dc     *testlab.DomainController

	mu       sync.Mutex
	down     bool // crashed
	hung     bool
	full     bool
	readonly bool
}

// server is what all kinds of targets can do, and what can be done to them.
type server interface {
	Login(ctx context.Context, user, password string) error
	Crash()
	Restart() error
	Hang() error
	Resume() error
}

func newTarget(ctx context.Context, lab *testlab.Lab, net *testlab.Network, name string) (*target, error) {
	g := &target{name: name, site: siteOf[name], management: testlab.Management}
	var err error
	switch name {
	case database:
		if g.db, err = lab.MariaDB(testlab.MariaDBOptions{Node: net.Node(name)}); err != nil {
			return nil, err
		}
		g.connector, g.role, g.server, g.params = "mysql", "mysql-db-rw", g.db, &map[string]string{"Database": "app"}
		g.address, g.password, g.ca = g.db.Addr, g.db.ManagementPassword, &g.db.CAPEM
	case ledger:
		if g.pg, err = lab.Postgres(testlab.PostgresOptions{Node: net.Node(name)}); err != nil {
			return nil, err
		}
		g.connector, g.role, g.server, g.params = "postgres", "pg-db-ro", g.pg, &map[string]string{"Database": "app", "Schema": "public"}
		g.address, g.password, g.ca = g.pg.Addr, g.pg.ManagementPassword, &g.pg.CAPEM
	case domain:
		if g.dc, err = lab.SambaAD(testlab.SambaOptions{Node: net.Node(name)}); err != nil {
			return nil, err
		}
		const group = "helpdesk"
		err = g.dc.Add(ctx, "CN="+group+","+testlab.GroupsOU, map[string][]string{"objectClass": {"group"}, "sAMAccountName": {group}})
		g.connector, g.role, g.server, g.params = "ad", "ad-helpdesk", g.dc, &map[string]string{"Group": group}
		g.address, g.password, g.ca = g.dc.Addr, g.dc.ManagementPassword, &g.dc.CAPEM
		g.options = &map[string]string{"account_ou": testlab.AccountsOU}
	default:
		g.connector, g.role, g.management, g.password = "ssh", "linux-admin-sudo", "root", rand.Text()
		g.host, err = lab.SSHHost(testlab.HostOptions{Name: name, Node: net.Node(name),
			Accounts: []testlab.HostAccount{{Name: "root", Password: g.password}}})
		if err != nil {
			return nil, err
		}
		g.address, g.server = g.host.Addr, g.host
	}
	return g, err
}

// hit does a fault to the target; false: it could not take it.
func (g *target) hit(ctx context.Context, kind string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down || g.hung {
		return false
	}
	switch kind {
	case "crash":
		g.down = true
		g.server.Crash()
		return true
	case "hang":
		g.hung = g.server.Hang() == nil
		return g.hung
	case "full":
		g.full = g.host.FillDisk() == nil
		return g.full
	default: // readonly
		switch {
		case g.db != nil:
			g.readonly = g.db.ReadOnly(ctx) == nil
		case g.pg != nil:
			g.readonly = g.pg.ReadOnly(ctx) == nil
		default:
			g.readonly = g.host.ReadOnly() == nil // refused while a file is open for writing
		}
		return g.readonly
	}
}

// heal undoes every fault.
func (g *target) heal(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	undo := func(is *bool, how func() error) {
		if !*is {
			return
		}
		if err := how(); err != nil {
			errs = append(errs, fmt.Errorf("heal %s: %w", g.name, err))
			return
		}
		*is = false
	}
	undo(&g.hung, g.server.Resume)
	if g.down && g.db != nil {
		g.readonly = false // it forgets
	}
	undo(&g.down, g.server.Restart)
	undo(&g.readonly, func() error {
		switch {
		case g.db != nil:
			return g.db.ReadWrite(ctx)
		case g.pg != nil:
			return g.pg.ReadWrite(ctx)
		default:
			return g.host.ReadWrite()
		}
	})
	if g.host != nil {
		undo(&g.full, g.host.FreeDisk)
	}
	return errors.Join(errs...)
}

// login tries the account with a plain client.
func (g *target) login(ctx context.Context, user string, password reeve.Secret) error {
	return g.server.Login(ctx, user, password.Reveal())
}

// entry is what the target's own files say of one account.
type entry struct {
	name   string
	times  int  // how often it is there
	locked bool // of the first
	hash   string
}

// Accounts with a prefix: name, whether it is locked, hash.
const (
	ofMariaDB = "SELECT User, COALESCE(JSON_VALUE(Priv, '$.account_locked'), '0') IN ('1', 'true'), " +
		"COALESCE(JSON_VALUE(Priv, '$.authentication_string'), '') FROM mysql.global_priv WHERE User LIKE ?"
	ofPostgres = "SELECT rolname::text, NOT rolcanlogin, COALESCE(rolpassword, '') FROM pg_authid WHERE rolname LIKE $1"
)

// entries reads every account with the prefix from /etc/passwd and /etc/shadow, from
// mysql.global_priv, from pg_authid, or as the administrator from the directory.
func (g *target) entries(ctx context.Context, prefix string) (map[string]*entry, error) {
	switch {
	case g.db != nil:
		return rows(ctx, g.db.Root(), ofMariaDB, prefix)
	case g.pg != nil:
		return rows(ctx, g.pg.Root(), ofPostgres, prefix)
	case g.dc != nil:
		return g.users(ctx, prefix)
	default:
		return g.files(prefix)
	}
}

func rows(ctx context.Context, db *sql.DB, statement, prefix string) (map[string]*entry, error) {
	rows, err := db.QueryContext(ctx, statement, prefix+"%")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	out := map[string]*entry{}
	for rows.Next() {
		var e entry
		if err := rows.Scan(&e.name, &e.locked, &e.hash); err != nil {
			return nil, err
		}
		if out[e.name] == nil {
			out[e.name] = &e
		}
		out[e.name].times++
	}
	return out, rows.Err()
}

// accountDisabled is a bit of userAccountControl (MS-ADTS 2.2.16).
const accountDisabled = 2

// users are those of the unit in which Reeve makes accounts. Nobody is shown their hashes.
func (g *target) users(ctx context.Context, prefix string) (map[string]*entry, error) {
	found, err := g.dc.Search(ctx, "(&(objectClass=user)(sAMAccountName="+prefix+"*))", "sAMAccountName", "userAccountControl")
	if err != nil {
		return nil, err
	}
	out := map[string]*entry{}
	for _, e := range found {
		if !strings.HasSuffix(e.DN, ","+testlab.AccountsOU) {
			continue
		}
		name := e.GetAttributeValue("sAMAccountName")
		control, err := strconv.Atoi(e.GetAttributeValue("userAccountControl"))
		if err != nil {
			return nil, err
		}
		out[name] = &entry{name: name, times: 1, locked: control&accountDisabled != 0}
	}
	return out, nil
}

func (g *target) files(prefix string) (map[string]*entry, error) {
	out := map[string]*entry{}
	at := func(name string) *entry {
		if out[name] == nil {
			out[name] = &entry{name: name}
		}
		return out[name]
	}
	passwd, err := g.host.ReadFile("etc/passwd")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(passwd)) {
		if name, _, _ := strings.Cut(line, ":"); strings.HasPrefix(name, prefix) {
			at(name).times++
		}
	}
	shadow, err := g.host.ReadFile("etc/shadow")
	if err != nil {
		return nil, err
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(shadow)) {
		f := strings.Split(line, ":")
		if len(f) < 2 || !strings.HasPrefix(f[0], prefix) {
			continue
		}
		e := at(f[0])
		if seen[f[0]]++; seen[f[0]] == 1 {
			e.locked, e.hash = strings.HasPrefix(f[1], "!"), strings.TrimPrefix(f[1], "!")
		}
		e.times = max(e.times, seen[f[0]])
	}
	return out, nil
}

// matches reports whether the password the target keeps for an account is the one given:
// by its hash, or, where that is not shown, by the directory's answer to it.
func (g *target) matches(ctx context.Context, e *entry, password reeve.Secret) (bool, error) {
	hash := e.hash
	switch {
	case g.dc != nil:
		err := g.login(ctx, e.name, password)
		if errors.Is(err, testlab.ErrRefused) { // 533: the account is disabled, said only to who has the password
			return strings.HasSuffix(err.Error(), "data 533"), nil
		}
		return err == nil, err
	case g.pg != nil:
		return scramMatches(hash, password.Reveal())
	case g.db != nil:
		once := sha1.Sum([]byte(password.Reveal())) //nolint:gosec // see above
		twice := sha1.Sum(once[:])                  //nolint:gosec // see above
		return hash == "*"+strings.ToUpper(hex.EncodeToString(twice[:])), nil
	}
	// Go has no crypt(3); perl is part of every Debian. What it reads are a password of
	// a lab host and its hash, by standard input.
	cmd := exec.CommandContext(ctx, "perl", "-e", `chomp(my @l = <STDIN>); print crypt($l[0], $l[1]) eq $l[1] ? "yes" : "no"`)
	cmd.Stdin = strings.NewReader(password.Reveal() + "\n" + hash + "\n")
	out, err := cmd.Output()
	if err != nil {
		return false, fmt.Errorf("crypt(3): %w", err)
	}
	return string(out) == "yes", nil
}

// scramMatches holds a password against what PostgreSQL stores of it,
// "SCRAM-SHA-256$rounds:salt$StoredKey:ServerKey" (RFC 5803).
func scramMatches(verifier, password string) (bool, error) {
	parts := strings.FieldsFunc(verifier, func(r rune) bool { return r == '$' || r == ':' })
	if len(parts) != 5 || parts[0] != "SCRAM-SHA-256" {
		return false, fmt.Errorf("PostgreSQL keeps no SCRAM verifier but %.20q", verifier)
	}
	rounds, err := strconv.Atoi(parts[1])
	salt, saltErr := base64.StdEncoding.DecodeString(parts[2])
	if err = errors.Join(err, saltErr); err != nil {
		return false, err
	}
	key, err := pbkdf2.Key(sha256.New, password, salt, rounds, sha256.Size)
	if err != nil {
		return false, err
	}
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte("Client Key")) // never fails
	stored := sha256.Sum256(mac.Sum(nil))
	return parts[3] == base64.StdEncoding.EncodeToString(stored[:]), nil
}
