package connector

import (
	"context"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
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

// Probe implements sdk.Prober, by a fresh login.
func (c Connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	h, err := become(ctx, t, c.Kept.Fresh)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer h.Close()
	f, err := shadow.Probe(ctx, h, "visudo")
	if sdk.ClassOf(err) == sdk.ClassNotPermitted {
		return sdk.Fingerprint{Product: "linux", Version: "unknown", MissingRights: []string{sdk.ErrorText(err)}}, nil
	}
	return f, err
}

// Verify implements sdk.Verifier: one fresh login, in which the host is asked who we are. An
// account whose shell allows no commands is verified by the login alone. sshd does not say why
// it refuses a password: with a management account the reason is looked for.
func (c Connector) Verify(ctx context.Context, t sdk.Target, as sdk.Credential) (sdk.Verdict, error) {
	v, err := c.verify(ctx, t, as)
	if err != nil || v.Kind != sdk.VerdictBadCredential || t.Management.Username == "" || t.Management.Username == as.Username {
		return v, err
	}
	if h, err := c.manage(ctx, t); err == nil {
		defer h.Close()
		if why, ok := shadow.Explain(ctx, h, as.Username, false); ok {
			return why, nil
		}
	}
	return v, nil
}

func (c Connector) verify(ctx context.Context, t sdk.Target, as sdk.Credential) (sdk.Verdict, error) {
	h, err := c.Kept.Fresh(ctx, t, as)
	if err != nil {
		return shadow.VerdictOf(err)
	}
	defer h.Close()
	name, changeFirst, err := h.Login(ctx)
	switch {
	case err != nil:
		return shadow.VerdictOf(err)
	case changeFirst:
		return sdk.Verdict{
			Kind: sdk.VerdictMustChange, Message: "the password is right, but must be changed before it can be used", Fix: shadow.FixMustChange, Identity: as.Username,
		}, nil
	case name == "":
		return sdk.Verdict{
			Kind: sdk.VerdictOK, Message: "logged in; the account's shell runs no commands", Identity: as.Username,
		}, nil
	default:
		return sdk.Verdict{Kind: sdk.VerdictOK, Message: "logged in", Identity: name}, nil
	}
}

// Inspect implements sdk.Inspector.
func (c Connector) Inspect(ctx context.Context, t sdk.Target, account string) (sdk.Facts, error) {
	h, err := c.manage(ctx, t)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer h.Close()
	return shadow.Inspect(ctx, h, account)
}

// Discover implements sdk.Discoverer.
func (c Connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	h, err := c.manage(ctx, t)
	if err != nil {
		return err
	}
	defer h.Close()
	return shadow.Discover(ctx, h, yield)
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
