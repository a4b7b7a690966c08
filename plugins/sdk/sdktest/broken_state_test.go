package sdktest_test

import (
	"context"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

// takes is a Verify that takes one verdict for another.
func takes(name string, from, to sdk.VerdictKind) map[string]func(*toy.Machine) broken {
	return verifies(name, func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
		v, err := good.Verify(ctx, t, c)
		if v.Kind == from {
			v.Kind = to
		}
		return v, err
	})
}

// stateFlaws misread accounts that refuse their right password.
func stateFlaws() flawed {
	another := func(from, to sdk.Class) func(*toy.Machine, sdk.Fingerprint, error) (sdk.Fingerprint, error) {
		return func(_ *toy.Machine, fp sdk.Fingerprint, err error) (sdk.Fingerprint, error) {
			if sdk.ClassOf(err) == from {
				err = sdk.Errorf(to, "it does not work").WithFix("try again")
			}
			return fp, err
		}
	}
	all := flawed{
		"SDK99":  takes("knows nothing but locks", sdk.VerdictExpired, sdk.VerdictLocked),
		"SDK100": takes("takes a lock for a wrong password", sdk.VerdictLocked, sdk.VerdictBadCredential),
		"SDK101": verifies("does not look", func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
			t.Management = sdk.Credential{}
			return good.Verify(ctx, t, c)
		}),
		"SDK102": verifies("knows no help", func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
			v, err := good.Verify(ctx, t, c)
			v.Fix = ""
			return v, err
		}),
		"SDK103": probes("knows nothing but locks", another(sdk.ClassExpired, sdk.ClassLocked)),
		"SDK104": probes("takes a lock for a wrong password", another(sdk.ClassLocked, sdk.ClassAuthFailed)),
		"SDK105": probes("takes it for an expired one", another(sdk.ClassAuthFailed, sdk.ClassExpired)),
		"SDK106": probes("takes it for a target without an answer", another(sdk.ClassMustChange, sdk.ClassUnreachable)),
		"SDK107": verifies("logs in with what it has", func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
			v, err := good.Verify(ctx, t, c)
			if _, e := good.Probe(ctx, t); v.Kind == sdk.VerdictBadCredential && e == nil {
				v.Kind = sdk.VerdictOK
			}
			return v, err
		}),
		"SDK108": verifies("tries again", func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
			if v, err := good.Verify(ctx, t, c); v.Kind != sdk.VerdictBadCredential {
				return v, err
			}
			return good.Verify(ctx, t, c)
		}),
		"SDK110": on("keeps what it began", func(m *toy.Machine) applying {
			return func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
				r, err := good.Apply(ctx, t, ch, p)
				if err != nil {
					m.Put(ch.Intent.Account, toy.Account{Owner: ch.Intent.AccountID, Locked: true})
				}
				return r, err
			}
		}),
	}
	all["SDK99"]["guesses when it cannot look"] = func(*toy.Machine) broken {
		return broken{verify: func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
			v, err := good.Verify(ctx, t, c)
			if t.Management.Username == "" {
				v.Kind = sdk.VerdictDisabled
			}
			return v, err
		}}
	}
	all["SDK107"]["fails with its helper"] = func(*toy.Machine) broken {
		return broken{verify: func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
			if _, err := good.Probe(ctx, t); err != nil {
				return sdk.Verdict{}, err
			}
			return good.Verify(ctx, t, c)
		}}
	}
	all["SDK108"]["wears out its helper"] = func(*toy.Machine) broken {
		return broken{verify: func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
			v, err := good.Verify(ctx, t, c)
			if t.Management.Username != "" {
				t.Management.Password = c.Password
				_, _ = good.Probe(ctx, t)
			}
			return v, err
		}}
	}
	all["SDK110"]["tells of no residue"] = func(m *toy.Machine) broken {
		return broken{apply: func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
			r, err := good.Apply(ctx, t, ch, p)
			if err != nil {
				m.Put(ch.Intent.Account+"-home", toy.Account{})
			}
			return r, err
		}}
	}
	return all
}
