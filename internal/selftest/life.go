package selftest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Life is the life of an account that a connector makes by hand.
type Life struct {
	*Journal
	Client      *sdk.Client
	Description sdk.Description
	Target      sdk.Target
	Role        sdk.Role
	Params      map[string]string
	Prefix      string        // of the name
	Timeout     time.Duration // of each operation

	secrets []sdk.Secret
	intent  sdk.Intent
	made    bool // the account may be on the target
}

// LeftError says that the account may still be on the target.
type LeftError struct {
	Account, AccountID string
	Cause              error
}

func (e *LeftError) Error() string {
	return fmt.Sprintf("the account %s (marked %s) may still be on the target: %v", e.Account, e.AccountID, e.Cause)
}

func (e *LeftError) Unwrap() error { return e.Cause }

// Live lives it, and goes on after what differs. Whatever happens, also the end of ctx,
// the account is removed; *LeftError if that failed.
func (l *Life) Live(ctx context.Context) error {
	id := string(reeve.NewAccountID())
	l.intent = sdk.Intent{
		Account: Name(l.Prefix, l.Description.NameRule.Check), AccountID: id, Comment: "reeve " + id + " for " + Person, // as a cluster says it
		Role: l.Role, Params: l.Params, ExpiresAt: Expiry(),
	}
	if err := l.Description.NameRule.Check(l.intent.Account); err != nil {
		return err
	}
	l.Header = Header{Connector: l.Description.Name, ConnectorVersion: l.Description.Version, Through: ByHand,
		Account: l.intent.Account, Role: l.Role.Name, Params: l.Params}
	if err := l.Begin(); err != nil {
		return err
	}
	return errors.Join(l.steps(ctx), l.remove(context.WithoutCancel(ctx)))
}

func (l *Life) steps(ctx context.Context) error {
	first, second, wrong := l.password(), l.password(), l.password()
	if there, err := l.inspect(ctx, stepFree, false); err != nil || there || l.failed() {
		return err
	}
	for _, begin := range []func() error{
		func() error { return l.probe(ctx) },
		func() error { return l.apply(ctx, "", sdk.Provision, first, Changed) },
	} {
		if err := begin(); err != nil || l.failed() { // then there is nothing to look at
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	for _, step := range []func() error{
		func() error { return l.apply(ctx, "provision again", sdk.Provision, first, WasSo) },
		func() error { _, err := l.inspect(ctx, StepInspect, true); return err },
		func() error { return l.login(ctx, StepLogin, first, "ok") },
		func() error { return l.login(ctx, stepWrong, wrong, "bad_credential") },
		func() error { return l.apply(ctx, "", sdk.Rotate, second, Changed) },
		func() error { return l.login(ctx, StepNew, second, "ok") },
		func() error { return l.login(ctx, StepOld, first, "bad_credential") },
		func() error { return l.apply(ctx, "", sdk.Disable, sdk.Secret{}, Changed) },
		func() error { return l.login(ctx, StepDisabled, second, NotOK) },
		func() error { return l.apply(ctx, "", sdk.Enable, sdk.Secret{}, Changed) },
		func() error { return l.login(ctx, StepEnabled, second, "ok") },
		func() error { return l.apply(ctx, "", sdk.Deprovision, sdk.Secret{}, Changed) },
		func() error { return l.apply(ctx, "deprovision again", sdk.Deprovision, sdk.Secret{}, WasSo) },
		func() error { _, err := l.inspect(ctx, StepGone, false); return err },
		func() error { return l.login(ctx, stepLoginGone, second, NotOK) },
	} {
		if err := step(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// remove removes the account if it may still be there.
func (l *Life) remove(ctx context.Context) error {
	if !l.made {
		return nil
	}
	err := l.apply(ctx, StepRemoveAgain, sdk.Deprovision, sdk.Secret{}, Changed)
	if !l.made {
		return err
	}
	if last := l.Entries[len(l.Entries)-1]; err == nil && last.Error != nil {
		err = fmt.Errorf("%s [%s]", last.Error.Message, last.Error.Class)
	}
	return &LeftError{l.intent.Account, l.intent.AccountID, err}
}

// password makes a password within the connector's rule.
func (l *Life) password() sdk.Secret {
	text := "Aa1." + rand.Text()
	if most := l.Description.PasswordRule.MaxLength; most > 0 && most < len(text) {
		text = text[:most]
	}
	p := sdk.NewSecret([]byte(text))
	l.secrets = append(l.secrets, p)
	l.Redactor = redact.New(append(slices.Clone(l.secrets), l.Target.Management.Password, l.Target.Management.PrivateKey)...)
	return p
}

// failed reports whether the last step was an error.
func (l *Life) failed() bool {
	return len(l.Entries) > 0 && l.Entries[len(l.Entries)-1].Error != nil
}

func (l *Life) has(p sdk.Power) bool { return slices.Contains(l.Description.Powers, p) }

// ended is what an operation came to, in a word.
func (e *Entry) ended(word string, err error) {
	e.Got = word
	if err == nil {
		return
	}
	e.Got = "error " + string(sdk.ClassOf(err))
	e.Error = &Failure{Class: string(sdk.ClassOf(err)), Message: "the connector gave no reason"}
	if x, ok := errors.AsType[*sdk.Error](err); ok {
		e.Error.Message, e.Error.Fix = x.Message, x.Fix
	}
}

// JSON is a message as it stands in a transcript.
func JSON(m proto.Message) json.RawMessage {
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil { // text that is not UTF-8, which the SDK lets nobody send
		return json.RawMessage("null")
	}
	return raw
}

func (l *Life) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, l.Timeout)
}

func (l *Life) probe(ctx context.Context) error {
	ctx, cancel := l.limited(ctx)
	defer cancel()
	e := Entry{Step: StepProbe, Want: NoneLacks, Began: time.Now()}
	fp, err := l.Client.Probe(ctx, l.Target)
	if err == nil {
		l.Target.Fingerprint, e.Probe = fp, JSON(sdk.FingerprintToProto(fp))
	}
	e.ended(RightsWord(fp.MissingRights), err)
	return l.Note(e)
}

func (l *Life) inspect(ctx context.Context, step string, want bool) (bool, error) {
	if !l.has(sdk.PowerInspect) {
		return want, nil
	}
	ctx, cancel := l.limited(ctx)
	defer cancel()
	e := Entry{Step: step, Want: ExistsWord(want), Began: time.Now()}
	f, err := l.Client.Inspect(ctx, l.Target, l.intent.Account)
	if err == nil {
		e.Facts = JSON(sdk.FactsToProto(f))
	}
	e.ended(ExistsWord(f.Exists), err)
	return f.Exists, l.Note(e)
}

func (l *Life) login(ctx context.Context, step string, password sdk.Secret, want string) error {
	if !l.has(sdk.PowerVerify) {
		return nil
	}
	ctx, cancel := l.limited(ctx)
	defer cancel()
	e := Entry{Step: step, Want: want, Began: time.Now()}
	v, err := l.Client.Verify(ctx, l.Target, sdk.Credential{Username: l.intent.Account, Password: password})
	e.Verdict, e.Says = string(v.Kind), v.Message
	e.ended(VerdictWord(want, e.Verdict), err)
	l.settle(ctx)
	return l.Note(e)
}

// settle waits until the target has forgotten the session of a login, which targets do when
// they come to it: what is done next would end it, in one life and not in the next.
func (l *Life) settle(ctx context.Context) {
	if !l.has(sdk.PowerInspect) {
		return
	}
	for range 50 {
		if f, err := l.Client.Inspect(ctx, l.Target, l.intent.Account); err != nil || f.Sessions == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// VerdictWord is what a login comes to, for somebody who wants a verdict or any but ok.
func VerdictWord(want, verdict string) string {
	if want == NotOK && verdict != "" && verdict != string(sdk.VerdictOK) {
		return want
	}
	return verdict
}

// apply plans an action and does it. The step is called after it unless it has a name.
func (l *Life) apply(ctx context.Context, step string, action sdk.Action, password sdk.Secret, want string) error {
	ctx, cancel := l.limited(ctx)
	defer cancel()
	in := l.intent
	in.Action = action
	if step == "" {
		step = string(action)
	}
	e := Entry{Step: step, Want: want, Began: time.Now()}
	plan, err := l.Client.Plan(ctx, l.Target, in)
	if err != nil {
		e.ended("", err)
		return l.Note(e)
	}
	e.Plan = plan.Steps
	l.made = true // from here on it may be
	var mu sync.Mutex
	r, err := l.Client.Apply(ctx, l.Target, sdk.Change{Intent: in, Plan: plan, Password: password}, func(ev sdk.Event) {
		mu.Lock()
		defer mu.Unlock()
		e.Events = append(e.Events, Event{ev.Step, string(ev.State), strings.TrimSpace(ev.Message)})
	})
	mu.Lock()
	defer mu.Unlock()
	if err == nil {
		e.Facts = JSON(sdk.FactsToProto(r.Facts))
		if action == sdk.Deprovision {
			l.made = r.Facts.Exists
		}
	}
	e.Residue = r.Residue
	e.ended(ChangedWord(r.Changed), err)
	if step == StepRemoveAgain && err == nil {
		e.Want = e.Got // there may have been nothing to remove
	}
	return l.Note(e)
}
