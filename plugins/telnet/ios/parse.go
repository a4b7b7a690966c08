package ios

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// user is what a device says about one account.
type user struct {
	name      string
	privilege int
	kind      string // "secret 8", "secret 5", "password 7", …; "" if there is none
	secret    secret // when kind is "secret 8"
	sessions  int
}

// parseUsers parses what "show running-config | include ^username" prints. A device may
// tell of one account on several lines.
func parseUsers(lines []string) map[string]*user {
	users := map[string]*user{}
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "username" {
			continue
		}
		u := users[f[1]]
		if u == nil {
			u = &user{name: f[1], privilege: 1}
			users[f[1]] = u
		}
		for i := 2; i < len(f); i++ {
			rest := f[i+1:]
			switch f[i] {
			case "privilege":
				if len(rest) > 0 {
					if n, err := strconv.Atoi(rest[0]); err == nil && n >= 0 && n <= 15 {
						u.privilege = n
					}
				}
				i++
			case "secret", "password":
				u.kind, u.secret = f[i], ""
				if len(rest) > 1 {
					u.kind += " " + rest[0]
				}
				if len(rest) == 2 && u.kind == "secret "+secretType && secretForm.MatchString(rest[1]) {
					u.secret = secret(rest[1])
				}
				i = len(f) // the rest of the line is the secret
			}
		}
	}
	return users
}

// sessionLine is a line of "show users": an asterisk for our own, the absolute number, the kind of line and its
// relative number, the user.
var sessionLine = regexp.MustCompile(`^\*?\s*(\d{1,5}) (?:vty|con|tty|aux)\s+\d{1,5}\s+(\S+)`)

// parseSessions parses what "show users" prints: absolute line numbers of each user. Names
// that a device cuts are others' names here.
func parseSessions(lines []string) map[string][]int {
	sessions := map[string][]int{}
	for _, line := range lines {
		if m := sessionLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			n, _ := strconv.Atoi(m[1]) // five digits at most
			sessions[m[2]] = append(sessions[m[2]], n)
		}
	}
	return sessions
}

var lockoutLine = regexp.MustCompile(`^\s*(\S+)\s+\d\d:\d\d:\d\d\b`)

// parseLockout parses what "show aaa local user lockout" prints: names, and since when.
func parseLockout(lines []string) []string {
	var names []string
	for _, line := range lines {
		if m := lockoutLine.FindStringSubmatch(line); m != nil {
			names = append(names, m[1])
		}
	}
	return names
}

var versionLine = regexp.MustCompile(`(?i)\bIOS\b.*\bVersion ([^,\s]{1,64})`)

// parseVersion finds the version in what "show version" prints; "" if it is not there.
func parseVersion(lines []string) string {
	for _, line := range lines {
		if m := versionLine.FindStringSubmatch(line); m != nil {
			return m[1]
		}
	}
	return ""
}

// facts are those of an account; u is nil if it is not there.
func (u *user) facts(account string) sdk.Facts {
	f := sdk.Facts{Account: account, ReadAt: time.Now().UTC()}
	if u == nil {
		return f
	}
	f.Exists = true
	f.Identity = u.name // a device knows its accounts by nothing else
	f.Locked = u.secret.locked()
	f.HasPassword = u.kind != ""
	f.Grants = []string{fmt.Sprintf("privilege %d", u.privilege)}
	f.Sessions = u.sessions
	f.Attributes = map[string]string{"password": u.kind}
	if mark := u.secret.mark(); mark != "" {
		f.Attributes["mark"] = mark
	}
	return f
}

// maskings are what configurations hold of secrets; what follows is masked in everything a
// task prints.
var maskings = []*regexp.Regexp{
	regexp.MustCompile(`(?i)(\b(?:secret|password|passphrase|key-string|pre-shared-key(?: address \S+)?)\s+(?:[0-9]{1,2}\s+)?).+`),
	regexp.MustCompile(`(?i)(^\s*snmp-server community\s+)\S+`),
	regexp.MustCompile(`(?i)(^\s*snmp-server host .*?(?:version (?:1|2c|3 \S+)\s+)?)\S+(\s*)$`),
	regexp.MustCompile(`(?i)(\b(?:auth|priv)\s+(?:md5|sha|des|3des|aes(?: \d+)?)\s+)\S+`),
	regexp.MustCompile(`(?i)(^\s*(?:tacacs-server|radius-server)\b.*?\bkey\s+).+`),
	regexp.MustCompile(`(?i)(^\s*(?:key|crypto isakmp key|wpa-psk ascii|neighbor \S+ password|ip ospf (?:message-digest-key \d+ md5|authentication-key)|standby \d+ authentication(?: md5 key-string)?)\s+(?:[0-9]{1,2}\s+)?)\S.*`),
}

// mask hides the secrets in a line of a configuration.
func mask(line string) string {
	for _, re := range maskings {
		line = re.ReplaceAllString(line, "${1}********")
	}
	return line
}

// names returns the accounts in order.
func names(users map[string]*user) []string {
	var all []string
	for name := range users {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
