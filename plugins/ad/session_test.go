package main

import (
	"errors"
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/idle"
)

// counted is the target behind something that counts connections.
func counted(t *testing.T, d *testlab.DomainController) (sdk.Target, *atomic.Int64) {
	t.Helper()
	n := &atomic.Int64{}
	tgt := target(d)
	tgt.Trust.ServerName = d.Addr
	tgt.Address = "127.0.0.1"
	tgt.Port = serve(t, tgt.Address, func(c net.Conn) {
		n.Add(1)
		up, err := new(net.Dialer).DialContext(t.Context(), "tcp", net.JoinHostPort(d.Addr, strconv.Itoa(636)))
		if err != nil {
			return
		}
		defer func() { _ = up.Close() }()
		go func() {
			_, _ = io.Copy(up, c)
			_ = up.Close()
		}()
		_, _ = io.Copy(c, up)
	})
	return tgt, n
}

func TestConnectionOfTheManagementAccountIsKept(t *testing.T) {
	t.Parallel()
	d := testlab.SambaAD(t, testlab.SambaOptions{})
	tgt, n := counted(t, d)
	c := connector{kept: idle.New((*session).close)}
	inspect := func() {
		t.Helper()
		if f, err := c.Inspect(t.Context(), tgt, "alice"); err != nil || f.Exists {
			t.Errorf("%+v, %v", f, err)
		}
	}
	wantMore := func(what string, want int64) {
		t.Helper()
		if got := n.Swap(0); got != want {
			t.Errorf("%s: %d new connections, want %d", what, got, want)
		}
	}
	apply := func(in sdk.Intent, password string) error {
		plan, err := c.Plan(t.Context(), tgt, in)
		if err != nil {
			return err
		}
		_, err = c.Apply(t.Context(), tgt, sdk.Change{Intent: in, Plan: plan, Password: secret(password)}, func(sdk.Event) {})
		return err
	}
	for range 3 {
		inspect()
	}
	if err := errors.Join(apply(intent(sdk.Provision), first), apply(intent(sdk.Deprovision), "")); err != nil {
		t.Error(err)
	}
	wantMore("five operations", 1)
	if v, err := c.Verify(t.Context(), tgt, tgt.Management); err != nil || v.Kind != sdk.VerdictOK {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := c.Probe(t.Context(), tgt); err != nil {
		t.Error(err)
	}
	wantMore("verify and probe", 2)
	inspect()
	wantMore("after them", 0)

	in := intent(sdk.Provision)
	in.Role = custom(sdk.PhaseGrant, "add-to-group name nobody")
	wantClass(t, "a group that is not there", apply(in, first), sdk.ClassInvalid)
	inspect()
	wantMore("after an error", 1)

	wrong := tgt
	wrong.Management.Password = secret("wrong")
	_, err := c.Inspect(t.Context(), wrong, "alice")
	wantClass(t, "another password", err, sdk.ClassAuthFailed)
	wantMore("another password", 1)

	d.Crash()
	if err := d.Restart(); err != nil {
		t.Fatal(err)
	}
	inspect()
	wantMore("after a restart of the server", 1)
}
