package sdktest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf16"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// suite is a connector under examination.
type suite struct {
	*program
	cfg         Config
	description sdk.Description
	role        sdk.Role
	endured     *endurance // what a long life of the program showed; nil: not done yet

	mu      sync.Mutex
	log     bytes.Buffer // of the plugin programs
	secrets []string     // in every form in which they could show up
	leaks   []string
	made    []*account
}

// account is an account of the suite's on the target.
type account struct {
	name     string
	id       string
	identity string
	password sdk.Secret
	next     sdk.Secret // what a change under examination sets
	comment  string
	expires  time.Time
	role     *sdk.Role // nil: the suite's
}

func open(ctx context.Context, cfg Config) (*suite, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &suite{cfg: cfg}
	s.secret(cfg.Target.Management.Password)
	s.secret(cfg.Target.Management.PrivateKey)
	var err error
	if cfg.Binary != "" {
		s.program, err = s.launch()
	} else {
		s.program, err = s.inProcess()
	}
	if err != nil {
		return nil, err
	}
	if s.description, err = s.client.Describe(ctx); err != nil {
		s.stop()
		return nil, err
	}
	s.role = cfg.Role
	for _, r := range s.description.Roles {
		if s.role.Name == "" && r.CheckParams(nil) == nil {
			s.role = r
		}
	}
	return s, nil
}

func (s *suite) has(p sdk.Power) bool { return slices.Contains(s.description.Powers, p) }

// tidy removes what a check left on the target.
func (s *suite) tidy() {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	s.mu.Lock()
	made := s.made
	s.made = nil
	s.mu.Unlock()
	if s.cfg.Settle != nil {
		_ = s.cfg.Settle(ctx) // the next check shows what did not settle
	}
	if !s.has(sdk.PowerProvision) {
		return
	}
	_ = together(len(made), func(i int) error {
		there, err := s.cfg.Exists(ctx, made[i].name)
		if err == nil && there {
			_, err = s.apply(ctx, sdk.Deprovision, made[i], sdk.Secret{})
		}
		return err // its last state is what was wanted, or not ours
	})
}

func (s *suite) close() {
	s.tidy()
	s.stop()
}

// logWriter adds what the plugin program prints to its suite's log.
type logWriter suite

func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

// secret makes value one that must show up nowhere, in no usual form.
func (s *suite) secret(value sdk.Secret) {
	if value.Len() < 8 {
		return
	}
	text := value.Reveal()
	wide := utf16Of(text)
	quoted, _ := json.Marshal(text) // a string always marshals
	forms := []string{
		text, strings.Trim(string(quoted), `"`), url.QueryEscape(text), hex.EncodeToString([]byte(text)),
		base64.RawStdEncoding.EncodeToString([]byte(text)), base64.RawStdEncoding.EncodeToString(wide), string(wide),
	}
	slices.Sort(forms)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets = append(s.secrets, slices.Compact(forms)...)
}

func utf16Of(text string) (wide []byte) {
	for _, u := range utf16.Encode([]rune(text)) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	return wide
}

// tell looks for secrets in something the connector said.
func (s *suite) tell(where, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range s.secrets {
		if strings.Contains(text, secret) {
			s.leaks = append(s.leaks, where)
			return
		}
	}
}

func (s *suite) tellError(where string, err error) {
	if e, ok := errors.AsType[*sdk.Error](err); ok {
		s.tell(where, fmt.Sprint(e.Message, e.Fix, e.Details))
	}
}

// leaked reports where secrets showed up since the last call.
func (s *suite) leaked() error {
	s.mu.Lock()
	printed := s.log.String()
	s.log.Reset()
	s.mu.Unlock()
	s.tell("the connector's log", printed)
	s.mu.Lock()
	defer s.mu.Unlock()
	leaks := s.leaks
	s.leaks = nil
	if len(leaks) > 0 {
		return fmt.Errorf("a secret showed up in %s", strings.Join(leaks, ", "))
	}
	return nil
}

// account invents an account that is not on the target yet.
func (s *suite) account() *account {
	a := &account{
		name:     s.cfg.NewAccountName(),
		comment:  "conformance check",
		id:       string(reeve.NewAccountID()),
		password: s.password(),
		expires:  time.Now().UTC().Add(30 * 24 * time.Hour).Truncate(time.Second),
	}
	s.mu.Lock()
	s.made = append(s.made, a)
	s.mu.Unlock()
	return a
}

// password returns a new password within the connector's rule.
func (s *suite) password() sdk.Secret {
	text := "Aa1." + rand.Text()
	if s.description.PasswordRule.MaxLength < len(text) {
		text = text[:s.description.PasswordRule.MaxLength]
	}
	p := sdk.NewSecret([]byte(text))
	s.secret(p)
	return p
}

func (s *suite) intent(action sdk.Action, a *account) sdk.Intent {
	role, params := s.role, s.cfg.Params
	if a.role != nil {
		role, params = *a.role, map[string]string{}
		for _, p := range role.Params {
			if v, ok := s.cfg.Params[p.Name]; ok {
				params[p.Name] = v
			}
		}
	}
	return sdk.Intent{
		Action: action, Account: a.name, AccountID: a.id, Comment: a.comment, ExpiresAt: a.expires,
		Role: role, Params: params, Identity: a.identity,
	}
}

// apply plans and does, as an agent would.
func (s *suite) apply(ctx context.Context, action sdk.Action, a *account, password sdk.Secret) (sdk.Result, error) {
	return s.applyAt(ctx, s.cfg.Target, action, a, password)
}

func (s *suite) applyAt(
	ctx context.Context, t sdk.Target, action sdk.Action, a *account, password sdk.Secret,
) (sdk.Result, error) {
	in := s.intent(action, a)
	plan, err := s.client.Plan(ctx, t, in)
	if err != nil {
		s.tellError("an error of Plan", err)
		return sdk.Result{}, err
	}
	s.tell("a plan", fmt.Sprint(plan))
	return s.applyPlan(ctx, t, in, plan, password)
}

func (s *suite) applyPlan(
	ctx context.Context, t sdk.Target, in sdk.Intent, plan sdk.Plan, password sdk.Secret,
) (sdk.Result, error) {
	return s.applyWith(ctx, s.program, t, sdk.Change{Intent: in, Plan: plan, Password: password}, func(sdk.Event) {})
}

// applyWith is applyPlan by a program of its own, with a look at every event.
func (s *suite) applyWith(
	ctx context.Context, p *program, t sdk.Target, change sdk.Change, watch func(sdk.Event),
) (sdk.Result, error) {
	r, err := p.client.Apply(ctx, t, change, func(e sdk.Event) {
		s.tell("a progress event", e.Step+e.Message)
		watch(e)
	})
	s.tellError("an error of Apply", err)
	s.tell("a result", fmt.Sprint(r))
	return r, err
}

// provisioned makes a new account and proves it.
func (s *suite) provisioned(ctx context.Context) (*account, error) {
	a := s.account()
	r, err := s.apply(ctx, sdk.Provision, a, a.password)
	if err != nil {
		return nil, fmt.Errorf("provision: %w", err)
	}
	a.identity = r.Facts.Identity
	return a, s.login(ctx, a, a.password, true)
}

// login asks the target whether a password works.
func (s *suite) login(ctx context.Context, a *account, password sdk.Secret, want bool) error {
	got, err := s.cfg.LoginWorks(ctx, a.name, password.Reveal())
	switch {
	case err != nil:
		return fmt.Errorf("log in to the target: %w", err)
	case got != want:
		return fmt.Errorf("login of %s: the target says %t, want %t", a.name, got, want)
	default:
		return nil
	}
}

func (s *suite) exists(ctx context.Context, a *account, want bool) error {
	got, err := s.cfg.Exists(ctx, a.name)
	switch {
	case err != nil:
		return fmt.Errorf("look at the target: %w", err)
	case got != want:
		return fmt.Errorf("account %s exists: the target says %t, want %t", a.name, got, want)
	default:
		return nil
	}
}

// wantClass compares the class of an error.
func wantClass(what string, err error, want ...sdk.Class) error {
	got := sdk.ClassOf(err)
	for _, w := range want {
		if got == w {
			return nil
		}
	}
	if err == nil {
		return fmt.Errorf("%s succeeded, want class %s", what, want)
	}
	return fmt.Errorf("%s: class %s, want %s (%w)", what, got, want, err)
}
