package sdktest_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

// firstFlaws break the life of an account.
func firstFlaws() map[string]map[string]func(*toy.Machine) broken {
	var plans atomic.Int64
	return map[string]map[string]func(*toy.Machine) broken{
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
			refused := make(chan struct{})
			refuse := sync.OnceFunc(func() { close(refused) })
			return func(*toy.Machine) broken {
				return broken{apply: func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
					if !busy.CompareAndSwap(false, true) {
						refuse()
						return sdk.Result{}, sdk.Errorf(sdk.ClassBusy, "somebody else is here")
					}
					defer busy.Store(false)
					select {
					case <-refused: // however long the next of the eight takes to come
					case <-ctx.Done():
						return sdk.Result{}, ctx.Err()
					}
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
		"SDK24": {"guesses that nothing happened": func(*toy.Machine) broken { return broken{apply: guesses} }},
	}
}
