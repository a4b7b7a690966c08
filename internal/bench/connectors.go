package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// connectorRows: each connector for itself, as a process that an agent would have started, on a real server of its
// kind. The floor is a bare driver that sends the server the same in the same order, over as many connections, kept
// as long; TestFloorsSendWhatConnectorsSend compares the two on the wire. The rows are for whoever works on a
// connector, and have no mark.
func connectorRows() []row {
	var rows []row
	for _, s := range subjects() {
		rows = append(rows, row{
			name: "connector-" + s.connector + "-rotate", unit: "rotations/s", more: true,
			work:    fmt.Sprintf("connector %s alone: set password and prove it, %d at a time", s.connector, sideBySide),
			prepare: func(ctx context.Context, e *env) (*sides, error) { return s.sides(ctx, e, rotating) },
		}, row{
			name: "connector-" + s.connector + "-life", unit: "accounts/s", more: true,
			work:    fmt.Sprintf("connector %s alone: make an account, prove it, remove it, %d at a time", s.connector, sideBySide),
			prepare: func(ctx context.Context, e *env) (*sides, error) { return s.sides(ctx, e, living) },
		})
	}
	return rows
}

// sideBySide is how many operations of one side are under way: enough to keep two processors busy, and fewer than
// any server of these rows begins to refuse.
const sideBySide = 4

// subject is a kind of server and what both sides do on it.
type subject struct {
	connector string
	role      string
	params    map[string]string
	start     func(context.Context, *testlab.Lab) (sdk.Target, error)
	bare      func(sdk.Target) (keeper, error)
	note      string // what the floor does
}

// keeper makes accounts, changes them and takes them away. Each change that leaves a usable account ends with one
// fresh login as it. Both sides are keepers.
type keeper interface {
	provision(ctx context.Context, a *account) error
	rotate(ctx context.Context, a *account, password string) error
	deprovision(ctx context.Context, a *account) error
	close() error
}

// account is a throw-away account.
type account struct {
	name, id, password string
	identity           string // as the server tells it, if the keeper asks
}

var accountsMade atomic.Int64

func newAccount() *account {
	n := accountsMade.Add(1)
	return &account{name: fmt.Sprintf("bench%d", n), id: fmt.Sprintf("acct_bench%d", n), password: newPassword()}
}

// newPassword is one that satisfies every server's rules.
func newPassword() string { return "Aa1." + rand.Text() }

// comment is what accounts of both sides say about themselves.
const comment = "benchmark"

// sides starts a server and prepares both keepers for an exercise.
func (s *subject) sides(ctx context.Context, e *env, exercise func(context.Context, keeper) (operation, error)) (_ *sides, err error) {
	lab, err := testlab.Open(ctx, "")
	if err != nil {
		return nil, err
	}
	closers := []func() error{lab.Close}
	closeAll := func() (err error) {
		for i := len(closers) - 1; i >= 0; i-- {
			err = errors.Join(err, closers[i]())
		}
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	target, err := s.start(ctx, lab)
	if err != nil {
		return nil, err
	}
	bare, err := s.bare(target)
	if err != nil {
		return nil, err
	}
	closers = append(closers, bare.close)
	ours, err := s.open(ctx, filepath.Join(e.bin, "connectors"), target, e)
	if err != nil {
		return nil, err
	}
	closers = append(closers, ours.close)
	side := func(k keeper) (func(context.Context) ([]float64, error), error) {
		do, err := exercise(ctx, k)
		if err != nil {
			return nil, err
		}
		run := func(ctx context.Context) ([]float64, error) { return rate(ctx, e.span(), sideBySide, do) }
		_, err = rate(ctx, 0, sideBySide, do) // warm
		return run, err
	}
	all := &sides{close: closeAll, note: func() string { return "the floor: " + s.note }}
	if all.floor, err = side(bare); err != nil {
		return nil, fmt.Errorf("floor: %w", err)
	}
	if all.reeve, err = side(ours); err != nil {
		return nil, fmt.Errorf("reeve: %w", err)
	}
	return all, nil
}

// operation is what is counted.
type operation func(context.Context) error

// rotating sets new passwords, of one account for each operation under way.
func rotating(ctx context.Context, k keeper) (operation, error) {
	free := make(chan *account, sideBySide)
	for range sideBySide {
		a := newAccount()
		if err := k.provision(ctx, a); err != nil {
			return nil, err
		}
		free <- a
	}
	return func(ctx context.Context) error {
		a := <-free
		defer func() { free <- a }()
		password := newPassword()
		if err := k.rotate(ctx, a, password); err != nil {
			return err
		}
		a.password = password
		return nil
	}, nil
}

// living makes accounts and takes them away.
func living(_ context.Context, k keeper) (operation, error) {
	return func(ctx context.Context) error {
		a := newAccount()
		if err := k.provision(ctx, a); err != nil {
			return err
		}
		return k.deprovision(ctx, a)
	}, nil
}

// shelf keeps a floor's connections from one operation to the next, as connectors do.
type shelf[C any] chan C

func newShelf[C any]() shelf[C] { return make(shelf[C], sideBySide) }

// take returns a kept connection that works, or a new one.
func (s shelf[C]) take(works func(C) error, dial func() (C, error)) (C, error) {
	select {
	case c := <-s:
		return c, works(c)
	default:
		return dial()
	}
}

// give keeps a connection.
func (s shelf[C]) give(c C) { s <- c }

// clear ends what is kept.
func (s shelf[C]) clear(end func(C) error) (err error) {
	for len(s) > 0 {
		err = errors.Join(err, end(<-s))
	}
	return err
}

// connected is Reeve's side: a connector as a process of its own, as an agent runs it.
type connected struct {
	client *sdk.Client
	end    func()
	target sdk.Target
	role   sdk.Role
	params map[string]string
}

func (s *subject) open(ctx context.Context, dir string, target sdk.Target, e *env) (_ *connected, err error) {
	c := &connected{target: target, params: s.params}
	if c.client, c.end, err = pluginhost.Open(ctx, filepath.Join(dir, "connector-"+s.connector), e.log); err != nil {
		return nil, fmt.Errorf("%w: run `make build` first", err)
	}
	defer func() {
		if err != nil {
			c.end()
		}
	}()
	if c.target.Fingerprint, err = c.client.Probe(ctx, target); err != nil {
		return nil, err
	}
	d, err := c.client.Describe(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range d.Roles {
		if r.Name == s.role {
			c.role = r
			return c, nil
		}
	}
	return nil, fmt.Errorf("connector %s has no role %s", s.connector, s.role)
}

func (c *connected) close() error {
	c.end()
	return nil
}

// change plans and does what is planned.
func (c *connected) change(ctx context.Context, action sdk.Action, a *account, password string) error {
	in := sdk.Intent{Action: action, Account: a.name, AccountID: a.id, Comment: comment, Role: c.role, Params: c.params, Identity: a.identity}
	plan, err := c.client.Plan(ctx, c.target, in)
	if err != nil {
		return fmt.Errorf("plan to %s %s: %w", action, a.name, err)
	}
	ch := sdk.Change{Intent: in, Plan: plan}
	if password != "" {
		ch.Password = sdk.NewSecret([]byte(password))
	}
	res, err := c.client.Apply(ctx, c.target, ch, func(sdk.Event) {})
	if err != nil {
		return fmt.Errorf("%s %s: %w", action, a.name, err)
	}
	a.identity = res.Facts.Identity
	if password == "" {
		return nil
	}
	v, err := c.client.Verify(ctx, c.target, sdk.Credential{Username: a.name, Password: ch.Password})
	if err == nil && v.Kind != sdk.VerdictOK {
		err = fmt.Errorf("%s: %s", v.Kind, v.Message)
	}
	return err
}

func (c *connected) provision(ctx context.Context, a *account) error {
	return c.change(ctx, sdk.Provision, a, a.password)
}

func (c *connected) rotate(ctx context.Context, a *account, password string) error {
	return c.change(ctx, sdk.Rotate, a, password)
}

func (c *connected) deprovision(ctx context.Context, a *account) error {
	return c.change(ctx, sdk.Deprovision, a, "")
}
