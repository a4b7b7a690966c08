package oidc

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/identity/oidc/oidctest"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
	origin   = "https://reeve.example.com"
	callback = origin + "/v1/browser/oidc/corp/callback"
)

// inBrowser is what a page of ours begins.
var inBrowser = Start{Provider: "corp", Origin: origin, ReturnTo: "/console/jobs"}

func (w *world) start(t testing.TB, in Start) Begun {
	t.Helper()
	b, err := Begin(t.Context(), w.Store, from, in)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// came is the answer of a browser that comes back to back, with what it keeps of begun.
func came(begun Begun, back *url.URL) Answer {
	in := answer(back.Query())
	in.Verifier = begun.Verifier.Reveal()
	return in
}

// proved is when the owner of a session last proved who they are.
func (w *world) session(t testing.TB, secret reeve.Secret) (who identity.Caller) {
	t.Helper()
	err := w.View(t.Context(), func(tx *store.Tx) (err error) {
		who, err = identity.Authenticate(tx, secret, from.Address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return who
}

// A browser signs in at a real provider, which sends it back to a page of ours. Later it
// proves again who it is, which the provider lets it do by signing in anew alone.
func TestABrowserSignsInAndStepsUpAtARealProvider(t *testing.T) {
	t.Parallel()
	p := oidctest.Start(t, oidctest.Options{People: ada(), Redirects: []string{callback}})
	clock := storetest.NewClock(time.Now())
	w := newWorld(t, storetest.WithClock(clock.Now))
	in := settings(p)
	in.Origins = []string{"https://other.example.com:8443", origin}
	w.add(t, in)
	browser := p.Browser()
	begun := w.start(t, inBrowser)
	back, asked := browser.Open(t, begun.URL, "sub-ada")
	if got := back.Scheme + "://" + back.Host + back.Path; got != callback || !asked {
		t.Errorf("it comes back to %s, asked %v", got, asked)
	}
	// Nobody but the browser that began can go on, not with a code that is right.
	another := came(w.start(t, inBrowser), back)
	if _, err := FinishInBrowser(t.Context(), w.Store, from, another); reeve.CodeOf(err) != "oidc_login_unknown" {
		t.Errorf("another browser: %v", err)
	}
	begun = w.start(t, inBrowser)
	back, asked = browser.Open(t, begun.URL, "sub-ada")
	if asked {
		t.Error("the provider has forgotten who it is")
	}
	if _, _, err := Finish(t.Context(), w.Store, from, came(begun, back)); reeve.CodeOf(err) != "oidc_login_unknown" {
		t.Errorf("as a program, which would see the secret: %v", err)
	}
	begun = w.start(t, inBrowser)
	back, _ = browser.Open(t, begun.URL, "sub-ada")
	got, err := FinishInBrowser(t.Context(), w.Store, from, came(begun, back))
	if err != nil || got.To != "/console/jobs" || got.Secret.Empty() {
		t.Fatalf("%+v %v", got, err)
	}
	if got.Session.Provider != "corp" || !got.Session.Fresh(clock.Now()) {
		t.Errorf("%+v", got.Session)
	}
	if _, err := FinishInBrowser(t.Context(), w.Store, from, came(begun, back)); reeve.CodeOf(err) != "oidc_login_unknown" {
		t.Errorf("once more: %v", err)
	}

	clock.Advance(identity.StepUpFor)
	if who := w.session(t, got.Secret); who.Session.Fresh(clock.Now()) {
		t.Error("the proof lasts for ever")
	}
	clock.Advance(-identity.StepUpFor) // the provider's clock has stayed where it was
	proof := inBrowser
	proof.Session = got.Session.ID
	begun = w.start(t, proof)
	back, asked = browser.Open(t, begun.URL, "sub-ada")
	if !asked {
		t.Error("the provider did not ask who it is")
	}
	if again, err := FinishInBrowser(t.Context(), w.Store, from, came(begun, back)); err != nil || !again.Secret.Empty() || again.Session.ID != got.Session.ID {
		t.Errorf("%+v %v", again, err)
	}
	begun = w.start(t, proof)
	back, _ = p.Browser().Open(t, begun.URL, "sub-eve")
	if _, err := FinishInBrowser(t.Context(), w.Store, from, came(begun, back)); reeve.CodeOf(err) != "oidc_user_unknown" {
		t.Errorf("somebody else: %v", err)
	}
	trail := w.trail(t)
	for _, action := range []string{"session.begin", "session.step_up", "session.refuse"} {
		if !slices.ContainsFunc(trail, func(e string) bool { return strings.HasPrefix(e, action) }) {
			t.Errorf("%s is not in the trail", action)
		}
	}
}

// A browser goes on to pages of ours and to nothing else.
func TestABrowserIsNotSentElsewhere(t *testing.T) {
	t.Parallel()
	f, w := forge(t), newWorld(t)
	in := settings(f.Provider)
	in.Origins = []string{origin}
	w.add(t, in)
	for to, want := range map[string]string{
		"/": "", "/console/": "", "/console/jobs?state=dead#log": "", "/console/a/b": "",
		"": "return_to_invalid", "//evil.example.com": "return_to_invalid", "https://evil.example.com/console/": "return_to_invalid", `/\evil.example.com`: "return_to_invalid",
		"/v1/sessions": "return_to_invalid", "/console/../v1/sessions": "return_to_invalid", "/console/%2e%2e/v1": "return_to_invalid", "/console//evil": "return_to_invalid",
		"/console/%5cevil": "return_to_invalid", "javascript:alert(1)": "return_to_invalid", "/console/\n": "return_to_invalid", "/consolex": "return_to_invalid", "/console": "return_to_invalid",
		"/console/%0d%0aSet-Cookie:x": "return_to_invalid", "?x": "return_to_invalid", "/?x": "return_to_invalid",
	} {
		start := inBrowser
		start.ReturnTo = to
		if _, err := Begin(t.Context(), w.Store, from, start); reeve.CodeOf(err) != want {
			t.Errorf("%q: %v", to, err)
		}
	}
	for _, from2 := range []string{"https://evil.example.com", "http://reeve.example.com", "https://reeve.example.com:8443", "null", "https://REEVE.example.com"} {
		start := inBrowser
		start.Origin = from2
		if _, err := Begin(t.Context(), w.Store, from, start); reeve.CodeOf(err) != "oidc_origin_unknown" {
			t.Errorf("%q: %v", from2, err)
		}
	}
	for _, bad := range []string{"http://reeve.example.com", "https://reeve.example.com/", "https://reeve.example.com:443", "https://Reeve.example.com", "reeve.example.com", "https://a@b", "null", "https://a?b"} {
		again := in
		again.Name, again.Origins = "other", []string{bad}
		err := w.Update(t.Context(), func(tx *store.Tx) error {
			_, err := Add(tx, root, w.root, again)
			return err
		})
		if reeve.CodeOf(err) != "oidc_setting_invalid" {
			t.Errorf("origin %q: %v", bad, err)
		}
	}
}

// forged is a whole way through a browser at the forger.
func (f *forger) browse(t testing.TB, w *world, start Start, edit func(*Answer)) (Back, error) {
	t.Helper()
	begun := w.start(t, start)
	u, err := url.Parse(begun.URL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if q.Get("code_challenge") != challengeOf(begun.Verifier.Reveal()) || q.Get("code_challenge_method") != "S256" || q.Get("redirect_uri") != callback {
		t.Errorf("the address: %v", q)
	}
	if proof := start.Session != ""; (q.Get("prompt") == "login") != proof || (q.Get("max_age") == "0") != proof {
		t.Errorf("the address: %v", q)
	}
	f.mu.Lock()
	f.nonce = q.Get("nonce")
	f.mu.Unlock()
	in := Answer{Provider: "corp", State: q.Get("state"), Code: "Canary-code", Verifier: begun.Verifier.Reveal()}
	if edit != nil {
		edit(&in)
	}
	return FinishInBrowser(t.Context(), w.Store, from, in)
}

// What comes back to a browser that did not begin it, too late, twice, or from elsewhere
// lets nobody in.
func TestAForgedCallbackLetsNobodyIn(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Now())
	f, w := forge(t), newWorld(t, storetest.WithClock(clock.Now))
	f.metadata = map[string]any{"authorization_response_iss_parameter_supported": true}
	in := settings(f.Provider)
	in.Origins = []string{origin}
	w.add(t, in)
	again := in
	again.Name = "other"
	w.add(t, again)
	for _, try := range []struct {
		what string
		edit func(*Answer)
		want string
	}{
		{"the state of another browser", func(a *Answer) { a.State = w.start(t, inBrowser).State }, "oidc_login_unknown"},
		{"the verifier of another browser", func(a *Answer) { a.Verifier = w.start(t, inBrowser).Verifier.Reveal() }, "oidc_login_unknown"},
		{"no verifier", func(a *Answer) { a.Verifier = "" }, "oidc_login_unknown"},
		{"no state", func(a *Answer) { a.State = "" }, "oidc_login_unknown"},
		{"the callback of another provider", func(a *Answer) { a.Provider = "other" }, "oidc_login_unknown"},
		{"what a program began", func(a *Answer) { b := w.begin(t); a.State, a.Verifier = b.State, verifier }, "oidc_login_unknown"},
		{"from another provider", func(a *Answer) { a.Issuer = "https://evil.example.com" }, "oidc_token_invalid"},
		{"from nobody", func(*Answer) {}, "oidc_token_invalid"},
		{"denied", func(a *Answer) { a.Issuer, a.Code, a.Denied = f.Issuer, "", "access_denied" }, "oidc_denied"},
		{"denied by another provider", func(a *Answer) { a.Issuer, a.Code, a.Denied = "https://evil.example.com", "", "access_denied" }, "oidc_token_invalid"},
		{"denied in odd words", func(a *Answer) { a.Issuer, a.Code, a.Denied = f.Issuer, "", "Canary<script>" }, "oidc_denied"},
		{"as it should be", func(a *Answer) { a.Issuer = f.Issuer }, ""},
		{"too late", func(*Answer) { clock.Advance(LoginLife) }, "oidc_login_unknown"},
	} {
		var used Answer
		got, err := f.browse(t, w, inBrowser, func(a *Answer) { try.edit(a); used = *a })
		if reeve.CodeOf(err) != try.want || err != nil && (got.Session != nil || !got.Secret.Empty() || strings.Contains(err.Error(), "Canary") || strings.Contains(err.Error(), "evil")) {
			t.Errorf("%s: %+v %v", try.what, got, err)
		}
		if got, err = FinishInBrowser(t.Context(), w.Store, from, used); reeve.CodeOf(err) != "oidc_login_unknown" || got.Session != nil {
			t.Errorf("%s, once more: %v", try.what, err)
		}
	}
	if all := strings.Join(w.trail(t), "\n"); strings.Contains(all, "Canary") || strings.Contains(all, verifier) {
		t.Error("the trail holds what was sent")
	}
}

// A proof counts only if the provider says that the owner of the session has signed in there
// since it was asked for.
func TestAProofThatIsNotFreshDoesNotCount(t *testing.T) {
	t.Parallel()
	f, w := forge(t), newWorld(t)
	in := settings(f.Provider)
	in.Origins = []string{origin}
	w.add(t, in)
	at := any(nil)
	subject := "sub-ada"
	f.edit = func(_, c map[string]any) {
		c["sub"] = subject
		if at != nil {
			c["auth_time"] = at
		}
	}
	first, err := f.browse(t, w, inBrowser, nil)
	if err != nil {
		t.Fatal(err)
	}
	if first.Session.Fresh(time.Now()) {
		t.Error("nobody says when ada has signed in, and that counts as just now")
	}
	at = time.Now().Add(-time.Hour).Unix()
	if old, err := f.browse(t, w, inBrowser, nil); err != nil || old.Session.Fresh(time.Now()) {
		t.Errorf("ada has signed in there an hour ago, and that counts as just now: %v", err)
	}
	proof := inBrowser
	proof.Session = first.Session.ID
	for _, try := range []struct {
		what string
		at   any
		want string
	}{
		{"it does not say when", nil, "oidc_not_fresh"},
		{"long before", time.Now().Add(-time.Hour).Unix(), "oidc_not_fresh"},
		{"a minute before", time.Now().Add(-time.Minute).Unix(), "oidc_not_fresh"},
		{"in an hour", time.Now().Add(time.Hour).Unix(), "oidc_not_fresh"},
		{"text", time.Now().Format(time.RFC3339), "oidc_not_fresh"},
		{"never", 0, "oidc_not_fresh"},
		{"too large to be", 1e300, "oidc_not_fresh"},
		{"now", time.Now().Unix(), ""},
	} {
		at = try.at
		got, err := f.browse(t, w, proof, nil)
		if reeve.CodeOf(err) != try.want {
			t.Errorf("%s: %v", try.what, err)
		}
		if who := w.session(t, first.Secret); who.Session.Fresh(time.Now()) != (try.want == "") {
			t.Errorf("%s: proved at %s, %+v", try.what, who.Session.ProvedAt, got)
		}
	}
	// Another user, who is one of ours, proves nothing about ada, and neither is made.
	w.update(t, func(tx *store.Tx) error {
		_, err := identity.CreatePrincipal(tx, root, "bob", identity.User, identity.Profile{})
		return err
	})
	f.edit = func(_, c map[string]any) {
		c["sub"], c["preferred_username"], c["auth_time"] = "sub-bob", "bob", time.Now().Unix()
	}
	if _, err := f.browse(t, w, proof, nil); reeve.CodeOf(err) != "step_up_other_user" {
		t.Errorf("bob: %v", err)
	}
	w.update(t, func(tx *store.Tx) error { return identity.EndSession(tx, root, first.Session.ID) })
	f.edit = func(_, c map[string]any) { c["auth_time"] = time.Now().Unix() }
	if got, err := f.browse(t, w, proof, nil); reeve.CodeOf(err) != "session_ended" || !got.Secret.Empty() {
		t.Errorf("the session has ended: %v", err)
	}
}

// Who began to prove who owns one session proves nothing about another.
func TestAProgramProvesItsOwnSessionAlone(t *testing.T) {
	t.Parallel()
	f, w := forge(t), newWorld(t)
	w.add(t, settings(f.Provider))
	f.edit = func(_, c map[string]any) { c["auth_time"] = time.Now().Unix() }
	try := func(session, finish reeve.SessionID) error {
		start := program
		start.Session = session
		u, err := url.Parse(w.start(t, start).URL)
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.nonce = u.Query().Get("nonce")
		f.mu.Unlock()
		in := Answer{Provider: "corp", State: u.Query().Get("state"), Code: "Canary-code", Verifier: verifier}
		if finish == "" {
			_, _, err = Finish(t.Context(), w.Store, from, in)
		} else {
			_, err = FinishStepUp(t.Context(), w.Store, from, finish, in)
		}
		return err
	}
	var mine, other *identity.Session
	for _, s := range []**identity.Session{&mine, &other} {
		w.update(t, func(tx *store.Tx) (err error) {
			*s, _, err = identity.BeginFederatedSession(tx, identity.Federated{Principal: w.ada.ID, Provider: "corp", From: from.Address})
			return err
		})
	}
	for what, err := range map[string]error{"another session": try(mine.ID, other.ID), "a sign-in of it": try(mine.ID, ""), "a sign-in finished as one": try("", mine.ID)} {
		if reeve.CodeOf(err) != "oidc_login_unknown" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := try(mine.ID, mine.ID); err != nil {
		t.Error(err)
	}
}

// Whatever a browser is to go on to is "/" or below /console/ to whoever reads it, also to a
// browser, which takes a backslash for a slash and leaves out tabs and newlines.
func FuzzReturnTo(f *testing.F) {
	for _, seed := range []string{"/", "/console/", "/console/a?b=c#d", "//evil", "/console/../x", "/console/%2e%2e/x", `/console/\evil`, "/\tconsole/", "https:evil", "/console/%5c%5cevil", "/console/x%2e%2e/"} {
		f.Add(seed)
	}
	base, _ := url.Parse(origin + "/v1/browser/oidc/corp/callback")
	f.Fuzz(func(t *testing.T, to string) {
		if err := checkReturn(to); err != nil {
			if reeve.CodeOf(err) != "return_to_invalid" {
				t.Error(err)
			}
			return
		}
		asBrowser := strings.NewReplacer("\\", "/", "\t", "", "\n", "", "\r", "").Replace(to)
		for _, text := range []string{to, asBrowser} {
			u, err := base.Parse(text)
			if err != nil || u.Scheme+"://"+u.Host != origin || u.Path != "/" && !strings.HasPrefix(u.Path, console) || slices.Contains(strings.Split(u.Path, "/"), "..") {
				t.Errorf("%q goes to %s: %v", to, u, err)
			}
		}
	})
}
