package systemtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// Target is a real system that a cluster knows as an asset, with an outside view of it:
// plain clients and its own files. One of Host, DB, Postgres and Domain is set.
type Target struct {
	Asset, Site string // names
	Host        *testlab.Host
	DB          *testlab.Database
	Postgres    *testlab.PostgresServer
	Domain      *testlab.DomainController
	Line        *Line // the cluster's way to it; nil: the straight one

	connector string
	role      string
	params    map[string]string
	options   map[string]string
	username  string // of the management account
	password  string
}

// HostTarget is a Linux host with the management account given.
func HostTarget(h *testlab.Host, username, password string) Target {
	return Target{Host: h, connector: "ssh", role: "linux-admin-sudo", username: username, password: password}
}

// TelnetTarget is a Linux host with a telnetd, which root may log in to.
func TelnetTarget(h *testlab.Host, password string) Target {
	return Target{Host: h, connector: "telnet", role: "telnet-admin", username: "root", password: password,
		options: map[string]string{"legacy": "yes"}}
}

// DatabaseTarget is a MariaDB server with its management account.
func DatabaseTarget(d *testlab.Database) Target {
	return Target{DB: d, connector: "mysql", role: "mysql-db-rw", params: map[string]string{"Database": "app"},
		username: testlab.Management, password: d.ManagementPassword}
}

// PostgresTarget is a PostgreSQL server with its management account.
func PostgresTarget(p *testlab.PostgresServer) Target {
	return Target{Postgres: p, connector: "postgres", role: "pg-db-ro", params: map[string]string{"Database": "app", "Schema": "public"},
		username: testlab.Management, password: p.ManagementPassword}
}

// DomainTarget is a domain with its management account. Accounts become members of the group.
func DomainTarget(d *testlab.DomainController, group string) Target {
	return Target{Domain: d, connector: "ad", role: "ad-helpdesk", params: map[string]string{"Group": group},
		options: map[string]string{"account_ou": testlab.AccountsOU}, username: testlab.Management, password: d.ManagementPassword}
}

// address is where the target answers, and how it proves that it is the right one.
func (g *Target) address() (r client.AssetRequest) {
	var port int
	switch {
	case g.Host != nil:
		r.Address, port, r.HostKeys = g.Host.Addr, g.Host.Port, &[]string{g.Host.HostKey()}
		if g.connector == "telnet" {
			port, r.HostKeys = testlab.TelnetPort, nil
		}
	case g.DB != nil:
		r.Address, port, r.CaPem = g.DB.Addr, g.DB.Port, &g.DB.CAPEM
	case g.Postgres != nil:
		r.Address, port, r.CaPem = g.Postgres.Addr, g.Postgres.Port, &g.Postgres.CAPEM
	default:
		r.Address, port, r.CaPem = g.Domain.Addr, ldapsPort, &g.Domain.CAPEM
	}
	r.Port = &port
	return r
}

const ldapsPort = 636

// Behind has the cluster reach the target by a line that can be cut.
func (g Target) Behind(t testing.TB) Target {
	r := g.address()
	g.Line = newLine(t, net.JoinHostPort(r.Address, strconv.Itoa(*r.Port)))
	return g
}

// AddAsset adds a target to a site under a name of its own, with what proves that it is
// the right one, and waits until its management account is verified. The same system may
// be added under many names.
func (c *Cluster) AddAsset(site, name string, g Target) *Target {
	c.t.Helper()
	g.Asset, g.Site = name, site
	r := g.address()
	if g.Line != nil {
		server := r.Address
		r.Address, r.Port = g.Line.Addr()
		if r.CaPem != nil {
			r.ServerName = &server
		}
	}
	r.Name, r.Site, r.Connector = name, site, g.connector
	r.ManagementAccount = &client.ManagementAccountRequest{Username: g.username, Password: &g.password}
	if g.options != nil {
		r.Options = &g.options
	}
	Call[client.Asset](c, func(api *client.Client) (*http.Response, error) {
		return api.AddAsset(c.t.Context(), &client.AddAssetParams{IdempotencyKey: key("asset-" + name)}, r)
	})
	c.Eventually("the management account of "+name+" is verified", func() (bool, string) {
		a := c.Asset(name)
		return a.ManagementAccount.Verified, fmt.Sprintf("alert %v, management %+v", a.Alert, *a.ManagementAccount)
	})
	return &g
}

// Asset is an asset by name or id.
func (c *Cluster) Asset(name string) client.Asset {
	c.t.Helper()
	return Call[client.Asset](c, func(api *client.Client) (*http.Response, error) { return api.GetAsset(c.t.Context(), name) })
}

// Login tries an account with a plain client. A refusal is testlab.ErrRefused.
func (g *Target) Login(ctx context.Context, user, password string) error {
	switch {
	case g.connector == "telnet":
		return g.Host.TelnetLogin(ctx, user, password)
	case g.Host != nil:
		return g.Host.Login(ctx, user, password)
	case g.DB != nil:
		return g.DB.Login(ctx, user, password)
	case g.Postgres != nil:
		return g.Postgres.Login(ctx, user, password)
	default:
		return g.Domain.Login(ctx, user, password)
	}
}

// Record is what a target's own files say of an account.
type Record struct {
	Exists, Locked bool
	Hash           string // or, where nobody is shown one, the time at which it changed
}

// Record reads /etc/shadow, mysql.global_priv, pg_authid or, as the administrator, the directory.
func (g *Target) Record(ctx context.Context, user string) (Record, error) {
	switch {
	case g.Host != nil:
		e, ok, err := g.Host.Shadow(user)
		return Record{Exists: ok, Locked: ok && e.Locked(), Hash: e.Hash}, err
	case g.DB != nil:
		priv, ok, err := g.DB.GlobalPriv(ctx, user, "%")
		if err != nil || !ok {
			return Record{Exists: ok}, err
		}
		locked, _ := priv["account_locked"].(bool)
		hash, _ := priv["authentication_string"].(string)
		return Record{Exists: true, Locked: locked, Hash: hash}, nil
	case g.Postgres != nil:
		r, ok, err := g.Postgres.Role(ctx, user)
		return Record{Exists: ok, Locked: ok && !r.CanLogin, Hash: r.Verifier}, err
	default:
		e, err := g.Domain.Account(ctx, user)
		if err != nil || e == nil {
			return Record{}, err
		}
		control, err := strconv.Atoi(e.GetAttributeValue("userAccountControl"))
		return Record{Exists: true, Locked: control&accountDisabled != 0, Hash: e.GetAttributeValue("pwdLastSet")}, err
	}
}

// accountDisabled is a bit of userAccountControl (MS-ADTS 2.2.16).
const accountDisabled = 2

// Order asks for an account on targets and returns at once. change, if not nil, completes
// the request.
func (c *Cluster) Order(name string, change func(*client.ProvisionRequest), targets ...*Target) []client.Account {
	c.t.Helper()
	r := client.ProvisionRequest{Name: name, Role: targets[0].role}
	if targets[0].params != nil {
		r.Params = &targets[0].params
	}
	for _, g := range targets {
		r.Assets = append(r.Assets, g.Asset)
	}
	if change != nil {
		change(&r)
	}
	return Call[client.Batch](c, func(api *client.Client) (*http.Response, error) {
		return api.ProvisionAccounts(c.t.Context(), &client.ProvisionAccountsParams{IdempotencyKey: key("order-" + name + "-" + targets[0].Asset)}, r)
	}).Accounts
}

// Provision makes an account on a target and waits until it is active and in sync.
func (c *Cluster) Provision(name string, g *Target) client.Account {
	c.t.Helper()
	return c.AwaitSync(c.Order(name, nil, g)[0].Id)
}

// Account is an account by id.
func (c *Cluster) Account(id string) client.Account {
	c.t.Helper()
	return Call[client.Account](c, func(api *client.Client) (*http.Response, error) { return api.GetAccount(c.t.Context(), id) })
}

// Act asks for verify, inspect, rotate, reconcile, disable, enable or deprovision and
// returns the job. once is a word that makes this request different from others like it.
func (c *Cluster) Act(id, action, once string) string {
	c.t.Helper()
	return Call[client.JobRef](c, func(api *client.Client) (*http.Response, error) {
		return api.ActOnAccount(c.t.Context(), id, action, &client.ActOnAccountParams{IdempotencyKey: key(action + id + once)})
	}).Job
}

// Job is a job by id.
func (c *Cluster) Job(id string) client.Job {
	c.t.Helper()
	return Call[client.Job](c, func(api *client.Client) (*http.Response, error) { return api.GetJob(c.t.Context(), id) })
}

// Final reports whether a job has ended.
func Final(j client.Job) bool {
	return !slices.Contains([]client.JobState{client.JobStateQueued, client.JobStateLeased}, j.State)
}

// AwaitJob waits until a job is as ok wants it.
func (c *Cluster) AwaitJob(id, what string, ok func(client.Job) bool) (j client.Job) {
	c.t.Helper()
	c.Eventually("job "+id+" "+what, func() (bool, string) {
		j = c.Job(id)
		return ok(j), fmt.Sprintf("%s of attempt %d is %s: %s", j.Operation, j.Attempt, j.State, explain(j.Error))
	})
	return j
}

// AwaitAccount waits until an account is as ok wants it.
func (c *Cluster) AwaitAccount(id, what string, ok func(client.Account) bool) (a client.Account) {
	c.t.Helper()
	c.Eventually("account "+id+" "+what, func() (bool, string) {
		a = c.Account(id)
		why := fmt.Sprintf("%s is %s, %s: %s", a.Name, a.State, a.Sync, explain(a.LastError))
		if a.Job != nil {
			j := c.Job(*a.Job)
			why += fmt.Sprintf("; %s of attempt %d is %s: %s", j.Operation, j.Attempt, j.State, explain(j.Error))
		}
		return ok(a), why
	})
	return a
}

func explain(f *client.Failure) string {
	if f == nil {
		return "no error"
	}
	return f.Class + ": " + f.Message
}

// AwaitSync waits until no job of an account is left, it is active, and its password works.
func (c *Cluster) AwaitSync(id string) client.Account {
	c.t.Helper()
	return c.AwaitAccount(id, "is active and in sync", func(a client.Account) bool {
		return a.State == "active" && a.Sync == "in_sync" && c.Idle(a)
	})
}

// AwaitIdle waits until no job of an account is left, and returns it as it then is.
func (c *Cluster) AwaitIdle(id string) (a client.Account) {
	c.t.Helper()
	c.AwaitAccount(id, "comes to rest", func(before client.Account) bool {
		if !c.Idle(before) {
			return false
		}
		a = c.Account(id) // what the job's end made of it
		return a.Job == nil || *a.Job == *before.Job
	})
	return a
}

// Idle reports whether the account's last job has ended.
func (c *Cluster) Idle(a client.Account) bool {
	c.t.Helper()
	return a.Job == nil || Final(c.Job(*a.Job))
}

// Reveal is the current password of an account.
func (c *Cluster) Reveal(id string) string {
	c.t.Helper()
	return Call[client.RevealedSecret](c, func(api *client.Client) (*http.Response, error) {
		return api.RevealSecret(c.t.Context(), id, client.ReasonRequest{Reason: "system test"})
	}).Password
}
