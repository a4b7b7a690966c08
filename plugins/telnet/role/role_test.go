package role

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

func intent(commands ...string) sdk.Intent {
	return sdk.Intent{
		Account: "alice", Params: map[string]string{"Level": "7", "Bad": "7 secret 0 x"},
		Role: sdk.Role{Name: "own", Version: 1, Phases: map[sdk.Phase][]string{sdk.PhaseGrant: commands}},
	}
}

func TestCommandsAreThoseOfTheProfile(t *testing.T) {
	t.Parallel()
	in := intent("unix usermod -aG adm -- %Username%", "ios username %Username% privilege %Level%", "unix echo '%Bad%'")
	for profile, want := range map[string][]string{
		Unix: {`usermod -aG adm -- "alice"`, "echo '7 secret 0 x'"},
		IOS:  {"username alice privilege 7"},
	} {
		got, err := Commands(in, sdk.PhaseGrant, profile)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; want %q", profile, got, err, want)
		}
		if got, err = Commands(in, sdk.PhaseRotate, profile); err != nil || len(got) > 0 {
			t.Errorf("%s, another phase: %q, %v", profile, got, err)
		}
	}
	if got, err := Commands(sdk.Intent{}, sdk.PhaseGrant, IOS); err != nil || len(got) > 0 {
		t.Errorf("no role: %q, %v", got, err)
	}
}

func TestCommandsThatAreNotSafeAreRefused(t *testing.T) {
	t.Parallel()
	for _, command := range []string{
		"", "unix", "unix ", "usermod %Username%", "windows net user", "unix echo `%Username%`", "unix echo # %Username%", "unix echo 'open",
		"unix a\nb", "ios username a%Username%", "ios username %Bad%", "ios username %None%", "ios show ?", "ios banner \x03", "ios 100%",
	} {
		for _, phase := range []sdk.Phase{sdk.PhaseGrant, sdk.PhaseRevoke} { // also when another phase is done
			profile := Unix
			if strings.HasPrefix(command, "ios") {
				profile = IOS
			}
			if got, err := Commands(intent(command), phase, profile); sdk.ClassOf(err) != sdk.ClassInvalid {
				t.Errorf("%q became %q, %v", command, got, err)
			}
		}
	}
	if _, err := Commands(intent("ios end"), sdk.PhaseGrant, Unix); sdk.ClassOf(err) != sdk.ClassUnsupported {
		t.Errorf("a role for devices, on a host: %v", err)
	}
}

// FuzzParameter puts anything into commands: refused, or one word and no more to a shell and to a device.
func FuzzParameter(f *testing.F) {
	for _, seed := range []string{"7", "a b", "'", "$(id)", "`id`", "\\", "x\ny", "?", "|", "-x", "%Username%", "ü"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		in := intent("unix printf %%s%%s %Level% end", "ios username x privilege %Level%")
		in.Params["Level"] = value
		if got, err := Commands(in, sdk.PhaseGrant, IOS); err == nil {
			if fields := strings.Fields(got[0]); len(got) != 1 || len(fields) != 4 || fields[3] != value || strings.ContainsAny(value, "?\r\n") {
				t.Errorf("%q became %q", value, got)
			}
		}
		got, err := Commands(in, sdk.PhaseGrant, Unix)
		if err != nil {
			return
		}
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", got[0])
		cmd.Env = []string{"PATH=/nonexistent"}
		out, err := cmd.Output()
		if err != nil || string(out) != value+"end" {
			t.Errorf("%q: %q printed %q, %v", value, got[0], out, err)
		}
	})
}
