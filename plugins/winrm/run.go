package main

import (
	"context"
	"encoding/json"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Run implements sdk.Runner: a piece of PowerShell as the management account, its output as it comes.
func (connector) Run(ctx context.Context, t sdk.Target, command string, out sdk.Output) (int, error) {
	s, err := open(ctx, t, t.Management)
	if err != nil {
		return 0, err
	}
	defer s.close()
	s.task = true
	arguments, err := json.Marshal(map[string]string{"command": command})
	if err != nil {
		return 0, sdk.Errorf(sdk.ClassInvalid, "the command is not text").Wrap(err)
	}
	return s.run(ctx, "run the command", scriptRun.commandLine(), input(arguments, sdk.Secret{}), true, func(o output) error {
		if o.stderr {
			out.Stderr(o.data)
		} else {
			out.Stdout(o.data)
		}
		return nil
	})
}
