package main

import (
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

func TestRunPrintsRowsAndErrorNumbers(t *testing.T) {
	t.Parallel()
	s := oracle.Start(t, oracle.Options{Faults: oracle.Faults{Fail: map[string]int{"TRUNCATE": 942, "ANALYZE": 4711}}})
	for _, c := range []struct {
		command, out, err string
		status            int
	}{
		{"SELECT username, user_id, external_name FROM dba_users WHERE username = 'SYS';", "SYS\t101\t\n", "", 0},
		{"select 'a' from dual", "a\n", "", 0},
		{"BEGIN NULL; END;", "", "", 0},
		{"GRANT CREATE SESSION TO REEVE", "", "", 0},
		{"DROP USER NOBODY", "", "ORA-01918: there is no such account\n", 1},
		{"TRUNCATE TABLE x", "", "ORA-00942: a table or view is not there, or the management account may not read it\n", 1},
		{"ANALYZE x", "", "ORA-04711\n", 1},
	} {
		var got direct.Output
		status, err := connector{}.Run(t.Context(), target(s), c.command, &got)
		if err != nil || status != c.status || got.Out.String() != c.out || got.Err.String() != c.err {
			t.Errorf("%s: %d %q %q, %v", c.command, status, got.Out.String(), got.Err.String(), err)
		}
	}
	_, err := connector{}.Run(t.Context(), target(s), " ; ", &direct.Output{})
	wantClass(t, "nothing", err, sdk.ClassInvalid)
	s.SetFaults(oracle.Faults{DropAfter: "GRANT"})
	_, err = connector{}.Run(t.Context(), target(s), "GRANT CREATE SESSION TO REEVE", &direct.Output{})
	wantClass(t, "a connection that is cut", err, sdk.ClassUnknownOutcome)
}
