package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/internal/fleet"
)

type step struct {
	title string
	do    func(context.Context) error
}

const user = "pam_alice" // prefix and name

// story is what the demo does, in order.
func (d *demo) story() []step {
	return []step{
		{"start 4 Linux hosts and a MariaDB", d.startTargets},
		{"bootstrap the first controller and start it", d.bootstrap},
		{"join two more; all three vote", d.joinControllers},
		{"register the connectors ssh and mysql", d.registerConnectors},
		{"enrol and start an agent in each of the sites dmz and lan", d.enrolAgents},
		{"add 5 assets; approve host keys; verify management accounts", d.addAssets},
		{"plan: show what would be done, and touch nothing", d.dryRun},
		{"provision pam_alice on 5 assets; log in to each with a plain client", d.provision},
		{"rotate all 5; old passwords are refused, new ones work", d.rotateAll},
		{"kill -9 the leading controller; rotate all 5 through its successor", d.killLeader},
		{"disable: logins are refused, the targets' own files say locked", d.disable},
		{"enable: logins work again", d.enable},
		{"change a password behind Reeve's back; verify notices, rotate heals", d.outOfBand},
		{"deprovision on web02: gone from /etc/passwd and /etc/shadow", d.deprovision},
		{"export the audit trail and prove it whole, offline", d.audit},
		{"every account left logs in with a plain client", d.lastLook},
	}
}

func (d *demo) startTargets(ctx context.Context) (err error) {
	d.lab, err = startTargets(ctx)
	return err
}

func (d *demo) bootstrap(ctx context.Context) (err error) {
	if d.cluster, err = fleet.New(fleet.Options{Dir: d.dir, Bin: d.bin}); err != nil {
		return err
	}
	for range 3 {
		if _, err := d.cluster.AddController(fleet.ControllerOptions{}); err != nil {
			return err
		}
	}
	return d.cluster.Bootstrap(ctx)
}

func (d *demo) joinControllers(ctx context.Context) error { return d.cluster.Join(ctx) }

func (d *demo) registerConnectors(ctx context.Context) error {
	return d.cluster.RegisterConnectors(ctx)
}

func (d *demo) enrolAgents(ctx context.Context) error {
	for _, site := range []string{"dmz", "lan"} {
		if _, err := d.cluster.AddAgent(ctx, fleet.AgentOptions{Name: site + "-1", Site: site}); err != nil {
			return err
		}
	}
	return nil
}

// each does something on all targets at once.
func (d *demo) each(do func(*target) error) error {
	var wg sync.WaitGroup
	errs := make([]error, len(d.lab.all))
	for i, g := range d.lab.all {
		wg.Go(func() { errs[i] = do(g) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (d *demo) addAssets(ctx context.Context) error {
	return d.each(func(g *target) error {
		args := []string{"asset", "add", g.name, "--site", g.site, "--connector", g.connector, "--address", g.address,
			"--username", g.management, "--password-file", "-"}
		if g.db != nil {
			ca := filepath.Join(d.dir, g.name+"-ca.pem")
			if err := os.WriteFile(ca, []byte(g.db.CAPEM), 0o600); err != nil {
				return err
			}
			return d.cluster.CLI(ctx, g.password, nil, append(args, "--asset-ca-file", ca, "--watch")...)
		}
		if err := d.cluster.CLI(ctx, g.password, nil, args...); err != nil {
			return err
		}
		// First contact: the key waits for approval. Compare it with the host's own.
		var asset struct {
			Pending string `json:"pending_fingerprint"`
		}
		err := fleet.Eventually(ctx, 20*time.Second, func(ctx context.Context) error {
			if err := d.cluster.CLI(ctx, "", &asset, "asset", "show", g.name); err != nil {
				return err
			}
			if asset.Pending == "" {
				return fmt.Errorf("%s: no host key was seen yet", g.name)
			}
			return nil
		})
		if err != nil {
			return err
		}
		own, err := fingerprint(g.host.HostKey())
		if err != nil {
			return err
		}
		if own != asset.Pending {
			return fmt.Errorf("%s: Reeve saw %s, the host has %s", g.name, asset.Pending, own)
		}
		if err := d.cluster.CLI(ctx, "", nil, "asset", "trust", g.name, "--fingerprint", own); err != nil {
			return err
		}
		return d.cluster.CLI(ctx, "", nil, "asset", "verify", g.name)
	})
}

func (d *demo) assetNames(connector string) string {
	var names []string
	for _, g := range d.lab.all {
		if g.connector == connector {
			names = append(names, g.name)
		}
	}
	return strings.Join(names, ",")
}

func (d *demo) dryRun(ctx context.Context) error {
	var accounts []struct {
		State string
		Plans []struct{ Hash string }
	}
	if err := d.cluster.CLI(ctx, "", &accounts, "account", "provision", "alice", "--prefix", "pam_", "--role", "linux-admin-sudo",
		"--asset", d.assetNames("ssh"), "--dry-run", "--watch"); err != nil {
		return err
	}
	for _, a := range accounts {
		if len(a.Plans) == 0 {
			return fmt.Errorf("an account in state %s has no plan", a.State)
		}
	}
	return d.each(func(g *target) error { return g.expect(ctx, user, false, false) })
}

func (d *demo) provision(ctx context.Context) error {
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() {
		errs[0] = d.cluster.CLI(ctx, "", nil, "account", "provision", "alice", "--prefix", "pam_", "--role", "linux-admin-sudo",
			"--asset", d.assetNames("ssh"), "--owner", "bob", "--description", "demo", "--watch")
	})
	wg.Go(func() {
		errs[1] = d.cluster.CLI(ctx, "", nil, "account", "provision", "alice", "--prefix", "pam_", "--role", "mysql-db-rw",
			"--param", "Database=app", "--asset", d.assetNames("mysql"), "--owner", "bob", "--watch")
	})
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	return d.lastLook(ctx)
}

// reveal gets the password the vault holds.
func (d *demo) reveal(ctx context.Context, g *target) (string, error) {
	var s struct{ Password string }
	err := d.cluster.CLI(ctx, "", &s, "account", "reveal", user+"@"+g.name, "--reason", "demo: log in with a plain client")
	return s.Password, err
}

// lastLook proves by plain clients and the targets' own files that every account works.
func (d *demo) lastLook(ctx context.Context) error {
	return d.each(func(g *target) error {
		var account struct{ State string }
		if err := d.cluster.CLI(ctx, "", &account, "account", "show", user+"@"+g.name); err != nil {
			if d.gone(g) {
				return g.expect(ctx, user, false, false)
			}
			return err
		}
		pw, err := d.reveal(ctx, g)
		if err != nil {
			return err
		}
		if err := g.login(ctx, user, pw); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		return g.expect(ctx, user, true, false)
	})
}

// gone reports whether the story has removed the account from the target.
func (d *demo) gone(g *target) bool { return g.name == "web02" && d.steps >= 14 }

func (d *demo) act(ctx context.Context, action string) error {
	return d.each(func(g *target) error {
		return d.cluster.CLI(ctx, "", nil, "account", action, user+"@"+g.name, "--watch")
	})
}

func (d *demo) rotateAll(ctx context.Context) error {
	old := make([]string, len(d.lab.all))
	for i, g := range d.lab.all {
		pw, err := d.reveal(ctx, g)
		if err != nil {
			return err
		}
		old[i] = pw
	}
	if err := d.act(ctx, "rotate"); err != nil {
		return err
	}
	for i, g := range d.lab.all {
		if err := g.refuses(ctx, user, old[i]); err != nil {
			return err
		}
	}
	return d.lastLook(ctx)
}

func (d *demo) killLeader(ctx context.Context) error {
	leader, err := d.cluster.Leader(ctx)
	if err != nil {
		return err
	}
	leader.Kill()
	err = fleet.Eventually(ctx, 20*time.Second, func(ctx context.Context) error {
		_, err := d.cluster.Leader(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if err := d.rotateAll(ctx); err != nil {
		return err
	}
	return leader.Start()
}

func (d *demo) disable(ctx context.Context) error {
	if err := d.act(ctx, "disable"); err != nil {
		return err
	}
	return d.each(func(g *target) error {
		pw, err := d.reveal(ctx, g)
		if err != nil {
			return err
		}
		return errors.Join(g.refuses(ctx, user, pw), g.expect(ctx, user, true, true))
	})
}

func (d *demo) enable(ctx context.Context) error {
	if err := d.act(ctx, "enable"); err != nil {
		return err
	}
	return d.lastLook(ctx)
}

func (d *demo) outOfBand(ctx context.Context) error {
	g := d.lab.all[0]
	if err := g.host.SetPassword(user, "somebody-else-chose-this"); err != nil {
		return err
	}
	if err := d.cluster.CLI(ctx, "", nil, "account", "verify", user+"@"+g.name, "--watch"); err == nil {
		var a struct{ Sync string }
		if err := d.cluster.CLI(ctx, "", &a, "account", "show", user+"@"+g.name); err != nil || a.Sync == "in_sync" {
			return errors.Join(err, fmt.Errorf("verify did not notice; sync is %s", a.Sync))
		}
	}
	err := fleet.Eventually(ctx, 30*time.Second, func(ctx context.Context) error {
		var a struct{ Sync string }
		if err := d.cluster.CLI(ctx, "", &a, "account", "show", user+"@"+g.name); err != nil {
			return err
		}
		if a.Sync == "in_sync" {
			return nil
		}
		_ = d.cluster.CLI(ctx, "", nil, "account", "rotate", user+"@"+g.name, "--watch") // unless healing is at it already
		return fmt.Errorf("sync is %s", a.Sync)
	})
	if err != nil {
		return err
	}
	return errors.Join(g.refuses(ctx, user, "somebody-else-chose-this"), d.lastLook(ctx))
}

func (d *demo) deprovision(ctx context.Context) error {
	g := d.lab.all[1]
	if err := d.cluster.CLI(ctx, "", nil, "account", "deprovision", user+"@"+g.name, "--watch"); err != nil {
		return err
	}
	if _, ok, err := g.host.Passwd(user); err != nil || ok {
		return errors.Join(err, fmt.Errorf("%s is still in /etc/passwd: %v", user, ok))
	}
	return g.expect(ctx, user, false, false)
}

func (d *demo) audit(ctx context.Context) error {
	out, err := d.cluster.Run(ctx, "", "reeve", "--context", d.cluster.Context(), "audit", "export")
	if err != nil {
		return err
	}
	path := filepath.Join(d.dir, "trail.jsonl")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		return err
	}
	if _, err := d.cluster.Run(ctx, "", "reeve", "audit", "verify", path); err != nil {
		return err
	}
	tampered := strings.Replace(string(out), "secret.reveal", "secret.conceal", 1)
	if tampered == string(out) {
		return errors.New("the trail has no reveal in it")
	}
	if err := os.WriteFile(path+".tampered", []byte(tampered), 0o600); err != nil {
		return err
	}
	if _, err := d.cluster.Run(ctx, "", "reeve", "audit", "verify", path+".tampered"); err == nil {
		return errors.New("a changed trail was taken for whole")
	}
	return nil
}
