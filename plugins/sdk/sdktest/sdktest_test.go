package sdktest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

// config is how the kit sees a machine.
func config(m *toy.Machine) sdktest.Config {
	var names atomic.Int64
	return sdktest.Config{
		Target:         m.Target(),
		WrongTrust:     sdk.Trust{HostKeys: []string{"toy of another machine"}},
		NewAccountName: func() string { return fmt.Sprintf("user%d", names.Add(1)) },
		Exists: func(_ context.Context, name string) (bool, error) {
			_, ok := m.Account(name)
			return ok, nil
		},
		LoginWorks: func(_ context.Context, name, password string) (bool, error) {
			return m.LoginWorks(name, password), nil
		},
		CreateForeign: func(_ context.Context, name, password string) error {
			m.Put(name, toy.Account{Password: password})
			return nil
		},
		Snapshot: func(context.Context) (string, error) {
			data, err := json.Marshal(m.Accounts())
			return string(data), err
		},
		Session: func(_ context.Context, name, password string) (func(), error) { return m.Session(name, password) },
		Commands: &sdktest.Commands{
			Speak: "say hello; warn careful; exit 3", Stdout: "hello", Stderr: "careful", Status: 3,
			Pause: "say first; wait; say second", Large: "many 20000", LargeEnd: "line 20000",
		},
	}
}

func TestToyConnectorConforms(t *testing.T) {
	t.Parallel()
	cfg := config(toy.NewMachine(t))
	cfg.Connector = toy.Connector{}
	cfg.Report = filepath.Join(t.TempDir(), "report.json")
	report := sdktest.Run(t, cfg)
	if !report.Passed() || len(report.Outcomes) < 20 {
		t.Errorf("the toy connector does not conform:\n%s", report)
	}
	data, err := os.ReadFile(cfg.Report)
	if err != nil {
		t.Fatal(err)
	}
	var written sdktest.Report
	if err := json.Unmarshal(data, &written); err != nil || len(written.Outcomes) != len(report.Outcomes) {
		t.Errorf("the report on disk has %d outcomes (%v), want %d", len(written.Outcomes), err, len(report.Outcomes))
	}
}

func TestToyProgramConforms(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "connector-toy")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./toy/connector-toy")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	cfg := config(toy.NewMachine(t))
	cfg.Binary = program
	sdktest.Run(t, cfg)
}

// broken is the toy connector with one thing done wrong.
type broken struct {
	toy.Connector
	describe func(*sdk.Description)
	probe    func(context.Context, sdk.Target) (sdk.Fingerprint, error)
	plan     func(context.Context, sdk.Target, sdk.Intent) (sdk.Plan, error)
	apply    func(context.Context, sdk.Target, sdk.Change, sdk.Progress) (sdk.Result, error)
	verify   func(context.Context, sdk.Target, sdk.Credential) (sdk.Verdict, error)
	inspect  func(context.Context, sdk.Target, string) (sdk.Facts, error)
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

// TestEveryCheckCanFail breaks the toy connector in one way for each check, and sees
// that check fail.
func TestEveryCheckCanFail(t *testing.T) {
	t.Parallel()
	var good toy.Connector
	ctx := context.Background()
	// only returns an Apply that does something else for one action.
	only := func(action sdk.Action, f func(context.Context, sdk.Target, sdk.Change, sdk.Progress) (sdk.Result, error),
	) func(context.Context, sdk.Target, sdk.Change, sdk.Progress) (sdk.Result, error) {
		return func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
			if ch.Intent.Action == action {
				return f(ctx, t, ch, p)
			}
			return good.Apply(ctx, t, ch, p)
		}
	}
	pretend := func(_ context.Context, _ sdk.Target, ch sdk.Change, _ sdk.Progress) (sdk.Result, error) {
		return sdk.Result{Changed: true, Facts: sdk.Facts{
			Exists: true, Account: ch.Intent.Account, Identity: "1", HasPassword: true, ReadAt: time.Now(),
		}}, nil
	}
	deaf := func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
		return good.Verify(context.WithoutCancel(ctx), t, c)
	}
	var plans atomic.Int64

	for id, connectors := range map[string]map[string]func(*toy.Machine) broken{
		"SDK01": {"no name rule": func(*toy.Machine) broken {
			return broken{describe: func(d *sdk.Description) { d.NameRule.Pattern = "" }}
		}},
		"SDK02": {"probe lacks a right": func(m *toy.Machine) broken { m.Set(toy.Faults{Refuse: "list"}); return broken{} }},
		"SDK03": {"trusts on first use": func(m *toy.Machine) broken {
			return broken{probe: func(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
				t.Trust = m.Target().Trust
				return good.Probe(ctx, t)
			}}
		}},
		"SDK04": {"checks no key": func(m *toy.Machine) broken {
			return broken{probe: func(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
				t.Trust = m.Target().Trust
				return good.Probe(ctx, t)
			}}
		}},
		"SDK05": {
			"calls it unreachable": func(*toy.Machine) broken {
				return broken{probe: func(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
					f, err := good.Probe(ctx, t)
					if err != nil {
						err = sdk.Errorf(sdk.ClassUnreachable, "cannot connect")
					}
					return f, err
				}}
			},
			"quotes the password": func(*toy.Machine) broken {
				return broken{probe: func(_ context.Context, t sdk.Target) (sdk.Fingerprint, error) {
					return sdk.Fingerprint{}, sdk.Errorf(sdk.ClassAuthFailed, "wrong password %s", t.Management.Password.Reveal())
				}}
			},
		},
		"SDK06": {
			"plan changes the target": func(m *toy.Machine) broken {
				return broken{plan: func(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
					m.Put(in.Account, toy.Account{})
					return good.Plan(ctx, t, in)
				}}
			},
			"plans differ": func(*toy.Machine) broken {
				return broken{plan: func(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
					p, err := good.Plan(ctx, t, in)
					p.Steps[0].Command += fmt.Sprint(plans.Add(1))
					return p, err
				}}
			},
			"plan has a secret": func(*toy.Machine) broken {
				return broken{plan: func(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
					p, err := good.Plan(ctx, t, in)
					p.Steps[0].Command += t.Management.Password.Reveal()
					return p, err
				}}
			},
		},
		"SDK07": {"only pretends": func(*toy.Machine) broken { return broken{apply: only(sdk.Provision, pretend)} }},
		"SDK08": {"fails the second time": func(m *toy.Machine) broken {
			return broken{apply: only(sdk.Provision,
				func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
					if _, ok := m.Account(ch.Intent.Account); ok {
						return sdk.Result{}, sdk.Errorf(sdk.ClassExists, "exists")
					}
					return good.Apply(ctx, t, ch, p)
				})}
		}},
		"SDK09": {"takes any plan": func(*toy.Machine) broken {
			return broken{apply: func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				ch.Plan, _ = good.Plan(ctx, t, ch.Intent)
				return good.Apply(ctx, t, ch, p)
			}}
		}},
		"SDK10": {"expands templates": func(*toy.Machine) broken {
			return broken{apply: only(sdk.Rotate,
				func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
					ch.Password = sdk.NewSecret([]byte(strings.ReplaceAll(ch.Password.Reveal(), "%s", "")))
					return good.Apply(ctx, t, ch, p)
				})}
		}},
		"SDK11": {"refuses with the wrong class": func(*toy.Machine) broken {
			return broken{describe: func(d *sdk.Description) { d.NameRule.Pattern = `^root$` }}
		}},
		"SDK12": {"any name goes": func(*toy.Machine) broken {
			return broken{describe: func(d *sdk.Description) { d.NameRule.Pattern = `(?s)^.*$` }}
		}},
		"SDK13": {"rotates nothing": func(*toy.Machine) broken { return broken{apply: only(sdk.Rotate, pretend)} }},
		"SDK14": {"disables nothing": func(*toy.Machine) broken { return broken{apply: only(sdk.Disable, pretend)} }},
		"SDK15": {"enables nothing": func(*toy.Machine) broken { return broken{apply: only(sdk.Enable, pretend)} }},
		"SDK16": {"removes nothing": func(*toy.Machine) broken {
			return broken{apply: only(sdk.Deprovision,
				func(context.Context, sdk.Target, sdk.Change, sdk.Progress) (sdk.Result, error) {
					return sdk.Result{Changed: true}, nil
				})}
		}},
		"SDK17": {
			"every password is right": func(*toy.Machine) broken {
				return broken{verify: func(context.Context, sdk.Target, sdk.Credential) (sdk.Verdict, error) {
					return sdk.Verdict{Kind: sdk.VerdictOK}, nil
				}}
			},
			"unreachable is a wrong password": func(*toy.Machine) broken {
				return broken{verify: func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
					v, err := good.Verify(ctx, t, c)
					if v.Kind == sdk.VerdictUnreachable {
						v.Kind = sdk.VerdictBadCredential
					}
					return v, err
				}}
			},
		},
		"SDK18": {"everybody exists": func(*toy.Machine) broken {
			return broken{inspect: func(_ context.Context, _ sdk.Target, account string) (sdk.Facts, error) {
				return sdk.Facts{Exists: true, Account: account}, nil
			}}
		}},
		"SDK19": {"hears no cancellation": func(*toy.Machine) broken { return broken{verify: deaf} }},
		"SDK20": {"one at a time": func() func(*toy.Machine) broken {
			var busy atomic.Bool
			return func(*toy.Machine) broken {
				return broken{apply: func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
					if !busy.CompareAndSwap(false, true) {
						return sdk.Result{}, sdk.Errorf(sdk.ClassBusy, "somebody else is here")
					}
					defer busy.Store(false)
					time.Sleep(10 * time.Millisecond) // long enough that eight meet
					return good.Apply(ctx, t, ch, p)
				}}
			}
		}()},
		"SDK21": {
			"secret in an environment": func(*toy.Machine) broken {
				return broken{apply: func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
					child := exec.CommandContext(ctx, "sleep", "0.3")
					child.Env = []string{"PASSWORD=" + ch.Password.Reveal()}
					if err := child.Run(); err != nil {
						return sdk.Result{}, err
					}
					return good.Apply(ctx, t, ch, p)
				}}
			},
			"secret in an event": func(*toy.Machine) broken {
				return broken{apply: func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
					p(sdk.Event{Step: "password", State: sdk.StepInfo, Message: "setting " + ch.Password.Reveal()})
					return good.Apply(ctx, t, ch, p)
				}}
			},
		},
		"SDK22": {"adopts anything": func(m *toy.Machine) broken {
			return broken{apply: func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				if a, ok := m.Account(ch.Intent.Account); ok {
					a.Owner = ch.Intent.AccountID
					m.Put(ch.Intent.Account, a)
				}
				return good.Apply(ctx, t, ch, p)
			}}
		}},
		"SDK23": {"looks at no identity": func(*toy.Machine) broken {
			return broken{apply: func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				ch.Intent.Identity = ""
				return good.Apply(ctx, t, ch, p)
			}}
		}},
		"SDK24": {"guesses that nothing happened": func(*toy.Machine) broken {
			return broken{apply: func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				r, err := good.Apply(ctx, t, ch, p)
				if err != nil && sdk.ClassOf(err) == sdk.ClassUnknownOutcome {
					err = sdk.Errorf(sdk.ClassUnreachable, "cannot connect")
				}
				return r, err
			}}
		}},
	} {
		for name, make := range connectors {
			t.Run(id+"/"+name, func(t *testing.T) {
				t.Parallel()
				m := toy.NewMachine(t)
				cfg := config(m)
				cfg.Connector = make(m)
				report, err := sdktest.Examine(ctx, cfg, nil, id)
				if err != nil {
					t.Fatal(err)
				}
				if o, ok := report.Outcome(id); !ok || o.Status != sdktest.Failed {
					t.Errorf("the broken connector passed:\n%s", report)
				}
			})
		}
	}
}
