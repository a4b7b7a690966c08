package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

// FuzzCommand: a command that is understood, with any value, names a group by that value and nothing more, and what
// plans show is understood again.
func FuzzCommand(f *testing.F) {
	for _, r := range roles() {
		for _, commands := range r.Phases {
			for _, c := range commands {
				f.Add(c, "Help Desk")
			}
		}
	}
	f.Add(`add-to-group "CN=%Group%,OU=x,DC=a"`, `a,CN=Users`)
	f.Add(`add-to-group "(&(cn=%Group%)(!(cn=*x*)))"`, `*)(cn=*`)
	f.Add(`remove-from-group name "Domain Admins"`, ``)
	f.Add(`remove-from-group name %Username%`, `"`)
	f.Add(`remove-from-group "(&(cn=x %Username% y)(!(cn=%Group%*)))"`, `"`)
	f.Add(`set-flag not-delegated`, `x`)
	f.Add(`add-spn HTTP/a.b:80`, `x`)
	d := connector{}.Describe()
	f.Fuzz(func(t *testing.T, line, value string) {
		c, err := parse(line)
		r := sdk.Role{Name: "r", Version: 1, Title: "r", Phases: map[sdk.Phase][]string{sdk.PhaseGrant: {line}}}
		names, _ := template.Placeholders(line)
		for _, name := range names {
			if name != sdk.UsernamePlaceholder {
				r.Params = append(r.Params, sdk.RoleParam{Name: name, Pattern: "^.*$"})
			}
		}
		saved := d.CheckRole(r)
		// What the driver would refuse in a filter shows first when a role is planned.
		if saved == nil && err != nil && !errors.Is(err, errFilter) {
			t.Errorf("%q may be saved, and is not understood: %v", line, err)
		}
		if saved != nil && err == nil && len(names) < 10 {
			t.Errorf("%q is understood, and may not be saved: %v", line, saved)
		}
		if err != nil {
			return
		}
		harmless, err := c.render(func(string) (string, error) { return "HTTP/a", nil })
		if err != nil {
			harmless, err = c.render(func(string) (string, error) { return "a", nil })
		}
		if err != nil {
			return
		}
		a, err := c.render(func(string) (string, error) { return value, nil })
		if err != nil {
			return
		}
		if strings.ContainsAny(a.String(), "\x00\r\n") {
			t.Errorf("%q has a control character", a.String())
		}
		if a.by == "filter" && shape(t, a.value) != shape(t, harmless.value) {
			t.Errorf("%q is another filter than %q", a.value, harmless.value)
		}
		if a.by == "dn" {
			got, err := template.LDAPName.Tokens(a.value)
			want, err2 := template.LDAPName.Tokens(harmless.value)
			if err := errors.Join(err, err2); err != nil || len(got) != len(want) {
				t.Errorf("%q is another name than %q: %v", a.value, harmless.value, err)
			}
		}
		if again, err := parse(strings.ReplaceAll(a.String(), "%", "%%")); a.by == "dn" && (err != nil || again.by != a.by) {
			t.Errorf("%q: %+v, %v", a.String(), again, err)
		}
	})
}

// shape is a filter without its values.
func shape(t *testing.T, filter string) string {
	p, err := ldap.CompileFilter(filter)
	if err != nil {
		t.Fatalf("the filter %q: %v", filter, err)
	}
	text, err := ldap.DecompileFilter(p)
	if err != nil {
		t.Fatalf("the filter %q: %v", filter, err)
	}
	var b strings.Builder
	inValue := false
	for _, r := range text {
		switch {
		case r == '=' && !inValue:
			inValue = true
		case r == ')' || r == '(':
			inValue = false
		case inValue && r != '*':
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// FuzzEntry: whatever a server says of an account, it is read or refused, and its identity is written in one way.
func FuzzEntry(f *testing.F) {
	f.Add([]byte(strings.Repeat("\x01", 16)), []byte("\x01\x02\x00\x00\x00\x00\x00\x05 \x00\x00\x00!\x02\x00\x00"), "512", "9223372036854775807")
	f.Add([]byte{}, []byte{}, "-1", "x")
	f.Fuzz(func(t *testing.T, guid, sid []byte, control, ticks string) {
		e := ldap.NewEntry("CN=a", map[string][]string{
			"objectGUID": {string(guid)}, "objectSid": {string(sid)}, "userAccountControl": {control},
			"pwdLastSet": {ticks}, "accountExpires": {ticks}, "lastLogonTimestamp": {ticks},
		})
		a, err := accountOf(e)
		if err != nil {
			if sdk.ClassOf(err) != sdk.ClassProtocol {
				t.Errorf("class %s", sdk.ClassOf(err))
			}
			return
		}
		if len(a.guid) != 36 || !strings.HasPrefix(a.sid, "S-1-") || !strings.HasPrefix(a.sid, a.domain()) {
			t.Errorf("%q %q", a.guid, a.sid)
		}
		if back := ticksOf(a.expires); !a.expires.IsZero() && fmt.Sprint(back) != strings.TrimLeft(strings.TrimLeft(ticks, "+"), "0") {
			t.Errorf("%s became %s and %d", ticks, a.expires, back)
		}
		_ = a.facts("")
	})
}

// FuzzReasons: the texts of results only ever become numbers that are known or words of ours.
func FuzzReasons(f *testing.F) {
	f.Add("80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data 52e, v1db1")
	f.Add("0000052D: Constraint violation - check_password_restrictions: the password is too short")
	f.Add("data 0775,")
	f.Fuzz(func(t *testing.T, text string) {
		const secret = "Canary-41cf"
		for _, code := range []uint16{1, 19, 32, 49, 53} {
			err := ldap.NewError(code, errors.New(text+secret))
			for _, got := range []error{loginFailure(t.Context(), "dc:636", err), failure(t.Context(), "change", err, true)} {
				e, ok := errors.AsType[*sdk.Error](got)
				if !ok || e.Class == "" || strings.Contains(e.Message+e.Fix, secret) {
					t.Errorf("%q became %v", text, got)
				}
			}
		}
	})
}

// FuzzStartTLS: no answer makes the connector read past it, hang or panic.
func FuzzStartTLS(f *testing.F) {
	f.Add([]byte("\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00"))
	f.Add([]byte("\x30\x84\x00\x00\x00\x03\x02\x01\x01"))
	f.Add([]byte("\x30\x84\x7f\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := &wire{in: answer}
		if err := startTLS(c); err == nil && (len(answer) < 10 || c.read > maxStartTLS+10) {
			t.Errorf("%q is taken for a success after %d bytes", answer, c.read)
		}
	})
}

// wire is a connection on which everything is said already.
type wire struct {
	in   []byte
	read int
}

func (w *wire) Read(p []byte) (int, error) {
	if w.read == len(w.in) {
		return 0, io.EOF
	}
	n := copy(p, w.in[w.read:])
	w.read += n
	return n, nil
}
func (w *wire) Write(p []byte) (int, error)      { return len(p), nil }
func (w *wire) Close() error                     { return nil }
func (w *wire) LocalAddr() net.Addr              { return nil }
func (w *wire) RemoteAddr() net.Addr             { return nil }
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }

func TestCommandsAreReadStrictly(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		`add-to-group rid:512`:                      true,
		`add-to-group sid:S-1-5-32-549`:             true,
		`  remove-from-group   name   DnsAdmins  `:  true,
		`add-to-group name "Domain Admins"`:         true,
		`add-to-group name %Group%`:                 true,
		`add-to-group "CN=%Group%,OU=x,DC=a"`:       true,
		`add-to-group "(sAMAccountName=%Group%)"`:   true,
		`add-spn %SPN%`:                             true,
		`set-flag password-never-expires`:           true,
		``:                                          false,
		`add-to-group`:                              false,
		`add-to-group rid:512 rid:513`:              false,
		`add-to-group rid:%Group%`:                  false,
		`add-to-group sid:512`:                      false,
		`add-to-group DnsAdmins`:                    false,
		`add-to-group "DnsAdmins"`:                  false,
		`add-to-group "%Group%"`:                    false,
		`add-to-group "CN=x"y`:                      false,
		`add-to-group "CN=x`:                        false,
		`add-to-group CN="x"`:                       false,
		`add-to-group "(cn=%Group%"`:                false,
		`add-to-group "(%Group%=x)"`:                false,
		`add-to-group name x%Group%`:                false,
		`add-to-group name "x%Group%"`:              false,
		"add-to-group rid:512\nadd-to-group rid:13": false,
		`drop-table x`:                              false,
		`"add-to-group" rid:512`:                    false,
		`add-spn "HTTP/a"`:                          false,
		`add-spn no-slash`:                          false,
		`set-flag disabled`:                         false,
		`set-flag not-delegated x`:                  false,
	} {
		if _, err := parse(line); (err == nil) != want {
			t.Errorf("%q: %v, want it understood: %t", line, err, want)
		}
	}
}

func TestServicePrincipalNamesOfParametersAreChecked(t *testing.T) {
	t.Parallel()
	c, err := parse("add-spn %SPN%")
	if err != nil {
		t.Fatal(err)
	}
	for value, want := range map[string]bool{"HTTP/web.lab.test:80": true, "HTTP/a b": false, "": false, "x": false, "a/b\nc": false} {
		_, err := c.render(func(string) (string, error) { return value, nil })
		if (err == nil) != want {
			t.Errorf("%q: %v, want it taken: %t", value, err, want)
		}
	}
}
