package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	emu "github.com/reeve-pam/reeve/internal/emu/winrm"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

func TestDiscoverListsEveryAccountWithItsSID(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	must(t, target(s), intent(sdk.Provision), first)
	var names []string
	err := connector{}.Discover(t.Context(), target(s), func(f sdk.Facts) bool {
		if !strings.HasPrefix(f.Identity, "S-1-5-21-") || !f.Exists {
			t.Errorf("facts %+v", f)
		}
		names = append(names, f.Account)
		return true
	})
	slices.Sort(names)
	if want := []string{"Administrator", "DefaultAccount", "Gast", "WDAGUtilityAccount", "alice"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("%v, %v", names, err)
	}
	n := 0
	if err := (connector{}).Discover(t.Context(), target(s), func(sdk.Facts) bool { n++; return false }); err != nil || n != 1 {
		t.Errorf("%d facts after no more were wanted, %v", n, err)
	}
}

func TestATaskStreamsItsOutputAndEndsWhenCancelled(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{})
	const show = "Get-Service -Name 'W32Time' | Select-Object Name, Status"
	seen := make(chan struct{})
	s.Host.Tasks[show] = func(stdout, stderr func(string), _ <-chan struct{}) int {
		stdout("W32Time ")
		<-seen // the output came before the task had ended
		stdout(strings.Repeat("läuft ", 20000))
		stderr("eine Warnung\r\n")
		return 7
	}
	var o direct.Output
	status, err := connector{}.Run(t.Context(), target(s), show, &firstOutput{&o, seen})
	if err != nil || status != 7 || o.Out.String() != "W32Time "+strings.Repeat("läuft ", 20000) || o.Err.String() != "eine Warnung\r\n" {
		t.Errorf("status %d, %v, %d bytes, %q", status, err, o.Out.Len(), o.Err.String())
	}
	stopped := make(chan struct{})
	s.Host.Tasks["Start-Sleep 600"] = func(stdout, _ func(string), stop <-chan struct{}) int {
		stdout("here")
		<-stop
		close(stopped)
		return 1
	}
	ctx, cancel := context.WithCancel(t.Context())
	here := make(chan struct{})
	go func() {
		<-here
		cancel()
	}()
	began := time.Now()
	_, err = connector{}.Run(ctx, target(s), "Start-Sleep 600", &firstOutput{&o, here})
	wantClass(t, "a cancelled task", err, sdk.ClassUnknownOutcome)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
	<-stopped // on the host
	if n := s.Shells(); n != 0 {
		t.Errorf("%d shells are left", n)
	}
}

func TestATaskThatIsSilentForLongIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := emu.Start(t, emu.Options{LongestWait: 10 * time.Millisecond})
	s.Host.Tasks["Start-Sleep 1"] = func(stdout, _ func(string), _ <-chan struct{}) int {
		for s.Asked("Receive") < 4 { // it has been told three times that there is nothing yet
			time.Sleep(time.Millisecond)
		}
		stdout("done")
		return 0
	}
	var o direct.Output
	if status, err := (connector{}).Run(t.Context(), target(s), "Start-Sleep 1", &o); err != nil || status != 0 || o.Out.String() != "done" {
		t.Errorf("status %d, %v, %q", status, err, o.Out.String())
	}
}

// firstOutput says when the first output has come.
type firstOutput struct {
	*direct.Output
	came chan struct{}
}

func (f *firstOutput) Stdout(p []byte) {
	if f.Output.Stdout(p); f.came != nil {
		close(f.came)
		f.came = nil
	}
}
