// Package ios is the dialogue with network devices that are like Cisco IOS: login, enable,
// configuration mode, paging, confirmations. Package connector is its only importer.
package ios

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/dialogue"
)

const (
	loginWithin   = 30 * time.Second // for each step of a login
	maxOutput     = 1 << 20          // bytes kept of what a command prints
	commandLength = 500              // bytes; devices take lines of at least that many
)

var (
	namePrompt     = regexp.MustCompile(`(?i)^\s*(user ?name|login): ?$`)
	passwordPrompt = regexp.MustCompile(`(?i)^\s*password: ?$`)
	// anyPrompt is a prompt before its host name is known.
	anyPrompt    = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9_.-]{0,62})([>#])$`)
	morePrompt   = regexp.MustCompile(`^\s*<?-+ ?[Mm]ore ?-+>?\s*$`)
	confirmation = regexp.MustCompile(`\[confirm\]\s*$`)
	question     = regexp.MustCompile(`(\[(yes/no|y/n|no|yes)\]|\?) ?:? ?$`)
	refusal      = regexp.MustCompile(`(?i)^%? ?(login (invalid|incorrect)|authentication failed|bad passwords?|access denied|password( has)? expired)`)
	blocked      = regexp.MustCompile(`(?i)^% ?(user .*(locked|blocked)|.*login (is )?disabled|.*too many (failed|login))`)
	busy         = regexp.MustCompile(`(?i)^% ?(connection refused|all (lines|vtys?) .*busy|.*maximum .*(sessions|connections))`)
	badSecret    = regexp.MustCompile(`(?i)^% ?(bad secrets?|access denied|error in authentication|no password set)`)
)

func matches(re *regexp.Regexp) func(string) bool { return re.MatchString }

// session is a login at a device, at its prompt.
type session struct {
	*dialogue.Session
	user       string
	prompt     *regexp.Regexp // of this device, in any mode
	host       string
	privileged bool
}

// logIn makes one attempt, and learns the device's prompt.
func logIn(ctx context.Context, t sdk.Target, as sdk.Credential) (*session, error) {
	switch {
	case as.Username == "" || strings.ContainsFunc(as.Username, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '?' }):
		return nil, sdk.Errorf(sdk.ClassInvalid, "there is no user name that could be typed at a device")
	case as.Password.Empty():
		return nil, sdk.Errorf(sdk.ClassInvalid, "there is no password to log in with; Telnet knows no keys")
	}
	d, err := dialogue.Dial(ctx, t, dialogue.Options{Screen: true})
	if err != nil {
		return nil, err
	}
	s := &session{Session: d, user: as.Username}
	if err := s.enter(as); err != nil {
		d.Close()
		return nil, err
	}
	return s, nil
}

func (s *session) enter(as sdk.Credential) error {
	fail := func(class sdk.Class, what string) *sdk.Error {
		return sdk.Errorf(class, "%s at %s: %s", as.Username, s.Address(), what)
	}
	i, err := s.Expect(loginWithin, nil,
		dialogue.Case{Tail: matches(namePrompt)},
		dialogue.Case{Line: matches(busy)},
		dialogue.Case{Tail: matches(passwordPrompt)})
	switch {
	case err != nil:
		return err
	case i == 1:
		return fail(sdk.ClassBusy, "the device refuses more logins at the same time").WithFix("try again later")
	case i == 2:
		return fail(sdk.ClassUnsupported, "the device asks for a password without a name, so its lines have one for all").
			WithFix(`configure "login local" for its lines`)
	}
	if err := s.Send(as.Username + "\n"); err != nil {
		return err
	}
	if _, err := s.Expect(loginWithin, nil, dialogue.Case{Tail: matches(passwordPrompt), Secret: true}); err != nil {
		return err
	}
	if err := s.Answer(as.Password); err != nil {
		return err
	}
	i, err = s.Expect(loginWithin, nil,
		dialogue.Case{Line: matches(blocked)},
		dialogue.Case{Line: matches(refusal)},
		dialogue.Case{Tail: matches(namePrompt), Settled: true},
		dialogue.Case{Tail: matches(passwordPrompt), Settled: true},
		dialogue.Case{Tail: s.learn})
	switch {
	case err != nil:
		return err
	case i == 0:
		return fail(sdk.ClassLocked, "the device lets the account in no more for now").
			WithFix("wait, or clear aaa local user lockout username %s at the device; find out who tries wrong passwords", as.Username)
	case i < 4:
		return fail(sdk.ClassAuthFailed, "the device does not accept the password").
			WithFix("check user name and password; whether the account is locked (show aaa local user lockout) only an administrator of the device sees")
	}
	// A banner may end in what looks like a prompt; a prompt comes again after an empty line.
	if err := s.Send("\n"); err != nil {
		return err
	}
	_, err = s.Expect(loginWithin, nil, dialogue.Case{Tail: s.learn})
	return err
}

// learn recognises a prompt and remembers the device's name in it.
func (s *session) learn(tail string) bool {
	m := anyPrompt.FindStringSubmatch(tail)
	if m == nil {
		return false
	}
	s.host, s.privileged = m[1], m[2] == "#"
	// Devices cut long names in prompts of configuration modes.
	s.prompt = regexp.MustCompile(`^` + regexp.QuoteMeta(m[1][:min(len(m[1]), 20)]) + `[A-Za-z0-9_.-]*(\([A-Za-z0-9_./:-]{1,40}\))?[>#]$`)
	return true
}

// manage logs in with the management account, at a prompt that is privileged and does not page.
func manage(ctx context.Context, t sdk.Target) (*session, error) {
	s, err := logIn(ctx, t, t.Management)
	if err != nil {
		return nil, err
	}
	if err := s.prepare(t.Management.Password); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *session) prepare(password sdk.Secret) error {
	if !s.privileged {
		if err := s.enable(password); err != nil {
			return err
		}
	}
	for _, c := range []string{"terminal length 0", "terminal width 511"} { // paging is handled where a device refuses
		if _, err := s.command(c); err != nil && sdk.ClassOf(err) != sdk.ClassInvalid {
			return err
		}
	}
	return nil
}

// enable becomes privileged. The device's own prompt is answered with the management
// account's password, once.
func (s *session) enable(password sdk.Secret) error {
	refused := sdk.Errorf(sdk.ClassNotPermitted, "%s at %s cannot become privileged", s.user, s.Address()).
		WithFix("give the management account privilege level 15, or make its password the enable secret")
	if err := s.Send("enable\n"); err != nil {
		return err
	}
	for asked := false; ; asked = true {
		i, err := s.Expect(loginWithin, nil,
			dialogue.Case{Tail: matches(passwordPrompt), Secret: true},
			dialogue.Case{Line: matches(badSecret)},
			dialogue.Case{Tail: s.learn})
		switch {
		case err != nil:
			return err
		case i == 2 && s.privileged:
			return nil
		case i != 0 || asked:
			return refused
		}
		if err := s.Answer(password); err != nil {
			return err
		}
	}
}

// command sends one line and returns what the device prints. Errors: those of dialogue;
// ClassInvalid and ClassNotPermitted if the device refuses it; ClassProtocol for a question
// nobody foresaw.
func (s *session) command(line string) ([]string, error) {
	var lines []string
	size := 0
	err := s.stream(line, func(text string) {
		if size += len(text); size <= maxOutput {
			lines = append(lines, strings.TrimRight(text, " \n"))
		}
	})
	if err != nil {
		return nil, err
	}
	if size > maxOutput {
		return nil, sdk.Errorf(sdk.ClassProtocol, "%s prints more than %d bytes", s.Address(), maxOutput).
			WithFix("see what the command prints at the device; %s is read whole", line)
	}
	return lines, nil
}

// stream sends one line, answers paging and confirmations, and gives away what the device
// prints, line by line.
func (s *session) stream(line string, each func(string)) error {
	if err := typable(line); err != nil {
		return err
	}
	if err := s.Send(line + "\n"); err != nil {
		return err
	}
	var refused error
	first := true
	for {
		i, err := s.Expect(0, func(text string) {
			if first && strings.TrimSpace(text) == "" {
				return // of the login
			}
			echo := first && strings.HasSuffix(strings.TrimSpace(text), line)
			first = false
			if echo {
				return
			}
			if refused == nil {
				refused = s.refused(text)
			}
			each(text)
		},
			// A prompt before the echo is one too many, left over from the login.
			dialogue.Case{Tail: func(t string) bool { return !first && s.prompt.MatchString(strings.TrimSpace(t)) }},
			dialogue.Case{Tail: matches(morePrompt)},
			dialogue.Case{Tail: matches(confirmation)},
			dialogue.Case{Tail: matches(passwordPrompt)},
			dialogue.Case{Tail: func(t string) bool { return !first && question.MatchString(t) }})
		switch {
		case err != nil:
			return err
		case i == 0:
			return refused
		case i == 1:
			err = s.Send(" ")
		case i == 2:
			err = s.Send("\n")
		default:
			return sdk.Errorf(sdk.ClassProtocol, "%s asks something in the middle of a command, which was left unanswered", s.Address()).
				WithFix("choose a form of the command that asks nothing")
		}
		if err != nil {
			return err
		}
	}
}

// typable refuses what a device's command line would not take as it is; "?" asks for help.
func typable(line string) error {
	if len(line) > commandLength || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r > '~' || r == '?' }) {
		return sdk.Errorf(sdk.ClassInvalid, "a command has more than %d bytes, or characters that cannot be typed at a device", commandLength).
			WithFix("use printable ASCII without question marks")
	}
	return nil
}

// refused is the error a device's message stands for; nil for other text. The message is
// not told: it may quote what was sent.
func (s *session) refused(text string) error {
	text = strings.ToLower(strings.TrimSpace(text))
	if !strings.HasPrefix(text, "% ") && !strings.HasPrefix(text, "%error") && !strings.HasPrefix(text, "command authorization failed") && !strings.HasPrefix(text, "error:") {
		return nil
	}
	has := func(what string) bool { return strings.Contains(text, what) }
	switch {
	case has("authorization failed"), has("not authorized"), has("permission denied"):
		return sdk.Errorf(sdk.ClassNotPermitted, "%s does not allow the command to %s", s.Address(), s.user).
			WithFix("give the management account privilege level 15")
	case has("invalid input"), has("incomplete command"), has("ambiguous command"), has("unknown command"), has("unrecognized"):
		return sdk.Errorf(sdk.ClassInvalid, "%s does not know the command", s.Address()).
			WithFix("check that the device has it, and in which mode")
	case strings.HasPrefix(text, "error:"), has("failed"), has("cannot"), has("error"), has("bad "), has("not "):
		return sdk.Errorf(sdk.ClassInvalid, "%s refuses the command", s.Address()).WithFix("try the command at the device")
	default:
		return nil // a warning
	}
}
