package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func wantVerdict(t *testing.T, what string, tgt sdk.Target, user, password string, want sdk.VerdictKind) sdk.Verdict {
	t.Helper()
	v, err := connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: user, Password: secret(password)})
	if err != nil || v.Kind != want || want != sdk.VerdictOK && (v.Message == "" || v.Fix == "") || strings.Contains(v.Message+v.Fix, canary) {
		t.Errorf("%s: %q (%s; %s), %v, want %q", what, v.Kind, v.Message, v.Fix, err, want)
	}
	return v
}

func TestVerifyTellsWhyALoginFails(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{Access: []string{"hostssl all outside 127.0.0.0/8 reject"}})
	managed := target(p)
	tgt := managed
	tgt.Management = sdk.Credential{} // as agents do it
	in := intent(sdk.Provision)
	made := must(t, managed, in, first)

	if v := wantVerdict(t, "the password", tgt, "alice", first, sdk.VerdictOK); v.Identity != made.Facts.Identity {
		t.Errorf("identity %s, want %s", v.Identity, made.Facts.Identity)
	}
	wantVerdict(t, "a wrong password", tgt, "alice", second, sdk.VerdictBadCredential)
	wantVerdict(t, "a wrong password, with a management account", managed, "alice", second, sdk.VerdictBadCredential)
	wantVerdict(t, "no such role", tgt, "nobody", first, sdk.VerdictBadCredential)

	asRoot(t, p, "ALTER ROLE alice CONNECTION LIMIT 0")
	wantVerdict(t, "too many sessions", tgt, "alice", first, sdk.VerdictUnknown)
	asRoot(t, p, "ALTER ROLE alice CONNECTION LIMIT -1 NOLOGIN")
	wantVerdict(t, "NOLOGIN", tgt, "alice", first, sdk.VerdictDisabled)
	wantVerdict(t, "NOLOGIN and a wrong password", managed, "alice", second, sdk.VerdictBadCredential)
	asRoot(t, p, "ALTER ROLE alice LOGIN VALID UNTIL '2020-01-01'")
	wantVerdict(t, "expired", tgt, "alice", first, sdk.VerdictBadCredential)
	wantVerdict(t, "expired, with a management account", managed, "alice", first, sdk.VerdictExpired)
	wrong := managed
	wrong.Management.Password = secret(canary)
	wantVerdict(t, "expired, with a management account that cannot log in", wrong, "alice", first, sdk.VerdictBadCredential)
	_, err := connector{}.Probe(t.Context(), sdk.Target{Address: tgt.Address, Port: tgt.Port, Options: tgt.Options, Trust: tgt.Trust,
		Management: sdk.Credential{Username: "alice", Password: secret(first)}})
	wantClass(t, "an expired management account", err, sdk.ClassAuthFailed)
	if e, ok := errors.AsType[*sdk.Error](err); !ok || !strings.Contains(e.Fix, "VALID UNTIL") {
		t.Errorf("the fix does not name what it may be: %v", err)
	}
	f, err := connector{}.Inspect(t.Context(), managed, "alice")
	if err != nil || f.ExpiresAt.Year() != 2020 {
		t.Errorf("expires at %s, %v", f.ExpiresAt, err)
	}
	in.Action, in.ExpiresAt = sdk.Rotate, time.Now().Add(time.Hour)
	must(t, managed, in, second)
	wantVerdict(t, "after a rotation", tgt, "alice", second, sdk.VerdictOK)

	asRoot(t, p, "CREATE DATABASE closed", "REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
	in.Action = sdk.Provision
	in.Account, in.AccountID = "outside", "acct_2"
	must(t, managed, in, first)
	wantVerdict(t, "kept out by pg_hba.conf", tgt, "outside", first, sdk.VerdictUnknown)

	tgt.Options = map[string]string{optionDatabase: "closed", optionLogin: loginSCRAM}
	wantVerdict(t, "no right to connect", tgt, "alice", second, sdk.VerdictOK)
	wantVerdict(t, "no right to connect and a wrong password", tgt, "alice", first, sdk.VerdictBadCredential)
	tgt.Options[optionDatabase] = "absent"
	_, err = connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: "alice", Password: secret(second)})
	wantClass(t, "no such database", err, sdk.ClassInvalid)
	p.Crash()
	wantVerdict(t, "no server", tgt, "alice", first, sdk.VerdictUnreachable)
}

// A server that lets everybody in proves no password, and one that wants to see it does not
// get it unless told so.
func TestPasswordIsProvenBySCRAMAlone(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{Access: []string{
		"hostssl all trusted 127.0.0.0/8 trust", "hostssl all shown 127.0.0.0/8 password", "hostssl all hashed 127.0.0.0/8 md5",
	}})
	asRoot(t, p, "SET password_encryption = 'md5'")
	asRoot(t, p, "CREATE ROLE trusted LOGIN", "CREATE ROLE shown LOGIN PASSWORD 'shown-12'", "CREATE ROLE hashed LOGIN PASSWORD 'hashed-1'")
	tgt := target(p)
	for user, password := range map[string]string{"trusted": "any-pass", "shown": "shown-12"} {
		_, err := connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: user, Password: secret(password)})
		wantClass(t, user, err, sdk.ClassUnsupported)
	}
	wantVerdict(t, "a server that takes both asks for SCRAM", tgt, "hashed", "hashed-1", sdk.VerdictOK)
	tgt.Options[optionLogin] = loginPassword
	wantVerdict(t, "shown, if told so", tgt, "shown", "shown-12", sdk.VerdictOK)
	wantVerdict(t, "shown and wrong", tgt, "shown", "shown-13", sdk.VerdictBadCredential)
	_, err := connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: "trusted", Password: secret("any-pass")})
	wantClass(t, "trusted", err, sdk.ClassUnsupported)
}

func TestFullServerIsBusy(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{Config: []string{"max_connections=5", "superuser_reserved_connections=2"}})
	must(t, target(p), intent(sdk.Provision), first)
	var held []*pgx.Conn
	defer func() {
		for _, c := range held {
			_ = c.Close(context.WithoutCancel(t.Context()))
		}
	}()
	for range 6 {
		c, err := p.As(t.Context(), testlab.Management, p.ManagementPassword, "app")
		if err != nil {
			break
		}
		held = append(held, c)
	}
	_, err := connector{}.Probe(t.Context(), target(p))
	wantClass(t, "probe", err, sdk.ClassBusy)
	wantVerdict(t, "the password", target(p), "alice", first, sdk.VerdictUnknown)
}

// libpq prepares passwords by other rules than the driver; both must get in with what the
// connector makes of a password.
func TestVerifiersSuitTheServersOwnClient(t *testing.T) {
	t.Parallel()
	p := testlab.Postgres(t, testlab.PostgresOptions{})
	tgt := target(p)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, []byte(p.CAPEM), 0o600); err != nil {
		t.Fatal(err)
	}
	in := intent(sdk.Provision)
	must(t, tgt, in, first)
	in.Action = sdk.Rotate
	for _, password := range []string{first, "Aa1.ümläut-ßéñ", "密码-пароль-🔑", `a'b"c\d$e%f;--`, "\U0001F511\u0628abc123"} {
		must(t, tgt, in, password)
		wantVerdict(t, "the driver", tgt, "alice", password, sdk.VerdictOK)
		cmd := exec.CommandContext(t.Context(), "psql", "-XAtc", "SELECT session_user") //nolint:gosec // a test's own
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGHOST=" + p.Addr, "PGUSER=alice", "PGPASSWORD=" + password,
			"PGDATABASE=postgres", "PGSSLMODE=verify-full", "PGSSLROOTCERT=" + ca}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "alice\n" {
			t.Errorf("psql with a password of %d characters: %v: %s", len([]rune(password)), err, out)
		}
	}
	for _, password := range []string{"ligature-ﬁ", "wide-ＡＢ", "nbsp-\u00a0-x", "soft-\u00ad-x", "decomposed-u\u0308", "zero-\u200b-x"} {
		_, err := apply(t.Context(), tgt, in, password)
		wantClass(t, "an ambiguous password", err, sdk.ClassPolicyRejected)
	}
}
