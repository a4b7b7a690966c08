package shadow

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// What is done about an account in a state, also where the host itself tells it.
const (
	FixExpired    = "move the date on which the account expires (chage -E), or let Reeve enable it again"
	FixLocked     = "wait until the host opens the account again, or run faillock --reset on it; find out who tries wrong passwords"
	FixDisabled   = "enable the account, on the host with usermod -U"
	FixMustChange = "log in by hand, change the password and give Reeve the new one; of an account that Reeve manages, rotate the password"
	// FixRefused is for hosts that say no more than that they refuse a login.
	FixRefused = "check user name and password; whether the account is disabled (passwd -S) or locked after wrong passwords (faillock) " +
		"only the host's administrator sees"
)

// VerdictOf tells verdicts from errors of a login, which are about not having been able to try.
func VerdictOf(err error) (sdk.Verdict, error) {
	kinds := map[sdk.Class]sdk.VerdictKind{
		sdk.ClassAuthFailed:  sdk.VerdictBadCredential,
		sdk.ClassLocked:      sdk.VerdictLocked,
		sdk.ClassExpired:     sdk.VerdictExpired,
		sdk.ClassDisabled:    sdk.VerdictDisabled,
		sdk.ClassMustChange:  sdk.VerdictMustChange,
		sdk.ClassUnreachable: sdk.VerdictUnreachable,
		sdk.ClassBusy:        sdk.VerdictUnreachable,
	}
	kind, ok := kinds[sdk.ClassOf(err)]
	if !ok {
		return sdk.Verdict{}, err
	}
	v := sdk.Verdict{Kind: kind, Message: sdk.ErrorText(err)}
	if e, ok := err.(*sdk.Error); ok { //nolint:errorlint // errors of logins are not wrapped
		v.Fix = e.Fix
	}
	return v, nil
}

// faillockScript prints what pam_faillock holds of the account $1, if the host uses it.
const faillockScript = `m=$(grep -hE '^[^#]*pam_faillock\.so' /etc/pam.d/* 2>/dev/null) || { echo end; exit 0; }
date '+now %Y-%m-%d %H:%M:%S'
grep -hE '^[[:space:]]*(deny|unlock_time|fail_interval)[[:space:]]*=' /etc/security/faillock.conf 2>/dev/null | while IFS= read -r l; do printf 'set %s\n' "$l"; done
printf '%s\n' "$m" | while IFS= read -r l; do printf 'set %s\n' "$l"; done
faillock --user "$1" 2>/dev/null | while IFS= read -r l; do printf 'failed %s\n' "$l"; done
echo end
`

// Explain says why the host refuses logins of an account whatever the password: because it is disabled, or locked after wrong
// passwords. silent says that the host refused without a word, so that it may be for a reason that login(1) and sshd otherwise tell
// who knows the password: the account has expired, or its password has. ok is false if the account's state explains nothing.
func Explain(ctx context.Context, h Host, account string, silent bool) (v sdk.Verdict, ok bool) {
	s, err := Read(ctx, h, account)
	if err != nil || !s.Exists {
		return sdk.Verdict{}, false
	}
	now := time.Now()
	switch {
	case s.Password == "locked":
		return sdk.Verdict{Kind: sdk.VerdictDisabled, Message: "account " + account + " is disabled on the host", Fix: FixDisabled}, true
	case silent && s.expired(now):
		return sdk.Verdict{Kind: sdk.VerdictExpired, Message: "the account " + account + " has expired", Fix: FixExpired}, true
	case silent && s.mustChange(now):
		return sdk.Verdict{Kind: sdk.VerdictMustChange, Message: "the password of " + account + " has expired, or must be changed first", Fix: FixMustChange}, true
	}
	out, err := h.Script(ctx, Script{Text: faillockScript, Args: []string{account}})
	if err == nil && parseFaillock(out.Stdout) {
		return sdk.Verdict{Kind: sdk.VerdictLocked, Message: "account " + account + " is locked on the host after wrong passwords", Fix: FixLocked}, true
	}
	return sdk.Verdict{}, false
}

// expired is the rule of shadow(5) for accounts.
func (s State) expired(now time.Time) bool {
	today := int(now.Unix() / (24 * 60 * 60))
	return s.Expires > 0 && today >= s.Expires || s.Inactive >= 0 && s.MaxAge >= 0 && s.Changed > 0 && today > s.Changed+s.MaxAge+s.Inactive
}

// mustChange is that for passwords.
func (s State) mustChange(now time.Time) bool {
	today := int(now.Unix() / (24 * 60 * 60))
	return s.Changed == 0 || s.Changed > 0 && s.MaxAge >= 0 && today > s.Changed+s.MaxAge
}

var (
	faillockSetting = regexp.MustCompile(`\b(deny|unlock_time|fail_interval) ?= ?(\d{1,9}|never)`)
	faillockLine    = regexp.MustCompile(`^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) .* V$`) // V: counts, I: too old or a success came after it
)

// parseFaillock reports whether what faillockScript printed is of an account that is locked: faillock.conf(5).
func parseFaillock(text string) bool {
	rule := map[string]int{"deny": 3, "unlock_time": 600, "fail_interval": 900} // their defaults
	var now time.Time
	var failed []time.Time
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "now":
			now, _ = time.Parse(time.DateTime, value)
		case "set": // arguments in pam.d come after the file, and win
			for _, m := range faillockSetting.FindAllStringSubmatch(value, -1) {
				rule[m[1]], _ = strconv.Atoi(m[2]) // "never" is 0
			}
		case "failed":
			if m := faillockLine.FindStringSubmatch(value); m != nil {
				if at, err := time.Parse(time.DateTime, m[1]); err == nil {
					failed = append(failed, at)
				}
			}
		case "end":
			if len(failed) == 0 || now.IsZero() || rule["deny"] == 0 {
				return false
			}
			last := failed[len(failed)-1]
			count := 0
			for _, at := range failed {
				if last.Sub(at) < time.Duration(rule["fail_interval"])*time.Second {
					count++
				}
			}
			open := rule["unlock_time"] > 0 && now.Sub(last) >= time.Duration(rule["unlock_time"])*time.Second
			return count >= rule["deny"] && !open
		}
	}
	return false
}
