package lifecycle

import (
	"context"
	"crypto/hpke"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

const cluster = "testcluster"

var alice = audit.Actor{Kind: "user", ID: "prin_1", Name: "alice"}

// rig is an engine with the real store, vault and broker, and one modelled agent that
// works on modelled machines by the real procedure. It runs in a synctest bubble.
type rig struct {
	*Engine
	t      *testing.T
	store  *store.Store
	broker *jobs.Broker
	agent  *agent
	agents int // what AgentsIn answers

	mu       sync.Mutex
	machines map[string]*machine // by address
}

// bubble runs a test in fake time, with a connector, the site "dc1" and the agent.
func bubble(t *testing.T, fn func(t *testing.T, r *rig)) {
	t.Helper()
	t.Parallel()
	inBubble(t, fn)
}

func inBubble(t *testing.T, fn func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cipher := storetest.NewCipher()
		r := &rig{t: t, agents: 1, machines: map[string]*machine{}, store: storetest.New(t, storetest.WithCipher(cipher))}
		r.Engine = New(Config{Store: r.store, Vault: vault.New(cipher), Policy: vault.DefaultPolicy(), Pulse: &service.Pulse{}, Logger: slog.New(slog.DiscardHandler),
			AgentsIn: func(*store.Tx, reeve.SiteID) (int, error) { r.mu.Lock(); defer r.mu.Unlock(); return r.agents, nil }})
		key, err := envelope.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		r.agent = &agent{r: r, id: reeve.NewAgentID(), key: key}
		r.broker = jobs.New(jobs.BrokerConfig{Store: r.store, Vault: r.Vault, Cluster: cluster, Handlers: r.Handlers(),
			ConnectorDigests: inventory.ConnectorDigests, Logger: slog.New(slog.DiscardHandler), Rand: func() float64 { return 0.5 },
			AgentKey: func(*store.Tx, reeve.SiteID, reeve.AgentID) ([]byte, error) { return key.PublicKey().Bytes(), nil }})
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() {
			if err := r.broker.Run(ctx); err != nil {
				t.Errorf("run the broker: %v", err)
			}
		})
		running.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Errorf("run the engine: %v", err)
			}
		})
		t.Cleanup(func() { cancel(); running.Wait() })
		r.do(func(tx *store.Tx) error {
			for _, d := range []*connectorv1.Description{describe("ssh"), describe("mysql")} {
				if _, err := inventory.RegisterConnector(tx, alice, d, strings.Repeat("a", 64)); err != nil {
					return err
				}
			}
			site, err := inventory.AddSite(tx, alice, inventory.NewSite{Name: "dc1"})
			if err == nil {
				r.agent.site = site.ID
			}
			return err
		})
		synctest.Wait()
		r.agent.attach()
		fn(t, r)
	})
}

func describe(name string) *connectorv1.Description {
	return &connectorv1.Description{Name: name, Version: "1.0.0", Powers: []string{opRights}, Category: "operating_system", DefaultPort: 22,
		NameRule: &connectorv1.NameRule{Pattern: `[a-z_][a-z0-9_-]*`, MaxBytes: 32, Help: "1 to 32 of a-z, 0-9, _ and -"},
		Roles:    []*connectorv1.Role{{Name: name + "-standard", Version: 1}}}
}

func (r *rig) try(fn func(*store.Tx) error) error {
	r.fence()
	defer r.fence()
	return r.store.Update(context.Background(), fn)
}

func (r *rig) do(fn func(*store.Tx) error) {
	r.t.Helper()
	if err := r.try(fn); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) wantCode(code string, fn func(*store.Tx) error) {
	r.t.Helper()
	if err := r.try(fn); reeve.CodeOf(err) != code {
		r.t.Errorf("error %v, want code %q", err, code)
	}
}

// asset makes an asset with a machine behind it and a verified management account.
func (r *rig) asset(name string) (*inventory.Asset, *machine) {
	r.t.Helper()
	m := &machine{r: r, root: "root-password", accounts: map[string]*login{}}
	r.mu.Lock()
	r.machines[name+".example"] = m
	r.mu.Unlock()
	var a *inventory.Asset
	r.do(func(tx *store.Tx) (err error) {
		a, err = inventory.AddAsset(tx, alice, inventory.NewAsset{Name: name, Site: "dc1", Connector: "ssh", Address: name + ".example"})
		if err != nil {
			return err
		}
		_, _, err = r.SetManagement(tx, alice, a.ID, Management{Username: "root", Password: reeve.SecretString(m.root)})
		return err
	})
	synctest.Wait()
	r.do(func(tx *store.Tx) (err error) {
		a, err = inventory.GetAsset(tx, name)
		return err
	})
	return a, m
}

func request(asset string) Request {
	return Request{Assets: []string{asset}, Prefix: "pam_", Name: "bob", Role: "ssh-standard", RotationEnabled: true, Owner: "alice"}
}

// provision makes one account and waits until nothing moves.
func (r *rig) provision(in Request) *Account {
	r.t.Helper()
	var b *Batch
	r.do(func(tx *store.Tx) (err error) {
		b, err = r.Provision(tx, alice, in)
		return err
	})
	synctest.Wait()
	return r.account(b.Accounts[0].ID)
}

func (r *rig) account(id reeve.AccountID) (a *Account) {
	r.t.Helper()
	r.do(func(tx *store.Tx) (err error) {
		a, err = Get(tx, string(id))
		return err
	})
	return a
}

// act asks for an operation and waits until nothing moves.
func (r *rig) act(id reeve.AccountID, fn func(*store.Tx, audit.Actor, reeve.AccountID) (*jobs.Job, error)) *Account {
	r.t.Helper()
	r.do(func(tx *store.Tx) error { _, err := fn(tx, alice, id); return err })
	synctest.Wait()
	return r.account(id)
}

func (r *rig) want(a *Account, state State, sync Sync) {
	r.t.Helper()
	if a.State != state || a.Sync != sync {
		r.t.Errorf("account is %s, %s (%+v); want %s, %s", a.State, a.Sync, a.LastError, state, sync)
	}
}

// kept opens every version the vault keeps of an account's secret.
func (r *rig) kept(a *Account) (all map[uint32]string, info *vault.Info) {
	r.t.Helper()
	all = map[uint32]string{}
	err := r.store.View(context.Background(), func(tx *store.Tx) (err error) {
		if info, err = r.Vault.Get(tx, a.SecretID); err != nil {
			return err
		}
		versions, err := r.Vault.Versions(tx, a.SecretID)
		if err != nil {
			return err
		}
		candidates := 0
		for _, v := range versions {
			_, s, err := r.Vault.Open(tx, a.SecretID, v.Number)
			if err != nil {
				return err
			}
			all[v.Number] = s.Reveal()
			if v.State == vault.Candidate {
				candidates++
			}
		}
		if candidates > 1 {
			return fmt.Errorf("R3: %d candidates", candidates)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all, info
}

// opens fails the test unless a kept version opens the machine (R1).
func (r *rig) opens(a *Account, m *machine, when string) {
	r.t.Helper()
	all, _ := r.kept(a)
	password := m.password(a.Name)
	for _, s := range all {
		if s == password {
			return
		}
	}
	r.t.Errorf("R1: %s no kept version opens the target", when)
}

// settled fails the test unless the current version opens the machine, or the account
// says that it does not (R2).
func (r *rig) settled(a *Account, m *machine) {
	r.t.Helper()
	all, info := r.kept(a)
	if a.Sync == InSync && all[info.Current] != m.password(a.Name) {
		r.t.Error("R2: the account is in sync but its current password does not open it")
	}
}

// actions lists the audit records about an object since a sequence number.
func (r *rig) actions(object string) (out []string) {
	r.t.Helper()
	r.do(func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 1000, audit.Filter{Object: object})
		for _, e := range all {
			out = append(out, e.Action+" "+e.Outcome)
		}
		return err
	})
	return out
}

func (r *rig) wantActions(object string, want ...string) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.actions(object)); diff != "" {
		r.t.Errorf("audit (-want +got):\n%s", diff)
	}
}

// machine is a target. late are changes that were sent but that it has not made yet.
type machine struct {
	r *rig

	mu       sync.Mutex
	root     string
	accounts map[string]*login
	late     []lateChange
	surprise bool // a change landed later than any quarantine waits for
	refuse   int  // so many new passwords are refused by policy
	down     bool
	hostKey  string         // shown instead of the trusted one
	plan     string         // part of every plan: changing it changes the hashes
	bad      map[string]int // refused logins by name since one worked
}

// lateChange is a change that was sent at a time.
type lateChange struct {
	at   time.Time
	make func()
}

type login struct {
	password, owner, uid string
	locked               bool
	refuses              string // the verdict for the right password, if it is not ok
}

func (m *machine) password(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.accounts[name]; l != nil {
		return l.password
	}
	return ""
}

func (m *machine) set(name, password string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accounts[name].password = password
}

// settle makes the changes that were on their way.
func (m *machine) settle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.late {
		c.make()
		m.surprise = m.surprise || time.Since(c.at) > jobs.LeaseTerm+jobs.KillGrace+2*time.Minute
	}
	m.late = nil
}

func (m *machine) verify(name, password string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.accounts[name]
	switch {
	case m.down:
		return "unreachable"
	case l == nil, l.password != password:
		if m.bad == nil {
			m.bad = map[string]int{}
		}
		m.bad[name]++
		return "bad_credential"
	case l.locked:
		return "bad_credential" // sshd and MariaDB do not tell a locked account from a wrong password
	case l.refuses != "":
		return l.refuses
	}
	delete(m.bad, name)
	return "ok"
}

// agent does jobs by the real agent's procedure. It dies where crash says so, and then
// starts again without memory.
type agent struct {
	r    *rig
	id   reeve.AgentID
	site reeve.SiteID
	key  hpke.PrivateKey

	mu       sync.Mutex
	crash    string // the next point to die at, once
	fate     string // what becomes of a change when it dies at "sent": now, late, never
	lie      bool   // reports success without a login, once
	mute     bool   // does the work, and keeps its report, once
	planless bool   // makes an account and reports no plans, once
	kept     []func() (bool, error)
	seen     []string // operations done
	logins   int      // most failed logins in one job
}

func (a *agent) attach() {
	p, err := a.r.broker.Attach(jobs.Puller{ID: a.id, SiteID: a.site, Connectors: []string{"ssh", "mysql"}})
	if err != nil {
		a.r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		defer p.Close()
		for {
			m, err := p.Next(ctx)
			if err != nil {
				return
			}
			if j := m.GetJob(); j != nil {
				a.work(j)
				p.AddCredits(1)
			}
		}
	})
	p.AddCredits(8)
	a.r.t.Cleanup(func() { cancel(); running.Wait() })
}

type dead struct{}

// at dies if this is the point to die at.
func (a *agent) at(point string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.crash == point {
		a.crash = ""
		panic(dead{})
	}
}

func (a *agent) once(flag *bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := *flag
	*flag = false
	return was
}

func (a *agent) work(j *agentv1.Job) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(dead); !ok {
				panic(p)
			}
		}
	}()
	a.mu.Lock()
	a.seen = append(a.seen, j.GetWork().GetOperation())
	a.mu.Unlock()
	res := a.perform(j)
	a.at("verified")
	report := func() (bool, error) {
		return a.r.broker.Report(context.Background(), a.id, reeve.JobID(j.GetId()), j.GetFence(), res)
	}
	if a.once(&a.mute) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.kept = append(a.kept, report)
		return
	}
	if _, err := report(); err != nil {
		a.r.t.Errorf("report of %s: %v", j.GetWork().GetOperation(), err)
	}
}

// hand is one job at work.
type hand struct {
	*agent
	j       *agentv1.Job
	m       *machine
	name    string
	secrets map[string]string
	res     *agentv1.Result
	bad     int
}

func (a *agent) perform(j *agentv1.Job) *agentv1.Result {
	w := j.GetWork()
	h := &hand{agent: a, j: j, name: w.GetAccountUsername(), secrets: map[string]string{},
		res: &agentv1.Result{Outcome: "done", Observation: &agentv1.Observation{}}}
	a.r.mu.Lock()
	h.m = a.r.machines[w.GetTarget().GetAddress()]
	a.r.mu.Unlock()
	binding := envelope.Binding{Cluster: cluster, Site: a.site, Agent: a.id, Job: reeve.JobID(j.GetId()), Fence: j.GetFence(), Connector: j.GetConnector()}
	for _, s := range j.GetSecrets() {
		v, err := envelope.Open(a.key, binding, envelope.Ref{Slot: s.GetSlot(), Secret: reeve.SecretID(s.GetSecret()), Version: s.GetVersion()},
			s.GetEnc(), s.GetCiphertext())
		if err != nil {
			a.r.t.Errorf("open %s: %v", s.GetSlot(), err)
		}
		h.secrets[s.GetSlot()] = v.Reveal()
	}
	a.at("taken")
	h.operate(w)
	a.mu.Lock()
	a.logins = max(a.logins, h.bad)
	a.mu.Unlock()
	return h.res
}

func (h *hand) fail(outcome reeve.Outcome, c reeve.Class, message string) {
	h.res.Outcome, h.res.Class, h.res.Message = string(outcome), string(c), message
}

// try is one fresh login with a slot.
func (h *hand) try(slot string) string {
	i := slices.IndexFunc(h.j.GetSecrets(), func(s *agentv1.SealedSecret) bool { return s.GetSlot() == slot })
	if i < 0 {
		return ""
	}
	s := h.j.GetSecrets()[i]
	verdict := h.m.verify(h.name, h.secrets[slot])
	if verdict == "bad_credential" {
		h.bad++
	}
	o := h.res.GetObservation()
	o.Logins = slices.DeleteFunc(o.GetLogins(), func(l *agentv1.LoginAttempt) bool { return l.GetSlot() == slot })
	o.Logins = append(o.Logins, &agentv1.LoginAttempt{Slot: slot, Secret: s.GetSecret(), Version: s.GetVersion(), Verdict: verdict})
	return verdict
}

func (h *hand) operate(w *agentv1.Work) {
	m, op := h.m, w.GetOperation()
	m.mu.Lock()
	down, shown, root := m.down, m.hostKey, m.root
	m.mu.Unlock()
	if op == opVerify {
		last := ""
		for _, slot := range []string{"candidate", "current", "history-1", "history-2", "history-3"} {
			if v := h.try(slot); v == "ok" {
				return
			} else if v != "" {
				last = v
			}
			if last != "" && last != "bad_credential" || h.bad >= int(w.GetLoginBudget()) {
				break
			}
		}
		h.fail(reeve.NotDone, classOf(last), "no secret of this job logs in: "+last)
		return
	}
	switch {
	case down:
		h.fail(reeve.NotDone, reeve.ClassUnreachable, "no route to the target")
		return
	case shown != "":
		h.fail(reeve.NotDone, reeve.ClassHostKeyChanged, "another host key")
		h.res.Details = map[string]string{"host_key": shown}
		return
	case h.secrets["management"] != root:
		h.fail(reeve.NotDone, reeve.ClassAuthFailed, "the management account cannot log in")
		return
	}
	switch op {
	case opProbe:
		h.res.Fingerprint = &connectorv1.Fingerprint{Product: "debian", Version: "12"}
		return
	case opPlan:
		for _, in := range w.GetIntents() {
			h.res.Plans = append(h.res.Plans, &agentv1.PlannedAction{Hash: m.hash(in), Plan: m.planFor(in)})
		}
		return
	case opInspect:
		h.res.Facts = m.facts(h.name)
		return
	case opRights:
		in := w.GetIntents()[0]
		h.res.Rights = []*connectorv1.Right{{Name: in.GetRole().GetName(), Reason: in.GetParams()["Units"], Grant: "GRANT"}}
		return
	}
	in := w.GetIntents()[0]
	switch {
	case w.GetPlanFirst():
		for _, in := range w.GetIntents() {
			h.res.Plans = append(h.res.Plans, &agentv1.PlannedAction{Hash: m.hash(in), Plan: m.planFor(in)})
		}
		if h.once(&h.planless) {
			h.res.Plans = nil
		}
	case m.hash(in) != w.GetPlanHash():
		h.fail(reeve.NotDone, reeve.ClassPlanChanged, "the plan is not the approved one")
		return
	}
	if op == opRotate {
		if h.try("candidate") == "ok" {
			return // a crash came between the change and the report
		}
		if v := h.try("current"); v == "locked" || v == "expired" || v == "disabled" {
			h.fail(reeve.NotDone, classOf(v), "the old secret cannot be tried: "+v)
			return
		}
	}
	h.at("before-apply")
	if !h.apply(in) {
		return
	}
	h.at("applied")
	if h.once(&h.lie) {
		h.res.Observation = nil
		return
	}
	switch op {
	case opProvision, opRotate:
		if h.bad >= int(w.GetLoginBudget()) {
			h.fail(reeve.OutcomeUncertain, reeve.ClassUnknownOutcome, "the new password was not tried")
		} else if v := h.try("candidate"); v != "ok" {
			h.fail(reeve.OutcomeUncertain, reeve.ClassUnknownOutcome, "the new password does not log in: "+v)
		}
	case opDisable, opEnable:
		h.try("current")
	}
	h.res.Facts = m.facts(h.name)
}

func classOf(verdict string) reeve.Class {
	switch verdict {
	case "bad_credential":
		return reeve.ClassAuthFailed
	case "locked":
		return reeve.ClassLocked
	case "expired":
		return reeve.ClassExpired
	case "disabled":
		return reeve.ClassDisabled
	case "must_change":
		return reeve.ClassMustChange
	default:
		return reeve.ClassUnreachable
	}
}

func (m *machine) planFor(in *connectorv1.Intent) *connectorv1.Plan {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &connectorv1.Plan{Action: in.GetAction(), Account: in.GetAccount(),
		Steps: []*connectorv1.Step{{Id: "do", Title: in.GetAction(), Command: in.GetAction() + " " + in.GetAccount() + " " + m.plan, Changes: true}}}
}

func (m *machine) hash(in *connectorv1.Intent) string {
	return "hash of " + m.planFor(in).GetSteps()[0].GetCommand()
}

func (m *machine) facts(name string) *connectorv1.Facts {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.accounts[name]
	if l == nil {
		return &connectorv1.Facts{Account: name}
	}
	return &connectorv1.Facts{Exists: true, Account: name, Identity: l.uid, Locked: l.locked, HasPassword: true}
}

// apply changes the machine, or dies while the change is on its way.
func (h *hand) apply(in *connectorv1.Intent) bool {
	m, password := h.m, h.secrets["candidate"]
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.accounts[h.name]
	if l != nil && (l.owner != in.GetAccountId() || in.GetIdentity() != "" && in.GetIdentity() != l.uid) {
		h.fail(reeve.NotDone, reeve.ClassExists, "somebody else's account has this name")
		return false
	}
	if m.refuse > 0 && password != "" {
		m.refuse--
		h.fail(reeve.NotDone, reeve.ClassPolicyRejected, "BAD PASSWORD: it is based on a dictionary word")
		return false
	}
	change := func() {
		l := m.accounts[h.name]
		switch in.GetAction() {
		case opProvision:
			if l == nil {
				l = &login{uid: fmt.Sprint(1000 + len(m.accounts)), owner: in.GetAccountId()}
				m.accounts[h.name] = l
			}
			l.password = password
		case opRotate:
			if l != nil {
				l.password = password
				if l.refuses == "must_change" {
					l.refuses = ""
				}
			}
		case opDisable:
			l.locked = true
		case opEnable:
			l.locked = false
		case opDeprovision:
			delete(m.accounts, h.name)
		}
	}
	h.mu.Lock()
	dies := h.crash == "sent"
	fate := h.fate
	h.mu.Unlock()
	if dies {
		switch fate {
		case "now":
			change()
		case "late":
			m.late = append(m.late, lateChange{time.Now(), change})
		}
	} else {
		change()
	}
	h.at("sent")
	return true
}

// pass lets fake time go by.
func (r *rig) pass(d time.Duration) {
	r.fence()
	time.Sleep(d)
	synctest.Wait()
	r.fence()
}

// fence orders what the test has read and written of the models before what their
// goroutines do next, and the other way round. In between everybody else is idle.
func (r *rig) fence() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agent.mu.Lock()
	defer r.agent.mu.Unlock()
	for _, m := range r.machines {
		m.mu.Lock()
		defer m.mu.Unlock()
	}
}
