package oidc

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity/oidc/oidctest"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const clientSecret = "Canary-secret-of-the-client"

// forger is an issuer that vouches for whatever a test wants.
type forger struct {
	*oidctest.Provider
	key *rsa.PrivateKey

	mu       sync.Mutex
	nonce    string
	metadata map[string]any                        // over what it says of itself
	edit     func(header, claims map[string]any)   // of the token
	sign     func(input string, alg string) []byte // nil: as it should be
	serve    http.HandlerFunc                      // instead of tokens
	silent   string                                // path at which it hangs
	seen     []url.Values                          // what was sent to the token endpoint
}

func forge(t testing.TB) *forger {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	cert, private := oidctest.Certificate(t)
	f := &forger{key: key, Provider: &oidctest.Provider{Authority: string(cert), ClientID: "reeve", ClientSecret: clientSecret}}
	pair, err := tls.X509KeyPair(cert, private)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(f.answer))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	f.Issuer = s.URL
	return f
}

func (f *forger) answer(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.silent == r.URL.Path {
		f.mu.Unlock()
		_, _ = io.Copy(io.Discard, r.Body) // only then is it noticed that the other side goes
		<-r.Context().Done()
		f.mu.Lock()
		return
	}
	say := func(v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		says := map[string]any{"issuer": f.Issuer, "authorization_endpoint": f.Issuer + "/authorize", "token_endpoint": f.Issuer + "/token", "jwks_uri": f.Issuer + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"}}
		maps.Copy(says, f.metadata)
		say(says)
	case "/keys":
		say(map[string]any{"keys": []any{map[string]any{"kty": "RSA", "use": "sig", "kid": "1",
			"n": base64.RawURLEncoding.EncodeToString(f.key.N.Bytes()), "e": "AQAB"}}})
	case "/token":
		_ = r.ParseForm()
		f.seen = append(f.seen, r.PostForm)
		if f.serve != nil {
			f.serve(w, r)
			return
		}
		say(map[string]any{"access_token": "Canary-access-token", "token_type": "Bearer", "expires_in": 60, "id_token": f.token()})
	default:
		http.NotFound(w, r)
	}
}

func (f *forger) token() string {
	header := map[string]any{"alg": "RS256", "kid": "1"}
	said := map[string]any{"iss": f.Issuer, "aud": "reeve", "sub": "sub-ada", "nonce": f.nonce, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		"preferred_username": "ada", "email": "ada@example.com", "email_verified": true, "groups": []string{"dba"}}
	if f.edit != nil {
		f.edit(header, said)
	}
	part := func(v any) string {
		raw, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	input := part(header) + "." + part(said)
	var signature []byte
	if f.sign != nil {
		signature = f.sign(input, header["alg"].(string))
	} else {
		sum := sha256.Sum256([]byte(input))
		signature, _ = rsa.SignPKCS1v15(rand.Reader, f.key, crypto.SHA256, sum[:])
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// finish is a whole sign-in at the forger, which learns the nonce as a provider does.
func (f *forger) finish(t testing.TB, w *world, edit func(*Answer)) error {
	t.Helper()
	u, err := url.Parse(w.begin(t).URL)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	if q.Get("code_challenge") != challengeOf(verifier) || q.Get("code_challenge_method") != "S256" || q.Get("redirect_uri") != "http://127.0.0.1:40123/callback" {
		t.Errorf("the address: %v", q)
	}
	f.mu.Lock()
	f.nonce = q.Get("nonce")
	f.mu.Unlock()
	in := Answer{Provider: "corp", State: q.Get("state"), Code: "Canary-code", Verifier: verifier}
	if edit != nil {
		edit(&in)
	}
	_, _, err = Finish(t.Context(), w.Store, from, in)
	return err
}

// Every forged or misdirected token is refused, with one code and nothing of what it says.
func TestAForgedTokenLetsNobodyIn(t *testing.T) {
	t.Parallel()
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(key []byte) func(string, string) []byte {
		return func(input, _ string) []byte {
			h := hmac.New(sha256.New, key)
			h.Write([]byte(input))
			return h.Sum(nil)
		}
	}
	alg := func(name string) func(h, c map[string]any) { return func(h, _ map[string]any) { h["alg"] = name } }
	claim := func(name string, value any) func(h, c map[string]any) {
		return func(_, c map[string]any) {
			if c[name] = value; value == nil {
				delete(c, name)
			}
		}
	}
	for name, try := range map[string]struct {
		edit func(h, c map[string]any)
		sign func(input, alg string) []byte
		want string
	}{
		"as it should be":                {nil, nil, ""},
		"alg none":                       {alg("none"), func(string, string) []byte { return nil }, "oidc_token_invalid"},
		"alg None":                       {alg("None"), func(string, string) []byte { return nil }, "oidc_token_invalid"},
		"HS256 with the client's secret": {alg("HS256"), mac([]byte(clientSecret)), "oidc_token_invalid"},
		"HS256 with the public key":      {alg("HS256"), mac([]byte("n")), "oidc_token_invalid"},
		"PS256, which is not allowed":    {alg("PS256"), nil, "oidc_token_invalid"},
		"ES256, which it does not offer": {alg("ES256"), func(input, _ string) []byte {
			sum := sha256.Sum256([]byte(input))
			r, s, _ := ecdsa.Sign(rand.Reader, ec, sum[:])
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}, "oidc_token_invalid"},
		"another's key": {nil, func(input, _ string) []byte {
			sum := sha256.Sum256([]byte(input))
			s, _ := rsa.SignPKCS1v15(rand.Reader, other, crypto.SHA256, sum[:])
			return s
		}, "oidc_token_invalid"},
		"a key it brings along": {func(h, _ map[string]any) {
			h["jwk"] = map[string]any{"kty": "RSA", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(other.N.Bytes())}
			delete(h, "kid")
		}, func(input, _ string) []byte {
			sum := sha256.Sum256([]byte(input))
			s, _ := rsa.SignPKCS1v15(rand.Reader, other, crypto.SHA256, sum[:])
			return s
		}, "oidc_token_invalid"},
		"foreign issuer":             {claim("iss", "https://evil.example.com"), nil, "oidc_token_invalid"},
		"foreign audience":           {claim("aud", "another"), nil, "oidc_token_invalid"},
		"several audiences, no azp":  {claim("aud", []string{"reeve", "another"}), nil, "oidc_token_invalid"},
		"azp is another":             {claim("azp", "another"), nil, "oidc_token_invalid"},
		"azp is no text":             {claim("azp", 7), nil, "oidc_token_invalid"},
		"expired":                    {claim("exp", time.Now().Add(-time.Minute).Unix()), nil, "oidc_token_invalid"},
		"never expires":              {claim("exp", nil), nil, "oidc_token_invalid"},
		"not valid yet":              {claim("nbf", time.Now().Add(time.Hour).Unix()), nil, "oidc_token_invalid"},
		"wrong nonce":                {claim("nonce", "Canary-nonce"), nil, "oidc_token_invalid"},
		"no nonce":                   {claim("nonce", nil), nil, "oidc_token_invalid"},
		"no subject":                 {claim("sub", nil), nil, "oidc_claims_unfit"},
		"no name":                    {claim("preferred_username", nil), nil, "oidc_claims_unfit"},
		"a name that cannot be":      {claim("preferred_username", "a b"), nil, "oidc_claims_unfit"},
		"a name that is no text":     {claim("preferred_username", []string{"ada"}), nil, "oidc_claims_unfit"},
		"root":                       {claim("preferred_username", "root"), nil, "oidc_user_unknown"},
		"nobody":                     {claim("preferred_username", "nobody"), nil, "oidc_user_unknown"},
		"groups of another type":     {claim("groups", 7), nil, "oidc_claims_unfit"},
		"several audiences, and azp": {func(_, c map[string]any) { c["aud"], c["azp"] = []string{"reeve", "another"}, "reeve" }, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, w := forge(t), newWorld(t)
			f.edit, f.sign = try.edit, try.sign
			w.add(t, settings(f.Provider))
			err := f.finish(t, w, nil)
			if got := reeve.CodeOf(err); got != try.want {
				t.Errorf("%v, want %q", err, try.want)
			}
			if err != nil && (reeve.KindOf(err) != reeve.Unauthenticated || strings.Contains(err.Error(), "Canary") || strings.Contains(err.Error(), "evil") || strings.Contains(err.Error(), "a b")) {
				t.Errorf("it says: %v", err)
			}
			trail := w.trail(t)
			if want := map[bool]string{true: "session.begin", false: "session.refuse"}[try.want == ""]; !slices.ContainsFunc(trail, func(e string) bool { return strings.HasPrefix(e, want) }) {
				t.Errorf("the trail: %q", trail)
			}
		})
	}
}

// trail is what was recorded, each as text.
func (w *world) trail(t testing.TB) (out []string) {
	t.Helper()
	err := w.View(t.Context(), func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 500, audit.Filter{})
		for _, r := range all {
			raw, err := json.Marshal(r)
			if err != nil {
				return err
			}
			out = append(out, r.Action+" "+string(raw))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A sign-in is good for one answer, of the client that began it, in its time.
func TestASignInIsFinishedOnceByWhoBeganIt(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Now())
	f, w := forge(t), newWorld(t, storetest.WithClock(clock.Now))
	w.add(t, settings(f.Provider))
	again := settings(f.Provider)
	again.Name = "other"
	w.add(t, again)
	unknown := func(what string, err error) {
		t.Helper()
		if reeve.CodeOf(err) != "oidc_login_unknown" {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, edit := range map[string]func(*Answer){
		"wrong state":      func(a *Answer) { a.State = random() },
		"no state":         func(a *Answer) { a.State = "" },
		"another verifier": func(a *Answer) { a.Verifier = strings.ToUpper(a.Verifier) },
		"another provider": func(a *Answer) { a.Provider = "other" },
	} {
		unknown(what, f.finish(t, w, edit))
	}
	if len(f.seen) > 0 {
		t.Errorf("the provider was asked: %v", f.seen)
	}
	var used Answer
	if err := f.finish(t, w, func(a *Answer) { used = *a }); err != nil {
		t.Fatal(err)
	}
	if got := f.seen[0]; got.Get("code_verifier") != verifier || got.Get("redirect_uri") != "http://127.0.0.1:40123/callback" {
		t.Errorf("it was asked with %v", got)
	}
	_, _, err := Finish(t.Context(), w.Store, from, used)
	unknown("the same once more", err)
	// Also one that failed is used up.
	f.edit = func(_, c map[string]any) { c["nonce"] = "x" }
	if err := f.finish(t, w, func(a *Answer) { used = *a }); reeve.CodeOf(err) != "oidc_token_invalid" {
		t.Errorf("%v", err)
	}
	f.edit = nil
	_, _, err = Finish(t.Context(), w.Store, from, used)
	unknown("after a failure", err)
	unknown("too late", f.finish(t, w, func(*Answer) { clock.Advance(LoginLife) }))
	unknown("its provider is gone", f.finish(t, w, func(*Answer) {
		w.update(t, func(tx *store.Tx) error { return Remove(tx, root, "corp") })
		w.add(t, settings(f.Provider))
	}))
}

// RFC 9207: what comes back from another provider is not for this one.
func TestAnAnswerOfAnotherProviderIsRefused(t *testing.T) {
	t.Parallel()
	f, w := forge(t), newWorld(t)
	w.add(t, settings(f.Provider))
	try := func(issuer, want string) {
		t.Helper()
		if err := f.finish(t, w, func(a *Answer) { a.Issuer = issuer }); reeve.CodeOf(err) != want {
			t.Errorf("%q: %v", issuer, err)
		}
	}
	try("https://evil.example.com", "oidc_token_invalid")
	try("", "")
	f.metadata = map[string]any{"authorization_response_iss_parameter_supported": true}
	try("", "oidc_token_invalid")
	try(f.Issuer, "")
}

// A provider may offer more signatures than count.
func TestASignatureOfAnotherKindDoesNotCount(t *testing.T) {
	t.Parallel()
	f, w := forge(t), newWorld(t)
	w.add(t, settings(f.Provider))
	f.metadata = map[string]any{"id_token_signing_alg_values_supported": []string{"RS256", "PS256"}}
	f.edit = func(h, _ map[string]any) { h["alg"] = "PS256" }
	f.sign = func(input, _ string) []byte {
		sum := sha256.Sum256([]byte(input))
		s, _ := rsa.SignPSS(rand.Reader, f.key, crypto.SHA256, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		return s
	}
	if err := f.finish(t, w, nil); reeve.CodeOf(err) != "oidc_token_invalid" {
		t.Errorf("%v", err)
	}
}

// Anybody can begin a sign-in, so the calls that wait for providers are bounded.
func TestNotEverybodyWaitsForProvidersAtOnce(t *testing.T) { // not in parallel: it takes what all share
	f, w := forge(t), newWorld(t)
	w.add(t, settings(f.Provider))
	for range cap(asking) {
		asking <- struct{}{}
	}
	_, err := Begin(t.Context(), w.Store, from, program)
	for range cap(asking) {
		<-asking
	}
	if reeve.CodeOf(err) != "oidc_logins_too_many" || len(asking) != 0 {
		t.Errorf("%v, %d wait", err, len(asking))
	}
	w.begin(t)
	if len(asking) != 0 {
		t.Errorf("%d still wait", len(asking))
	}
}

func TestAProviderThatFailsIsNamedAndNothingIsRepeated(t *testing.T) {
	t.Parallel()
	begin := func(w *world) error {
		_, err := Begin(t.Context(), w.Store, from, program)
		return err
	}
	for name, try := range map[string]struct {
		metadata map[string]any
		settings func(*NewProvider)
		want     string
	}{
		"another issuer":     {metadata: map[string]any{"issuer": "https://evil.example.com"}, want: "oidc_provider_unfit"},
		"signs with nothing": {metadata: map[string]any{"id_token_signing_alg_values_supported": []string{"none", "HS256"}}, want: "oidc_provider_unfit"},
		"in the clear":       {metadata: map[string]any{"authorization_endpoint": "http://127.0.0.1/authorize"}, want: "oidc_provider_unfit"},
		"a script":           {metadata: map[string]any{"authorization_endpoint": "javascript:alert(1)"}, want: "oidc_provider_unfit"},
		"too much":           {metadata: map[string]any{"x": strings.Repeat("x", maxAnswer)}, want: "oidc_provider_silent"},
		"not trusted":        {settings: func(p *NewProvider) { c, _ := oidctest.Certificate(t); p.Authority = string(c) }, want: "oidc_provider_silent"},
		"down":               {settings: func(p *NewProvider) { p.Issuer = "https://127.0.0.1:1" }, want: "oidc_provider_silent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, w := forge(t), newWorld(t)
			f.metadata = try.metadata
			in := settings(f.Provider)
			if try.settings != nil {
				try.settings(&in)
			}
			w.add(t, in)
			if err := begin(w); reeve.CodeOf(err) != try.want || reeve.KindOf(err) != reeve.Upstream || strings.Contains(err.Error(), "evil") {
				t.Errorf("%v", err)
			}
		})
	}
	f, w := forge(t), newWorld(t)
	w.add(t, settings(f.Provider))
	for name, serve := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"refuses": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"error":"invalid_grant","error_description":"Canary-reflected"}`, 400)
		}, "oidc_code_refused"},
		"breaks": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "Canary-reflected", 500) }, "oidc_provider_silent"},
		"no token": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"access_token":"a","token_type":"Bearer"}`))
		}, "oidc_token_invalid"},
		"talks nonsense": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("Canary-reflected")) }, "oidc_provider_silent"},
		"sends elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, f.Issuer+"/keys", http.StatusTemporaryRedirect)
		}, "oidc_code_refused"},
	} {
		f.serve = serve.answer
		if err := f.finish(t, w, nil); reeve.CodeOf(err) != serve.want || strings.Contains(err.Error(), "Canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAProviderThatHangsHasTenSeconds(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/.well-known/openid-configuration", "/token", "/keys"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			f, w := forge(t), newWorld(t)
			w.add(t, settings(f.Provider))
			hang := func(*Answer) {
				f.mu.Lock()
				f.silent = path
				f.mu.Unlock()
			}
			began := time.Now()
			err := f.finish(t, w, hang)
			if took := time.Since(began); reeve.CodeOf(err) != "oidc_provider_silent" || !strings.Contains(err.Error(), "10s") || took < patience-time.Second || took > 2*patience {
				t.Errorf("after %s: %v", took, err)
			}
		})
	}
}

func TestSignInsUnderWayAreBounded(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Now())
	f, w := forge(t), newWorld(t, storetest.WithClock(clock.Now))
	settings := settings(f.Provider)
	settings.Origins = []string{origin}
	w.add(t, settings)
	for i := range perNetwork {
		w.start(t, []Start{program, inBrowser}[i%2])
	}
	if _, err := Begin(t.Context(), w.Store, from, inBrowser); reeve.CodeOf(err) != "oidc_logins_too_many" {
		t.Errorf("one more, in a browser: %v", err)
	}
	_, err := Begin(t.Context(), w.Store, from, program)
	if reeve.CodeOf(err) != "oidc_logins_too_many" || reeve.KindOf(err) != reeve.TooMany {
		t.Errorf("one more: %v", err)
	}
	clock.Advance(LoginLife)
	w.begin(t)
	// And what fails counts against its network, as with passwords.
	for range 60 {
		if _, _, err = Finish(t.Context(), w.Store, from, Answer{Provider: "corp", State: "x", Verifier: verifier}); reeve.CodeOf(err) != "oidc_login_unknown" {
			t.Fatal(err)
		}
	}
	if _, err := Begin(t.Context(), w.Store, from, program); reeve.CodeOf(err) != "sign_ins_too_many" {
		t.Errorf("after many failures: %v", err)
	}
}

func TestGroupsFollowTheClaimAndWhatPeopleDidStays(t *testing.T) {
	t.Parallel()
	f, w := forge(t), newWorld(t)
	w.add(t, settings(f.Provider))
	var groups any = []string{"dba"}
	f.edit = func(_, c map[string]any) { c["groups"] = groups }
	in := func(want string) {
		t.Helper()
		if err := f.finish(t, w, nil); err != nil {
			t.Fatal(err)
		}
		if got := w.groupsOf(t, w.ada.ID); got != want {
			t.Errorf("with %v in %q, want %q", groups, got, want)
		}
	}
	in("dba")
	groups = []string{}
	in("")
	groups = "dba" // some say one group so
	in("dba")
	f.edit = func(_, c map[string]any) { delete(c, "groups") }
	in("")
	w.update(t, func(tx *store.Tx) error {
		g, err := findGroup(tx, "dba")
		if err != nil {
			return err
		}
		return addMember(tx, w, g)
	})
	in("dba")
}

func TestAUserWhomNobodyAddedComesOnlyIfAllowed(t *testing.T) {
	t.Parallel()
	f, w := forge(t), newWorld(t)
	in := settings(f.Provider)
	in.UserClaim, in.AllowCreate = Email, true
	w.add(t, in)
	verified := any(false)
	f.edit = func(_, c map[string]any) { c["email"], c["email_verified"] = "New@Example.com", verified }
	if err := f.finish(t, w, nil); reeve.CodeOf(err) != "oidc_claims_unfit" {
		t.Errorf("an address that was not verified: %v", err)
	}
	verified = true
	if err := f.finish(t, w, nil); err != nil {
		t.Fatal(err)
	}
	if p := w.find(t, "new@example.com"); p.Profile.Email != "New@Example.com" || p.Kind != "user" {
		t.Errorf("%+v", p)
	}
	// Disabled is out, by any name.
	w.disable(t, "new@example.com")
	if err := f.finish(t, w, nil); reeve.CodeOf(err) != "oidc_user_unknown" {
		t.Errorf("disabled: %v", err)
	}
}

func TestOnlyWhoHoldsEverythingAddsAProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := NewProvider{Name: "corp", Issuer: "https://login.example.com", ClientID: "reeve", UserClaim: Email}
	err := w.Update(t.Context(), func(tx *store.Tx) error {
		_, err := Add(tx, root, w.caller(), good)
		return err
	})
	if reeve.CodeOf(err) != "grant_exceeds" {
		t.Errorf("a user: %v", err)
	}
	for what, edit := range map[string]func(*NewProvider){
		"name_invalid":           func(p *NewProvider) { p.Name = "Corp" },
		"oidc_issuer_invalid":    func(p *NewProvider) { p.Issuer = "http://login.example.com" },
		"oidc_issuer_invalid 2":  func(p *NewProvider) { p.Issuer = "https://a:b@login.example.com" },
		"oidc_issuer_invalid 3":  func(p *NewProvider) { p.Issuer = "https://login.example.com#x" },
		"oidc_setting_invalid":   func(p *NewProvider) { p.UserClaim = "sub" },
		"oidc_setting_invalid 2": func(p *NewProvider) { p.Authority = "none" },
		"oidc_setting_invalid 3": func(p *NewProvider) { p.Scopes = []string{"a b"} },
		"oidc_setting_invalid 4": func(p *NewProvider) { p.ClientID = "a\n" },
	} {
		in := good
		edit(&in)
		err := w.Update(t.Context(), func(tx *store.Tx) error {
			_, err := Add(tx, root, w.root, in)
			return err
		})
		want, _, _ := strings.Cut(what, " ")
		if reeve.CodeOf(err) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Whatever is said about somebody gives a name that can be, groups that can be, or an error.
func FuzzClaims(f *testing.F) {
	f.Add("sub", `{"preferred_username":"ada","groups":["dba"]}`, false)
	f.Add("sub", `{"email":"ada@example.com","email_verified":"true","groups":"dba"}`, true)
	f.Add("", `{"email":7,"email_verified":[],"groups":{}}`, true)
	f.Fuzz(func(t *testing.T, subject, raw string, email bool) {
		c := claims{}
		if json.Unmarshal([]byte(raw), &c) != nil {
			return
		}
		p := &Provider{UserClaim: PreferredUsername, GroupClaim: "groups"}
		if email {
			p.UserClaim = Email
		}
		who, err := p.read(subject, c)
		if err != nil {
			if reeve.CodeOf(err) != "oidc_claims_unfit" || who.Name != "" {
				t.Errorf("%v %+v", err, who)
			}
			return
		}
		if who.Profile.Check() != nil || !canBe(who.Name) || slices.ContainsFunc(who.Groups, func(g string) bool { return !canBe(g) }) || subject == "" {
			t.Errorf("%+v", who)
		}
	})
}

// No secret is in what is recorded or refused.
func TestTheTrailHoldsNothingThatWasSent(t *testing.T) {
	t.Parallel()
	f, w := forge(t), newWorld(t)
	w.add(t, settings(f.Provider))
	var state string
	for _, nonce := range []string{"", "Canary-nonce"} {
		f.edit = func(_, c map[string]any) {
			if nonce != "" {
				c["nonce"] = nonce
			}
		}
		_ = f.finish(t, w, func(a *Answer) { state = a.State })
	}
	_, _, _ = Finish(context.Background(), w.Store, from, Answer{Provider: "Canary-provider", State: "Canary-state", Code: "Canary-code", Verifier: verifier})
	all := strings.Join(w.trail(t), "\n")
	for _, secret := range []string{"Canary", state, verifier, "access-token"} {
		if strings.Contains(all, secret) {
			t.Errorf("%s is in the trail: %s", secret, all)
		}
	}
}
