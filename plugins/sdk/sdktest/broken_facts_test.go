package sdktest_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// verifies is a flaw of Verify alone.
func verifies(name string, f func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error)) map[string]func(*toy.Machine) broken {
	return map[string]func(*toy.Machine) broken{name: func(*toy.Machine) broken { return broken{verify: f} }}
}

// sees is a flaw of Inspect alone.
func sees(name string, f func(facts *sdk.Facts)) map[string]func(*toy.Machine) broken {
	return map[string]func(*toy.Machine) broken{name: func(*toy.Machine) broken {
		return broken{inspect: func(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
			facts, err := good.Inspect(ctx, t, account)
			f(&facts)
			return facts, err
		}}
	}}
}

// factFlaws break what is said about accounts.
func factFlaws() flawed {
	yes := sdk.Verdict{Kind: sdk.VerdictOK}
	expiry := time.Now().Add(30 * 24 * time.Hour)
	return flawed{
		"SDK65": verifies("takes nothing for a password", func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
			if c.Password.Empty() {
				return yes, nil
			}
			return good.Verify(ctx, t, c)
		}),
		"SDK66": verifies("takes every refusal for a lock", func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
			v, err := good.Verify(ctx, t, c)
			if v.Kind == sdk.VerdictBadCredential {
				v.Kind = sdk.VerdictLocked
			}
			return v, err
		}),
		"SDK67": verifies("looks names up by pattern", func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
			if strings.Contains(c.Username, "*") {
				return yes, nil
			}
			return good.Verify(ctx, t, c)
		}),
		"SDK68": {"remembers what was right": func(*toy.Machine) broken {
			var known sync.Map
			return broken{verify: func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
				key := c.Username + " " + c.Password.Reveal()
				if _, right := known.Load(key); right {
					return yes, nil
				}
				v, err := good.Verify(ctx, t, c)
				if v.Kind == sdk.VerdictOK {
					known.Store(key, true)
				}
				return v, err
			}}
		}},
		"SDK69": sees("moves no expiry", func(f *sdk.Facts) { f.ExpiresAt = expiry }),
		"SDK70": sees("sees no groups", func(f *sdk.Facts) { f.Groups = nil }),
		"SDK71": sees("sees no sessions", func(f *sdk.Facts) { f.Sessions = 0 }),
		"SDK72": sees("sees no locks", func(f *sdk.Facts) { f.Locked = false }),
		"SDK73": sees("has another calendar", func(f *sdk.Facts) { f.PasswordChangedAt = time.Unix(1, 0) }),
		"SDK74": {"lists no locked account": func(*toy.Machine) broken {
			return broken{discover: func(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
				return good.Discover(ctx, t, func(f sdk.Facts) bool { return f.Locked || yield(f) })
			}}
		}},
		"SDK75": {"lists what was": func(*toy.Machine) broken {
			seen := map[string]sdk.Facts{}
			return broken{discover: func(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
				err := good.Discover(ctx, t, func(f sdk.Facts) bool { seen[f.Account] = f; return true })
				for _, f := range seen {
					if !yield(f) {
						break
					}
				}
				return err
			}}
		}},
		"SDK76": {"looks names up by pattern": func(*toy.Machine) broken {
			return broken{inspect: func(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
				f, err := good.Inspect(ctx, t, account)
				f.Exists = f.Exists || account == "*"
				return f, err
			}}
		}},
		"SDK94": {"has one stream": func(*toy.Machine) broken {
			return broken{run: func(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
				return good.Run(ctx, t, command, oneStream{out})
			}}
		}},
		"SDK96": {"cuts what is long": func(*toy.Machine) broken {
			return broken{run: func(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
				return good.Run(ctx, t, command, &short{Output: out})
			}}
		}},
		"SDK97": {"guesses that nothing ran": func(*toy.Machine) broken {
			return broken{run: func(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
				status, err := good.Run(ctx, t, command, out)
				if err != nil {
					err = sdk.Errorf(sdk.ClassUnreachable, "cannot connect")
				}
				return status, err
			}}
		}},
	}
}

// oneStream prints everything to standard output.
type oneStream struct{ sdk.Output }

func (o oneStream) Stderr(p []byte) { o.Stdout(p) }

// short prints 64 KiB at most.
type short struct {
	sdk.Output
	n int
}

func (o *short) Stdout(p []byte) {
	if o.n += len(p); o.n <= 64<<10 {
		o.Output.Stdout(p)
	}
}

// describes is a flaw of Describe alone.
func describes(name string, f func(d *sdk.Description)) map[string]func(*toy.Machine) broken {
	return map[string]func(*toy.Machine) broken{name: func(*toy.Machine) broken { return broken{describe: f} }}
}

// refuses is an Apply that refuses some changes.
func refuses(name string, which func(ch sdk.Change) bool) map[string]func(*toy.Machine) broken {
	return applies(name, func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
		if which(ch) {
			return sdk.Result{}, sdk.Errorf(sdk.ClassProtocol, "the machine does not want it")
		}
		return good.Apply(ctx, t, ch, p)
	})
}

// describeFlaws break descriptions, plans, and what the description promises.
func describeFlaws() flawed {
	return flawed{
		"SDK77": {"plans from what is there": func(m *toy.Machine) broken {
			return broken{plan: func(ctx context.Context, t sdk.Target, in sdk.Intent) (sdk.Plan, error) {
				plan, err := good.Plan(ctx, t, in)
				if _, there := m.Account(in.Account); there && in.Action == sdk.Provision {
					plan.Steps[0].Title = "Nothing to create"
				}
				return plan, err
			}}
		}},
		"SDK78": describes("has a role it does not understand", func(d *sdk.Description) {
			d.Roles = append(d.Roles, sdk.Role{
				Name: "toy-strange", Title: "x", Description: "x", Version: 1,
				Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"dance"}},
			})
		}),
		"SDK79": describes("has a parameter of any text", func(d *sdk.Description) {
			d.Roles[len(d.Roles)-1].Params[0].Pattern = `^(?s:.*)$`
		}),
		"SDK80": describes("looks at each line by itself", func(d *sdk.Description) {
			d.NameRule.Pattern = `^(?m)[a-z_][a-z0-9_-]{0,31}$`
		}),
		"SDK83": refuses("takes short names only", func(ch sdk.Change) bool { return len(ch.Intent.Account) > 20 }),
		"SDK84": refuses("takes no dash", func(ch sdk.Change) bool { return strings.Contains(ch.Intent.Account, "-") }),
		"SDK86": applies("loses a sign", func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
			ch.Password = sdk.NewSecret([]byte(strings.ReplaceAll(ch.Password.Reveal(), "~", "")))
			return good.Apply(ctx, t, ch, p)
		}),
		"SDK87": refuses("quotes no comments", func(ch sdk.Change) bool { return strings.Contains(ch.Intent.Comment, "'") }),
	}
}

// lenient is a server that does not do what the SDK does before a connector is called.
type lenient struct {
	connectorv1.ConnectorServer
	options    bool // takes any option
	minLength  int32
	strangeRun bool
}

func (l lenient) Probe(ctx context.Context, req *connectorv1.ProbeRequest) (*connectorv1.ProbeResponse, error) {
	if l.options {
		req.Target.Options = nil
	}
	return l.ConnectorServer.Probe(ctx, req)
}

func (l lenient) Describe(ctx context.Context, req *connectorv1.DescribeRequest) (*connectorv1.DescribeResponse, error) {
	res, err := l.ConnectorServer.Describe(ctx, req)
	if l.minLength > 0 {
		d := sdk.DescriptionFromProto(res.GetDescription())
		d.PasswordRule.MinLength = int(l.minLength)
		res.Description = sdk.DescriptionToProto(d)
	}
	return res, err
}

func (l lenient) Run(req *connectorv1.RunRequest, stream connectorv1.Connector_RunServer) error {
	if l.strangeRun {
		return status.Error(codes.Internal, "what is that?")
	}
	return l.ConnectorServer.Run(req, stream)
}

// serverFlaws are connectors that are not built with the SDK, or with a broken one.
func serverFlaws() map[string]flaw {
	with := func(l lenient) func(connectorv1.ConnectorServer) connectorv1.ConnectorServer {
		return func(s connectorv1.ConnectorServer) connectorv1.ConnectorServer {
			l.ConnectorServer = s
			return l
		}
	}
	return map[string]flaw{
		"SDK81": {wrap: with(lenient{options: true})},
		"SDK82": {wrap: with(lenient{options: true})},
		"SDK85": {wrap: with(lenient{minLength: 20})},
		"SDK89": {wrap: with(lenient{strangeRun: true}), bare: fewer()},
	}
}

// fewer is the toy connector without two of its powers.
func fewer() sdk.Connector {
	return struct {
		sdk.Connector
		sdk.Prober
		sdk.Provisioner
		sdk.Verifier
		sdk.Inspector
	}{good, good, good, good, good}
}

func TestConnectorWithFewerPowersConforms(t *testing.T) {
	t.Parallel()
	cfg := config(toy.NewMachine(t))
	cfg.Connector = fewer()
	report := sdktest.Run(t, cfg, "SDK01", "SDK07", "SDK74", "SDK89", "SDK94")
	for id, want := range map[string]sdktest.Status{
		"SDK01": sdktest.Passed, "SDK07": sdktest.Passed, "SDK74": sdktest.NotApplicable, "SDK89": sdktest.Passed, "SDK94": sdktest.NotApplicable,
	} {
		if o, _ := report.Outcome(id); o.Status != want {
			t.Errorf("%s is %s, want %s", id, o.Status, want)
		}
	}
}

func TestTargetsWithoutIdentityAreNotAskedForOne(t *testing.T) {
	t.Parallel()
	cfg := config(toy.NewMachine(t))
	cfg.Connector, cfg.NoIdentity, cfg.WrongTrust = good, true, sdk.Trust{}
	report := sdktest.Run(t, cfg, "SDK03", "SDK04", "SDK17", "SDK60")
	if report.Count(sdktest.NotApplicable) != 3 || !report.Passed() {
		t.Errorf("%s", report)
	}
}
