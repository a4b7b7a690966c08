//go:build linux

package testlab_test

import (
	"errors"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
)

func TestHostAnswersTelnetWhenAskedTo(t *testing.T) {
	t.Parallel()
	h := testlab.SSHHost(t, testlab.HostOptions{Telnet: true, Accounts: []testlab.HostAccount{
		{Name: "root", Password: rootPassword}, {Name: "svc", Password: "Grün:1 'ü"},
	}})
	for user, password := range map[string]string{"root": rootPassword, "svc": "Grün:1 'ü"} {
		if err := h.TelnetLogin(t.Context(), user, password); err != nil {
			t.Errorf("login as %s: %v", user, err)
		}
		if err := h.TelnetLogin(t.Context(), user, "wrong"); !errors.Is(err, testlab.ErrRefused) {
			t.Errorf("login as %s with a wrong password: %v, want ErrRefused", user, err)
		}
	}
	h.Crash()
	if err := h.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := h.TelnetLogin(t.Context(), "root", rootPassword); err != nil {
		t.Errorf("login after a restart: %v", err)
	}
}
