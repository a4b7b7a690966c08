package simulation

import (
	"context"
	"fmt"
	"time"

	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/agent/worker"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// target is a modelled host with accounts.
type target struct {
	name     string
	root     string
	down     bool // nothing reaches it
	accounts map[string]*login
}

// login is an account on a target.
type login struct {
	of       *target
	name     string
	uid      string
	id       reeve.AccountID
	password string

	bad    []time.Time // failed logins since one worked
	fence  uint64      // the highest under which somebody has begun to change it
	coming int         // changes that were sent and have not happened yet
	// surprise: a stopped agent changed it later than any quarantine waits for. What the
	// vault holds is right again after the next login.
	surprise bool
	known    map[string]uint32 // versions by value, as far as they were looked at
	looked   uint32
	refused  int // requests since one was taken, because of a job at work

	seen     facts  // what was seen last,
	seenAt   uint64 // at this revision of the state
	seenWith string // and while the target had this password
}

// The target's own lockout, as pam_faillock and others have it.
const (
	lockAfter  = 6
	lockWindow = 15 * time.Minute
)

// try is one login.
func (l *login) try(w *world, password string) sdk.VerdictKind {
	if password == l.password {
		l.bad = nil
		return sdk.VerdictOK
	}
	now := time.Now()
	for len(l.bad) > 0 && now.Sub(l.bad[0]) > lockWindow {
		l.bad = l.bad[1:]
	}
	l.bad = append(l.bad, now)
	w.note("a login of %s on %s fails, %d in a row", l.name, l.of.name, len(l.bad))
	w.worstLogins = max(w.worstLogins, len(l.bad))
	if len(l.bad) >= lockAfter {
		w.violation("R5: %d failed logins of %s within %s lock it", len(l.bad), l.name, lockWindow)
	}
	return sdk.VerdictBadCredential
}

// plugs is the agent's connector host.
type plugs struct{ i *incarnation }

// List implements worker.Host.
func (plugs) List() ([]pluginhost.Installed, error) {
	return []pluginhost.Installed{{Name: "ssh"}}, nil
}

// Acquire implements worker.Host.
func (p plugs) Acquire(context.Context, string, []string) (worker.Process, error) {
	return &plug{i: p.i}, nil
}

// plug is a connector at work on one job, as plugins/ssh would be.
type plug struct {
	i      *incarnation
	exited bool
	bad    int // failed logins of the job
}

// Call implements worker.Process.
func (p *plug) Call(ctx context.Context, fn func(context.Context, worker.Connector) error) error {
	err := fn(ctx, p)
	if !p.i.alive {
		return sdk.Errorf(sdk.ClassInternal, "the agent has died")
	}
	return err
}

// Exited implements worker.Process.
func (p *plug) Exited() bool { return p.exited }

// AtFault implements worker.Process.
func (p *plug) AtFault() bool { return p.exited }

// Protect implements worker.Process: this one prints nothing.
func (p *plug) Protect(pluginhost.Guard) {}

// Release implements worker.Process.
func (p *plug) Release() {}

// reach is the way to the target and back. It fails when the target is not reached.
func (p *plug) reach(ctx context.Context, t sdk.Target) (*target, error) {
	w := p.i.w
	w.sleep(ctx, w.between(time.Millisecond, 40*time.Millisecond))
	m := w.targets[t.Address]
	switch {
	case ctx.Err() != nil:
		return nil, sdk.Errorf(sdk.ClassCancelled, "cancelled")
	case m.down || w.strikes("target not reached", 0.003):
		return nil, sdk.Errorf(sdk.ClassUnreachable, "no route to the target")
	}
	return m, nil
}

// manage logs in with the management account.
func (p *plug) manage(ctx context.Context, t sdk.Target) (*target, error) {
	m, err := p.reach(ctx, t)
	if err == nil && t.Management.Password.Reveal() != m.root {
		err = sdk.Errorf(sdk.ClassAuthFailed, "the management account cannot log in")
	}
	return m, err
}

// Probe implements sdk.Prober.
func (p *plug) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	_, err := p.manage(ctx, t)
	return sdk.Fingerprint{Product: "debian", Version: "12"}, err
}

// Plan implements sdk.Provisioner.
func (p *plug) Plan(_ context.Context, _ sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	return sdk.Plan{Action: in.Action, Account: in.Account,
		Steps: []sdk.Step{{ID: "do", Title: string(in.Action), Command: string(in.Action) + " " + in.Account, Changes: true}}}, nil
}

// Inspect implements sdk.Inspector.
func (p *plug) Inspect(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
	m, err := p.manage(ctx, t)
	if err != nil {
		return sdk.Facts{}, err
	}
	return m.facts(account), nil
}

// CheckRights implements sdk.RightsChecker; nobody asks in a simulation.
func (p *plug) CheckRights(context.Context, sdk.Target, sdk.Role, map[string]string) ([]sdk.Right, error) {
	return nil, sdk.Errorf(sdk.ClassUnsupported, "not simulated")
}

func (m *target) facts(account string) sdk.Facts {
	l := m.accounts[account]
	if l == nil {
		return sdk.Facts{Account: account}
	}
	return sdk.Facts{Exists: true, Account: account, Identity: l.uid, HasPassword: true}
}

// Verify implements sdk.Verifier.
func (p *plug) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	w := p.i.w
	m, err := p.reach(ctx, t)
	if err != nil {
		return sdk.Verdict{}, err
	}
	l := m.accounts[c.Username]
	if l == nil {
		return sdk.Verdict{Kind: sdk.VerdictBadCredential}, nil
	}
	v := l.try(w, c.Password.Reveal())
	if v == sdk.VerdictBadCredential {
		if p.bad++; p.bad > 2 {
			w.violation("R5: one job caused %d failed logins of %s", p.bad, l.name)
		}
	}
	switch {
	case w.strikes("login's answer lost", 0.002):
		return sdk.Verdict{}, sdk.Errorf(sdk.ClassUnreachable, "the connection broke")
	case w.strikes("login's answer not understood", 0.001):
		return sdk.Verdict{Kind: sdk.VerdictUnknown}, nil
	}
	return sdk.Verdict{Kind: v}, nil
}

// How a change ends, as the agent sees it, and whether it happens.
type fate struct {
	name  string
	often float64
	when  func(w *world) time.Duration // until it happens; negative: never
	hangs bool                         // no answer until the time is up
	class sdk.Class                    // of the error; empty: success
	dies  string                       // connector or agent
}

func at(d time.Duration) func(*world) time.Duration { return func(*world) time.Duration { return d } }

func within(d time.Duration) func(*world) time.Duration {
	return func(w *world) time.Duration { return w.between(0, d) }
}

var now, never = at(0), at(-1)

// fates are the ways a change can go wrong, with how often in a thousand.
var fates = []fate{
	{"refused by policy", 4, never, false, sdk.ClassPolicyRejected, ""},
	{"not sent", 3, never, false, sdk.ClassUnreachable, ""},
	{"not permitted", 1, never, false, sdk.ClassNotPermitted, ""},
	{"done, answer lost", 6, now, false, sdk.ClassUnknownOutcome, ""},
	{"not done, answer lost", 4, never, false, sdk.ClassUnknownOutcome, ""},
	{"done late, answer lost", 3, within(100 * time.Second), false, sdk.ClassUnknownOutcome, ""},
	{"hangs, done", 1, within(100 * time.Second), true, sdk.ClassUnknownOutcome, ""},
	{"hangs, never done", 1, never, true, sdk.ClassUnknownOutcome, ""},
	{"exit status 0, not done", 3, never, false, "", ""},
	{"exit status 0, done late", 2, within(20 * time.Second), false, "", ""},
	{"connector dies, done", 2, now, false, sdk.ClassUnknownOutcome, "connector"},
	{"connector dies, not done", 2, never, false, sdk.ClassUnknownOutcome, "connector"},
	{"agent dies, done", 3, now, false, sdk.ClassUnknownOutcome, "agent"},
	{"agent dies, done late", 2, within(100 * time.Second), false, sdk.ClassUnknownOutcome, "agent"},
	{"agent dies, not done", 2, never, false, sdk.ClassUnknownOutcome, "agent"},
}

var fine = fate{name: "fine", when: now}

// Apply implements sdk.Provisioner for provision and rotate.
func (p *plug) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, _ sdk.Progress) (sdk.Result, error) {
	w, i := p.i.w, p.i
	m, err := p.manage(ctx, t)
	if err != nil {
		m = w.targets[t.Address]
		if ctx.Err() == nil || !w.cur.stopped || m.down || !i.alive || w.chance(0.5) {
			return sdk.Result{}, err
		}
		// It was stopped right before it sent the change, and sends it now although its
		// lease is over: nothing on the agent can prevent that.
	}
	f := fine
	for k, x := range fates {
		if w.strikes("change: "+x.name, x.often/1000) {
			f = fates[k]
			break
		}
	}
	if w.strikes("agent stopped while a change is sent", 0.001) {
		i.freeze()
	}
	w.note("change of %s: %s", ch.Intent.Account, f.name)
	w.change(m, ch, f.when(w))
	switch {
	case f.dies == "agent":
		i.die()
	case f.dies == "connector":
		p.exited = true
	case f.hangs:
		w.park(ctx, func() bool { return false })
	}
	w.sleep(ctx, w.between(time.Millisecond, 30*time.Millisecond))
	switch {
	case f.class != "":
		return sdk.Result{}, sdk.Errorf(f.class, "%s", f.name)
	case ctx.Err() != nil:
		return sdk.Result{}, sdk.Errorf(sdk.ClassUnknownOutcome, "cancelled")
	}
	return sdk.Result{Facts: m.facts(ch.Intent.Account), Changed: true}, nil
}

// change has a change happen on the target after some time, or never.
func (w *world) change(m *target, ch sdk.Change, after time.Duration) {
	l := m.accounts[ch.Intent.Account]
	if l == nil {
		l = &login{of: m, name: ch.Intent.Account, uid: fmt.Sprint(1000 + len(m.accounts)), known: map[string]uint32{}}
		m.accounts[l.name] = l
		w.logins = append(w.logins, l)
	}
	l.id = reeve.AccountID(ch.Intent.AccountID)
	if after < 0 {
		return
	}
	password, fence, late := ch.Password.Reveal(), w.cur.fence, w.cur.stopped
	if l.fence > fence && !late {
		w.violation("J1: %s is changed under fence %d after somebody else began under %d", l.name, fence, l.fence)
	}
	l.fence = max(l.fence, fence)
	effect := func() {
		l.coming--
		if l.fence > fence && !late {
			w.violation("J1: a change of %s under fence %d happens after one under %d began", l.name, fence, l.fence)
		}
		if late && l.password != password && w.over(l, fence) {
			l.surprise = true
		}
		w.note("%s has another password", l.name)
		l.password = password
		w.check(l)
	}
	l.coming++
	if after == 0 {
		effect()
		return
	}
	w.after(after, effect)
}
