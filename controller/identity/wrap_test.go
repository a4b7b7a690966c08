package identity

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// wrapping is somebody who wraps passwords: ada, with a session and with a token.
type wrapping struct {
	t       testing.TB
	st      *store.Store
	clock   *storetest.Clock
	session Caller
	token   Caller
}

func newWrapping(t testing.TB) *wrapping {
	t.Helper()
	p := newPerson(t)
	w := &wrapping{t: t, st: p.st, clock: p.clock, session: p.mustSignIn("")}
	_, secret := token(t, p.st, NewToken{Principal: w.session.ID, Expires: p.clock.Now().Add(time.Hour)})
	var err error
	if w.token, err = authenticate(p.st, secret); err != nil {
		t.Fatal(err)
	}
	return w
}

const wrapped = reeve.AccountID("acct_1")

func (w *wrapping) make(who Caller, in NewWrap) (made *Wrap, secret reeve.Secret) {
	w.t.Helper()
	in.Account, in.Reason = wrapped, "to test"
	if in.Life == 0 {
		in.Life = WrapLife
	}
	update(w.t, w.st, func(tx *store.Tx) (err error) {
		made, secret, err = MakeWrap(tx, who.Actor("192.0.2.1", "node_1"), who, in)
		return err
	})
	return made, secret
}

// open opens a wrap, and says whether what it stands for was read.
func (w *wrapping) open(secret reeve.Secret, o Opener) (read bool, err error) {
	err = Unwrap(context.Background(), w.st, secret, o, func(_ *store.Tx, _ audit.Actor, wrap *Wrap, asked Caller) error {
		if read = wrap.Account == wrapped; asked.ID != w.session.ID {
			return fmt.Errorf("asked by %s", asked.ID)
		}
		return nil
	})
	return read, err
}

func (w *wrapping) records(action string) (found []*audit.Entry) {
	w.t.Helper()
	if err := w.st.View(w.t.Context(), func(tx *store.Tx) (err error) {
		found, err = audit.List(tx, 0, 1000, audit.Filter{Action: action})
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	return found
}

// Of many who open a wrap at once, one does; the others are told so, and are recorded.
func TestAWrapIsOpenedOnce(t *testing.T) {
	t.Parallel()
	w := newWrapping(t)
	made, secret := w.make(w.token, NewWrap{})
	const tries = 8
	var wins, used atomic.Int32
	var all sync.WaitGroup
	for range tries {
		all.Go(func() {
			switch read, err := w.open(secret, Opener{From: here, Node: "node_2"}); {
			case err == nil && read:
				wins.Add(1)
			case reeve.CodeOf(err) == "wrap_used" && reeve.KindOf(err) == reeve.Conflict && !read:
				used.Add(1)
			default:
				t.Errorf("read %t: %v", read, err)
			}
		})
	}
	all.Wait()
	if wins.Load() != 1 || used.Load() != tries-1 {
		t.Fatalf("%d opened it, %d found it opened", wins.Load(), used.Load())
	}
	opened, refused := w.records("wrap.open"), w.records("wrap.refuse")
	if len(opened) != 1 || len(refused) != tries-1 {
		t.Fatalf("%d opened, %d refused on record", len(opened), len(refused))
	}
	if e := opened[0]; e.Object != string(made.ID) || e.Actor.From != here.String() || e.Actor.Session != string(made.ID) || e.Actor.Kind != "anonymous" ||
		e.Details["account"] != string(wrapped) || e.Details["principal"] != string(w.token.ID) || e.Details["name"] != "ada" || e.Details["reason"] != "to test" {
		t.Errorf("opened: %+v", e)
	}
	if e := refused[0]; e.Details["code"] != "wrap_used" || e.Outcome != audit.Denied || e.Object != string(made.ID) {
		t.Errorf("refused: %+v", e)
	}
	if err := w.st.View(t.Context(), func(tx *store.Tx) error {
		seen, err := FindWrap(tx, secret, Opener{From: here})
		if err == nil && (seen.State(tx.Now()) != "opened" || seen.OpenedFrom != here.String() || !seen.OpenedAt.Equal(tx.Now())) {
			t.Errorf("who made it sees %+v", seen)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// What cannot be read does not use up a wrap.
func TestAWrapThatCannotBeReadStaysOpen(t *testing.T) {
	t.Parallel()
	w := newWrapping(t)
	_, secret := w.make(w.session, NewWrap{})
	lag := reeve.Errorf(reeve.Precondition, "audit_lag", "a sink is behind")
	err := Unwrap(t.Context(), w.st, secret, Opener{From: here}, func(*store.Tx, audit.Actor, *Wrap, Caller) error { return lag })
	if !errors.Is(err, lag) {
		t.Errorf("%v", err)
	}
	if r := w.records("wrap.refuse"); len(r) != 1 || r[0].Details["code"] != "audit_lag" || len(w.records("wrap.open")) != 0 {
		t.Errorf("on record: %+v", r)
	}
	if read, err := w.open(secret, Opener{From: here}); err != nil || !read {
		t.Errorf("then: %v", err)
	}
}

// A wrap is good only as long as what its asker came with, for whom and where it was made.
func TestAWrapEndsWithWhatItWasAskedForWith(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		token bool // asked for with it
		in    NewWrap
		then  func(w *wrapping, made *Wrap)
		code  string
	}{
		"the session is unused for long": {then: func(w *wrapping, _ *Wrap) { w.clock.Advance(SessionIdle) }, in: NewWrap{Life: time.Hour}},
		"the session is ended": {then: func(w *wrapping, _ *Wrap) {
			update(w.t, w.st, func(tx *store.Tx) error { return EndSession(tx, by, w.session.Session.ID) })
		}, code: "wrap_void"},
		"the token is revoked": {token: true, then: func(w *wrapping, _ *Wrap) {
			update(w.t, w.st, func(tx *store.Tx) error { return RevokeToken(tx, by, w.token.Token.ID) })
		}, code: "wrap_void"},
		"the other one is revoked": {then: func(w *wrapping, _ *Wrap) {
			update(w.t, w.st, func(tx *store.Tx) error { return RevokeToken(tx, by, w.token.Token.ID) })
		}},
		"its asker is disabled": {token: true, then: func(w *wrapping, _ *Wrap) {
			update(w.t, w.st, func(tx *store.Tx) error { _, err := DisablePrincipal(tx, by, root, w.token.ID); return err })
		}, code: "wrap_void"},
		"its asker is shut out by their directory": {then: func(w *wrapping, _ *Wrap) {
			update(w.t, w.st, func(tx *store.Tx) error {
				p, err := GetPrincipal(tx, w.session.ID)
				if err != nil {
					return err
				}
				p.ShutOut = tx.Now()
				return principals.Put(tx, p)
			})
		}, code: "wrap_void"},
		"the password is changed": {then: func(w *wrapping, _ *Wrap) {
			if err := ChangePassword(w.t.Context(), w.st, Caller{Principal: w.session.Principal, Session: &Session{ID: "sess_other"}},
				Attempt{Name: "ada", Password: reeve.SecretString(good), From: here}, reeve.SecretString("Canary lantern walrus 9 bicycle")); err != nil {
				w.t.Fatal(err)
			}
		}, code: "wrap_void"},
		"it is revoked": {then: func(w *wrapping, made *Wrap) {
			update(w.t, w.st, func(tx *store.Tx) error { return RevokeWrap(tx, by, made.ID) })
		}, code: "wrap_unknown"},
		"its time is over":       {then: func(w *wrapping, _ *Wrap) { w.clock.Advance(WrapLife) }, code: "wrap_expired"},
		"just before that":       {then: func(w *wrapping, _ *Wrap) { w.clock.Advance(WrapLife - time.Nanosecond) }},
		"the token's time is":    {token: true, in: NewWrap{Life: LongestWrap}, then: func(w *wrapping, _ *Wrap) { w.clock.Advance(time.Hour) }, code: "wrap_expired"},
		"a network of others":    {in: NewWrap{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, code: "wrap_elsewhere"},
		"the network of its own": {in: NewWrap{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWrapping(t)
			who := w.session
			if tt.token {
				who = w.token
			}
			made, secret := w.make(who, tt.in)
			if tt.then != nil {
				tt.then(w, made)
			}
			read, err := w.open(secret, Opener{From: here})
			if reeve.CodeOf(err) != tt.code || read != (tt.code == "") {
				t.Errorf("read %t: %v", read, err)
			}
			if n := len(w.records("wrap.refuse")); (n == 1) != (tt.code != "" && tt.code != "wrap_unknown") {
				t.Errorf("%d refusals on record", n)
			}
		})
	}
}

func TestAWrapEndsTwelveHoursAfterItsSessionBegan(t *testing.T) {
	t.Parallel()
	w := newWrapping(t)
	w.clock.Advance(10 * time.Minute)
	made, _ := w.make(w.session, NewWrap{Life: LongestWrap})
	if want := w.session.Session.Created.Add(SessionLife); !made.Expires.Equal(want) {
		t.Errorf("until %s, want %s", made.Expires, want)
	}
}

// A5.22: what is for one user is opened by that user alone, who has just proved who they are.
func TestAWrapForAUserIsOpenedByThemAlone_A5_22(t *testing.T) {
	t.Parallel()
	w := newWrapping(t)
	bob, carol := withPassword(t, w.st, "bob"), withPassword(t, w.st, "carol")
	_, secret := w.make(w.session, NewWrap{For: bob.ID, Life: time.Hour})
	signIn := func(name string) reeve.Secret {
		_, session, err := try(w.st, name, good)
		if err != nil {
			t.Fatal(err)
		}
		return session
	}
	bobs := signIn("bob")
	_, bobsToken := token(t, w.st, NewToken{Principal: bob.ID})
	for _, tt := range []struct {
		name    string
		session reeve.Secret
		code    string
	}{
		{"nobody", reeve.Secret{}, "wrap_bound"},
		{carol.Name, signIn("carol"), "wrap_bound"},
		{"bob's token", bobsToken, "wrap_bound"},
		{"no session", reeve.SecretString(SessionPrefix + "x"), "session_malformed"},
	} {
		if read, err := w.open(secret, Opener{From: here, Session: tt.session}); reeve.CodeOf(err) != tt.code || read {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	w.clock.Advance(StepUpFor)
	if _, err := w.open(secret, Opener{From: here, Session: bobs}); reeve.CodeOf(err) != "step_up_needed" {
		t.Errorf("bob, who may have gone to lunch: %v", err)
	}
	if read, err := w.open(secret, Opener{From: here, Session: signIn("bob")}); err != nil || !read {
		t.Fatalf("bob: %v", err)
	}
	if e := w.records("wrap.open"); len(e) != 1 || e[0].Actor.ID != string(bob.ID) || !strings.HasPrefix(e[0].Actor.Session, "sess_") {
		t.Errorf("on record: %+v", e)
	}
	err := w.st.Update(t.Context(), func(tx *store.Tx) error {
		if _, err := DisablePrincipal(tx, by, root, bob.ID); err != nil {
			return err
		}
		_, _, err := MakeWrap(tx, by, w.session, NewWrap{Account: wrapped, For: bob.ID, Life: time.Minute})
		return err
	})
	if reeve.CodeOf(err) != "wrap_for_nobody" {
		t.Errorf("for somebody who is disabled: %v", err)
	}
}

func TestSomebodysOpenWrapsAreFew(t *testing.T) {
	t.Parallel()
	w := newWrapping(t)
	var secrets []reeve.Secret
	for range mostWraps {
		_, s := w.make(w.token, NewWrap{})
		secrets = append(secrets, s)
	}
	more := func() error {
		return w.st.Update(t.Context(), func(tx *store.Tx) error {
			_, s, err := MakeWrap(tx, by, w.session, NewWrap{Account: wrapped, Life: time.Minute})
			if err != nil && !s.Empty() {
				t.Error("a secret beside an error")
			}
			return err
		})
	}
	if err := more(); reeve.KindOf(err) != reeve.TooMany || reeve.CodeOf(err) != "wraps_too_many" {
		t.Errorf("one more: %v", err)
	}
	if _, err := w.open(secrets[0], Opener{From: here}); err != nil {
		t.Fatal(err)
	}
	if err := more(); err != nil {
		t.Errorf("after one was opened: %v", err)
	}
	if err := more(); reeve.CodeOf(err) != "wraps_too_many" {
		t.Errorf("and one more: %v", err)
	}
	w.clock.Advance(WrapLife)
	if err := more(); err != nil {
		t.Errorf("after their time: %v", err)
	}
	w.clock.Advance(wrapKept + time.Second)
	for range mostWraps / 8 {
		if err := more(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.open(secrets[1], Opener{From: here}); reeve.CodeOf(err) != "wrap_unknown" {
		t.Errorf("one that ended long ago: %v", err)
	}
}

// Guesses are counted for the network they come from; typing errors cost nothing.
func TestGuessesOfWrapsAreLimited(t *testing.T) {
	t.Parallel()
	w := newWrapping(t)
	_, secret := w.make(w.token, NewWrap{})
	for range 2 * perAddress {
		if _, err := w.open(reeve.NewSecret(secret.Bytes()[:secret.Len()-1]), Opener{From: here}); reeve.CodeOf(err) != "wrap_malformed" {
			t.Fatal(err)
		}
	}
	for range perAddress {
		guess, _ := wrapBearer.make()
		if _, err := w.open(guess, Opener{From: here}); reeve.CodeOf(err) != "wrap_unknown" || reeve.KindOf(err) != reeve.Unauthenticated {
			t.Fatal(err)
		}
	}
	if _, err := w.open(secret, Opener{From: here}); reeve.KindOf(err) != reeve.TooMany {
		t.Errorf("after so many: %v", err)
	}
	if _, err := w.open(secret, Opener{From: netip.MustParseAddr("198.51.100.1")}); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
}

func TestAUsedOrRevokedWrapDoesNotComeBackWithASnapshot(t *testing.T) {
	t.Parallel()
	w := newWrapping(t)
	_, secret := w.make(w.token, NewWrap{})
	older := storetest.New(t, storetest.WithClock(w.clock.Now))
	keep := func(to, from *store.Store) {
		update(t, from, func(from *store.Tx) error {
			return to.Update(t.Context(), func(to *store.Tx) error { return Keep(to, from) })
		})
	}
	keep(older, w.st)
	if _, err := w.open(secret, Opener{From: here}); err != nil {
		t.Fatal(err)
	}
	keep(older, w.st)
	restored := &wrapping{t: t, st: older, clock: w.clock, session: w.session}
	if _, err := restored.open(secret, Opener{From: here}); reeve.CodeOf(err) != "wrap_used" {
		t.Errorf("restored: %v", err)
	}
	update(t, older, func(tx *store.Tx) error {
		if _, err := CreatePrincipal(tx, by, "root", Root, Profile{}); err != nil {
			return err
		}
		_, _, err := Refound(tx, by)
		return err
	})
	if _, err := restored.open(secret, Opener{From: here}); reeve.CodeOf(err) != "wrap_unknown" {
		t.Errorf("founded anew: %v", err)
	}
}

// K1: no wrapping token is on disk, in audit, or in an error, in any form.
func TestNoWrappingTokenIsStored_K1(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	node := storetest.Start(t, storetest.WithPath(path), storetest.WithCipher(plaintext{}))
	ada := principal(t, node.Store, "ada")
	w := &wrapping{t: t, st: node.Store, session: Caller{Principal: *ada}}
	made, secret := w.make(w.session, NewWrap{})
	_, first := w.open(secret, Opener{From: here})
	_, second := w.open(secret, Opener{From: here})
	_, third := w.open(reeve.NewSecret(secret.Bytes()[:secret.Len()-1]), Opener{From: here})
	if first != nil || second == nil || third == nil {
		t.Fatal(first, second, third)
	}
	raw, err := wrapBearer.decode(secret)
	if err != nil {
		t.Fatal(err)
	}
	seen := fmt.Sprintf("%v %+v %v %v %v", made, *made, second, third, secret)
	node.Stop()
	disk, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(disk, []byte("to test")) {
		t.Fatal("the state file does not show what was stored")
	}
	body := strings.TrimPrefix(secret.Reveal(), WrapPrefix)
	for _, form := range []string{string(raw), hex.EncodeToString(raw), body[:40], body[8:]} {
		if bytes.Contains(disk, []byte(form)) || strings.Contains(seen, form) {
			t.Fatal("the wrapping token is readable somewhere")
		}
	}
}

// Whatever is shown as a wrapping token, there is one text for each, none of another kind,
// and what is none is said to be none.
func FuzzDecodeWrap(f *testing.F) {
	f.Add(wrapBearer.encode(make([]byte, bearerBytes)).Bytes())
	f.Add(tokenBearer.encode(make([]byte, bearerBytes)).Bytes())
	f.Add([]byte(WrapPrefix))
	f.Fuzz(func(t *testing.T, text []byte) {
		secret := reeve.NewSecret(text)
		raw, err := wrapBearer.decode(secret)
		if err != nil {
			if reeve.CodeOf(err) != "wrap_malformed" {
				t.Fatal(err)
			}
			return
		}
		if again := wrapBearer.encode(raw); !bytes.Equal(again.Bytes(), text) {
			t.Fatal("two texts for one token")
		}
		for _, other := range []bearer{tokenBearer, sessionBearer, invitationBearer} {
			if _, err := other.decode(secret); err == nil {
				t.Fatal("it is a " + other.noun + " as well")
			}
		}
	})
}
