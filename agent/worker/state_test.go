package worker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/toy"
)

// An account that refuses its right password is reported with the reason and what to do.
// Where the target hides the reason, the management account finds it out.
func TestWhyALoginIsRefusedIsReported(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		account toy.Account
		alone   bool // the job has no management account
		class   reeve.Class
		fix     string
	}{
		"locked":          {toy.Account{Locked: true}, false, reeve.ClassLocked, "unlock the account"},
		"expired":         {toy.Account{Expires: time.Now().Add(-time.Hour)}, false, reeve.ClassExpired, "move its expiry date"},
		"disabled":        {toy.Account{Disabled: true}, false, reeve.ClassDisabled, "enable it on the machine"},
		"must change":     {toy.Account{Change: true}, false, reeve.ClassMustChange, "log in by hand and change the password"},
		"disabled, alone": {toy.Account{Disabled: true}, true, reeve.ClassAuthFailed, "set another one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			c.account.Owner, c.account.Password = "acct_1", first
			b.m.Put("app", c.account)
			b.start(nil)
			j := b.job("verify", secret{"current", first, 1})
			if c.alone {
				j.Secrets = j.Secrets[:1]
			}
			res := b.do(j)
			want(t, res, reeve.NotDone, c.class)
			if res.Fix != c.fix || strings.Contains(res.Message, first) {
				t.Errorf("it says %q, to do: %q", res.Message, res.Fix)
			}
			if b.m.Refused("app") != 1 || b.m.Refused(toy.Management) != 0 {
				t.Errorf("%d and %d logins were refused", b.m.Refused("app"), b.m.Refused(toy.Management))
			}
		})
	}
}

// A login that could not even be tried says so, in the connector's words.
func TestALoginThatShowsNothingSaysWhatTheConnectorSays(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.m.Put("app", toy.Account{Owner: "acct_1", Password: first})
	b.m.Set(toy.Faults{Refuse: "login"})
	b.start(nil)
	res := b.do(b.job("verify", secret{"current", first, 1}))
	want(t, res, reeve.NotDone, reeve.ClassProtocol)
	if !strings.Contains(res.Message, "not_permitted") || res.Fix != "use a management account that may do it" {
		t.Errorf("it says %q, to do: %q", res.Message, res.Fix)
	}
}

func TestRotationCuresAPasswordThatMustBeChanged(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.m.Put("app", toy.Account{Owner: "acct_1", Password: first, Change: true})
	b.start(nil)
	j := b.job("rotate", secret{"candidate", second, 2}, secret{"current", first, 1})
	j.Secrets[0].Fresh = true
	res := b.do(j)
	want(t, res, reeve.Done, "")
	if got := verdicts(res); got != "current@1=must_change candidate@2=ok" || !b.m.LoginWorks("app", second) {
		t.Errorf("logins %s", got)
	}
}

// What the target has no word for is its own answer: nothing can still happen.
func TestAGrantThatIsNotThereAndWasUndoneIsNotDone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.start(nil)
	j := b.job("provision", secret{"candidate", first, 1})
	in := b.intent(sdk.Provision)
	in.Role.Phases = map[sdk.Phase][]string{sdk.PhaseGrant: {"group " + toy.NoGroup}}
	j.Work.Intents[0], j.Work.PlanHash = sdk.IntentToProto(in), b.planHash(in)
	want(t, b.do(j), reeve.NotDone, reeve.ClassNotFound)
	if _, there := b.m.Account("app"); there {
		t.Error("the account is there")
	}
}
