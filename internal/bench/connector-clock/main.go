// Command connector-clock is a connector whose probe only dials its target. The benchmark listens there, and so learns
// the moment in which a connector was called.
package main

import (
	"context"
	"net"
	"strconv"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

func main() { sdk.Serve(clock{}) }

type clock struct{}

// Describe implements sdk.Connector.
func (clock) Describe() sdk.Description {
	return sdk.Description{
		Name: "clock", Title: "Tells the benchmark when it is called", Version: "1.0.0", Category: sdk.OperatingSystem, DefaultPort: 7,
		NameRule:     sdk.NameRule{Pattern: `^[a-z]{1,32}$`, MaxBytes: 32, Help: "1 to 32 of a-z"},
		PasswordRule: sdk.PasswordRule{MinLength: 8, MaxLength: 128},
	}
}

// Probe implements sdk.Prober.
func (clock) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(t.Address, strconv.Itoa(t.Port)))
	if err != nil {
		return sdk.Fingerprint{}, sdk.Errorf(sdk.ClassUnreachable, "nobody listens for the clock").Wrap(err)
	}
	return sdk.Fingerprint{Product: "clock", Version: "1"}, conn.Close()
}
