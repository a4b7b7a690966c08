package connector

import (
	"context"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/ssh/transport"
)

// manage gives a connection that is logged in as the management account, perhaps one
// that was kept, and finds out how it becomes root.
func (c Connector) manage(ctx context.Context, t sdk.Target) (*transport.Host, error) {
	return become(ctx, t, c.Kept.Dial)
}

func become(ctx context.Context, t sdk.Target, dial func(context.Context, sdk.Target, sdk.Credential) (*transport.Host, error)) (*transport.Host, error) {
	h, err := dial(ctx, t, t.Management)
	if err != nil {
		return nil, err
	}
	if err := h.Become(ctx); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// probeScript prints what the host is and which tools it lacks.
const probeScript = `[ -r /etc/os-release ] && . /etc/os-release
echo "product ${ID:-linux}"
echo "version ${VERSION_ID:-unknown}"
echo "kernel $(uname -sr)"
echo "hostname $(uname -n)"
for t in useradd usermod userdel chpasswd getent gpasswd id cut sha256sum find pgrep pkill visudo; do
  command -v "$t" >/dev/null || echo "missing $t"
done
getent shadow root >/dev/null || echo "unreadable shadow"
for g in sudo wheel; do getent group "$g" >/dev/null && { echo "admin_group $g"; break; }; done
echo end
`

// Probe implements sdk.Prober, by a fresh login.
func (c Connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	h, err := become(ctx, t, c.Kept.Fresh)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer h.Close()
	out, err := h.Script(ctx, transport.Script{Text: probeScript})
	if sdk.ClassOf(err) == sdk.ClassNotPermitted {
		return sdk.Fingerprint{Product: "linux", Version: "unknown", MissingRights: []string{sdk.ErrorText(err)}}, nil
	}
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	f := sdk.Fingerprint{Attributes: map[string]string{}}
	for line := range strings.Lines(out.Stdout) {
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
			return f, nil
		}
	}
	return sdk.Fingerprint{}, sdk.Errorf(sdk.ClassProtocol, "the host's answer is incomplete: %s", out.Stderr)
}

// Verify implements sdk.Verifier: one fresh login, in which the host is asked who we are. An
// account whose shell allows no commands is verified by the login alone.
func (c Connector) Verify(ctx context.Context, t sdk.Target, as sdk.Credential) (sdk.Verdict, error) {
	h, err := c.Kept.Fresh(ctx, t, as)
	if err != nil {
		return verdictOf(err)
	}
	defer h.Close()
	name, changeFirst, err := h.Login(ctx)
	switch {
	case err != nil:
		return verdictOf(err)
	case changeFirst:
		return sdk.Verdict{
			Kind: sdk.VerdictMustChange, Message: "the password is right, but must be changed before it can be used", Identity: as.Username,
		}, nil
	case name == "":
		return sdk.Verdict{
			Kind: sdk.VerdictOK, Message: "logged in; the account's shell runs no commands", Identity: as.Username,
		}, nil
	default:
		return sdk.Verdict{Kind: sdk.VerdictOK, Message: "logged in", Identity: name}, nil
	}
}

// verdictOf tells verdicts from errors, which are about not having been able to try.
func verdictOf(err error) (sdk.Verdict, error) {
	kinds := map[sdk.Class]sdk.VerdictKind{
		sdk.ClassAuthFailed:  sdk.VerdictBadCredential,
		sdk.ClassLocked:      sdk.VerdictLocked,
		sdk.ClassMustChange:  sdk.VerdictMustChange,
		sdk.ClassUnreachable: sdk.VerdictUnreachable,
		sdk.ClassBusy:        sdk.VerdictUnreachable,
	}
	kind, ok := kinds[sdk.ClassOf(err)]
	if !ok {
		return sdk.Verdict{}, err
	}
	return sdk.Verdict{Kind: kind, Message: sdk.ErrorText(err)}, nil
}

// Inspect implements sdk.Inspector.
func (c Connector) Inspect(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
	h, err := c.manage(ctx, t)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer h.Close()
	s, err := readState(ctx, h, account)
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
exit 0
`

// Discover implements sdk.Discoverer.
func (c Connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	h, err := c.manage(ctx, t)
	if err != nil {
		return err
	}
	defer h.Close()
	out, err := h.Script(ctx, transport.Script{Text: discoverScript})
	if err != nil {
		return err
	}
	if out.Status != 0 {
		return sdk.Errorf(sdk.ClassProtocol, "the host's accounts cannot be listed: %s", out.Stderr)
	}
	for account := range strings.Lines(out.Stdout) {
		account = strings.TrimSuffix(account, "\n")
		s, err := readState(ctx, h, account)
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
// without sudo.
func (c Connector) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	h, err := c.Kept.Fresh(ctx, t, t.Management)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	return h.Plain(ctx, command, out)
}
