package ios

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Probe implements sdk.Prober.
func (Profile) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	f := sdk.Fingerprint{Product: "ios", Version: "unknown", Attributes: map[string]string{"protection": "none"}}
	s, err := manage(ctx, t)
	if sdk.ClassOf(err) == sdk.ClassNotPermitted {
		f.MissingRights = []string{sdk.ErrorText(err)}
		return f, nil
	}
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer s.Close()
	f.Attributes["hostname"] = s.host
	lines, err := s.command("show version")
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	if v := parseVersion(lines); v != "" {
		f.Version = v
	}
	if _, err := s.users(); err != nil {
		if sdk.ClassOf(err) != sdk.ClassNotPermitted && sdk.ClassOf(err) != sdk.ClassInvalid {
			return sdk.Fingerprint{}, err
		}
		f.MissingRights = append(f.MissingRights, "show running-config")
	}
	return f, nil
}

// Verify implements sdk.Verifier: one fresh login, up to the prompt. A device does not say why it refuses a password:
// with a management account the reason is looked for.
func (Profile) Verify(ctx context.Context, t sdk.Target, as sdk.Credential) (sdk.Verdict, error) {
	s, err := logIn(ctx, t, as)
	if err == nil {
		s.Close()
		return sdk.Verdict{Kind: sdk.VerdictOK, Message: "logged in", Identity: as.Username}, nil
	}
	if sdk.ClassOf(err) != sdk.ClassAuthFailed || t.Management.Username == "" || t.Management.Username == as.Username {
		return sdk.Verdict{}, err
	}
	if m, e := manage(ctx, t); e == nil {
		defer m.Close()
		if why, ok := m.explain(as.Username); ok {
			return why, nil
		}
	}
	return sdk.Verdict{}, err
}

// explain says why the device refuses logins of an account whatever the password.
func (s *session) explain(account string) (v sdk.Verdict, ok bool) {
	users, err := s.users()
	if err != nil || users[account] == nil {
		return sdk.Verdict{}, false
	}
	if users[account].secret.locked() {
		return sdk.Verdict{
			Kind: sdk.VerdictDisabled, Message: "Reeve has disabled the account " + account, Fix: "let Reeve enable it again",
		}, true
	}
	lines, err := s.command("show aaa local user lockout")
	if err == nil && slices.Contains(parseLockout(lines), account) {
		return sdk.Verdict{
			Kind: sdk.VerdictLocked, Message: "the device has locked the account " + account + " after wrong passwords",
			Fix: "clear aaa local user lockout username " + account + ", and find out who tries wrong passwords",
		}, true
	}
	return sdk.Verdict{}, false
}

// Inspect implements sdk.Inspector.
func (Profile) Inspect(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
	s, err := manage(ctx, t)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer s.Close()
	users, err := s.users()
	if err != nil {
		return sdk.Facts{}, err
	}
	return users[account].facts(account), nil
}

// Discover implements sdk.Discoverer.
func (Profile) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	s, err := manage(ctx, t)
	if err != nil {
		return err
	}
	defer s.Close()
	users, err := s.users()
	if err != nil {
		return err
	}
	for _, name := range names(users) {
		if !yield(users[name].facts(name)) {
			return nil
		}
	}
	return nil
}

// pause is a command of tasks that waits, for "shutdown; wait 3 s; no shutdown".
var pause = regexp.MustCompile(`^wait ([1-9][0-9]?) s$`)

// exitRefused is the status of a task whose command the device refuses.
const exitRefused = 1

// commandsOf cuts a task into the lines that are typed: they stand on lines of their own, or
// are separated by semicolons with spaces around.
func commandsOf(task string) []string {
	var all []string
	for line := range strings.Lines(task) {
		for part := range strings.SplitSeq(line, " ; ") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
	}
	return all
}

// Run implements sdk.Runner. The commands are typed at the privileged prompt, one after the
// other, until the device refuses one: then the status is 1. Pages are turned, "[confirm]" is
// confirmed, and what configurations hold of secrets is masked.
func (Profile) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	commands := commandsOf(command)
	if len(commands) == 0 {
		return 0, sdk.Errorf(sdk.ClassInvalid, "there is no command")
	}
	for _, c := range commands {
		if err := typable(c); err != nil {
			return 0, err
		}
	}
	s, err := manage(ctx, t)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	for _, c := range commands {
		if m := pause.FindStringSubmatch(c); m != nil {
			seconds, _ := strconv.Atoi(m[1]) // two digits
			if err := wait(ctx, time.Duration(seconds)*time.Second); err != nil {
				return 0, sdk.Errorf(sdk.ClassUnknownOutcome, "the task was broken off while it waited").Wrap(err).
					WithFix("look at the device before it is run again")
			}
			continue
		}
		err := s.stream(c, func(text string) { out.Stdout([]byte(maskLine(text))) })
		switch sdk.ClassOf(err) {
		case "":
		case sdk.ClassInvalid, sdk.ClassNotPermitted:
			return exitRefused, nil
		default:
			return 0, sdk.Errorf(sdk.ClassUnknownOutcome, "the connection to %s ended while a command was under way: %s",
				s.Address(), sdk.ErrorText(err)).Wrap(err).WithFix("look at the device before it is run again")
		}
	}
	return 0, nil
}

// maskLine is mask for a line with its end.
func maskLine(text string) string {
	line, ended := strings.CutSuffix(text, "\n")
	line = mask(line)
	if ended {
		line += "\n"
	}
	return line
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
