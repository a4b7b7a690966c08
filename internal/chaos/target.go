//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the hash of mysql_native_password
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
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
	host                                 *testlab.Host // one of these two
	db                                   *testlab.Database

	mu       sync.Mutex
	down     bool // crashed
	hung     bool
	full     bool
	readonly bool
}

func newTarget(lab *testlab.Lab, net *testlab.Network, name string) (*target, error) {
	g := &target{name: name, site: siteOf[name]}
	var err error
	if name == database {
		if g.db, err = lab.MariaDB(testlab.MariaDBOptions{Node: net.Node(name)}); err != nil {
			return nil, err
		}
		g.connector, g.role, g.address = "mysql", "mysql-db-rw", g.db.Addr
		g.management, g.password = testlab.Management, g.db.ManagementPassword
		return g, nil
	}
	g.connector, g.role, g.management, g.password = "ssh", "linux-admin-sudo", "root", rand.Text()
	g.host, err = lab.SSHHost(testlab.HostOptions{Name: name, Node: net.Node(name),
		Accounts: []testlab.HostAccount{{Name: "root", Password: g.password}}})
	if err != nil {
		return nil, err
	}
	g.address = g.host.Addr
	return g, nil
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
		if g.db != nil {
			g.db.Crash()
		} else {
			g.host.Crash()
		}
		return true
	case "hang":
		if g.db != nil {
			g.hung = g.db.Hang() == nil
		} else {
			g.hung = g.host.Hang() == nil
		}
		return g.hung
	case "full":
		g.full = g.host.FillDisk() == nil
		return g.full
	default: // readonly
		if g.db != nil {
			g.readonly = g.db.ReadOnly(ctx) == nil
		} else {
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
	if g.db != nil {
		undo(&g.hung, g.db.Resume)
		if g.down {
			g.readonly = false // it forgets
		}
		undo(&g.down, g.db.Restart)
		undo(&g.readonly, func() error { return g.db.ReadWrite(ctx) })
		return errors.Join(errs...)
	}
	undo(&g.hung, g.host.Resume)
	undo(&g.down, g.host.Restart)
	undo(&g.readonly, g.host.ReadWrite)
	undo(&g.full, g.host.FreeDisk)
	return errors.Join(errs...)
}

// login tries the account with a plain client.
func (g *target) login(ctx context.Context, user string, password reeve.Secret) error {
	if g.db != nil {
		return g.db.Login(ctx, user, password.Reveal())
	}
	return g.host.Login(ctx, user, password.Reveal())
}

// entry is what the target's own files say of one account.
type entry struct {
	name   string
	times  int  // how often it is there
	locked bool // of the first
	hash   string
}

// entries reads every account with the prefix from /etc/passwd and /etc/shadow, or from
// mysql.global_priv.
func (g *target) entries(ctx context.Context, prefix string) (map[string]*entry, error) {
	out := map[string]*entry{}
	at := func(name string) *entry {
		if out[name] == nil {
			out[name] = &entry{name: name}
		}
		return out[name]
	}
	if g.db != nil {
		rows, err := g.db.Root().QueryContext(ctx, "SELECT User, COALESCE(JSON_VALUE(Priv, '$.account_locked'), '0'), "+
			"COALESCE(JSON_VALUE(Priv, '$.authentication_string'), '') FROM mysql.global_priv WHERE User LIKE ?", prefix+"%")
		if err != nil {
			return nil, err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var name, locked, hash string
			if err := rows.Scan(&name, &locked, &hash); err != nil {
				return nil, err
			}
			e := at(name)
			if e.times++; e.times == 1 {
				e.locked, e.hash = locked == "1" || locked == "true", hash
			}
		}
		return out, rows.Err()
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

// matches reports whether the hash the target keeps is that of the password.
func (g *target) matches(ctx context.Context, hash string, password reeve.Secret) (bool, error) {
	if g.db != nil {
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
