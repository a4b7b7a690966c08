package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"

	"github.com/reeve-pam/reeve/internal/testlab"
)

// target is a system on which accounts are provisioned, with an outside view of it.
type target struct {
	name, site, connector, address, role string
	management, password                 string
	host                                 *testlab.Host     // one of these two
	db                                   *testlab.Database //
}

// targets are all of them.
type targets struct {
	*testlab.Lab
	all []*target
}

func startTargets(ctx context.Context) (*targets, error) {
	lab, err := testlab.Open(ctx, "")
	if err != nil {
		return nil, err
	}
	t := &targets{Lab: lab, all: []*target{
		{name: "web01", site: "dmz", connector: "ssh", role: "linux-admin-sudo", management: "root"},
		{name: "web02", site: "dmz", connector: "ssh", role: "linux-admin-sudo", management: "ops"},
		{name: "app01", site: "lan", connector: "ssh", role: "linux-admin-sudo", management: "root"},
		{name: "app02", site: "lan", connector: "ssh", role: "linux-admin-sudo", management: "root"},
		{name: "shop", site: "lan", connector: "mysql", role: "mysql-db-rw"},
	}}
	var wg sync.WaitGroup
	errs := make([]error, len(t.all))
	for i, g := range t.all {
		wg.Go(func() { errs[i] = g.start(lab) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	return t, nil
}

func (g *target) start(lab *testlab.Lab) (err error) {
	if g.connector == "mysql" {
		if g.db, err = lab.MariaDB(testlab.MariaDBOptions{}); err == nil {
			g.address, g.management, g.password = g.db.Addr, testlab.Management, g.db.ManagementPassword
		}
		return err
	}
	g.password = rand.Text()
	sudo := testlab.SudoNone
	if g.management != "root" {
		sudo = testlab.SudoPassword
	}
	g.host, err = lab.SSHHost(testlab.HostOptions{Name: g.name, Accounts: []testlab.HostAccount{{Name: g.management, Password: g.password, Sudo: sudo}}})
	if err == nil {
		g.address = g.host.Addr
	}
	return err
}

// login tries the account with a plain client.
func (g *target) login(ctx context.Context, user, password string) error {
	if g.db != nil {
		return g.db.Login(ctx, user, password)
	}
	return g.host.Login(ctx, user, password)
}

// refuses fails unless the target refuses the login.
func (g *target) refuses(ctx context.Context, user, password string) error {
	err := g.login(ctx, user, password)
	if err == nil {
		return fmt.Errorf("%s: %s could log in and must not", g.name, user)
	}
	if !errors.Is(err, testlab.ErrRefused) {
		return fmt.Errorf("%s: %w", g.name, err)
	}
	return nil
}

// record is what the target's own files say of the account.
type record struct {
	exists, locked bool
	hash           string
}

// record reads /etc/shadow or mysql.global_priv.
func (g *target) record(ctx context.Context, user string) (record, error) {
	if g.host != nil {
		e, ok, err := g.host.Shadow(user)
		return record{exists: ok, locked: ok && e.Locked(), hash: e.Hash}, err
	}
	priv, ok, err := g.db.GlobalPriv(ctx, user, "%")
	if err != nil || !ok {
		return record{exists: ok}, err
	}
	locked, _ := priv["account_locked"].(bool)
	hash, _ := priv["authentication_string"].(string)
	return record{exists: true, locked: locked, hash: hash}, nil
}

// expect fails unless the target's own files say so.
func (g *target) expect(ctx context.Context, user string, exists, locked bool) error {
	r, err := g.record(ctx, user)
	if err != nil {
		return fmt.Errorf("%s: %w", g.name, err)
	}
	if r.exists != exists || r.locked != locked {
		return fmt.Errorf("%s: the target's own files say exists=%v locked=%v of %s, not %v and %v", g.name, r.exists, r.locked, user, exists, locked)
	}
	if exists && r.hash == "" {
		return fmt.Errorf("%s: the target's own files have no password hash of %s", g.name, user)
	}
	return nil
}
