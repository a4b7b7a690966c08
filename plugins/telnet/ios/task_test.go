package ios_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/emu/device"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/ios"
)

// The tasks T25 to T29 of the catalogue.
func TestTasksOfTheCatalogueRun(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(o *device.Options) {
		for i := range 60 { // more than two pages
			o.Interfaces[fmt.Sprintf("Vlan%d", 100+i)] = true
		}
	})
	for _, pages := range []bool{false, true} {
		b.SetFaults(device.Faults{AlwaysPage: pages})
		out, status := b.run("terminal length 0 ; show ip interface brief")
		if pages { // a device that refuses the first command ends the task there
			out, status = b.run("show ip interface brief")
		}
		if status != 0 || strings.Count(out, "\n") != 63 || strings.Contains(out, "More") || strings.Contains(out, "\b") ||
			!strings.Contains(out, "\nVlan159                    unassigned      YES unset  up                    up\n") {
			t.Errorf("T25 (pages: %t): status %d\n%s", pages, status, out)
		}
	}
	b.SetFaults(device.Faults{})

	out, status := b.run("terminal length 0 ; show running-config")
	if status != 0 || !strings.Contains(out, "username reeve privilege 15 secret 8 ********\n") ||
		!strings.Contains(out, "snmp-server community ******** RO") || strings.Contains(out, "$8$") {
		t.Errorf("T26: status %d\n%s", status, out)
	}

	out, status = b.run("conf t ; interface GigabitEthernet0/0 ; shutdown ; wait 1 s ; no shutdown ; end")
	if want := []string{"GigabitEthernet0/0 down", "GigabitEthernet0/0 up"}; status != 0 || !slices.Equal(b.InterfaceEvents(), want) {
		t.Errorf("T27: status %d, %v\n%s", status, b.InterfaceEvents(), out)
	}

	out, status = b.run("show ip arp 192.0.2.7")
	if status != 0 || !strings.Contains(out, "0050.56aa.bbcc") {
		t.Errorf("T28: status %d\n%s", status, out)
	}

	b.SetUser("later", device.User{Privilege: 2})
	out, status = b.run("write memory")
	if status != 0 || !strings.Contains(out, "[OK]") || !strings.Contains(b.Saved(), "username later") {
		t.Errorf("T29: status %d\n%s", status, out)
	}
}

func TestTaskEndsAtTheCommandTheDeviceRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	out, status := b.run("conf t ; interface Nonsense9 ; shutdown")
	if status != 1 || !strings.Contains(out, "% Invalid input detected") || len(b.InterfaceEvents()) > 0 {
		t.Errorf("status %d, %v\n%s", status, b.InterfaceEvents(), out)
	}
	for _, task := range []string{"", " ; ", "show ?", "show \x03", "show ü", strings.Repeat("x", 600)} {
		_, err := ios.Profile{}.Run(t.Context(), b.target, task, &output{})
		if sdk.ClassOf(err) != sdk.ClassInvalid {
			t.Errorf("%q: %v", task, err)
		}
	}
}

func TestConfirmationIsGivenInTasks(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	_, err := ios.Profile{}.Run(t.Context(), b.target, "reload", &output{})
	b.wantClass(err, sdk.ClassUnknownOutcome) // the device is gone, as was asked for
	if got := b.Commands(); got[len(got)-1] != "R1#reload" {
		t.Errorf("%q", got)
	}
}

func TestTaskIsBrokenOffWhenItIsCancelled(t *testing.T) {
	t.Parallel()
	for name, task := range map[string]string{"at the device": "show version", "while it waits": "wait 99 s"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, nil)
			b.SetFaults(device.Faults{HangAt: "show version"})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() {
				_, err := ios.Profile{}.Run(ctx, b.target, task, &output{})
				done <- err
			}()
			for len(b.Commands()) < 2 { // both of "terminal …"
				time.Sleep(time.Millisecond)
			}
			cancel()
			select {
			case err := <-done:
				if c := sdk.ClassOf(err); c != sdk.ClassUnknownOutcome && c != sdk.ClassCancelled {
					t.Errorf("%v", err)
				}
			case <-time.After(2 * time.Second):
				t.Error("the task went on for 2 s after it was cancelled")
			}
		})
	}
}
