package sdktest_test

import (
	"context"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// broken is the toy connector with one thing done wrong.
type broken struct {
	toy.Connector
	describe func(*sdk.Description)
	probe    func(context.Context, sdk.Target) (sdk.Fingerprint, error)
	plan     func(context.Context, sdk.Target, sdk.Intent) (sdk.Plan, error)
	apply    func(context.Context, sdk.Target, sdk.Change, sdk.Progress) (sdk.Result, error)
	verify   func(context.Context, sdk.Target, sdk.Credential) (sdk.Verdict, error)
	inspect  func(context.Context, sdk.Target, string) (sdk.Facts, error)
	discover func(context.Context, sdk.Target, func(sdk.Facts) bool) error
	run      func(context.Context, sdk.Target, string, sdk.Output) (int, error)
}

func (b broken) Describe() sdk.Description {
	d := b.Connector.Describe()
	if b.describe != nil {
		b.describe(&d)
	}
	return d
}

func (b broken) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	if b.probe != nil {
		return b.probe(ctx, t)
	}
	return b.Connector.Probe(ctx, t)
}

func (b broken) Plan(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	if b.plan != nil {
		return b.plan(ctx, t, in)
	}
	return b.Connector.Plan(ctx, t, in)
}

func (b broken) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
	if b.apply != nil {
		return b.apply(ctx, t, ch, p)
	}
	return b.Connector.Apply(ctx, t, ch, p)
}

func (b broken) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	if b.verify != nil {
		return b.verify(ctx, t, c)
	}
	return b.Connector.Verify(ctx, t, c)
}

func (b broken) Inspect(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
	if b.inspect != nil {
		return b.inspect(ctx, t, account)
	}
	return b.Connector.Inspect(ctx, t, account)
}

func (b broken) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	if b.discover != nil {
		return b.discover(ctx, t, yield)
	}
	return b.Connector.Discover(ctx, t, yield)
}

func (b broken) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	if b.run != nil {
		return b.run(ctx, t, command, out)
	}
	return b.Connector.Run(ctx, t, command, out)
}

var good toy.Connector

// applying is an Apply.
type applying = func(context.Context, sdk.Target, sdk.Change, sdk.Progress) (sdk.Result, error)

// only returns an Apply that does something else for one action.
func only(action sdk.Action, f applying) applying {
	return func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
		if ch.Intent.Action == action {
			return f(ctx, t, ch, p)
		}
		return good.Apply(ctx, t, ch, p)
	}
}

func pretend(_ context.Context, _ sdk.Target, ch sdk.Change, _ sdk.Progress) (sdk.Result, error) {
	return sdk.Result{Changed: true, Facts: sdk.Facts{
		Exists: true, Account: ch.Intent.Account, Identity: "1", HasPassword: true, ReadAt: time.Now(),
	}}, nil
}

func deaf(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	return good.Verify(context.WithoutCancel(ctx), t, c)
}

// guesses says that nothing happened when it does not know.
func guesses(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
	r, err := good.Apply(ctx, t, ch, p)
	if err != nil && sdk.ClassOf(err) == sdk.ClassUnknownOutcome {
		err = sdk.Errorf(sdk.ClassUnreachable, "cannot connect")
	}
	return r, err
}

// TestEveryCheckCanFail breaks the toy connector in at least one way for each check, and
// sees that check fail.
func TestEveryCheckCanFail(t *testing.T) {
	t.Parallel()
	all := flaws()
	for _, check := range sdktest.Checks() {
		if len(all[check.ID]) == 0 {
			t.Errorf("no broken connector proves that %s can fail: %s", check.ID, check.Title)
		}
		for name, make := range all[check.ID] {
			t.Run(check.ID+"/"+name, func(t *testing.T) {
				t.Parallel()
				m := toy.NewMachine(t)
				cfg := config(m)
				f := make(m)
				switch {
				case f.program != "":
					cfg.Binary = brokenProgram(t, f.program)
				case f.bare != nil:
					cfg.Connector = f.bare
				default:
					cfg.Connector = f.broken
				}
				if f.wrap != nil {
					cfg.Wrap(f.wrap)
				}
				if f.claim != nil {
					f.claim(&cfg)
				}
				report, err := sdktest.Examine(t.Context(), cfg, check.ID)
				if err != nil {
					t.Fatal(err)
				}
				if o, ok := report.Outcome(check.ID); !ok || o.Status != sdktest.Failed {
					t.Errorf("the broken connector passed:\n%s", report)
				}
			})
		}
	}
}

// flaw is one thing done wrong.
type flaw struct {
	broken
	bare    sdk.Connector // instead of broken, with fewer powers
	program string        // instead of both: a program of brokenPrograms
	wrap    func(connectorv1.ConnectorServer) connectorv1.ConnectorServer
	claim   func(*sdktest.Config) // what is claimed of the target
}

// flaws are broken connectors by the check that must notice.
func flaws() map[string]map[string]func(*toy.Machine) flaw {
	all := map[string]map[string]func(*toy.Machine) flaw{}
	for _, some := range []map[string]map[string]func(*toy.Machine) broken{firstFlaws(), repeatFlaws(), timeFlaws(), targetFlaws(), factFlaws(), describeFlaws(), stateFlaws()} {
		for id, flaws := range some {
			for name, make := range flaws {
				add(all, id, name, func(m *toy.Machine) flaw { return flaw{broken: make(m)} })
			}
		}
	}
	for id, program := range programFlaws {
		add(all, id, program, func(*toy.Machine) flaw { return flaw{program: program} })
	}
	add(all, "SDK109", "encrypts nothing", func(*toy.Machine) flaw { return flaw{claim: func(c *sdktest.Config) { c.InTheClear = "" }} })
	for id, server := range serverFlaws() {
		add(all, id, "another server", func(*toy.Machine) flaw { return server })
	}
	return all
}

func add(all map[string]map[string]func(*toy.Machine) flaw, id, name string, f func(*toy.Machine) flaw) {
	if all[id] == nil {
		all[id] = map[string]func(*toy.Machine) flaw{}
	}
	all[id][name] = f
}
