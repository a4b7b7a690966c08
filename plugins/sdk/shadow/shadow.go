// Package shadow manages the accounts of hosts that have the shadow tools (useradd, usermod, userdel, chpasswd): what is
// planned, the scripts that are run, and what their answers mean. How a script gets to a host is its caller's business:
// a connector brings a Host. Connectors of Unix hosts import it.
package shadow

import (
	"context"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Host runs scripts as root on one host.
type Host interface {
	// User is who is logged in.
	User() string
	// Script runs s. The error, an *sdk.Error, is about running it at all; whether the script did what it should is in
	// the Output. An error of a script with Changes that may have begun is ClassUnknownOutcome.
	Script(ctx context.Context, s Script) (Output, error)
}

// Script is a shell script to run as root.
type Script struct {
	Text    string     // POSIX sh
	Args    []string   // $1, $2, …
	Input   sdk.Secret // standard input, sent when the script runs; one line
	Changes bool       // a broken connection leaves the outcome unknown
}

// Output is what a script answered.
type Output struct {
	Stdout string
	Stderr string // for people: without control characters, at most 500 bytes
	Status int
}

// tools are the programs that all of this needs.
var tools = []string{"useradd", "usermod", "userdel", "chpasswd", "getent", "gpasswd", "id", "sha256sum", "find", "ps", "pgrep", "pkill"}

// probeScript prints what the host is and which of the tools in its arguments it lacks.
const probeScript = `[ -r /etc/os-release ] && . /etc/os-release
echo "product ${ID:-linux}"
echo "version ${VERSION_ID:-unknown}"
echo "kernel $(uname -sr)"
echo "hostname $(uname -n)"
for t; do command -v "$t" >/dev/null || echo "missing $t"; done
getent shadow root >/dev/null || echo "unreadable shadow"
for g in sudo wheel; do getent group "$g" >/dev/null && { echo "admin_group $g"; break; }; done
echo end
`

// Probe says what the host is, and what it lacks, of more too.
func Probe(ctx context.Context, h Host, more ...string) (sdk.Fingerprint, error) {
	out, err := h.Script(ctx, Script{Text: probeScript, Args: append(more, tools...)})
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	f, ok := parseProbe(out.Stdout)
	if !ok {
		return sdk.Fingerprint{}, incomplete(out)
	}
	return f, nil
}

// parseProbe parses what probeScript printed; ok is false if it is not all there.
func parseProbe(text string) (f sdk.Fingerprint, ok bool) {
	f.Attributes = map[string]string{}
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

func incomplete(out Output) error {
	return sdk.Errorf(sdk.ClassProtocol, "the host's answer is incomplete: %s", out.Stderr).
		WithFix("see what the host's shell and its start files print, and whether its disk is full")
}

// discoverScript prints the accounts that people use: root, and those with a uid of
// 1000 or more (login.defs(5), UID_MIN), but not nobody. No name has a colon.
const discoverScript = `getent passwd | while IFS=: read -r u x i rest; do
  { [ "$i" -eq 0 ] || { [ "$i" -ge 1000 ] && [ "$i" -lt 65534 ]; }; } 2>/dev/null && printf '%s\n' "$u"
done
echo end:
`

// Discover yields the accounts that people use, until yield returns false.
func Discover(ctx context.Context, h Host, yield func(sdk.Facts) bool) error {
	out, err := h.Script(ctx, Script{Text: discoverScript})
	if err != nil {
		return err
	}
	names, whole := strings.CutSuffix(out.Stdout, "end:\n")
	if out.Status != 0 || !whole {
		return incomplete(out)
	}
	for account := range strings.Lines(names) {
		account = strings.TrimSuffix(account, "\n")
		f, err := Inspect(ctx, h, account)
		if err != nil {
			return err
		}
		if !yield(f) {
			return nil
		}
	}
	return nil
}

// Inspect reads the facts of one account.
func Inspect(ctx context.Context, h Host, account string) (sdk.Facts, error) {
	s, err := Read(ctx, h, account)
	if err != nil {
		return sdk.Facts{}, err
	}
	return s.Facts(account), nil
}

// Groups returns those of names that the host has.
func Groups(ctx context.Context, h Host, names []string) ([]string, error) {
	out, err := h.Script(ctx, Script{
		Text: `for g; do getent group -- "$g" >/dev/null && echo "$g"; done; exit 0`, Args: names,
	})
	if err != nil {
		return nil, err
	}
	if out.Status != 0 {
		return nil, sdk.Errorf(sdk.ClassProtocol, "the host's groups cannot be read: %s", out.Stderr)
	}
	return strings.Fields(out.Stdout), nil
}
