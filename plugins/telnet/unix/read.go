package unix

import (
	"context"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/telnet/dialogue"
)

// Profile is the dialogue with Unix hosts.
type Profile struct {
	Shell string // login shell of new accounts
}

// probeScript prints what the host is and which tools it lacks.
const probeScript = `[ -r /etc/os-release ] && . /etc/os-release
echo "product ${ID:-unix}"
echo "version ${VERSION_ID:-unknown}"
echo "kernel $(uname -sr)"
echo "hostname $(uname -n)"
for t in useradd usermod userdel chpasswd getent gpasswd id sha256sum find ps pgrep pkill stty; do
  command -v "$t" >/dev/null || echo "missing $t"
done
getent shadow root >/dev/null || echo "unreadable shadow"
for g in sudo wheel; do getent group "$g" >/dev/null && { echo "admin_group $g"; break; }; done
echo end
`

// Probe implements sdk.Prober.
func (Profile) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	sh, err := openRoot(ctx, t)
	if sdk.ClassOf(err) == sdk.ClassNotPermitted {
		return sdk.Fingerprint{Product: "unix", Version: "unknown", MissingRights: []string{sdk.ErrorText(err)}}, nil
	}
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer sh.Close()
	out, err := sh.run(script{text: probeScript})
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	f, ok := parseProbe(out.text)
	if !ok {
		return sdk.Fingerprint{}, sh.missing("what the host is", out)
	}
	return f, nil
}

// parseProbe parses what probeScript printed; ok is false if it is not all there.
func parseProbe(text string) (f sdk.Fingerprint, ok bool) {
	f.Attributes = map[string]string{"protection": "none"}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "product":
			f.Product = value
		case "version":
			f.Version = value
		case "kernel", "hostname", "admin_group":
			f.Attributes[key] = value
		case "missing":
			f.MissingRights = append(f.MissingRights, "the host lacks the program "+value)
		case "unreadable":
			f.MissingRights = append(f.MissingRights, "/etc/shadow cannot be read")
		case "end":
			return f, f.Product != "" && f.Version != ""
		}
	}
	return sdk.Fingerprint{}, false
}

// Verify implements sdk.Verifier: one fresh login, in which the host is asked who we are. An account
// whose shell allows no commands is verified by the login alone.
func (Profile) Verify(ctx context.Context, t sdk.Target, as sdk.Credential) (sdk.Verdict, error) {
	l, err := logIn(ctx, t, as)
	if err != nil {
		return sdk.Verdict{}, err
	}
	defer l.Close()
	sh := &shell{login: l}
	if !l.noShell {
		err = sh.start(task)
	}
	if sh.noShell {
		return sdk.Verdict{Kind: sdk.VerdictOK, Message: "logged in; the account's shell runs no commands", Identity: as.Username}, nil
	}
	if err != nil && dialogue.Ended(err) {
		return sdk.Verdict{Kind: sdk.VerdictUnknown, Message: "the host ended the connection after the password"}, nil
	}
	if err != nil {
		return sdk.Verdict{}, err
	}
	out, err := sh.run(script{text: "id -un"})
	if err != nil {
		return sdk.Verdict{}, err
	}
	return sdk.Verdict{Kind: sdk.VerdictOK, Message: "logged in", Identity: printable(out.text)}, nil
}

// Inspect implements sdk.Inspector.
func (Profile) Inspect(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
	sh, err := openRoot(ctx, t)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer sh.Close()
	s, err := sh.state(account)
	if err != nil {
		return sdk.Facts{}, err
	}
	return s.facts(account), nil
}

// discoverScript prints the accounts that people use: root, and those with a uid of
// 1000 or more (login.defs(5), UID_MIN), but not nobody.
const discoverScript = `getent passwd | while IFS=: read -r u x i rest; do
  { [ "$i" -eq 0 ] || { [ "$i" -ge 1000 ] && [ "$i" -lt 65534 ]; }; } 2>/dev/null && printf '%s\n' "$u"
done
echo end:
`

// Discover implements sdk.Discoverer.
func (Profile) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	sh, err := openRoot(ctx, t)
	if err != nil {
		return err
	}
	defer sh.Close()
	out, err := sh.run(script{text: discoverScript})
	if err != nil {
		return err
	}
	names, whole := strings.CutSuffix(out.text, "end:\n")
	if out.status != 0 || !whole {
		return sh.missing("the list of accounts", out)
	}
	for account := range strings.Lines(names) {
		account = strings.TrimSuffix(account, "\n")
		s, err := sh.state(account)
		if err != nil {
			return err
		}
		if !yield(s.facts(account)) {
			return nil
		}
	}
	return nil
}

// Run implements sdk.Runner. The command runs in the management account's own shell,
// without sudo, and reads nothing. Both its streams arrive as one.
func (Profile) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	quoted, err := quote.ShArg(command)
	if err != nil {
		return 0, sdk.Errorf(sdk.ClassInvalid, "the command has a NUL byte")
	}
	s := script{text: `"${SHELL:-/bin/sh}" -c ` + quoted, changes: true}
	if _, err := s.lines(); err != nil {
		return 0, err
	}
	sh, err := open(ctx, t, t.Management, task)
	if err != nil {
		return 0, unchanged(err)
	}
	defer sh.Close()
	return sh.stream(s, func(text string) { out.Stdout([]byte(text)) })
}
