package oidc

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/identity/webauthntest"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// app gives ada an authenticator app, and returns what it shows.
func (w *world) app(t testing.TB, keys store.Cipher, clock *storetest.Clock) (shows func() string) {
	t.Helper()
	var key string
	w.update(t, func(tx *store.Tx) error {
		s, _, err := identity.BeginSession(tx, root, identity.NewSession{Principal: w.ada.ID, From: from.Address})
		if err != nil {
			return err
		}
		who := identity.Caller{Principal: *w.ada, Session: s}
		f, uri, err := identity.AddTOTP(tx, root, who, keys, "phone")
		if err != nil {
			return err
		}
		k, err := otp.NewKeyFromURL(uri.Reveal())
		if err != nil {
			return err
		}
		key = k.Secret()
		code, err := totp.GenerateCode(key, tx.Now())
		if err != nil {
			return err
		}
		_, err = identity.ConfirmTOTP(tx, root, who, keys, f.ID, reeve.SecretString(code))
		return err
	})
	return func() string {
		clock.Advance(30 * time.Second)
		code, err := totp.GenerateCode(key, clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		return code
	}
}

// Who asks for a second factor is what the provider's settings say; if nothing is said,
// Reeve does, of whoever has one, unless the provider says that it has.
func TestASecondFactorIsAskedForByWhomTheSettingsName(t *testing.T) {
	t.Parallel()
	for _, try := range []struct {
		setting string
		amr     any
		app     bool
		want    string
		methods string
	}{
		{"", nil, false, "", "oidc"},
		{"", nil, true, "second_factor_needed", ""},
		{"", []string{"pwd"}, true, "second_factor_needed", ""},
		{"", []string{"pwd", "mfa"}, true, "", "oidc mfa"},
		{"", "mfa", true, "second_factor_needed", ""}, // no list of methods
		{"reeve", []string{"MFA"}, true, "second_factor_needed", ""},
		{"provider", nil, false, "oidc_second_factor_missing", ""},
		{"provider", []string{"pwd"}, true, "oidc_second_factor_missing", ""},
		{"provider", []string{"mfa"}, true, "", "oidc mfa"},
		{"none", nil, true, "", "oidc"},
	} {
		name := try.setting + " " + strings.Join(strings.Fields(try.methods+" "+try.want), " ")
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := storetest.NewClock(time.Now())
			f, w := forge(t), newWorld(t, storetest.WithClock(clock.Now))
			in := settings(f.Provider)
			in.SecondFactor = try.setting
			w.add(t, in)
			keys := storetest.NewCipher()
			if try.app {
				w.app(t, keys, clock)
			}
			f.edit = func(_, c map[string]any) {
				if try.amr != nil {
					c["amr"] = try.amr
				}
			}
			err := f.finish(t, w, func(a *Answer) { a.Keys = keys })
			if reeve.CodeOf(err) != try.want {
				t.Fatalf("%v, want %q", err, try.want)
			}
			began := slices.IndexFunc(w.trail(t), func(e string) bool {
				return strings.HasPrefix(e, "session.begin") && strings.Contains(e, `"oidc`)
			})
			if (began >= 0) != (try.want == "") {
				t.Errorf("the trail: %q", w.trail(t))
			}
			if began >= 0 && !strings.Contains(w.trail(t)[began], `"`+try.methods+`"`) && !strings.Contains(w.trail(t)[began], strings.ReplaceAll(try.methods, " ", ",")) {
				t.Errorf("methods: %s", w.trail(t)[began])
			}
		})
	}
	w := newWorld(t)
	err := w.Update(t.Context(), func(tx *store.Tx) error {
		_, err := Add(tx, root, w.root, NewProvider{Name: "corp", Issuer: "https://login.example.com", ClientID: "reeve", UserClaim: Email, SecondFactor: "maybe"})
		return err
	})
	if reeve.CodeOf(err) != "oidc_setting_invalid" {
		t.Errorf("%v", err)
	}
}

// After the provider has spoken, a code of the second factor finishes the sign-in, by whoever
// began it alone; wrong ones count as they do after a password.
func TestASecondFactorFinishesASignInAtAProvider(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Now())
	f, w := forge(t), newWorld(t, storetest.WithClock(clock.Now))
	w.add(t, settings(f.Provider))
	keys := storetest.NewCipher()
	shows := w.app(t, keys, clock)
	f.edit = func(_, c map[string]any) { c["exp"] = time.Now().Add(time.Hour).Unix() }
	var in Answer
	begin := func() {
		t.Helper()
		if err := f.finish(t, w, func(a *Answer) { a.Keys = keys; in = *a }); reeve.CodeOf(err) != "second_factor_needed" {
			t.Fatalf("without a code: %v", err)
		}
	}
	show := func(code, want string) {
		t.Helper()
		in.SecondFactor = reeve.SecretString(code)
		if _, _, err := Finish(t.Context(), w.Store, from, in); reeve.CodeOf(err) != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
	begin()
	stolen := in
	stolen.Verifier = strings.ToUpper(verifier)
	stolen.SecondFactor = reeve.SecretString(shows())
	if _, _, err := Finish(t.Context(), w.Store, from, stolen); reeve.CodeOf(err) != "oidc_login_unknown" {
		t.Errorf("another client: %v", err)
	}
	begin()
	asked := len(f.seen)
	show("000000", "second_factor_wrong")
	good := shows()
	show(good, "")
	show(good, "oidc_login_unknown")
	if len(f.seen) != asked {
		t.Error("the provider was asked again")
	}
	begin()
	show(good, "second_factor_wrong") // a code is good once
	clock.Advance(LoginLife)
	show(shows(), "oidc_login_unknown")
	begin()
	for range 4 { // with the one above
		show("000000", "second_factor_wrong")
	}
	show("000000", "sign_in_failed") // and now a wait
	if all := strings.Join(w.trail(t), "\n"); strings.Contains(all, good) || strings.Contains(all, "Canary") {
		t.Error("the trail holds what was sent")
	}
}

// A security key cannot be asked after a sign-in at a provider: somebody who has nothing else
// finishes with a recovery code.
func TestWhoHasOnlyASecurityKeyFinishesWithARecoveryCode(t *testing.T) {
	t.Parallel()
	f, w := forge(t), newWorld(t)
	w.add(t, settings(f.Provider))
	keys := storetest.NewCipher()
	var recovery []reeve.Secret
	w.update(t, func(tx *store.Tx) error {
		if _, err := identity.ConfigureSecurityKeys(tx, root, w.root, identity.RelyingParty{Addresses: []string{origin}}); err != nil {
			return err
		}
		s, _, err := identity.BeginSession(tx, root, identity.NewSession{Principal: w.ada.ID, From: from.Address})
		if err != nil {
			return err
		}
		who := identity.Caller{Principal: *w.ada, Session: s}
		made, challenge, err := identity.AddKey(tx, root, who, keys, "yubi")
		if err == nil {
			recovery, err = identity.ConfirmKey(tx, root, who, keys, made.ID, webauthntest.New(t, origin).Enrol(t, string(challenge.Options)))
		}
		return err
	})
	var in Answer
	if err := f.finish(t, w, func(a *Answer) { a.Keys = keys; in = *a }); reeve.CodeOf(err) != "security_key_needed" {
		t.Fatalf("without a code: %v", err)
	}
	in.SecondFactor = recovery[0]
	s, _, err := Finish(t.Context(), w.Store, from, in)
	if err != nil || strings.Join(s.Methods, " ") != "oidc recovery_code" {
		t.Errorf("with a recovery code: %+v %v", s, err)
	}
}
