package systemtest

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// Target is a real system that a cluster knows as an asset, with an outside view of it:
// plain clients and its own files. One of Host and DB is set.
type Target struct {
	Asset, Site string // names
	Host        *testlab.Host
	DB          *testlab.Database

	role     string
	username string // of the management account
	password string
}

// HostTarget is a Linux host with the management account given.
func HostTarget(h *testlab.Host, username, password string) Target {
	return Target{Host: h, role: "linux-admin-sudo", username: username, password: password}
}

// DatabaseTarget is a MariaDB server with its management account.
func DatabaseTarget(d *testlab.Database) Target {
	return Target{DB: d, role: "mysql-db-rw", username: testlab.Management, password: d.ManagementPassword}
}

// AddAsset adds a target to a site under a name of its own, with what proves that it is
// the right one, and waits until its management account is verified. The same system may
// be added under many names.
func (c *Cluster) AddAsset(site, name string, g Target) *Target {
	c.t.Helper()
	g.Asset, g.Site = name, site
	r := client.AssetRequest{Name: name, Site: site,
		ManagementAccount: &client.ManagementAccountRequest{Username: g.username, Password: &g.password}}
	if g.Host != nil {
		r.Connector, r.Address, r.HostKeys = "ssh", g.Host.Addr, &[]string{g.Host.HostKey()}
	} else {
		r.Connector, r.Address, r.CaPem = "mysql", g.DB.Addr, &g.DB.CAPEM
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
	if g.DB != nil {
		return g.DB.Login(ctx, user, password)
	}
	return g.Host.Login(ctx, user, password)
}

// Record is what a target's own files say of an account.
type Record struct {
	Exists, Locked bool
	Hash           string
}

// Record reads /etc/shadow or mysql.global_priv.
func (g *Target) Record(ctx context.Context, user string) (Record, error) {
	if g.Host != nil {
		e, ok, err := g.Host.Shadow(user)
		return Record{Exists: ok, Locked: ok && e.Locked(), Hash: e.Hash}, err
	}
	priv, ok, err := g.DB.GlobalPriv(ctx, user, "%")
	if err != nil || !ok {
		return Record{Exists: ok}, err
	}
	locked, _ := priv["account_locked"].(bool)
	hash, _ := priv["authentication_string"].(string)
	return Record{Exists: true, Locked: locked, Hash: hash}, nil
}

// Order asks for an account on targets and returns at once. change, if not nil, completes
// the request.
func (c *Cluster) Order(name string, change func(*client.ProvisionRequest), targets ...*Target) []client.Account {
	c.t.Helper()
	r := client.ProvisionRequest{Name: name, Role: targets[0].role}
	if targets[0].DB != nil {
		r.Params = &map[string]string{"Database": "app"}
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
