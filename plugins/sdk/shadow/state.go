package shadow

import (
	"context"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// State is what a host says about one account.
type State struct {
	Exists   bool
	UID      int
	Comment  string
	Home     string
	Shell    string
	Hash     string // a short digest of the password field, to see that it changed
	Password string // set, locked, none, empty; "" if it cannot be read
	Changed  int    // day of the last password change, 0 must be changed, -1 unknown
	MaxAge   int    // days a password may be used, -1 for ever
	Inactive int    // days after that until the account is refused, -1 never
	Expires  int    // day from which the account is refused, -1 never
	Groups   []string
	Sudoers  []string // our rules for it
	Sessions int
	Keys     []string // fingerprints of keys that may log in
}

// stateScript prints facts as lines of "key value". Of the password it tells only the
// kind, and 16 hex digits of a digest of the salted hash. What others chose, such as the
// comment, is printed by printf: echo would make lines of a \n in it.
const stateScript = `u=$1
p=$(getent passwd -- "$u") || { rc=$?; [ $rc -eq 2 ] && { echo 'exists no'; echo 'end'; exit 0; }; exit 70; }
case $p in "$u":*) ;; *) echo 'exists no'; echo 'end'; exit 0;; esac
printf 'passwd %s\n' "$p"
if s=$(getent shadow -- "$u"); then
  h=${s#*:}; r=${h#*:}; h=${h%%:*}
  case $h in '') k=empty;; '!'|'!!'|'*'|'!*'|x) k=none;; '!'*) k=locked;; '*'*) k=none;; *) k=set;; esac
  echo "password $k"
  printf 'aging %s\n' "$r"
  d=$(printf %s "$h" | sha256sum) && printf 'hash %.16s\n' "$d"
fi
printf 'groups %s\n' "$(id -Gn -- "$u")"
f=/etc/sudoers.d/reeve-$u
[ -f "$f" ] && while IFS= read -r l || [ -n "$l" ]; do printf 'sudoers %s\n' "$l"; done <"$f"
i=${p#*:*:}; i=${i%%:*}
ps -o sid=,comm= -u "$i" 2>/dev/null | while read -r l; do printf 'process %s\n' "$l"; done
k=${p%:*}; k=${k##*:}/.ssh/authorized_keys
[ -f "$k" ] && ssh-keygen -lf "$k" 2>/dev/null | while read -r l; do printf 'key %s\n' "$l"; done
echo end
`

// Read reads the state of one account.
func Read(ctx context.Context, h Host, account string) (State, error) {
	out, err := h.Script(ctx, Script{Text: stateScript, Args: []string{account}})
	if err != nil {
		return State{}, err
	}
	s, ok := parseState(out.Stdout, account)
	if out.Status != 0 || !ok {
		return State{}, sdk.Errorf(sdk.ClassProtocol, "the host's account database cannot be read: %s", out.Stderr).
			WithFix("run getent passwd and getent shadow on the host")
	}
	return s, nil
}

// parseState parses what stateScript printed; ok is false if it is not all there.
func parseState(text, account string) (s State, ok bool) {
	s = State{Changed: -1, MaxAge: -1, Inactive: -1, Expires: -1}
	sids := map[string]bool{}
	daemons := 0
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "end":
			s.Sessions = max(len(sids), daemons)
			slices.Sort(s.Groups)
			slices.Sort(s.Keys)
			return s, true
		case "passwd":
			f := strings.Split(value, ":")
			if len(f) != 7 || f[0] != account {
				return State{}, false
			}
			uid, err := strconv.Atoi(f[2])
			if err != nil || uid < 0 {
				return State{}, false
			}
			s.Exists, s.UID, s.Comment, s.Home, s.Shell = true, uid, f[4], f[5], f[6]
		case "password":
			s.Password = value
		case "aging":
			f := strings.Split(value, ":") // lastchg:min:max:warn:inactive:expire:reserved
			if len(f) < 6 {
				return State{}, false
			}
			s.Changed, s.MaxAge, s.Inactive, s.Expires = day(f[0]), day(f[2]), day(f[4]), day(f[5])
		case "hash":
			s.Hash = value
		case "groups":
			s.Groups = strings.Fields(value)
		case "sudoers":
			if rule := strings.TrimSpace(value); rule != "" && !strings.HasPrefix(rule, "#") {
				s.Sudoers = append(s.Sudoers, rule)
			}
		case "process":
			sid, name, _ := strings.Cut(strings.TrimSpace(value), " ")
			if strings.HasPrefix(strings.TrimSpace(name), "sshd") {
				daemons++
			} else if sid != "" {
				sids[sid] = true
			}
		case "key":
			if f := strings.Fields(value); len(f) >= 2 {
				s.Keys = append(s.Keys, f[1])
			}
		}
	}
	return State{}, false
}

func day(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// dayOf is the instant at which a day of shadow(5) begins, and zero for -1.
func dayOf(n int) time.Time {
	if n < 0 {
		return time.Time{}
	}
	return time.Unix(int64(n)*24*60*60, 0).UTC()
}

// lockedDay is the day of expiry that usermod -e 1 sets.
const lockedDay = 1

func (s State) locked() bool { return s.Expires == lockedDay || s.Password == "locked" }

// marker begins the comment of every account made for an account id.
func marker(id string) string { return "reeve " + id }

// Owner returns the account id an account was made for.
func (s State) Owner() string {
	rest, ok := strings.CutPrefix(s.Comment, "reeve ")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, " ")
	return strings.TrimRight(id, ",")
}

// Identity is what an account is known by.
func (s State) Identity() string { return strconv.Itoa(s.UID) }

// same reports whether nothing differs but the password itself, and sessions.
func (s State) same(o State) bool {
	s.Hash, s.Changed, s.Sessions = o.Hash, o.Changed, o.Sessions
	return reflect.DeepEqual(s, o)
}

// Facts are what others are told of the state.
func (s State) Facts(account string) sdk.Facts {
	f := sdk.Facts{Account: account, ReadAt: time.Now().UTC()}
	if !s.Exists {
		return f
	}
	f.Exists = true
	f.Identity = s.Identity()
	f.Locked = s.locked()
	f.HasPassword = s.Password == "set" || s.Password == "locked"
	if s.Expires != lockedDay {
		f.ExpiresAt = dayOf(s.Expires)
	}
	f.PasswordChangedAt = dayOf(s.Changed)
	f.Groups = s.Groups
	for _, rule := range s.Sudoers {
		f.Grants = append(f.Grants, "sudoers "+rule)
	}
	slices.Sort(f.Grants)
	f.Sessions = s.Sessions
	f.Attributes = map[string]string{"comment": s.Comment, "home": s.Home, "shell": s.Shell, "password": s.Password}
	if owner := s.Owner(); owner != "" {
		f.Attributes["owner"] = owner
	}
	if len(s.Keys) > 0 {
		f.Attributes["authorized_keys"] = strings.Join(s.Keys, " ")
	}
	return f
}
