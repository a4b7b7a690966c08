package template_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

func TestFaultsSayWhatIsWrongAndWhere(t *testing.T) {
	t.Parallel()
	known := []string{"Username", "Group"}
	for _, c := range []struct {
		dialect, command string
		code             template.Code // "": nothing is wrong
		mark             string        // what begins at the fault
	}{
		{"tsql", "CALL master..sp_addsrvrolemember @loginame = N'%Username%', @rolename = N'sysadmin'", "", ""},
		{"tsql", "ALTER ROLE é ADD MEMBER %Nobody%", template.UnknownPlaceholder, "%Nobody%"},
		{"tsql", "PRINT 100%% + '%Username% x", template.Malformed, "'%Username% x"},
		{"tsql", "SELECT 1 -- %Username%", template.UnsafePlaceholder, "%Username%"},
		{"tsql", "SELECT 100%% + a%Username%", template.UnsafePlaceholder, "%Username%"},
		{"tsql", "SELECT 50% OF", template.Malformed, "% OF"},
		{"mysql", "GRANT SELECT ON `%Group%`.* TO %Username%", "", ""},
		{"mysql", "SELECT 'a', \"%Username%\"", template.Malformed, "\"%Username%\""},
		{"plsql", "SELECT q'[%Username%]' FROM dual", template.UnsafePlaceholder, "%Username%"},
		{"postgresql", "SELECT $$%Username%$$", template.UnsafePlaceholder, "%Username%"},
		{"shell", "usermod -aG %Group% -- %Username%", "", ""},
		{"shell", "true; %Username%", template.UnsafePlaceholder, "%Username%"},
		{"powershell", "echo 'it is %Username%", template.Malformed, "'it is"},
		{"ldap-filter", "(&(cn=%Username%)", template.Malformed, ""},
		{"", "group %Group%", "", ""},
		{"", "%Username% ALL=(ALL) ALL", "", ""},
		{"", "group pam-%Group%", template.UnsafePlaceholder, "%Group%"},
		{"", "group %Group%,", template.UnsafePlaceholder, "%Group%"},
		{"", "group %Other%", template.UnknownPlaceholder, "%Other%"},
		{"", " \n", template.Malformed, " \n"},
		{"", "group\x00", template.Malformed, "\x00"},
	} {
		err := template.Check(c.dialect, c.command, known)
		if c.code == "" {
			if err != nil {
				t.Errorf("%s: %q: %v", c.dialect, c.command, err)
			}
			continue
		}
		f, ok := errors.AsType[*template.Fault](err)
		switch {
		case !ok:
			t.Errorf("%s: %q: %v", c.dialect, c.command, err)
		case f.Code != c.code || f.Fix == "" || f.Message == "":
			t.Errorf("%s: %q: %+v", c.dialect, c.command, f)
		case f.At < 0 || f.At > len(c.command) || !strings.HasPrefix(c.command[f.At:], c.mark):
			t.Errorf("%s: %q: at byte %d, want %q", c.dialect, c.command, f.At, c.mark)
		}
	}
	if err := template.Check("cobol", "x", nil); err == nil {
		t.Error("a dialect that is not there is accepted")
	}
	if at := template.At("é%X%", 2); at != 2 {
		t.Errorf("character %d", at)
	}
}

// FuzzCheck: a fault is always within the command, and a command without one parses.
func FuzzCheck(f *testing.F) {
	f.Add(0, "CALL master..sp_addsrvrolemember @loginame = N'%X%', @rolename = N'sysadmin'")
	f.Add(8, "group %X%")
	f.Add(4, "usermod -aG wheel -- %X% # 100%%")
	f.Fuzz(func(t *testing.T, n int, command string) {
		dialect := ""
		if i := int(uint(n) % uint(len(template.Dialects)+1)); i < len(template.Dialects) {
			dialect = template.Dialects[i].String()
		}
		err := template.Check(dialect, command, []string{"X"})
		if err == nil {
			if d, ok := template.DialectOf(dialect); ok {
				if _, err := d.Parse(command); err != nil {
					t.Errorf("%s: %q: %v", dialect, command, err)
				}
			}
			return
		}
		if f, ok := errors.AsType[*template.Fault](err); !ok || f.At < 0 || f.At > len(command) || template.At(command, f.At) < 1 {
			t.Errorf("%s: %q: %v", dialect, command, err)
		}
	})
}
