package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// system is what the script "probe" answers.
type system struct {
	Caption    string `json:"caption"`
	Version    string `json:"version"`
	Computer   string `json:"computer"`
	PowerShell string `json:"powershell"`
	DC         bool   `json:"dc"`
	Module     bool   `json:"module"`   // Microsoft.PowerShell.LocalAccounts is there
	Admin      bool   `json:"admin"`    // the login has an administrator's rights
	Local      bool   `json:"local"`    // the management account is the host's own
	Filtered   bool   `json:"filtered"` // local administrators log in without their rights
	Member     bool   `json:"member"`   // the management account is an administrator, with or without the rights
	SID        string `json:"sid"`      // of the management account

	NoGroups   []string `json:"nogroups"` // those of the wanted that are not there
	NoCommands []string `json:"nocommands"`
}

// Probe implements sdk.Prober.
func (connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	s, err := open(ctx, t, t.Management)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer s.close()
	sys, failed, err := s.system(ctx, wanted{Groups: []string{}, Commands: []string{}})
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	if failed != nil {
		return sdk.Fingerprint{}, failed.explain(askWhat)
	}
	if err := sys.served(); err != nil {
		return sdk.Fingerprint{}, err
	}
	f := sdk.Fingerprint{
		Product: "windows",
		Version: printable(sys.Version),
		Attributes: map[string]string{
			"caption": printable(sys.Caption), "computer": printable(sys.Computer), "powershell": printable(sys.PowerShell),
			"tls": strconv.FormatBool(t.Options[optionLegacy] != "yes"),
		},
	}
	if !sys.Admin {
		for _, r := range sys.rights() {
			if !r.Held {
				f.MissingRights = append(f.MissingRights, r.Name)
			}
		}
	}
	return f, nil
}

const askWhat = "ask what the host is"

// system asks what the host is, and what it lacks of what a role wants.
func (s *shell) system(ctx context.Context, w wanted) (*system, *scriptError, error) {
	var sys system
	failed, err := s.call(ctx, askWhat, scriptProbe, w, sdk.Secret{}, &sys)
	return &sys, failed, err
}

// served refuses hosts that this connector is not for.
func (sys *system) served() error {
	switch {
	case sys.DC:
		return sdk.Errorf(sdk.ClassUnsupported, "the host is a domain controller: it has no local accounts").
			WithFix("make it an asset of the connector ad")
	case !sys.Module:
		return sdk.Errorf(sdk.ClassUnsupported, "the host's PowerShell %s cannot manage local accounts", printable(sys.PowerShell)).
			WithFix("install Windows Management Framework 5.1; Windows Server 2016 and later have it")
	case sys.Version == "" || !strings.HasPrefix(sys.SID, "S-1-"):
		return sdk.Errorf(sdk.ClassProtocol, "%s: the answer names no version or no account", askWhat).WithFix("%s", strangeFix)
	}
	return nil
}

// printable bounds what a host says about itself.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	return s[:min(len(s), 200)]
}
