package main

import (
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/emu/oracle"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

type captured struct{ out, err strings.Builder }

func (c *captured) Stdout(p []byte) { c.out.Write(p) }
func (c *captured) Stderr(p []byte) { c.err.Write(p) }

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
		var got captured
		status, err := connector{}.Run(t.Context(), target(s), c.command, &got)
		if err != nil || status != c.status || got.out.String() != c.out || got.err.String() != c.err {
			t.Errorf("%s: %d %q %q, %v", c.command, status, got.out.String(), got.err.String(), err)
		}
	}
	_, err := connector{}.Run(t.Context(), target(s), " ; ", &captured{})
	wantClass(t, "nothing", err, sdk.ClassInvalid)
	s.SetFaults(oracle.Faults{DropAfter: "GRANT"})
	_, err = connector{}.Run(t.Context(), target(s), "GRANT CREATE SESSION TO REEVE", &captured{})
	wantClass(t, "a connection that is cut", err, sdk.ClassUnknownOutcome)
}
