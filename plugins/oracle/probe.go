package main

import (
	"context"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Probe implements sdk.Prober. What roles grant is not looked at: a role that grants more than the management account may
// pass on is refused by the server when used.
func (connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	s, err := connect(ctx, t)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer s.close()
	f := sdk.Fingerprint{Product: product, Version: s.server.version()}
	context, err := s.query(ctx, "ask where we are",
		"SELECT SYS_CONTEXT('USERENV', 'CON_NAME'), SYS_CONTEXT('USERENV', 'DB_NAME'), SYS_CONTEXT('USERENV', 'SERVICE_NAME') FROM dual")
	if err != nil || len(context) != 1 {
		return sdk.Fingerprint{}, err
	}
	f.Attributes = map[string]string{"container": context[0][0], "database": context[0][1], "service": context[0][2]}
	if t.Options[optionLegacy] == yes {
		f.Attributes["transport"] = "not protected"
	}
	f.MissingRights, err = s.missing(ctx, t)
	return f, err
}
