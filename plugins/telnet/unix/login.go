// Package unix is the dialogue with Unix hosts: login(1), a shell, and the account tools
// of Linux. Package connector is its only importer.
package unix

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
	"github.com/reeve-pam/reeve/plugins/telnet/dialogue"
)

const (
	loginWithin  = 30 * time.Second // for each step of a login
	promptWithin = 5 * time.Second  // for a prompt that can be recognised
)

var (
	loginPrompt    = regexp.MustCompile(`(?i)(^|[^a-z])(login|user ?name): ?$`)
	lastLogin      = regexp.MustCompile(`(?i)^last login`) // what login(1) tells after one
	passwordPrompt = regexp.MustCompile(`(?i)password( for [^:]{1,64})?: ?$`)
	changePrompt   = regexp.MustCompile(`(?i)(current|old|new|retype)[a-z ()]*password: ?$`)
	changeNotice   = regexp.MustCompile(`(?i)required to change your password|your password has expired`)
	refusal        = regexp.MustCompile(`(?i)^(login incorrect|authentication failure|permission denied|login failed|access denied)\.?$`)
	expiryNotice   = regexp.MustCompile(`(?i)^((your|the) )?account has expired`)
	disabledNotice = regexp.MustCompile(`(?i)^((your|the) )?account is disabled`)
	lockNotice     = regexp.MustCompile(`(?i)^((your|the) )?account (is|has been) locked`) // of pam_faillock before the prompt
	busyNotice     = regexp.MustCompile(`(?i)^(too many logins|there were too many logins|maximum number of logins)`)
	noShellNotice  = regexp.MustCompile(`(?i)^this account is currently not available`)
	shellPrompt    = regexp.MustCompile(`[$#%>] ?$`)
)

// errHungUp is in the error of a connection that the host ended after the password.
var errHungUp = errors.New("hung up")

func matches(re *regexp.Regexp) func(string) bool { return re.MatchString }

// trimmed matches lines without the spaces around them.
func trimmed(re *regexp.Regexp) func(string) bool {
	return func(s string) bool { return re.MatchString(strings.TrimSpace(s)) }
}

func asksForLogin(s string) bool { return loginPrompt.MatchString(s) && !lastLogin.MatchString(s) }

// login is a session in which a password was accepted.
type login struct {
	*dialogue.Session
	user    string
	noShell bool // the host says that the account has no usable shell
}

// logIn makes one attempt. Errors: those of dialogue, ClassAuthFailed, ClassLocked,
// ClassExpired, ClassDisabled, ClassMustChange, ClassBusy, ClassInvalid.
func logIn(ctx context.Context, t sdk.Target, as sdk.Credential) (*login, error) {
	switch {
	case as.Username == "" || strings.ContainsFunc(as.Username, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return nil, sdk.Errorf(sdk.ClassInvalid, "there is no user name to log in with")
	case as.Password.Empty():
		return nil, sdk.Errorf(sdk.ClassInvalid, "there is no password to log in with; Telnet knows no keys")
	}
	s, err := dialogue.Dial(ctx, t, dialogue.Options{EightBit: true})
	if err != nil {
		return nil, err
	}
	l := &login{Session: s, user: as.Username}
	if err := l.enter(as); err != nil {
		s.Close()
		return nil, err
	}
	return l, nil
}

func (l *login) enter(as sdk.Credential) error {
	fail := func(class sdk.Class, what string) *sdk.Error {
		return sdk.Errorf(class, "%s at %s: %s", as.Username, l.Address(), what)
	}
	if _, err := l.Expect(loginWithin, nil, dialogue.Case{Tail: asksForLogin}); err != nil {
		return err
	}
	if err := l.Send(as.Username + "\n"); err != nil {
		return err
	}
	i, err := l.Expect(loginWithin, nil,
		dialogue.Case{Tail: matches(passwordPrompt), Secret: true},
		dialogue.Case{Line: trimmed(refusal)},
		dialogue.Case{Tail: matches(shellPrompt)},
		dialogue.Case{Line: trimmed(lockNotice)})
	switch {
	case err != nil:
		return err
	case i == 3:
		return fail(sdk.ClassLocked, "the account is locked").WithFix(shadow.FixLocked)
	case i == 1:
		return fail(sdk.ClassAuthFailed, "the host does not accept the name").WithFix(shadow.FixRefused)
	case i == 2:
		return fail(sdk.ClassProtocol, "the host asks for no password, so nothing can be proven").
			WithFix("give the account a password")
	}
	if err := l.Answer(as.Password); err != nil {
		return err
	}
	i, err = l.Expect(promptWithin, nil,
		dialogue.Case{Line: trimmed(lockNotice)},
		dialogue.Case{Line: matches(changeNotice)},
		dialogue.Case{Tail: matches(changePrompt)},
		dialogue.Case{Line: trimmed(busyNotice)},
		dialogue.Case{Line: trimmed(refusal)},
		dialogue.Case{Tail: asksForLogin, Settled: true},
		dialogue.Case{Line: trimmed(noShellNotice)},
		dialogue.Case{Tail: matches(shellPrompt)},
		dialogue.Case{Line: trimmed(expiryNotice)},
		dialogue.Case{Line: trimmed(disabledNotice)})
	if l.Silent(err) {
		return nil // a prompt of a kind we do not know; or the shell is slow
	}
	switch {
	case dialogue.Ended(err): // telnetd may go before it has passed on what login(1) said last
		return fail(sdk.ClassUnreachable, "the host ended the connection after it was given the password").Wrap(fmt.Errorf("%w: %w", errHungUp, err)).
			WithFix("try again; look whether the account is locked or has expired, and whether its shell works")
	case err != nil:
		return err
	case i == 0:
		return fail(sdk.ClassLocked, "the account is locked").WithFix(shadow.FixLocked)
	case i == 8:
		return fail(sdk.ClassExpired, "the account has expired").WithFix(shadow.FixExpired)
	case i == 9:
		return fail(sdk.ClassDisabled, "the account is disabled").WithFix(shadow.FixDisabled)
	case i == 1 || i == 2:
		return fail(sdk.ClassMustChange, "the password must be changed before it can be used").WithFix(shadow.FixMustChange)
	case i == 3:
		return fail(sdk.ClassBusy, "the host refuses more logins at the same time").WithFix("try again later")
	case i == 4 || i == 5:
		return fail(sdk.ClassAuthFailed, "the host does not accept the password").
			WithFix("%s; logins of root may be forbidden (securetty)", shadow.FixRefused)
	}
	l.noShell = i == 6
	return nil
}
