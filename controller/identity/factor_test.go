package identity

import (
	"bytes"
	"context"
	"encoding/base32"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// person is somebody who signs in, with a clock and an authenticator app.
type person struct {
	t     testing.TB
	st    *store.Store
	clock *storetest.Clock
	keys  store.Cipher
	name  string
	key   string // of the app
}

func newPerson(t testing.TB, opts ...storetest.Option) *person {
	t.Helper()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	p := &person{t: t, st: storetest.New(t, append(opts, storetest.WithClock(clock.Now))...), clock: clock, keys: storetest.NewCipher(), name: "ada"}
	withPassword(t, p.st, p.name)
	return p
}

func (p *person) attempt(password, code string) Attempt {
	return Attempt{Name: p.name, Password: reeve.SecretString(password), Code: reeve.SecretString(code), Keys: p.keys, From: here, Client: "test", Node: "node_1"}
}

// signIn tries with the right password.
func (p *person) signIn(code string) (Caller, error) {
	_, secret, err := SignIn(context.Background(), p.st, p.attempt(good, code))
	if err != nil {
		return Caller{}, err
	}
	return authenticate(p.st, secret)
}

func (p *person) mustSignIn(code string) Caller {
	p.t.Helper()
	who, err := p.signIn(code)
	if err != nil {
		p.t.Fatal(err)
	}
	return who
}

// code is what the app shows at a time from now.
func (p *person) code(from time.Duration) string {
	p.t.Helper()
	c, err := totp.GenerateCode(p.key, p.clock.Now().Add(from))
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// add begins an enrolment and reads its link as an app does.
func (p *person) add(who Caller) (f *Factor, uri reeve.Secret) {
	p.t.Helper()
	update(p.t, p.st, func(tx *store.Tx) (err error) {
		f, uri, err = AddTOTP(tx, by, who, p.keys, "phone")
		return err
	})
	u, err := url.Parse(uri.Reveal())
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/Reeve:ada" || u.Query().Get("issuer") != "Reeve" {
		p.t.Fatalf("%v %v", u, err)
	}
	p.key = u.Query().Get("secret")
	return f, uri
}

func (p *person) confirm(who Caller, id reeve.FactorID, code string) (recovery []reeve.Secret, err error) {
	err = p.st.Update(context.Background(), func(tx *store.Tx) error {
		recovery, err = ConfirmTOTP(tx, by, who, p.keys, id, reeve.SecretString(code))
		return err
	})
	return recovery, err
}

// enrol adds an app and confirms it.
func (p *person) enrol() (who Caller, f *Factor, recovery []reeve.Secret) {
	p.t.Helper()
	who = p.mustSignIn("")
	f, _ = p.add(who)
	recovery, err := p.confirm(who, f.ID, p.code(0))
	if err != nil {
		p.t.Fatal(err)
	}
	p.clock.Advance(time.Minute)
	return who, f, recovery
}

// CVE-2025-6014, CVE-2025-6015: a code is six digits and nothing else, and its step is used
// up with it, whatever else is right about it.
func TestACodeIsGoodOnceAndSpelledOneWay_CVE_2025_6014_CVE_2025_6015(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.enrol()
	code, ada := p.code(0), p.mustFind()
	for _, other := range []string{" " + code, code + " ", code[:3] + " " + code[3:], code + "\n", "\t" + code, code[:5], "0" + code,
		strings.Map(func(r rune) rune { return r - '0' + '０' }, code), strings.Map(func(r rune) rune { return r - '0' + '٠' }, code)} {
		if _, err := p.signIn(other); reeve.CodeOf(err) != "second_factor_wrong" || reeve.KindOf(err) != reeve.Unauthenticated {
			t.Errorf("%q: %v", other, err)
		}
		update(t, p.st, func(tx *store.Tx) error { return forgetFailures(tx, ada) })
	}
	who := p.mustSignIn(code)
	if !slices.Equal(who.Session.Methods, []string{"password", "totp"}) {
		t.Errorf("methods: %v", who.Session.Methods)
	}
	if _, err := p.signIn(code); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("the same code again: %v", err)
	}
	if _, err := StepUp(t.Context(), p.st, who, p.attempt(good, code)); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("the same code for a step-up: %v", err)
	}
	if _, err := p.signIn(p.code(-30 * time.Second)); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("an earlier code after a later one: %v", err)
	}
	if _, err := StepUp(t.Context(), p.st, who, p.attempt(good, p.code(30*time.Second))); err != nil {
		t.Errorf("the next code: %v", err)
	}
}

func (p *person) mustFind() (id reeve.PrincipalID) {
	p.t.Helper()
	update(p.t, p.st, func(tx *store.Tx) error {
		found, err := FindPrincipal(tx, p.name)
		id = found.ID
		return err
	})
	return id
}

// CVE-2025-6014: many at once with one code are one, and the next leader knows it.
func TestOfManyWithOneCodeOneGetsIn_CVE_2025_6014(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/state.db"
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	cipher := storetest.NewCipher()
	first := storetest.Start(t, storetest.WithPath(path), storetest.WithClock(clock.Now), storetest.WithCipher(cipher))
	p := &person{t: t, st: first.Store, clock: clock, keys: cipher, name: "ada"}
	withPassword(t, p.st, p.name)
	p.enrol()
	code := p.code(0)
	var in atomic.Int32
	var all sync.WaitGroup
	for range 4 { // fewer than bring a wait
		all.Go(func() {
			if _, err := p.signIn(code); err == nil {
				in.Add(1)
			}
		})
	}
	all.Wait()
	if in.Load() != 1 {
		t.Errorf("%d got in", in.Load())
	}
	first.Stop()
	p.st = storetest.Start(t, storetest.WithPath(path), storetest.WithClock(clock.Now), storetest.WithCipher(cipher)).Store
	if _, err := p.signIn(code); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("after a change of leader: %v", err)
	}
	clock.Advance(longestWait)
	p.mustSignIn(p.code(0))
}

func TestACodeMayBeOneStepOff(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.enrol()
	for _, off := range []time.Duration{-time.Minute, time.Minute} {
		if _, err := p.signIn(p.code(off)); reeve.CodeOf(err) != "second_factor_wrong" {
			t.Errorf("%s off: %v", off, err)
		}
	}
	p.mustSignIn(p.code(-30 * time.Second))
	p.mustSignIn(p.code(30 * time.Second))
}

// Nobody learns without the right password that there is a second factor, and guesses of
// codes count as guesses of passwords do.
func TestTheSecondFactorIsAskedForAfterTheRightPasswordOnly(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	p.enrol()
	if _, err := p.signIn(""); reeve.CodeOf(err) != "second_factor_needed" || reeve.KindOf(err) != reeve.Unauthenticated {
		t.Errorf("without a code: %v", err)
	}
	for _, code := range []string{"", p.code(0), "000000"} {
		if _, _, err := SignIn(t.Context(), p.st, p.attempt("wrong", code)); reeve.CodeOf(err) != "sign_in_failed" {
			t.Errorf("a wrong password with %q: %v", code, err)
		}
	}
	p.mustSignIn(p.code(0)) // a code beside a wrong password is not used up
	p.clock.Advance(time.Minute)
	before := count(t, p.st)
	for range freeFailures {
		if _, err := p.signIn("000000"); reeve.CodeOf(err) != "second_factor_wrong" {
			t.Fatal(err)
		}
	}
	if after := count(t, p.st); after != before+freeFailures {
		t.Errorf("%d records of %d guesses", after-before, freeFailures)
	}
	if _, err := p.signIn(p.code(0)); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("the right code during the wait: %v", err)
	}
	p.clock.Advance(longestWait)
	p.mustSignIn(p.code(0))
}

func TestAFactorCountsOnceItIsConfirmed(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	other := p.mustSignIn("")
	who := p.mustSignIn("")
	f, _ := p.add(who)
	late := p.key
	p.mustSignIn("") // it does not count yet
	if _, err := p.confirm(who, f.ID, "000000"); reeve.CodeOf(err) != "code_wrong" {
		t.Errorf("a wrong code: %v", err)
	}
	p.clock.Advance(EnrolFor)
	if _, err := p.confirm(who, f.ID, p.code(0)); reeve.CodeOf(err) != "factor_not_found" {
		t.Errorf("too late: %v", err)
	}
	again, _ := p.add(who)
	if p.key == late {
		t.Error("two enrolments have one key")
	}
	code := p.code(0)
	recovery, err := p.confirm(who, again.ID, code)
	if err != nil || len(recovery) != recoveryCodes {
		t.Fatal(err, len(recovery))
	}
	if _, err := p.confirm(who, again.ID, p.code(30*time.Second)); reeve.CodeOf(err) != "factor_confirmed" {
		t.Errorf("twice: %v", err)
	}
	update(t, p.st, func(tx *store.Tx) error {
		if _, err := GetSession(tx, other.Session.ID); reeve.CodeOf(err) != "session_not_found" {
			t.Errorf("a session from before, without the factor: %v", err)
		}
		s, err := GetSession(tx, who.Session.ID)
		if err == nil && (!s.Fresh(tx.Now()) || !slices.Contains(s.Methods, "totp")) {
			t.Errorf("the session that confirmed: %+v", s)
		}
		return err
	})
	if _, err := p.signIn(code); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("the code that confirmed signs in: %v", err)
	}
}

func TestARecoveryCodeStandsInOnceAndIsOnRecord(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	_, _, recovery := p.enrol()
	if len(recovery) != 10 {
		t.Fatalf("%d codes", len(recovery))
	}
	distinct := map[string]bool{}
	for _, c := range recovery {
		distinct[c.Reveal()] = true
		if raw, ok := readRecoveryCode(c); !ok || len(raw)*8 < 80 {
			t.Errorf("%q has %d bits", c.Reveal(), len(raw)*8)
		}
	}
	if len(distinct) != 10 {
		t.Errorf("%d codes differ", len(distinct))
	}
	code := recovery[3].Reveal()
	if _, err := p.signIn(strings.ReplaceAll(code, "-", " ")); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("spelled otherwise: %v", err)
	}
	who := p.mustSignIn(strings.ToUpper(code))
	if !slices.Equal(who.Session.Methods, []string{"password", "recovery_code"}) {
		t.Errorf("methods: %v", who.Session.Methods)
	}
	if _, err := p.signIn(code); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("a second time: %v", err)
	}
	if !recorded(t, p.st, "recovery_code.use", "9") {
		t.Error("its use is not on record")
	}
	var fresh []reeve.Secret
	update(t, p.st, func(tx *store.Tx) (err error) {
		fresh, err = MakeRecoveryCodes(tx, by, who)
		return err
	})
	if _, err := p.signIn(recovery[4].Reveal()); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("one that was replaced: %v", err)
	}
	p.mustSignIn(fresh[0].Reveal())
}

// recorded reports whether there is a record of the action that holds the word.
func recorded(t testing.TB, st *store.Store, action, word string) (found bool) {
	t.Helper()
	if err := st.View(t.Context(), func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 1000, audit.Filter{Action: action})
		if err != nil {
			return err
		}
		for _, e := range all {
			for _, v := range e.Details {
				found = found || v == word
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestTheLastFactorTakesItsRecoveryCodesAlong(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	_, f, _ := p.enrol()
	who := p.mustSignIn(p.code(0))
	update(t, p.st, func(tx *store.Tx) error { return RemoveFactor(tx, by, who, f.ID) })
	update(t, p.st, func(tx *store.Tx) error {
		if n, err := RecoveryCodesLeft(tx, who.ID); err != nil || n != 0 {
			t.Errorf("%d recovery codes are left (%v)", n, err)
		}
		if _, err := MakeRecoveryCodes(tx, by, who); reeve.CodeOf(err) != "factor_missing" {
			t.Errorf("new ones: %v", err)
		}
		return nil
	})
	p.mustSignIn("")
}

// A token changes no second factors, not even root's (BeyondTrust's stolen key reset
// passwords), nobody changes those of others, and a reset needs all that the other holds.
func TestWhoMayChangeSecondFactors(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	ada, f, _ := p.enrol()
	mallory := principal(t, p.st, "mallory")
	byToken := Caller{Principal: ada.Principal, Token: &Token{}}
	session := Caller{Principal: *mallory, Session: &Session{ID: reeve.NewSessionID()}}
	for what, try := range map[string]struct {
		code string
		do   func(tx *store.Tx) error
	}{
		"add by token": {"factor_by_token", func(tx *store.Tx) error { _, _, err := AddTOTP(tx, by, byToken, p.keys, ""); return err }},
		"confirm by token": {"factor_by_token", func(tx *store.Tx) error {
			_, err := ConfirmTOTP(tx, by, byToken, p.keys, f.ID, reeve.SecretString(p.code(0)))
			return err
		}},
		"remove by token":         {"factor_by_token", func(tx *store.Tx) error { return RemoveFactor(tx, by, byToken, f.ID) }},
		"recovery codes by token": {"factor_by_token", func(tx *store.Tx) error { _, err := MakeRecoveryCodes(tx, by, byToken); return err }},
		"reset by root's token":   {"factor_by_token", func(tx *store.Tx) error { _, err := ResetFactors(tx, by, root, ada.ID); return err }},
		"remove another's":        {"factor_not_found", func(tx *store.Tx) error { return RemoveFactor(tx, by, session, f.ID) }},
		"confirm another's": {"factor_not_found", func(tx *store.Tx) error {
			_, err := ConfirmTOTP(tx, by, session, p.keys, f.ID, reeve.SecretString(p.code(0)))
			return err
		}},
	} {
		if err := p.st.Update(t.Context(), try.do); reeve.CodeOf(err) != try.code {
			t.Errorf("%s: %v", what, err)
		}
	}
	give(t, p.st, "ada", "auditor", Scope{Everything: true})
	reset := func(tx *store.Tx) error { _, err := ResetFactors(tx, by, session, ada.ID); return err }
	if err := p.st.Update(t.Context(), reset); reeve.CodeOf(err) != "grant_exceeds" {
		t.Errorf("reset by somebody who holds less: %v", err)
	}
	give(t, p.st, "mallory", "administrator", Scope{Everything: true})
	give(t, p.st, "mallory", "auditor", Scope{Everything: true})
	update(t, p.st, reset)
	if !recorded(t, p.st, "factor.reset", "ada") {
		t.Error("the reset is not on record")
	}
	update(t, p.st, func(tx *store.Tx) error {
		if _, err := GetSession(tx, ada.Session.ID); reeve.CodeOf(err) != "session_not_found" {
			t.Errorf("a session from before the reset: %v", err)
		}
		return nil
	})
	if _, err := p.signIn(""); err != nil {
		t.Errorf("after the reset: %v", err)
	}
}

// K1: neither the key of an app nor a code is in the store, once it is opened, or in the
// audit trail.
func TestNoSecretOfASecondFactorIsStored_K1(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/state.db"
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	node := storetest.Start(t, storetest.WithPath(path), storetest.WithCipher(plaintext{}), storetest.WithClock(clock.Now))
	p := &person{t: t, st: node.Store, clock: clock, keys: storetest.NewCipher(), name: "ada"}
	withPassword(t, p.st, p.name)
	_, _, recovery := p.enrol()
	code := p.code(0)
	p.mustSignIn(code)
	p.mustSignIn(recovery[0].Reveal())
	_, _ = p.signIn("918273")
	snap, err := node.Store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var saved bytes.Buffer
	if _, err := snap.WriteTo(&saved); err != nil {
		t.Fatal(err)
	}
	snap.Release()
	node.Stop()
	disk, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := base32.StdEncoding.DecodeString(p.key)
	if err != nil {
		t.Fatal(err)
	}
	for where, raw := range map[string][]byte{"state": disk, "snapshot": saved.Bytes()} {
		if !bytes.Contains(raw, []byte("recovery_code.use")) {
			t.Fatalf("the %s does not show what was stored", where)
		}
		secrets := []string{string(key), p.key, code, "918273"}
		for _, c := range recovery {
			rest, _ := readRecoveryCode(c)
			secrets = append(secrets, c.Reveal(), strings.ReplaceAll(c.Reveal(), "-", ""), string(rest))
		}
		for _, s := range secrets {
			if bytes.Contains(raw, []byte(s)) {
				t.Errorf("%q is in the %s", s, where)
			}
		}
	}
}

func TestKeysOfFactorsAreSealedAgainAfterAChangeOfKeys(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	_, f, _ := p.enrol()
	old := slices.Clone(f.Key)
	stale := func(sealed []byte) bool { return bytes.Equal(sealed, old) }
	next, n, err := RewrapFactors(t.Context(), p.st, p.keys, stale, "")
	if err != nil || next != "" || n != 1 {
		t.Fatal(next, n, err)
	}
	if _, n, _ := RewrapFactors(t.Context(), p.st, p.keys, stale, ""); n != 0 {
		t.Errorf("%d are sealed again", n)
	}
	p.mustSignIn(p.code(0))
}

func FuzzCodes(f *testing.F) {
	for _, s := range []string{"123456", " 123456", "１２３４５６", "abcd-efgh-ijkl-mnop", "ABCD-EFGH-IJKL-MNOP", "abcdefghijklmnop", "", "-", "\n"} {
		f.Add(s)
	}
	key := bytes.Repeat([]byte{7}, totpKey)
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, s string) {
		if _, ok, err := matchStep(key, reeve.SecretString(s), 0, now); err != nil || ok && (len(s) != 6 || strings.Trim(s, "0123456789") != "") {
			t.Errorf("%q: %v %v", s, ok, err)
		}
		if raw, ok := readRecoveryCode(reeve.SecretString(s)); ok {
			if again := writeRecoveryCode(raw); again.Reveal() != strings.ToLower(s) {
				t.Errorf("%q reads as %q", s, again.Reveal())
			}
		}
	})
}
