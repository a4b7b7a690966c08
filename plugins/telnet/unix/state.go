package unix

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// state is what a host says about one account.
type state struct {
	exists   bool
	uid      int
	comment  string
	home     string
	shell    string
	password string // set, locked, none, empty; "" if it cannot be read
	hash     string // a short digest of the password field, to see that it changed
	changed  int    // day of the last password change, -1 unknown
	expires  int    // day from which the account is refused, -1 never
	groups   []string
	sessions int
}

// stateScript prints facts as lines of "key value". Of the password it tells only the kind, and 16 hex
// digits of a digest of the salted hash. What others chose is printed by printf, as one line.
const stateScript = `u=$1
p=$(getent passwd -- "$u") || { [ $? -eq 2 ] && { echo 'absent'; echo 'end'; exit 0; }; exit 70; }
case $p in "$u":*) ;; *) echo 'absent'; echo 'end'; exit 0;; esac
printf 'passwd %s\n' "$p"
if s=$(getent shadow -- "$u"); then
  h=${s#*:}; r=${h#*:}; h=${h%%:*}
  case $h in '') k=empty;; '!'|'!!'|'*'|'!*'|x) k=none;; '!'*) k=locked;; '*'*) k=none;; *) k=set;; esac
  echo "password $k"
  printf 'aging %s\n' "$r"
  d=$(printf %s "$h" | sha256sum) && printf 'hash %.16s\n' "$d"
fi
printf 'groups %s\n' "$(id -Gn -- "$u")"
i=${p#*:*:}; i=${i%%:*}
for sid in $(ps -o sid= -u "$i" 2>/dev/null); do printf 'session %s\n' "$sid"; done
echo end
`

func (sh *shell) state(account string) (state, error) {
	out, err := sh.run(script{text: stateScript, args: []string{account}})
	if err != nil {
		return state{}, err
	}
	s, ok := parseState(out.text, account)
	if out.status != 0 || !ok {
		return state{}, sh.missing("the account database", out)
	}
	return s, nil
}

// parseState parses what stateScript printed; ok is false if it is not all there.
func parseState(text, account string) (s state, ok bool) {
	s = state{changed: -1, expires: -1}
	sessions := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "end":
			s.sessions = len(sessions)
			slices.Sort(s.groups)
			return s, true
		case "passwd":
			f := strings.Split(value, ":")
			if len(f) != 7 || f[0] != account {
				return state{}, false
			}
			uid, err := strconv.Atoi(f[2])
			if err != nil || uid < 0 {
				return state{}, false
			}
			s.exists, s.uid, s.comment, s.home, s.shell = true, uid, f[4], f[5], f[6]
		case "password":
			s.password = value
		case "aging":
			f := strings.Split(value, ":") // lastchg:min:max:warn:inactive:expire:reserved
			if len(f) < 6 {
				return state{}, false
			}
			s.changed, s.expires = day(f[0]), day(f[5])
		case "hash":
			s.hash = value
		case "groups":
			s.groups = strings.Fields(value)
		case "session":
			sessions[value] = true
		}
	}
	return state{}, false
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

// expiryDay is the first day of shadow(5) that lies wholly after the instant: expiry has the
// granularity of days there, and the controller ends accounts on time.
func expiryDay(t time.Time) int {
	if t.IsZero() {
		return -1
	}
	return int(t.Unix()/(24*60*60)) + 1
}

// lockedDay is the day of expiry that usermod -e 1 sets.
const lockedDay = 1

func (s state) locked() bool { return s.expires == lockedDay || s.password == "locked" }

// marker begins the comment of every account made for an account id.
func marker(id string) string { return "reeve " + id }

// owner returns the account id an account was made for.
func (s state) owner() string {
	rest, ok := strings.CutPrefix(s.comment, "reeve ")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, " ")
	return strings.TrimRight(id, ",")
}

func (s state) identity() string { return strconv.Itoa(s.uid) }

// same reports whether nothing but password and sessions differs.
func (s state) same(o state) bool {
	return s.exists == o.exists && s.uid == o.uid && s.comment == o.comment && s.shell == o.shell &&
		s.password == o.password && s.expires == o.expires && slices.Equal(s.groups, o.groups)
}

func (s state) facts(account string) sdk.Facts {
	f := sdk.Facts{Account: account, ReadAt: time.Now().UTC()}
	if !s.exists {
		return f
	}
	f.Exists = true
	f.Identity = s.identity()
	f.Locked = s.locked()
	f.HasPassword = s.password == "set" || s.password == "locked"
	if s.expires != lockedDay {
		f.ExpiresAt = dayOf(s.expires)
	}
	f.PasswordChangedAt = dayOf(s.changed)
	f.Groups = s.groups
	f.Sessions = s.sessions
	f.Attributes = map[string]string{"comment": s.comment, "home": s.home, "shell": s.shell, "password": s.password}
	if owner := s.owner(); owner != "" {
		f.Attributes["owner"] = owner
	}
	return f
}
