package sdktest_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

// flawed is how a broken connector is made.
type flawed = map[string]map[string]func(*toy.Machine) broken

// applies is a flaw of Apply alone.
func applies(name string, f applying) map[string]func(*toy.Machine) broken {
	return map[string]func(*toy.Machine) broken{name: func(*toy.Machine) broken { return broken{apply: f} }}
}

// on is a flaw of Apply that needs the machine.
func on(name string, f func(m *toy.Machine) applying) map[string]func(*toy.Machine) broken {
	return map[string]func(*toy.Machine) broken{name: func(m *toy.Machine) broken { return broken{apply: f(m)} }}
}

// repeatFlaws break what happens the second time, and to others.
func repeatFlaws() flawed {
	return flawed{
		"SDK25": on("keeps the old password", func(m *toy.Machine) applying {
			return only(sdk.Provision, func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				if a, there := m.Account(ch.Intent.Account); there {
					ch.Password = sdk.NewSecret([]byte(a.Password))
				}
				return good.Apply(ctx, t, ch, p)
			})
		}),
		"SDK26": on("never forgets a name", func(*toy.Machine) applying {
			var removed sync.Map
			return func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				if _, was := removed.Load(ch.Intent.Account); was && ch.Intent.Action == sdk.Provision {
					return sdk.Result{}, sdk.Errorf(sdk.ClassExists, "the name was used before")
				}
				if ch.Intent.Action == sdk.Deprovision {
					removed.Store(ch.Intent.Account, true)
				}
				return good.Apply(ctx, t, ch, p)
			}
		}),
		"SDK27": on("counts how often it was disabled", func(m *toy.Machine) applying {
			return only(sdk.Disable, func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				r, err := good.Apply(ctx, t, ch, p)
				if a, there := m.Account(ch.Intent.Account); there {
					a.Comment += "+"
					m.Put(ch.Intent.Account, a)
				}
				return r, err
			})
		}),
		"SDK28": applies("enables what is not there", only(sdk.Enable, pretend)),
		"SDK29": on("cannot remove what is not there", func(m *toy.Machine) applying {
			return only(sdk.Deprovision, func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				if _, there := m.Account(ch.Intent.Account); !there {
					return sdk.Result{}, sdk.Errorf(sdk.ClassNotFound, "there is no such account")
				}
				return good.Apply(ctx, t, ch, p)
			})
		}),
		"SDK30": on("takes a name for a prefix", func(m *toy.Machine) applying {
			return only(sdk.Disable, func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				for name, a := range m.Accounts() {
					if strings.HasPrefix(name, ch.Intent.Account) && name != ch.Intent.Account {
						a.Locked = true
						m.Put(name, a)
					}
				}
				return good.Apply(ctx, t, ch, p)
			})
		}),
		"SDK31": on("leaves the lock", func(m *toy.Machine) applying {
			return only(sdk.Provision, func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				before, _ := m.Account(ch.Intent.Account)
				r, err := good.Apply(ctx, t, ch, p)
				if a, _ := m.Account(ch.Intent.Account); before.Locked {
					a.Locked = true
					m.Put(ch.Intent.Account, a)
				}
				return r, err
			})
		}),
		"SDK32": on("mixes passwords", func(m *toy.Machine) applying {
			var came atomic.Int32
			met := make(chan struct{})
			return only(sdk.Rotate, func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				if came.Add(1) == 2 {
					close(met)
				}
				select {
				case <-met: // however long the other takes to come
				case <-ctx.Done():
					return sdk.Result{}, ctx.Err()
				}
				r, err := good.Apply(ctx, t, ch, p)
				a, _ := m.Account(ch.Intent.Account)
				a.Password += "mixed"
				m.Put(ch.Intent.Account, a)
				return r, err
			})
		}),
		"SDK33": applies("tells nothing", func(ctx context.Context, t sdk.Target, ch sdk.Change, _ sdk.Progress) (sdk.Result, error) {
			return good.Apply(ctx, t, ch, func(sdk.Event) {})
		}),
		"SDK39": applies("guesses that nothing happened", guesses),
		"SDK40": applies("guesses that nothing happened", guesses),
		"SDK41": applies("guesses that nothing happened", guesses),
		"SDK42": on("stays busy after an error", staysBusy),
		"SDK43": applies("guesses that nothing happened", guesses),
		"SDK44": on("stays busy after an error", staysBusy),
	}
}

// timeFlaws hear neither deadline nor cancellation.
func timeFlaws() flawed {
	one := func(b broken) map[string]func(*toy.Machine) broken {
		return map[string]func(*toy.Machine) broken{"hears no cancellation": func(*toy.Machine) broken { return b }}
	}
	apply := func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
		return good.Apply(context.WithoutCancel(ctx), t, ch, p)
	}
	run := func(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
		return good.Run(context.WithoutCancel(ctx), t, command, out)
	}
	return flawed{
		"SDK45": one(broken{probe: func(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
			return good.Probe(context.WithoutCancel(ctx), t)
		}}),
		"SDK46": one(broken{plan: func(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
			if _, err := good.Inspect(context.WithoutCancel(ctx), t, in.Account); err != nil {
				return sdk.Plan{}, err
			}
			return good.Plan(ctx, t, in)
		}}),
		"SDK47": one(broken{inspect: func(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
			return good.Inspect(context.WithoutCancel(ctx), t, account)
		}}),
		"SDK48": one(broken{verify: deaf}),
		"SDK49": one(broken{discover: func(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
			return good.Discover(context.WithoutCancel(ctx), t, yield)
		}}),
		"SDK50": one(broken{apply: apply}),
		"SDK51": one(broken{apply: apply}),
		"SDK52": one(broken{apply: apply}),
		"SDK53": one(broken{apply: apply}),
		"SDK54": one(broken{apply: apply}),
		"SDK95": one(broken{run: run}),
		"SDK98": one(broken{run: run}),
	}
}

// probes is a flaw of Probe alone.
func probes(name string, f func(m *toy.Machine, fp sdk.Fingerprint, err error) (sdk.Fingerprint, error)) map[string]func(*toy.Machine) broken {
	return map[string]func(*toy.Machine) broken{name: func(m *toy.Machine) broken {
		return broken{probe: func(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
			fp, err := good.Probe(ctx, t)
			return f(m, fp, err)
		}}
	}}
}

// targetFlaws misread targets that are not as they should be.
func targetFlaws() flawed {
	another := func(from, to sdk.Class) func(*toy.Machine, sdk.Fingerprint, error) (sdk.Fingerprint, error) {
		return func(_ *toy.Machine, fp sdk.Fingerprint, err error) (sdk.Fingerprint, error) {
			if sdk.ClassOf(err) == from {
				err = sdk.Errorf(to, "it does not work").WithFix("try again")
			}
			return fp, err
		}
	}
	helpless := func(_ *toy.Machine, fp sdk.Fingerprint, err error) (sdk.Fingerprint, error) {
		if err != nil {
			err = sdk.Errorf(sdk.ClassOf(err), "it does not work")
		}
		return fp, err
	}
	return flawed{
		"SDK55": probes("takes an absent target for a strange one", another(sdk.ClassUnreachable, sdk.ClassProtocol)),
		"SDK56": probes("knows no help", helpless),
		"SDK57": probes("takes an end for a missing account", another(sdk.ClassUnreachable, sdk.ClassNotFound)),
		"SDK58": probes("knows no help", helpless),
		"SDK59": probes("has an error inside", another(sdk.ClassProtocol, sdk.ClassInternal)),
		"SDK60": {"inspects anything": func(m *toy.Machine) broken {
			return broken{inspect: func(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
				t.Trust = m.Target().Trust
				return good.Inspect(ctx, t, account)
			}}
		}},
		"SDK61": applies("knows no help", func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
			r, err := good.Apply(ctx, t, ch, p)
			if sdk.ClassOf(err) == sdk.ClassNotFound {
				err = sdk.Errorf(sdk.ClassNotFound, "it is not there")
			}
			return r, err
		}),
		"SDK62": on("keeps a login for everybody", func(m *toy.Machine) applying {
			return func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				t.Management = m.Target().Management
				return good.Apply(ctx, t, ch, p)
			}
		}),
		"SDK63": probes("sees no missing right", func(_ *toy.Machine, fp sdk.Fingerprint, err error) (sdk.Fingerprint, error) {
			fp.MissingRights = nil
			return fp, err
		}),
		"SDK64": probes("knows no locks", another(sdk.ClassLocked, sdk.ClassUnreachable)),
	}
}

// staysBusy refuses an account once something went wrong with it.
func staysBusy(*toy.Machine) applying {
	var failed sync.Map
	return func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
		if _, busy := failed.Load(ch.Intent.Account); busy {
			return sdk.Result{}, sdk.Errorf(sdk.ClassBusy, "somebody is at it")
		}
		r, err := good.Apply(ctx, t, ch, p)
		if err != nil {
			failed.Store(ch.Intent.Account, true)
		}
		return r, err
	}
}
