package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

func (a *app) connectorSelftestCmd() *cobra.Command {
	s := &selftest{byHand: byHand{app: a}}
	var transcript string
	cmd := &cobra.Command{
		Use: "selftest BINARY", Short: "Live the life of a throw-away account on a real target, and write it down",
		Long: `Makes an account with a name nobody has, changes, disables, enables and removes it, logs in as it between the steps,
and compares what the target does with what the connector promises. What was planned, done and answered is written
to a transcript without secrets, one JSON object a line, for whoever maintains the connector: it shows how your
target differs from those the connector was proven on. Ends with status 1 if something differs.

` + targetHelp,
		Example: `  reeve connector selftest bin/connectors/connector-ssh --target web01.yaml --transcript web01.jsonl
  reeve connector selftest bin/connectors/connector-mysql --target shop.yaml --role mysql-db-ro --param Database=shop --transcript shop.jsonl`,
		Args: exactArgs("BINARY"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c, stop, d, t, err := s.open(cmd.Context(), args[0], true)
			if err != nil {
				return err
			}
			defer stop()
			if s.role, err = roleOf(d, s.roleName); err != nil {
				return err
			}
			f, err := os.OpenFile(filepath.Clean(transcript), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return usagef("--transcript: %w", err)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			s.client, s.description, s.target, s.file = c, d, t, f
			s.redactor = redact.New(t.Management.Password, t.Management.PrivateKey)
			return s.live(cmd.Context())
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&s.prefix, "prefix", "reevetest", "beginning of the account's name")
	cmd.Flags().StringVar(&s.roleName, "role", "", "role of the account; none if left out")
	cmd.Flags().StringToStringVar(&s.params, "param", nil, "parameter of the role, NAME=VALUE; may be repeated")
	cmd.Flags().StringVar(&transcript, "transcript", "", "new file for the transcript")
	_ = cmd.MarkFlagRequired("target")
	_ = cmd.MarkFlagRequired("transcript")
	return cmd
}

// selftest is the life of one account.
type selftest struct {
	byHand
	prefix, roleName string
	params           map[string]string
	role             sdk.Role
	client           *sdk.Client
	description      sdk.Description
	target           sdk.Target
	file             *os.File

	redactor *redact.Redactor
	secrets  []sdk.Secret
	intent   sdk.Intent
	entries  []entry
	failed   int
}

// entry is a line of the transcript.
type entry struct {
	Step   string          `json:"step"`
	Want   string          `json:"want"`
	Got    string          `json:"got"`
	OK     bool            `json:"ok"`
	Plan   *sdk.Plan       `json:"plan,omitempty"`
	Events []string        `json:"events,omitempty"`
	Answer json.RawMessage `json:"answer,omitempty"`
	Error  *struct {
		Class, Message, Fix string
	} `json:"error,omitempty"`
}

// password makes a password within the connector's rule.
func (s *selftest) password() sdk.Secret {
	text := "Aa1." + rand.Text()
	if most := s.description.PasswordRule.MaxLength; most > 0 && most < len(text) {
		text = text[:most]
	}
	p := sdk.NewSecret([]byte(text))
	s.secrets = append(s.secrets, p)
	s.redactor = redact.New(append(slices.Clone(s.secrets), s.target.Management.Password, s.target.Management.PrivateKey)...)
	return p
}

// note adds a line to the transcript, redacted as a whole.
func (s *selftest) note(e entry, err error) error {
	if x, ok := errors.AsType[*sdk.Error](err); ok {
		e.Error = &struct{ Class, Message, Fix string }{string(x.Class), x.Message, x.Fix}
	}
	e.OK = e.Got == e.Want
	if !e.OK {
		s.failed++
	}
	s.entries = append(s.entries, e)
	raw, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if s.output == "table" {
		s.say("%-6s %s: %s", map[bool]string{true: "ok", false: "DIFFERS"}[e.OK], e.Step, s.redactor.Redact(e.Got))
	}
	_, err = fmt.Fprintln(s.file, s.redactor.Redact(string(raw)))
	return err
}

// live is the life. It goes on after what differs, so that the account is removed.
func (s *selftest) live(ctx context.Context) error {
	s.intent = sdk.Intent{
		Account: s.prefix + strings.ToLower(rand.Text()[:4]), AccountID: string(reeve.NewAccountID()), Comment: "self-test of Reeve",
		Role: s.role, Params: s.params, ExpiresAt: time.Now().UTC().Add(24 * time.Hour).Truncate(time.Second),
	}
	if err := s.description.NameRule.Check(s.intent.Account); err != nil {
		return asReeveError(err)
	}
	first, second, wrong := s.password(), s.password(), s.password()
	if there, err := s.inspect(ctx, "look whether the name is free", false); err != nil || there {
		return errors.Join(err, s.verdict())
	}
	steps := []func() error{
		func() error { return s.probe(ctx) },
		func() error { return s.apply(ctx, sdk.Provision, first, "changed") },
		func() error { return s.apply(ctx, sdk.Provision, first, "was so") },
		func() error { _, err := s.inspect(ctx, "inspect", true); return err },
		func() error { return s.login(ctx, "login with the password", first, "ok") },
		func() error { return s.login(ctx, "login with another password", wrong, "bad_credential") },
		func() error { return s.apply(ctx, sdk.Rotate, second, "changed") },
		func() error { return s.login(ctx, "login with the new password", second, "ok") },
		func() error { return s.login(ctx, "login with the old password", first, "bad_credential") },
		func() error { return s.apply(ctx, sdk.Disable, sdk.Secret{}, "changed") },
		func() error { return s.login(ctx, "login to the disabled account", second, "not ok") },
		func() error { return s.apply(ctx, sdk.Enable, sdk.Secret{}, "changed") },
		func() error { return s.login(ctx, "login to the enabled account", second, "ok") },
		func() error { return s.apply(ctx, sdk.Deprovision, sdk.Secret{}, "changed") },
		func() error { return s.apply(ctx, sdk.Deprovision, sdk.Secret{}, "was so") },
		func() error { _, err := s.inspect(ctx, "inspect after the removal", false); return err },
		func() error { return s.login(ctx, "login after the removal", second, "not ok") },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
		if ctx.Err() != nil { // it is removed all the same
			ctx = context.WithoutCancel(ctx)
			return errors.Join(s.apply(ctx, sdk.Deprovision, sdk.Secret{}, "changed"), context.Canceled)
		}
	}
	return s.verdict()
}

func (s *selftest) verdict() error {
	err := s.show(s.entries, func() {
		_, _ = fmt.Fprintf(s.out, "connector %s %s: %d steps, %d differ; account %s\n",
			s.description.Name, s.description.Version, len(s.entries), s.failed, s.intent.Account)
	})
	if s.failed > 0 && err == nil {
		err = fmt.Errorf("%d steps differ from what the connector promises; the transcript says how", s.failed)
	}
	return err
}

func (s *selftest) has(p sdk.Power) bool { return slices.Contains(s.description.Powers, p) }

// got is what an operation came to, in a word.
func got(word string, err error) string {
	if err != nil {
		return "error " + string(sdk.ClassOf(err))
	}
	return word
}

func (s *selftest) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, s.timeout)
}

func (s *selftest) probe(ctx context.Context) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	fp, err := s.client.Probe(ctx, s.target)
	word := "no right is missing"
	if len(fp.MissingRights) > 0 {
		word = "missing: " + strings.Join(fp.MissingRights, "; ")
	}
	if err == nil {
		s.target.Fingerprint = fp
	}
	return s.note(entry{Step: "probe", Want: "no right is missing", Got: got(word, err), Answer: protoJSON(sdk.FingerprintToProto(fp))}, err)
}

func (s *selftest) inspect(ctx context.Context, step string, want bool) (bool, error) {
	if !s.has(sdk.PowerInspect) {
		return want, nil
	}
	ctx, cancel := s.limited(ctx)
	defer cancel()
	f, err := s.client.Inspect(ctx, s.target, s.intent.Account)
	word := map[bool]string{true: "it exists", false: "it does not exist"}
	return f.Exists, s.note(entry{Step: step, Want: word[want], Got: got(word[f.Exists], err), Answer: protoJSON(sdk.FactsToProto(f))}, err)
}

func (s *selftest) login(ctx context.Context, step string, password sdk.Secret, want string) error {
	if !s.has(sdk.PowerVerify) {
		return nil
	}
	ctx, cancel := s.limited(ctx)
	defer cancel()
	v, err := s.client.Verify(ctx, s.target, sdk.Credential{Username: s.intent.Account, Password: password})
	word := string(v.Kind)
	if want == "not ok" && v.Kind != sdk.VerdictOK {
		word = want
	}
	answer := &connectorv1.VerifyResponse{Verdict: string(v.Kind), Identity: v.Identity, Message: v.Message, Fix: v.Fix}
	return s.note(entry{Step: step, Want: want, Got: got(word, err), Answer: protoJSON(answer)}, err)
}

func (s *selftest) apply(ctx context.Context, action sdk.Action, password sdk.Secret, want string) error {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	in := s.intent
	in.Action = action
	e := entry{Step: string(action), Want: want}
	plan, err := s.client.Plan(ctx, s.target, in)
	if err != nil {
		e.Got = got("", err)
		return s.note(e, err)
	}
	e.Plan = &plan
	var mu sync.Mutex
	r, err := s.client.Apply(ctx, s.target, sdk.Change{Intent: in, Plan: plan, Password: password}, func(ev sdk.Event) {
		mu.Lock()
		defer mu.Unlock()
		e.Events = append(e.Events, fmt.Sprintf("%s %s %s", ev.Step, ev.State, ev.Message))
	})
	word := "was so"
	if r.Changed {
		word = "changed"
	}
	e.Got = got(word, err)
	e.Answer = protoJSON(&connectorv1.ApplyResult{Facts: sdk.FactsToProto(r.Facts), Residue: r.Residue, Changed: r.Changed})
	return s.note(e, err)
}
