package main

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

const (
	first  = "Correct-Horse7'\u2019\"$(x)`;"
	second = "Battery-Staple8 ]]>&<%é"
)

var rig = direct.Rig{Connector: connector{}, Canary: ""}

var (
	apply     = rig.Apply
	applyWith = rig.ApplyWith
	must      = rig.Must
	wantClass = rig.WantClass
	role      = rig.Role
	secret    = direct.Secret
)

// target is a host as the SDK hands it to the connector: options filled in.
func target(s *emu.Server) sdk.Target {
	return sdk.Target{
		Address: s.Address, Port: s.Port, Options: map[string]string{optionAuth: authNTLM, optionLegacy: "no"},
		Trust:      sdk.Trust{CAPEM: s.CAPEM},
		Management: sdk.Credential{Username: emu.Administrator, Password: secret(emu.AdministratorPassword)},
	}
}

func intent(action sdk.Action) sdk.Intent {
	return sdk.Intent{
		Action: action, Account: "alice", AccountID: "acct_1", Comment: "ticket 7, alice",
		ExpiresAt: time.Now().UTC().Add(24 * time.Hour).Truncate(time.Second),
	}
}

// record is what came out of an Apply: every word of it.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *record) add(v ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintln(&r.text, v...)
	for _, x := range v {
		if e, ok := x.(error); ok {
			if s, ok := errors.AsType[*sdk.Error](e); ok {
				fmt.Fprintln(&r.text, s.Message, s.Fix, s.Details)
			}
		}
	}
}

// wantFix is wantClass for errors that also say what to do.
func wantFix(t testing.TB, what string, err error, want sdk.Class) {
	t.Helper()
	wantClass(t, what, err, want)
	if e, _ := errors.AsType[*sdk.Error](err); e == nil || e.Message == "" || e.Fix == "" {
		t.Errorf("%s: the error does not say what to do: %+v", what, e)
	}
}

func wantVerdict(t testing.TB, tgt sdk.Target, name, password string, want sdk.VerdictKind) sdk.Verdict {
	t.Helper()
	v, err := connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: name, Password: secret(password)})
	if err != nil || v.Kind != want {
		t.Errorf("verify %s: %q (%s), %v; want %q", name, v.Kind, v.Message, err, want)
	}
	if v.Kind != sdk.VerdictOK && (v.Message == "" || v.Fix == "") {
		t.Errorf("verify %s: the verdict does not say what to do: %+v", name, v)
	}
	return v
}

// forms are the ways a secret could be written somewhere.
func forms(s string) []string {
	var wide []byte
	for _, u := range utf16.Encode([]rune(s)) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	return []string{
		s, string(wide), base64.StdEncoding.EncodeToString([]byte(s)), base64.StdEncoding.EncodeToString(wide),
		hex.EncodeToString([]byte(s)), hex.EncodeToString(wide),
	}
}

// wantNoSecret looks for secrets in all that the host logged and the connector said.
func wantNoSecret(t testing.TB, s *emu.Server, said string, secrets ...string) {
	t.Helper()
	logged := strings.Join(append(s.Host.CommandLines(), s.Host.ScriptBlocks()...), "\n")
	for _, one := range secrets {
		for _, f := range forms(one) {
			if strings.Contains(logged, f) {
				t.Errorf("the host's log has a secret as %.6q…", f)
			}
			if strings.Contains(said, f) {
				t.Errorf("the connector said a secret as %.6q…", f)
			}
		}
	}
}
