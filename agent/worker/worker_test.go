package worker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/reeve-pam/reeve/agent/agenttest"
	"github.com/reeve-pam/reeve/agent/link"
	"github.com/reeve-pam/reeve/agent/logship"
	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/agent/worker"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

var connectors struct {
	once   sync.Once
	dir    string
	digest string
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if connectors.dir != "" {
		_ = os.RemoveAll(connectors.dir)
	}
	os.Exit(code)
}

func connectorDir(t testing.TB) (dir, digest string) {
	t.Helper()
	connectors.once.Do(func() {
		if connectors.dir, connectors.err = os.MkdirTemp("", "reeve-worker-test-"); connectors.err != nil {
			return
		}
		out, err := exec.Command("go", "build", "-o", connectors.dir+"/connector-toy", "../../plugins/sdk/sdktest/toy/connector-toy").CombinedOutput() //nolint:noctx,gosec // our own
		if err != nil {
			connectors.err = fmt.Errorf("%w\n%s", err, out)
			return
		}
		list, err := pluginhost.List(connectors.dir)
		if err != nil || len(list) != 1 {
			connectors.err = fmt.Errorf("list: %v %w", list, err)
			return
		}
		connectors.digest = list[0].SHA256
	})
	if connectors.err != nil {
		t.Fatal(connectors.err)
	}
	return connectors.dir, connectors.digest
}

// bench is an agent, its controller and a target.
type bench struct {
	t    testing.TB
	c    *agenttest.Controller
	m    *toy.Machine
	data string
	id   link.Identity
	log  *syncBuffer
	next uint64 // fence
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{t: t, c: agenttest.NewController(t), m: toy.NewMachine(t), data: t.TempDir(), log: &syncBuffer{}}
	id, err := link.Enroll(t.Context(), b.data, b.c.Token(t), "1", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	b.id = id
	return b
}

// syncBuffer is a buffer that several goroutines may write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start runs a worker on the bench's data directory; stop ends it, as does the test's
// end, and returns what Run did.
func (b *bench) start(crash func(string) bool) (stop func() error) {
	b.t.Helper()
	log := slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	dir, _ := connectorDir(b.t)
	l, err := link.Open(link.Config{Dir: b.data, Version: "1", Logger: log})
	if err != nil {
		b.t.Fatal(err)
	}
	logs, err := logship.Open(logship.Config{Path: filepath.Join(b.data, "logs.db"), Logger: log})
	if err != nil {
		b.t.Fatal(err)
	}
	host := pluginhost.New(pluginhost.Config{Dir: dir, Logger: log})
	w, err := worker.New(worker.Config{Link: l, Host: worker.Plugins(host), Logs: logs, Outbox: filepath.Join(b.data, "outbox.db"), Concurrency: 4,
		Logger: log, Crash: crash})
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var beside sync.WaitGroup
	serving, end := context.WithCancel(context.Background())
	beside.Go(func() { _ = host.Run(serving) })
	beside.Go(func() { _ = logs.Run(serving) })
	beside.Go(func() { _ = l.Call(serving, logs.Ship) })
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		err := <-done
		end()
		beside.Wait()
		l.Close()
		return errors.Join(err, w.Close(), logs.Close())
	})
	b.t.Cleanup(func() { _ = stop() })
	return stop
}

// secret is a secret for a job.
type secret struct {
	slot, value string
	version     uint32
}

func (b *bench) intent(action sdk.Action) sdk.Intent {
	return sdk.Intent{Action: action, Account: "app", AccountID: "acct_1", Comment: "ticket 1",
		Role: sdk.Role{Name: "toy-standard", Title: "Standard", Version: 1}}
}

// planHash is what the toy connector would plan.
func (b *bench) planHash(in sdk.Intent) string {
	b.t.Helper()
	p, err := toy.Connector{}.Plan(b.t.Context(), b.m.Target(), in)
	if err != nil {
		b.t.Fatal(err)
	}
	return sdk.PlanHash(p)
}

// job makes a leased job with its secrets sealed to the agent.
func (b *bench) job(operation string, secrets ...secret) *agentv1.Job {
	b.t.Helper()
	b.next++
	_, digest := connectorDir(b.t)
	target := sdk.TargetToProto(b.m.Target())
	management := string(target.Management.Password)
	target.Management = &connectorv1.Credential{Username: toy.Management}
	work := &agentv1.Work{Operation: operation, Target: target, AccountUsername: "app", LoginBudget: 2}
	switch operation {
	case "provision", "rotate", "disable", "enable", "deprovision":
		in := b.intent(sdk.Action(operation))
		work.Intents = []*connectorv1.Intent{sdk.IntentToProto(in)}
		work.PlanHash = b.planHash(in)
	case "rights":
		work.Intents = []*connectorv1.Intent{{Role: sdk.RoleToProto(sdk.Role{Name: "toy-standard", Version: 1})}}
	}
	j := &agentv1.Job{Id: "job_" + operation, Fence: b.next, Attempt: 1, Lease: durationpb.New(time.Minute), Timeout: durationpb.New(20 * time.Second),
		Connector: "toy", ConnectorSha256: []string{digest}, Work: work, LogLimit: 1 << 20}
	for _, s := range append(secrets, secret{"management", management, 1}) {
		j.Secrets = append(j.Secrets, b.seal(j, s))
	}
	return j
}

func (b *bench) seal(j *agentv1.Job, s secret) *agentv1.SealedSecret {
	b.t.Helper()
	var key []byte
	b.c.With(func(st *agenttest.State) { key = st.Agents[string(b.id.Agent)].HPKE })
	public, err := envelope.ParsePublicKey(key)
	if err != nil {
		b.t.Fatal(err)
	}
	enc, sealed, err := envelope.Seal(public, envelope.Binding{Cluster: b.id.Cluster, Site: b.id.Site, Agent: b.id.Agent,
		Job: reeve.JobID(j.Id), Fence: j.Fence, Connector: j.Connector},
		envelope.Ref{Slot: s.slot, Secret: reeve.SecretID("sec_" + s.slot), Version: s.version}, reeve.SecretString(s.value))
	if err != nil {
		b.t.Fatal(err)
	}
	return &agentv1.SealedSecret{Slot: s.slot, Kind: "password", Secret: "sec_" + s.slot, Version: s.version, Enc: enc, Ciphertext: sealed}
}

func (b *bench) give(j *agentv1.Job) {
	b.c.Send(&agentv1.PullJobsResponse{Message: &agentv1.PullJobsResponse_Job{Job: j}})
}

// outcome waits for the report of a delivery.
func (b *bench) outcome(j *agentv1.Job) *agentv1.Result {
	b.t.Helper()
	var res *agentv1.Result
	b.c.Wait(b.t, "outcome of "+j.Id, func(s *agenttest.State) bool {
		for _, o := range s.Outcomes {
			if o.Job == j.Id && o.Fence == j.Fence {
				res = o.Result
			}
		}
		return res != nil
	})
	return res
}

func (b *bench) do(j *agentv1.Job) *agentv1.Result {
	b.t.Helper()
	b.give(j)
	return b.outcome(j)
}

func verdicts(res *agentv1.Result) string {
	var out []string
	for _, l := range res.GetObservation().GetLogins() {
		out = append(out, fmt.Sprintf("%s@%d=%s", l.Slot, l.Version, l.Verdict))
	}
	return strings.Join(out, " ")
}

func want(t testing.TB, res *agentv1.Result, outcome reeve.Outcome, class reeve.Class) {
	t.Helper()
	if res.Outcome != string(outcome) || res.Class != string(class) {
		t.Errorf("outcome %s %s, want %s %s: %s (logins %s)", res.Outcome, res.Class, outcome, class, res.Message, verdicts(res))
	}
}

const (
	first  = "f1rst-Passw0rd!"
	second = "s3cond-Passw0rd!"
)

// The whole life of an account, seen on the machine itself.
func TestAccountLivesThroughItsOperations(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)

	want(t, b.do(b.job("probe")), reeve.Done, "")

	plan := b.job("plan")
	for _, a := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		plan.Work.Intents = append(plan.Work.Intents, sdk.IntentToProto(b.intent(a)))
	}
	res := b.do(plan)
	want(t, res, reeve.Done, "")
	for i, p := range res.Plans {
		if in := sdk.IntentFromProto(plan.Work.Intents[i]); p.Hash != b.planHash(in) || p.Plan.Action != string(in.Action) {
			t.Errorf("plan %d: %v", i, p)
		}
	}
	if len(res.Plans) != 5 {
		t.Errorf("%d plans", len(res.Plans))
	}

	res = b.do(b.job("provision", secret{"candidate", first, 1}))
	want(t, res, reeve.Done, "")
	if !b.m.LoginWorks("app", first) || !res.Facts.GetExists() || verdicts(res) != "candidate@1=ok" {
		t.Errorf("provisioned: %v", res)
	}

	want(t, b.do(b.job("verify", secret{"current", first, 1})), reeve.Done, "")

	res = b.do(b.job("rotate", secret{"current", first, 1}, secret{"candidate", second, 2}))
	want(t, res, reeve.Done, "")
	if !b.m.LoginWorks("app", second) || b.m.LoginWorks("app", first) || verdicts(res) != "candidate@2=bad_credential current@1=ok candidate@2=ok" {
		t.Errorf("rotated: %s", verdicts(res))
	}

	res = b.do(b.job("verify", secret{"current", first, 1}))
	want(t, res, reeve.NotDone, reeve.ClassAuthFailed)

	res = b.do(b.job("disable", secret{"current", second, 2}))
	want(t, res, reeve.Done, "")
	if a, _ := b.m.Account("app"); !a.Locked || !res.Facts.Locked {
		t.Error("not locked")
	}
	want(t, b.do(b.job("enable", secret{"current", second, 2})), reeve.Done, "")
	if !b.m.LoginWorks("app", second) {
		t.Error("not unlocked")
	}
	res = b.do(b.job("inspect"))
	want(t, res, reeve.Done, "")
	if !res.Facts.GetExists() || res.Facts.Account != "app" {
		t.Errorf("facts %v", res.Facts)
	}
	want(t, b.do(b.job("rights")), reeve.NotDone, reeve.ClassUnsupported) // the toy cannot tell
	res = b.do(b.job("deprovision"))
	want(t, res, reeve.Done, "")
	if _, ok := b.m.Account("app"); ok || res.Facts.GetExists() {
		t.Error("still there")
	}
	want(t, b.do(b.job("deprovision")), reeve.Done, "") // already gone is gone
}

func TestPlanThatIsNotTheApprovedOneIsNotDone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)
	for _, hash := range []string{"", strings.Repeat("0", 64)} {
		j := b.job("provision", secret{"candidate", first, 1})
		j.Work.PlanHash = hash
		want(t, b.do(j), reeve.NotDone, reeve.ClassPlanChanged)
	}
	if len(b.m.Accounts()) != 0 || slices.Contains(b.m.Requests(), "create") {
		t.Error("something was done")
	}
}

// planFirst makes a job that plans all actions and carries out its own.
func (b *bench) planFirst(operation string, secrets ...secret) *agentv1.Job {
	b.t.Helper()
	j := b.job(operation, secrets...)
	j.Work.Intents, j.Work.PlanHash, j.Work.PlanFirst = nil, "", true
	for _, a := range []sdk.Action{sdk.Provision, sdk.Rotate, sdk.Disable, sdk.Enable, sdk.Deprovision} {
		j.Work.Intents = append(j.Work.Intents, sdk.IntentToProto(b.intent(a)))
	}
	return j
}

// wantPlans fails unless a result holds the plans of all actions.
func (b *bench) wantPlans(res *agentv1.Result, intents []*connectorv1.Intent) {
	b.t.Helper()
	if len(res.Plans) != len(intents) {
		b.t.Fatalf("%d plans for %d intents", len(res.Plans), len(intents))
	}
	for i, p := range res.Plans {
		if in := sdk.IntentFromProto(intents[i]); p.Hash != b.planHash(in) || p.Plan.Action != string(in.Action) {
			b.t.Errorf("plan %d: %v", i, p)
		}
	}
}

func TestOneJobPlansAndCarriesOutWhatNobodyHasToApprove(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)
	j := b.planFirst("provision", secret{"candidate", first, 1})
	res := b.do(j)
	want(t, res, reeve.Done, "")
	b.wantPlans(res, j.Work.Intents)
	if !b.m.LoginWorks("app", first) || verdicts(res) != "candidate@1=ok" {
		t.Errorf("provisioned: %v", res)
	}
}

// Once the target may be touched, the plans survive the agent.
func TestPlansAreKeptBeforeTheTargetIsTouched(t *testing.T) {
	t.Parallel()
	for point, kept := range map[string]bool{"before-plan": false, "before-apply": true, "after-apply": true} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			crashed := make(chan struct{})
			var once sync.Once
			stop := b.start(func(p string) bool {
				if p == point {
					once.Do(func() { close(crashed) })
				}
				return p == point
			})
			j := b.planFirst("provision", secret{"candidate", first, 1})
			b.give(j)
			select {
			case <-crashed:
			case <-time.After(20 * time.Second):
				t.Fatal("the point was not reached")
			}
			if err := stop(); !errors.Is(err, worker.ErrCrashed) {
				t.Fatal(err)
			}
			b.start(nil)
			res := b.outcome(j)
			want(t, res, reeve.OutcomeUncertain, reeve.ClassUnknownOutcome)
			if kept {
				b.wantPlans(res, j.Work.Intents)
			} else if len(res.Plans) != 0 {
				t.Errorf("%d plans that were not made", len(res.Plans))
			}
		})
	}
}

func TestAJobThatDoesNotSayWhatShallBecomeOfTheAccountChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)
	for name, spoil := range map[string]func(*agentv1.Work){
		"several intents and an approved plan": func(w *agentv1.Work) { w.PlanFirst, w.PlanHash = false, b.planHash(b.intent(sdk.Provision)) },
		"its own intent is missing":            func(w *agentv1.Work) { w.Intents = w.Intents[1:] },
		"its own intent is there twice":        func(w *agentv1.Work) { w.Intents = append(w.Intents, w.Intents[0]) },
		"an intent for another account":        func(w *agentv1.Work) { w.Intents[4].Account = "other" },
		"no plan is approved":                  func(w *agentv1.Work) { w.PlanFirst, w.Intents = false, w.Intents[:1] },
	} {
		j := b.planFirst("provision", secret{"candidate", first, 1})
		spoil(j.Work)
		if res := b.do(j); res.Outcome != string(reeve.NotDone) || b.m.LoginWorks("app", first) {
			t.Errorf("%s: %v", name, res)
		}
	}
}

func TestConnectorWithAnotherDigestIsNotRun_P4(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)
	j := b.job("probe")
	j.ConnectorSha256 = []string{strings.Repeat("0", 64)}
	want(t, b.do(j), reeve.NotDone, reeve.ClassPluginChanged)
	if len(b.m.Requests()) != 0 {
		t.Error("the target was touched")
	}
}

// rotation says what the machine does wrong during a rotation and what must come of
// it.
func TestRotationNeverLosesThePassword_R1(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		password string // on the machine before
		faults   toy.Faults
		outcome  reeve.Outcome
		class    reeve.Class
		logins   string
		works    string
	}{
		"plain":                           {first, toy.Faults{}, reeve.Done, "", "candidate@2=bad_credential current@1=ok candidate@2=ok", second},
		"done by an earlier try":          {second, toy.Faults{}, reeve.Done, "", "candidate@2=ok", second},
		"neither works: reconcile later":  {"0ther-Passw0rd!", toy.Faults{}, reeve.OutcomeUncertain, reeve.ClassUnknownOutcome, "candidate@2=bad_credential current@1=bad_credential", second},
		"cut before the change":           {first, toy.Faults{CutBefore: "password"}, reeve.OutcomeUncertain, reeve.ClassUnknownOutcome, "candidate@2=bad_credential current@1=ok candidate@2=bad_credential", first},
		"cut after the change":            {first, toy.Faults{CutAfter: "password"}, reeve.Done, "", "candidate@2=bad_credential current@1=ok candidate@2=ok", second},
		"the target refuses the password": {first, toy.Faults{Refuse: "password"}, reeve.NotDone, reeve.ClassNotPermitted, "candidate@2=bad_credential current@1=ok current@1=ok", first},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.m.Put("app", toy.Account{Owner: "acct_1", Password: c.password})
			b.m.Set(c.faults)
			b.start(nil)
			res := b.do(b.job("rotate", secret{"current", first, 1}, secret{"candidate", second, 2}))
			want(t, res, c.outcome, c.class)
			if got := verdicts(res); got != c.logins {
				t.Errorf("logins %s, want %s", got, c.logins)
			}
			if !b.m.LoginWorks("app", c.works) {
				a, _ := b.m.Account("app")
				t.Errorf("the machine has %q", a.Password)
			}
		})
	}
}

// Whichever job meets it: what the target shows now is what a person has to compare.
func TestAChangedHostKeyIsShown(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"rotate", "disable"} {
		b := newBench(t)
		b.m.Put("app", toy.Account{Owner: "acct_1", Password: first})
		b.start(nil)
		j := b.job(operation, secret{"current", first, 1}, secret{"candidate", second, 2})
		j.Work.Target.Trust.HostKeys = []string{"toy another"}
		res := b.do(j)
		want(t, res, reeve.NotDone, reeve.ClassHostKeyChanged)
		if key := b.m.Target().Trust.HostKeys[0]; res.Details["host_key"] != key || strings.Contains(res.Message, "host_key_changed") {
			t.Errorf("%s: %v", operation, res)
		}
	}
}

// A target that said no, and shows no account afterwards, has told all there is to know:
// nobody need wait until an effect may have shown, and try in vain again.
func TestARefusedProvisioningThatWasUndoneIsNotDone_C29(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		faults  toy.Faults
		outcome reeve.Outcome
		class   reeve.Class
	}{
		"refused":         {toy.Faults{Refuse: "password"}, reeve.NotDone, reeve.ClassNotPermitted},
		"the answer lost": {toy.Faults{CutBefore: "password"}, reeve.OutcomeUncertain, reeve.ClassUnknownOutcome},
		"not undone":      {toy.Faults{Refuse: "password", CutBefore: "remove"}, reeve.OutcomeUncertain, reeve.ClassNotPermitted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.m.Set(c.faults)
			b.start(nil)
			res := b.do(b.job("provision", secret{"candidate", first, 1}))
			want(t, res, c.outcome, c.class)
			if _, there := b.m.Account("app"); there == (c.outcome == reeve.NotDone) {
				t.Errorf("the account is there: %t", there)
			}
			if left := slices.Contains(res.Residue, "account app"); left != (name == "not undone") {
				t.Errorf("what is left: %q", res.Residue)
			}
		})
	}
}

// A candidate that never left the controllers is not tried before it is set: that would
// only be a failed login on every rotation.
func TestAFreshCandidateCostsNoFailedLogin_R5(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		operation, password string
		logins, works       string
	}{
		"plain":                          {"rotate", first, "current@1=ok candidate@2=ok", second},
		"the old one does not work":      {"rotate", "0ther-Passw0rd!", "current@1=bad_credential candidate@2=ok", second},
		"the target has it all the same": {"rotate", second, "current@1=bad_credential candidate@2=ok", second},
		"looking for one that works":     {"verify", first, "current@1=ok", first},
		"looking for one, it is the one": {"verify", second, "current@1=bad_credential candidate@2=ok", second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.m.Put("app", toy.Account{Owner: "acct_1", Password: c.password})
			b.start(nil)
			j := b.job(c.operation, secret{"candidate", second, 2}, secret{"current", first, 1})
			j.Secrets[0].Fresh = true
			res := b.do(j)
			want(t, res, reeve.Done, "")
			if got := verdicts(res); got != c.logins {
				t.Errorf("logins %s, want %s", got, c.logins)
			}
			if !b.m.LoginWorks("app", c.works) {
				t.Error("another password is on the machine")
			}
		})
	}
}

func TestUnreachableTargetIsNotDone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)
	for _, op := range []string{"probe", "verify", "rotate", "provision"} {
		j := b.job(op, secret{"current", first, 1}, secret{"candidate", second, 2})
		j.Work.Target.Port = 1
		want(t, b.do(j), reeve.NotDone, reeve.ClassUnreachable)
	}
}

func TestFailedLoginsStayWithinTheBudget_R5(t *testing.T) {
	t.Parallel()
	for budget := uint32(1); budget <= 4; budget++ {
		t.Run(fmt.Sprint(budget), func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.m.Put("app", toy.Account{Owner: "acct_1", Password: "n0ne-of-th3m"})
			b.start(nil)
			j := b.job("verify", secret{"candidate", "wr0ng-0000", 9}, secret{"current", "wr0ng-1111", 8}, secret{"history-1", "wr0ng-2222", 7},
				secret{"history-2", "wr0ng-3333", 6})
			j.Work.LoginBudget = budget
			res := b.do(j)
			want(t, res, reeve.NotDone, reeve.ClassAuthFailed)
			if n := b.m.Refused("app"); n != int(budget) || len(res.Observation.Logins) != int(budget) || b.m.Refused(toy.Management) != 0 {
				t.Errorf("%d failed logins with a budget of %d: %s", n, budget, verdicts(res))
			}
		})
	}
}

// The worker dies at each point of a rotation. A new one reports first what is known,
// and only then pulls; the account still opens with one of the two passwords.
func TestCrashAtEveryPointIsReportedHonestly_C5_C7_C11(t *testing.T) {
	t.Parallel()
	for point, outcome := range map[string]reeve.Outcome{
		"before-journal": "", // nothing is known: the lease runs out
		"after-journal":  reeve.OutcomeUncertain,
		"before-plan":    reeve.OutcomeUncertain,
		"before-apply":   reeve.OutcomeUncertain,
		"after-apply":    reeve.OutcomeUncertain,
		"before-verify":  reeve.OutcomeUncertain,
		"after-verify":   reeve.OutcomeUncertain,
		"before-outbox":  reeve.OutcomeUncertain,
		"after-outbox":   reeve.Done,
		"before-report":  reeve.Done,
		"after-report":   reeve.Done,
	} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.m.Put("app", toy.Account{Owner: "acct_1", Password: first})
			crashed := make(chan struct{})
			var once sync.Once
			stop := b.start(func(p string) bool {
				if p == point {
					once.Do(func() { close(crashed) })
				}
				return p == point
			})
			j := b.job("rotate", secret{"current", first, 1}, secret{"candidate", second, 2})
			b.give(j)
			select {
			case <-crashed:
			case <-time.After(20 * time.Second):
				t.Fatal("the point was not reached")
			}
			if err := stop(); !errors.Is(err, worker.ErrCrashed) {
				t.Fatalf("Run: %v", err)
			}
			var calls int
			b.c.With(func(s *agenttest.State) {
				calls = len(s.Calls)
				if n := len(s.Outcomes); n > 0 && point != "after-report" {
					t.Errorf("the dead worker reported %d outcomes", n)
				}
			})
			if !b.m.LoginWorks("app", first) && !b.m.LoginWorks("app", second) {
				t.Error("no retained password opens the account")
			}

			b.start(nil)
			b.c.Wait(t, "pull", func(s *agenttest.State) bool { return slices.Contains(s.Calls[calls:], "PullJobs") })
			b.c.With(func(s *agenttest.State) {
				after := s.Calls[calls:]
				report, pull := slices.Index(after, "ReportOutcome"), slices.Index(after, "PullJobs")
				if outcome == "" {
					if report >= 0 {
						t.Errorf("reported what was not begun")
					}
					return
				}
				if report < 0 || report > pull {
					t.Errorf("calls after the restart: %v", after)
				}
				if len(s.Outcomes) != 1 || s.Outcomes[0].Result.Outcome != string(outcome) {
					t.Errorf("outcomes %v", s.Outcomes)
				}
			})
			again := b.job("rotate", secret{"current", first, 1}, secret{"candidate", second, 2})
			again.Attempt = 2
			want(t, b.do(again), reeve.Done, "")
			if !b.m.LoginWorks("app", second) {
				t.Error("not rotated in the end")
			}
		})
	}
}

// A report whose answer is lost is repeated, and the job is not done again although it
// is delivered again.
func TestOutcomeStaysUntilAcknowledged_J2_C8(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	j := b.job("provision", secret{"candidate", first, 1})
	lost := 0
	b.c.With(func(s *agenttest.State) {
		s.After = func(m string) error {
			if m != "ReportOutcome" || lost == 2 {
				return nil
			}
			if lost++; lost == 1 {
				b.give(j)
			}
			return status.Error(codes.Unavailable, "lost")
		}
	})
	b.start(nil)
	b.give(j)
	b.c.Wait(t, "third report", func(s *agenttest.State) bool {
		return len(slices.DeleteFunc(slices.Clone(s.Calls), func(c string) bool { return c != "ReportOutcome" })) >= 3
	})
	want(t, b.do(b.job("inspect")), reeve.Done, "")
	creates := 0
	for _, r := range b.m.Requests() {
		if r == "create" {
			creates++
		}
	}
	if creates != 1 {
		t.Errorf("done %d times", creates)
	}
}

// The lease is lost while the target hangs: the work stops, its connector dies, and
// nobody claims to know what happened.
func TestLostLeaseStopsTheWork_C17(t *testing.T) {
	t.Parallel()
	for name, lose := range losses {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.m.Put("app", toy.Account{Owner: "acct_1", Password: first})
			b.m.Set(toy.Faults{Hang: "password"})
			b.start(nil)
			want(t, b.do(b.job("inspect")), reeve.Done, "") // the connector is warm: the rotation comes to its change
			lose(b, 2)
			j := b.job("rotate", secret{"current", first, 1}, secret{"candidate", second, 2})
			j.Lease = durationpb.New(4 * time.Second)
			began := time.Now()
			res := b.do(j)
			want(t, res, reeve.OutcomeUncertain, reeve.ClassUnknownOutcome)
			t.Log(b.log.String())
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// losses are the ways to lose leases, after so many answers that they are held.
var losses = map[string]func(b *bench, held int){
	"said by the controller": func(b *bench, times int) {
		var held atomic.Int32
		held.Store(int32(times)) //nolint:gosec // a small number
		b.c.With(func(s *agenttest.State) {
			s.Leases = func(*agentv1.LeaseRef) string {
				if held.Add(-1) >= 0 {
					return "held"
				}
				return "lost"
			}
		})
	},
	"by the clock, the controller being away": func(b *bench, times int) {
		var held atomic.Int32
		held.Store(int32(times)) //nolint:gosec // a small number
		b.c.With(func(s *agenttest.State) {
			s.Before = func(m string) error {
				if m != "RenewLeases" {
					return nil
				}
				if held.Add(-1) >= 0 {
					return nil
				}
				return status.Error(codes.Unavailable, "away")
			}
		})
	},
}

// A job that was sent long ago came out of the socket of a machine that had been stopped:
// it says that it has a lease, and somebody else has done it since.
func TestAJobWhoseLeaseNobodyConfirmsDoesNotLogIn_C17_R5(t *testing.T) {
	t.Parallel()
	for name, lose := range losses {
		for _, op := range []string{"rotate", "verify"} {
			t.Run(op+" "+name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				b.m.Put("app", toy.Account{Owner: "acct_1", Password: first})
				lose(b, 0)
				b.start(nil)
				j := b.job(op, secret{"current", second, 1}, secret{"candidate", second, 2})
				j.Lease = durationpb.New(3 * time.Second)
				if res := b.do(j); res.Outcome != string(reeve.NotDone) {
					t.Errorf("outcome %s", res.Outcome)
				}
				if n := len(b.m.Requests()); n > 0 || !b.m.LoginWorks("app", first) {
					t.Errorf("%d requests, the password is the first: %t", n, b.m.LoginWorks("app", first))
				}
			})
		}
	}
}

func TestRenewedLeaseLetsTheWorkGoOn(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.m.Put("app", toy.Account{Owner: "acct_1", Password: first})
	b.m.Set(toy.Faults{Hang: "password"})
	b.start(nil)
	j := b.job("rotate", secret{"current", first, 1}, secret{"candidate", second, 2})
	j.Lease, j.Timeout = durationpb.New(time.Second), durationpb.New(4*time.Second)
	began := time.Now()
	b.do(j)
	if took := time.Since(began); took < 2500*time.Millisecond {
		t.Errorf("ended after %s although its lease was renewed", took)
	}
}

func TestCancelledJobTellsWhetherItHadAnEffect(t *testing.T) {
	t.Parallel()
	for op, outcome := range map[string]reeve.Outcome{"probe": reeve.NotDone, "rotate": reeve.OutcomeUncertain} {
		t.Run(op, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.m.Put("app", toy.Account{Owner: "acct_1", Password: first})
			hang := map[string]string{"probe": "list", "rotate": "password"}[op]
			b.m.Set(toy.Faults{Hang: hang})
			b.start(nil)
			j := b.job(op, secret{"current", first, 1}, secret{"candidate", second, 2})
			b.give(j)
			for range 2000 {
				if slices.Contains(b.m.Requests(), hang) {
					break
				}
				time.Sleep(5 * time.Millisecond) // polls a real process
			}
			b.c.Send(&agentv1.PullJobsResponse{Message: &agentv1.PullJobsResponse_Cancel{Cancel: &agentv1.Cancel{Job: j.Id, Fence: j.Fence}}})
			res := b.outcome(j)
			if res.Outcome != string(outcome) {
				t.Errorf("got %v", res)
			}
			if op == "probe" && res.Class != string(reeve.ClassCancelled) {
				t.Errorf("class %s", res.Class)
			}
		})
	}
}

func TestCreditsBoundTheWork(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)
	var all []*agentv1.Job
	for i := range 20 {
		j := b.job("inspect")
		j.Id = fmt.Sprintf("job_%d", i)
		j.Secrets = []*agentv1.SealedSecret{b.seal(j, secret{"management", string(b.m.Target().Management.Password.Bytes()), 1})}
		all = append(all, j)
		b.give(j)
	}
	for _, j := range all {
		want(t, b.outcome(j), reeve.Done, "")
	}
}

// No password of a job is in the agent's data, log or job log, in its connector's
// arguments or environment, or in anything reported.
func TestPasswordsStayInside_K1_A6(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var procs bytes.Buffer
	stop := b.start(func(point string) bool {
		if point == "after-verify" || point == "after-apply" {
			for _, f := range []string{"cmdline", "environ"} {
				paths, _ := filepath.Glob("/proc/[0-9]*/" + f)
				for _, p := range paths {
					raw, _ := os.ReadFile(p) //nolint:gosec // of any process
					procs.Write(raw)
				}
			}
		}
		return false
	})
	jobs := []*agentv1.Job{
		b.job("provision", secret{"candidate", first, 1}),
		b.job("rotate", secret{"current", first, 1}, secret{"candidate", second, 2}),
	}
	management := string(b.m.Target().Management.Password.Bytes())
	for _, j := range jobs {
		want(t, b.do(j), reeve.Done, "")
	}
	for _, key := range []string{"job_provision/1", "job_rotate/1"} {
		b.c.Wait(t, "log", func(s *agenttest.State) bool { n := len(s.Logs[key]); return n > 0 && s.Logs[key][n-1].Last })
	}
	_ = stop()
	places := map[string][]byte{"agent log": []byte(b.log.String()), "processes": procs.Bytes()}
	entries, err := os.ReadDir(b.data)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		raw, err := os.ReadFile(filepath.Join(b.data, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		places[e.Name()] = raw
	}
	b.c.With(func(s *agenttest.State) {
		for _, o := range s.Outcomes {
			raw, _ := proto.Marshal(o)
			places["outcome of "+o.Job] = raw
		}
		for key, chunks := range s.Logs {
			for _, c := range chunks {
				places["log "+key] = append(places["log "+key], c.Data...)
			}
		}
	})
	for place, raw := range places {
		if len(raw) == 0 {
			t.Errorf("%s is empty: the test is blind", place)
		}
		for _, s := range []string{first, second, management} {
			if bytes.Contains(raw, []byte(s)) {
				t.Errorf("a password is in: %s", place)
			}
		}
	}
}

// When Run has returned, nothing of the worker is left, whatever it was doing.
func TestStoppedMeansJoined(t *testing.T) {
	b := newBench(t)
	b.m.Put("app", toy.Account{Owner: "acct_1", Password: first})
	b.m.Set(toy.Faults{Hang: "password"})
	stop := b.start(nil)
	b.give(b.job("rotate", secret{"current", first, 1}, secret{"candidate", second, 2}))
	for range 2000 {
		if slices.Contains(b.m.Requests(), "password") {
			break
		}
		time.Sleep(5 * time.Millisecond) // polls a real process
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for i := 0; ours() != ""; i++ { // go-plugin ends some of its own in the background
		if i == 500 {
			t.Fatalf("left behind:\n%s", ours())
		}
		time.Sleep(10 * time.Millisecond)
	}
	b.m.Set(toy.Faults{})
	b.start(nil)
	b.c.Wait(t, "outcome of the job that was at hand", func(s *agenttest.State) bool {
		return len(s.Outcomes) == 1 && s.Outcomes[0].Result.Outcome == string(reeve.OutcomeUncertain)
	})
}

// ours returns the stacks of goroutines that belong to the agent.
func ours() string {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	var out []string
	for _, g := range strings.Split(string(stacks), "\n\n") {
		if strings.Contains(g, "testing.tRunner") {
			continue
		}
		for _, pkg := range []string{"reeve/agent/worker.", "reeve/agent/link.", "reeve/agent/logship.", "reeve/agent/pluginhost.", "hashicorp/go-plugin."} {
			if strings.Contains(g, pkg) {
				out = append(out, g)
				break
			}
		}
	}
	return strings.Join(out, "\n\n")
}
