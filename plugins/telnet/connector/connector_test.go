package connector

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/telnet/role"
)

const canary = "C4nary-Secret-1"

type nothing struct{}

func (nothing) Stdout([]byte) {}
func (nothing) Stderr([]byte) {}

// operations are every way into the connector.
func operations(t *testing.T, target sdk.Target) map[string]func() error {
	t.Helper()
	var c Connector
	in := sdk.Intent{Action: sdk.Rotate, Account: "alice", AccountID: "acct_1"}
	marked := target
	marked.Options = map[string]string{"legacy": "yes", "profile": target.Options["profile"]}
	plan, err := c.Plan(t.Context(), marked, in)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]func() error{
		"probe": func() error { _, err := c.Probe(t.Context(), target); return err },
		"apply": func() error {
			_, err := c.Apply(t.Context(), target, sdk.Change{Intent: in, Plan: plan, Password: sdk.NewSecret([]byte(canary))}, func(sdk.Event) {})
			return err
		},
		"verify": func() error {
			v, err := c.Verify(t.Context(), target, target.Management)
			if err == nil && v.Kind == sdk.VerdictUnreachable {
				return sdk.Errorf(sdk.ClassUnreachable, "%s", v.Message).WithFix("%s", v.Fix)
			}
			return err
		},
		"inspect":  func() error { _, err := c.Inspect(t.Context(), target, "alice"); return err },
		"discover": func() error { return c.Discover(t.Context(), target, func(sdk.Facts) bool { return true }) },
		"run":      func() error { _, err := c.Run(t.Context(), target, "show users", nothing{}); return err },
	}
}

func told(err error) string {
	e, ok := errors.AsType[*sdk.Error](err)
	if !ok {
		return fmt.Sprint(err)
	}
	return fmt.Sprint(e.Message, e.Fix, e.Details)
}

func fixed(err error) bool {
	e, ok := errors.AsType[*sdk.Error](err)
	return ok && e.Fix != ""
}

func TestTargetsThatAreNotLegacyAreNotTouched(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	for _, options := range []map[string]string{{"legacy": "no"}, {}, nil} {
		target := sdk.Target{
			Address: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, Options: options,
			Management: sdk.Credential{Username: "root", Password: sdk.NewSecret([]byte(canary))},
		}
		ops := operations(t, target)
		ops["plan"] = func() error {
			_, err := Connector{}.Plan(t.Context(), target, sdk.Intent{Action: sdk.Disable, Account: "alice"})
			return err
		}
		for name, do := range ops {
			err := do()
			if sdk.ClassOf(err) != sdk.ClassUnsupported || !strings.Contains(told(err), "unprotected") {
				t.Errorf("%s with options %v: %v", name, options, err)
			}
		}
	}
	_ = listener.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Millisecond))
	if conn, err := listener.Accept(); err == nil {
		_ = conn.Close()
		t.Error("the target was connected to")
	}
}

// What answers on the other side may be anything. Nothing of it, and no secret, is in an error.
func TestStrangeServersGetTheirClass(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		says string
		want map[sdk.Class]bool
	}{
		"SSH":             {"SSH-2.0-OpenSSH_9.2\r\n", map[sdk.Class]bool{sdk.ClassUnreachable: true}},
		"an end at once":  {"", map[sdk.Class]bool{sdk.ClassUnreachable: true}},
		"commands only":   {strings.Repeat("\xff\xfd\x01\xff\xfe\x01", 4000), map[sdk.Class]bool{sdk.ClassProtocol: true}},
		"an endless line": {strings.Repeat("x", 1<<20), map[sdk.Class]bool{sdk.ClassUnreachable: true}},
		"a web server":    {"HTTP/1.1 400 Bad Request\r\n\r\n", map[sdk.Class]bool{sdk.ClassUnreachable: true}},
	} {
		for _, profile := range []string{"unix", "ios"} {
			t.Run(name+", "+profile, func(t *testing.T) {
				t.Parallel()
				listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					for {
						conn, err := listener.Accept()
						if err != nil {
							return
						}
						_, _ = conn.Write([]byte(c.says))
						_ = conn.(*net.TCPConn).CloseWrite()
						_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
						_, _ = conn.Read(make([]byte, 1<<16))
						_ = conn.Close()
					}
				}()
				t.Cleanup(func() {
					_ = listener.Close()
					<-done
				})
				for operation, do := range operations(t, sdk.Target{
					Address: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port, Options: map[string]string{"legacy": "yes", "profile": profile},
					Management: sdk.Credential{Username: "root", Password: sdk.NewSecret([]byte(canary))},
				}) {
					err := do()
					if !c.want[sdk.ClassOf(err)] || strings.Contains(told(err), canary) || strings.Contains(told(err), "xxx") || !fixed(err) {
						t.Errorf("%s: %v", operation, err)
					}
				}
			})
		}
	}
}

func TestRolesAreUnderstoodByTheProfileTheyAreFor(t *testing.T) {
	t.Parallel()
	if err := (Connector{}).Describe().Validate(); err != nil {
		t.Fatal(err)
	}
	for _, r := range roles() {
		in := sdk.Intent{Account: "alice", Role: r, Params: map[string]string{"Level": "7"}}
		understood := 0
		for _, profile := range []string{profileUnix, profileIOS} {
			for phase := range r.Phases {
				commands, err := role.Commands(in, phase, profile)
				if err != nil && sdk.ClassOf(err) != sdk.ClassUnsupported {
					t.Errorf("%s, %s: %v", r.Name, profile, err)
				}
				understood += len(commands)
			}
		}
		if understood == 0 && len(r.Phases) > 0 {
			t.Errorf("%s has commands for nobody", r.Name)
		}
	}
}
