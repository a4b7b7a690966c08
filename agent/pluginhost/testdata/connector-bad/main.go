// Command connector-bad misbehaves as the address of a probe says.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

type connector struct{}

// Describe implements sdk.Connector.
func (connector) Describe() sdk.Description {
	return sdk.Description{Name: "bad", Title: "Bad", Version: "1.0.0", Category: sdk.OperatingSystem, DefaultPort: 7,
		NameRule:     sdk.NameRule{Pattern: "^[a-z]+$", MaxBytes: 8, Help: "letters"},
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 64}}
}

// Probe implements sdk.Prober.
func (connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	how, arg, _ := strings.Cut(t.Address, ":")
	switch how {
	case "hang":
		select {}
	case "wait": // for as long as it may
		<-ctx.Done()
		return sdk.Fingerprint{}, sdk.Errorf(sdk.ClassBusy, "told to end")
	case "print":
		fmt.Fprintln(os.Stderr, arg)
	case "crash":
		os.Exit(3)
	case "flood":
		line := strings.Repeat("x", 1023) + "\n"
		for range 4096 {
			fmt.Fprint(os.Stderr, line)
		}
	case "spawn":
		cmd := exec.Command("/bin/sleep", "600")
		cmd.Stdout, cmd.Stderr = os.NewFile(1, "stdout"), os.NewFile(2, "stderr")
		if err := cmd.Start(); err != nil {
			return sdk.Fingerprint{}, sdk.Errorf(sdk.ClassInternal, "%v", err)
		}
		if err := os.WriteFile(arg, []byte(strconv.Itoa(cmd.Process.Pid)), 0o600); err != nil {
			return sdk.Fingerprint{}, sdk.Errorf(sdk.ClassInternal, "%v", err)
		}
	}
	return sdk.Fingerprint{Product: "bad"}, nil
}

func main() { sdk.Serve(connector{}) }
