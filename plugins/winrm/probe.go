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
}

// Probe implements sdk.Prober.
func (connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	s, err := open(ctx, t, t.Management)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer s.close()
	const what = "ask what the host is"
	var sys system
	failed, err := s.call(ctx, what, scriptProbe, map[string]any{}, sdk.Secret{}, &sys)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	switch {
	case failed != nil:
		return sdk.Fingerprint{}, failed.explain(what)
	case sys.DC:
		return sdk.Fingerprint{}, sdk.Errorf(sdk.ClassUnsupported, "the host is a domain controller: it has no local accounts").
			WithFix("make it an asset of the connector ad")
	case !sys.Module:
		return sdk.Fingerprint{}, sdk.Errorf(sdk.ClassUnsupported, "the host's PowerShell %s cannot manage local accounts", printable(sys.PowerShell)).
			WithFix("install Windows Management Framework 5.1; Windows Server 2016 and later have it")
	case sys.Version == "":
		return sdk.Fingerprint{}, sdk.Errorf(sdk.ClassProtocol, "%s: the answer names no version", what)
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
		f.MissingRights = append(f.MissingRights, "a login with the rights of Administrators (S-1-5-32-544)")
		if sys.Local && sys.Filtered {
			f.MissingRights = append(f.MissingRights, `HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion\Policies\System: LocalAccountTokenFilterPolicy = 1`)
		}
	}
	return f, nil
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
