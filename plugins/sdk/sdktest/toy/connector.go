package toy

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// Connector works on Machines. The zero value is ready.
type Connector struct{}

// Describe implements sdk.Connector.
func (Connector) Describe() sdk.Description {
	return sdk.Description{
		Name:        "toy",
		Title:       "Machines that exist only in tests",
		Version:     "1.0.0",
		Category:    sdk.OperatingSystem,
		DefaultPort: 7,
		NameRule: sdk.NameRule{
			Pattern: `^[a-z_][a-z0-9_-]{0,31}$`, MaxBytes: 32,
			Help: "1 to 32 of a-z, 0-9, _ and -, not starting with a digit or -",
		},
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 128},
		Options: []sdk.Option{
			{Name: "greeting", Help: "whether new accounts are greeted", Default: "no", Allowed: []string{"yes", "no"}},
		},
		Roles: []sdk.Role{
			{Name: "toy-standard", Title: "Standard", Description: "An account without rights", Version: 1},
			{
				Name: "toy-admin", Title: "Administrator", Description: "An account in the group admin", Version: 1, HighRisk: true,
				Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"group admin"}},
			},
			{
				Name: "toy-group", Title: "Member of a group", Description: "An account in one group", Version: 1,
				Params: []sdk.RoleParam{{Name: "Group", Help: "a group's name", Pattern: `^[a-z]{1,16}$`, Required: true}},
				Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {"group %Group%"}},
			},
		},
	}
}

// Probe implements sdk.Prober.
func (Connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	s, err := dial(ctx, t, t.Management)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer s.close()
	f := sdk.Fingerprint{Product: "toy", Version: "1"}
	_, err = s.ask(request{Op: "list"})
	if sdk.ClassOf(err) == sdk.ClassNotPermitted {
		f.MissingRights, err = []string{"list accounts"}, nil
	}
	return f, err
}

// Plan implements sdk.Provisioner.
func (Connector) Plan(_ context.Context, _ sdk.Target, in sdk.Intent) (sdk.Plan, error) {
	return plan(in)
}

func plan(in sdk.Intent) (sdk.Plan, error) {
	p := sdk.Plan{Action: in.Action, Account: in.Account}
	add := func(id, title, command, compensation string) {
		p.Steps = append(p.Steps, sdk.Step{ID: id, Title: title, Command: command, Compensation: compensation, Changes: true})
	}
	switch in.Action {
	case sdk.Provision:
		expires := "never"
		if !in.ExpiresAt.IsZero() {
			expires = in.ExpiresAt.UTC().Format(time.RFC3339)
		}
		add("create", "Make sure that the account exists",
			"create "+in.Account+" owner="+in.AccountID+" expires="+expires, "remove "+in.Account)
		for i, command := range in.Role.Phases[sdk.PhaseGrant] {
			group, err := groupOf(command, in)
			if err != nil {
				return sdk.Plan{}, err
			}
			add("grant-"+strconv.Itoa(i+1), "Make sure that the account is in "+group, "group "+in.Account+" "+group, "")
		}
		add("password", "Set the password", "password "+in.Account+" "+"********", "")
		add("unlock", "Make sure that the account can log in", "unlock "+in.Account, "")
	case sdk.Rotate:
		add("password", "Set the password", "password "+in.Account+" "+"********", "")
	case sdk.Disable:
		add("lock", "Make sure that the account is locked", "lock "+in.Account, "")
	case sdk.Enable:
		add("unlock", "Make sure that the account can log in", "unlock "+in.Account, "")
	case sdk.Deprovision:
		add("remove", "Make sure that the account is gone", "remove "+in.Account, "")
	}
	return p, nil
}

func groupOf(command string, in sdk.Intent) (string, error) {
	rest, ok := strings.CutPrefix(command, "group ")
	if !ok {
		return "", sdk.Errorf(sdk.ClassInvalid, "role %s: unknown command %q", in.Role.Name, command)
	}
	return template.Expand(rest, func(name string) (string, error) {
		if name == sdk.UsernamePlaceholder {
			return in.Account, nil
		}
		return in.Params[name], nil
	})
}

// Apply implements sdk.Provisioner.
func (c Connector) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	in := ch.Intent
	own, err := plan(in)
	if err != nil {
		return sdk.Result{}, err
	}
	if sdk.PlanHash(own) != sdk.PlanHash(ch.Plan) {
		return sdk.Result{}, sdk.Errorf(sdk.ClassPlanChanged, "the plan is not what this connector would do; nothing was done").
			WithFix("plan again and have that plan approved")
	}
	s, err := dial(ctx, t, t.Management)
	if err != nil {
		return sdk.Result{}, err
	}
	defer s.close()
	before, err := s.get(in.Account)
	if err != nil {
		return sdk.Result{}, err
	}
	if before != nil {
		if in.Identity != "" && before.ID != in.Identity {
			return sdk.Result{}, sdk.Errorf(sdk.ClassExists,
				"account %s has id %s, not %s: it is another account", in.Account, before.ID, in.Identity).
				WithFix("find out who made it anew")
		}
		if in.Identity == "" && before.Owner != in.AccountID {
			return sdk.Result{}, sdk.Errorf(sdk.ClassExists, "account %s exists and is not ours", in.Account).
				WithFix("choose another name, or adopt the account")
		}
	}
	changed := before == nil
	if in.Action == sdk.Rotate {
		changed = true
	}
	for _, step := range own.Steps {
		progress(sdk.Event{Step: step.ID, State: sdk.StepStarted, Message: step.Title})
		done, err := s.step(step.ID, before, ch)
		if err != nil {
			progress(sdk.Event{Step: step.ID, State: sdk.StepFailed, Message: err.Error()})
			class := sdk.ClassOf(err)
			if before == nil && in.Action == sdk.Provision && (class == sdk.ClassNotPermitted || class == sdk.ClassNotFound) { // undo what was begun
				if e := s.change(request{Op: "remove", Name: in.Account}); e != nil {
					err = &sdk.Error{Class: class, Message: "a step was refused, and what was begun was not undone",
						Fix: "remove the account by hand", Details: map[string]string{"residue": "account " + in.Account}, Err: err}
				}
			}
			return sdk.Result{}, err
		}
		state := sdk.StepSkipped
		if done {
			state = sdk.StepDone
			changed = changed || step.ID != "password"
		}
		progress(sdk.Event{Step: step.ID, State: state})
	}
	after, err := s.get(in.Account)
	if err != nil {
		return sdk.Result{}, sdk.Errorf(sdk.ClassUnknownOutcome, "account %s could not be read back", in.Account).Wrap(err)
	}
	if in.Action == sdk.Deprovision {
		changed = before != nil
	}
	return sdk.Result{Facts: facts(in.Account, after), Changed: changed}, nil
}

// step does one step and reports whether it had to do anything.
func (s *session) step(id string, before *Account, ch sdk.Change) (bool, error) {
	name := ch.Intent.Account
	if before == nil && id != "create" && ch.Intent.Action != sdk.Provision {
		if id == "remove" {
			return false, nil
		}
		return false, sdk.Errorf(sdk.ClassNotFound, "there is no account %s", name).WithFix("provision it again")
	}
	switch {
	case id == "create":
		if before != nil && before.Expires.Equal(ch.Intent.ExpiresAt) {
			return false, nil
		}
		if before != nil {
			return true, s.change(request{Op: "expire", Name: name, Account: Account{Expires: ch.Intent.ExpiresAt}})
		}
		return true, s.change(request{Op: "create", Name: name, Account: Account{
			Owner: ch.Intent.AccountID, Comment: ch.Intent.Comment, Expires: ch.Intent.ExpiresAt,
		}})
	case id == "password":
		return true, s.change(request{Op: "password", Name: name, Text: ch.Password.Reveal()})
	case id == "lock", id == "unlock":
		if before != nil && before.Locked == (id == "lock") {
			return false, nil
		}
		return true, s.change(request{Op: id, Name: name})
	case id == "remove":
		return true, s.change(request{Op: "remove", Name: name})
	case strings.HasPrefix(id, "grant-"):
		i, err := strconv.Atoi(strings.TrimPrefix(id, "grant-"))
		if err != nil || i > len(ch.Intent.Role.Phases[sdk.PhaseGrant]) {
			return false, sdk.Errorf(sdk.ClassInternal, "no such step %q", id)
		}
		group, err := groupOf(ch.Intent.Role.Phases[sdk.PhaseGrant][i-1], ch.Intent)
		if err != nil {
			return false, err
		}
		if before != nil && slices.Contains(before.Groups, group) {
			return false, nil
		}
		return true, s.change(request{Op: "group", Name: name, Text: group})
	default:
		return false, sdk.Errorf(sdk.ClassInternal, "no such step %q", id)
	}
}

// Verify implements sdk.Verifier.
func (Connector) Verify(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
	s, err := dial(ctx, t, c)
	if err == nil {
		s.close()
		return sdk.Verdict{Kind: sdk.VerdictOK, Identity: c.Username}, nil
	}
	e, _ := errors.AsType[*sdk.Error](err)
	v := sdk.Verdict{Message: e.Message, Fix: e.Fix}
	switch e.Class {
	case sdk.ClassAuthFailed:
		return explain(ctx, t, c.Username), nil
	case sdk.ClassLocked:
		v.Kind = sdk.VerdictLocked
	case sdk.ClassExpired:
		v.Kind = sdk.VerdictExpired
	case sdk.ClassMustChange:
		v.Kind = sdk.VerdictMustChange
	case sdk.ClassUnreachable:
		v.Kind = sdk.VerdictUnreachable
	default:
		return sdk.Verdict{}, err
	}
	return v, nil
}

// explain finds out why a login was refused: the machine does not say that an account is
// disabled, and the management account may look.
func explain(ctx context.Context, t sdk.Target, account string) sdk.Verdict {
	wrong := sdk.Verdict{Kind: sdk.VerdictBadCredential, Message: "the password of " + account + " is wrong", Fix: "set another one"}
	if t.Management.Username == "" {
		return wrong
	}
	s, err := dial(ctx, t, t.Management)
	if err != nil {
		return wrong
	}
	defer s.close()
	if a, err := s.get(account); err == nil && a != nil && a.Disabled {
		return sdk.Verdict{Kind: sdk.VerdictDisabled, Message: "account " + account + " is disabled", Fix: "enable it on the machine"}
	}
	return wrong
}

// Inspect implements sdk.Inspector.
func (Connector) Inspect(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
	s, err := dial(ctx, t, t.Management)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer s.close()
	a, err := s.get(account)
	if err != nil {
		return sdk.Facts{}, err
	}
	return facts(account, a), nil
}

// Discover implements sdk.Discoverer.
func (Connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	s, err := dial(ctx, t, t.Management)
	if err != nil {
		return err
	}
	defer s.close()
	res, err := s.ask(request{Op: "list"})
	if err != nil {
		return err
	}
	for name, a := range res.Accounts {
		if !yield(facts(name, &a)) {
			return nil
		}
	}
	return nil
}

// Run implements sdk.Runner. A command is words of a Machine, such as "say hello; exit 3".
func (Connector) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	s, err := dial(ctx, t, t.Management)
	if err != nil {
		return 0, err
	}
	defer s.close()
	lost := func(err error) error {
		return sdk.Errorf(sdk.ClassUnknownOutcome, "the connection ended while the command ran").Wrap(err).
			WithFix("look at the machine for what became of it")
	}
	if err := json.NewEncoder(s.conn).Encode(request{Op: "run", Text: command}); err != nil {
		return 0, lost(err)
	}
	for {
		res, err := s.read()
		switch {
		case err != nil:
			return 0, lost(err)
		case res.Error != "":
			return 0, s.failure("run", "", res.Error)
		case res.Status != nil:
			return *res.Status, nil
		}
		out.Stdout([]byte(res.Out))
		out.Stderr([]byte(res.Err))
	}
}

func facts(name string, a *Account) sdk.Facts {
	f := sdk.Facts{Account: name, ReadAt: time.Now().UTC()}
	if a == nil {
		return f
	}
	f.Exists, f.Identity, f.Locked, f.HasPassword = true, a.ID, a.Locked || a.Disabled, a.Password != ""
	f.ExpiresAt, f.PasswordChangedAt, f.Sessions = a.Expires, a.Changed, a.Sessions
	f.Groups = slices.Sorted(slices.Values(a.Groups))
	f.Attributes = map[string]string{"comment": a.Comment, "owner": a.Owner}
	return f
}

// session is a connection logged in to a machine.
type session struct {
	conn  net.Conn
	lines *bufio.Scanner
	stop  func() bool
}

func dial(ctx context.Context, t sdk.Target, c sdk.Credential) (*session, error) {
	var d net.Dialer
	address := net.JoinHostPort(t.Address, strconv.Itoa(t.Port))
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, sdk.Errorf(sdk.ClassUnreachable, "%s cannot be reached", address).Wrap(err).
			WithFix("check address and port")
	}
	s := &session{conn: conn, lines: bufio.NewScanner(conn)}
	s.lines.Split(wholeLines)
	s.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	hello, err := s.read()
	if err == nil {
		err = checkKey(t.Trust, hello.Key)
	}
	if err == nil {
		_, err = s.ask(request{Op: "login", Name: c.Username, Text: c.Password.Reveal()})
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// wholeLines is bufio.ScanLines without a last line that has no end.
func wholeLines(data []byte, _ bool) (int, []byte, error) { return bufio.ScanLines(data, false) }

func checkKey(trust sdk.Trust, key string) error {
	sum := sha256.Sum256([]byte(key))
	e := &sdk.Error{Details: map[string]string{"host_key": key, "fingerprint": "SHA256:" + hex.EncodeToString(sum[:])}}
	switch {
	case len(trust.HostKeys) == 0:
		e.Class, e.Message, e.Fix = sdk.ClassHostKeyUnknown, "the machine's key is not known yet", "compare it, then approve it"
		return e
	case !slices.Contains(trust.HostKeys, key):
		e.Class, e.Message, e.Fix = sdk.ClassHostKeyChanged, "the machine's key is not the trusted one", "find out why"
		return e
	default:
		return nil
	}
}

func (s *session) close() {
	s.stop()
	_ = s.conn.Close()
}

func (s *session) read() (response, error) {
	nonsense := func(err error) error {
		return sdk.Errorf(sdk.ClassProtocol, "what answers is no machine of this kind").Wrap(err).WithFix("check address and port")
	}
	if !s.lines.Scan() {
		if errors.Is(s.lines.Err(), bufio.ErrTooLong) {
			return response{}, nonsense(s.lines.Err())
		}
		return response{}, sdk.Errorf(sdk.ClassUnreachable, "the connection ended").Wrap(s.lines.Err()).
			WithFix("check that the machine runs and can be reached")
	}
	var res response
	if err := json.Unmarshal(s.lines.Bytes(), &res); err != nil {
		return response{}, nonsense(err)
	}
	return res, nil
}

// classes are what a machine answers, in the SDK's words, each with what to do.
var classes = map[string]struct {
	class sdk.Class
	fix   string
}{
	"bad_credential": {sdk.ClassAuthFailed, "check user name and password, and that nobody disabled the account"},
	"locked":         {sdk.ClassLocked, "unlock the account"},
	"expired":        {sdk.ClassExpired, "move its expiry date"},
	"must_change":    {sdk.ClassMustChange, "log in by hand and change the password"},
	"not_permitted":  {sdk.ClassNotPermitted, "use a management account that may do it"},
	"exists":         {sdk.ClassExists, "choose another name"},
	"not_found":      {sdk.ClassNotFound, "provision the account again, or make the group"},
}

func (s *session) failure(op, name, answer string) error {
	c, ok := classes[answer]
	if !ok {
		c.class, c.fix = sdk.ClassProtocol, "update the connector"
	}
	return sdk.Errorf(c.class, "%s of %s: the machine answered %s", op, name, answer).WithFix("%s", c.fix)
}

func (s *session) ask(req request) (response, error) {
	if err := json.NewEncoder(s.conn).Encode(req); err != nil {
		return response{}, sdk.Errorf(sdk.ClassUnreachable, "the connection ended").Wrap(err).
			WithFix("check that the machine runs and can be reached")
	}
	res, err := s.read()
	if err == nil && res.Error != "" {
		err = s.failure(req.Op, req.Name, res.Error)
	}
	if err != nil {
		return response{}, err
	}
	return res, nil
}

// change is ask for requests after which a lost answer means an unknown outcome.
func (s *session) change(req request) error {
	_, err := s.ask(req)
	if sdk.ClassOf(err) == sdk.ClassUnreachable {
		return sdk.Errorf(sdk.ClassUnknownOutcome, "the connection ended during %s of %s", req.Op, req.Name).Wrap(err).
			WithFix("read the account back, then try again")
	}
	return err
}

func (s *session) get(name string) (*Account, error) {
	res, err := s.ask(request{Op: "get", Name: name})
	return res.Account, err
}
