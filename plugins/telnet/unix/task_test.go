package unix_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/connector"
)

func TestTasksRunAsTheManagementAccount(t *testing.T) {
	t.Parallel()
	b := newBench(t, testlab.HostAccount{Name: "ops", Password: accountPassword})
	b.target.Management = credential("ops", accountPassword)
	for command, want := range map[string]struct {
		text   string
		status int
	}{
		"id -un":                            {"ops\n", 0},
		"printf 'no end'":                   {"no end\n", 0},
		"printf 'a\\n\\n\\nb\\n\\n'":        {"a\n\n\nb\n\n", 0},
		"true":                              {"", 0},
		"echo out; echo err >&2; exit 7":    {"out\nerr\n", 7},
		"echo \"it's\" '$HOME' `echo x`":    {"it's $HOME x\n", 0},
		"echo ü-密码-🔑":                       {"ü-密码-🔑\n", 0},
		"for i in 1 2\ndo\n\techo $i\ndone": {"1\n2\n", 0},
		"cat; echo read":                    {"read\n", 0}, // nothing can be read
		"kill -9 $$":                        {"Killed\n", 137},
		"no-such-program-here":              {"/bin/bash: line 1: no-such-program-here: command not found\n", 127},
		"seq 1 20000 | tail -n 3":           {"19998\n19999\n20000\n", 0},
	} {
		out := newOutput()
		status, err := connector.Connector{}.Run(t.Context(), b.target, command, out)
		if err != nil || out.String() != want.text || status != want.status {
			t.Errorf("%q: status %d, %v\n%q, want %d\n%q", command, status, err, out.String(), want.status, want.text)
		}
	}
	out := newOutput()
	if status, err := (connector.Connector{}).Run(t.Context(), b.target, "seq 1 100000", out); err != nil || status != 0 ||
		len(out.String()) != 588895 || !strings.HasSuffix(out.String(), "\n99999\n100000\n") {
		t.Errorf("much output: status %d, %v, %d bytes", status, err, len(out.String()))
	}
	for _, command := range []string{"a\x03b", "a\x1bb", "a\x00b", "echo " + strings.Repeat("x", 5000), "x\n@run y\n"} {
		if _, err := (connector.Connector{}).Run(t.Context(), b.target, command, newOutput()); sdk.ClassOf(err) != sdk.ClassInvalid {
			t.Errorf("%.20q: %v", command, err)
		}
	}
	if history := b.inside("cat /home/ops/.bash_history /root/.bash_history 2>/dev/null; true"); history != "" {
		t.Errorf("the shell's history says %q", history)
	}
}

func TestOutputIsStreamedAndCancellationEndsTheCommand(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	out := newOutput()
	done := make(chan error, 1)
	go func() {
		_, err := connector.Connector{}.Run(ctx, b.target, "echo begun; exec sleep 4321", out)
		done <- err
	}()
	<-out.news // before the command has ended
	if out.String() != "begun\n" {
		t.Errorf("%q", out.String())
	}
	b.inside("pgrep -f '[s]leep 4321'")
	cancel()
	select {
	case err := <-done:
		if sdk.ClassOf(err) != sdk.ClassUnknownOutcome {
			t.Errorf("%v", err)
		}
	case <-time.After(2 * time.Second):
		t.Error("the task went on for 2 s after it was cancelled")
	}
	b.inside("for i in $(seq 100); do pgrep -f '[s]leep 4321' >/dev/null || exit 0; sleep 0.1; done; exit 1")
}
