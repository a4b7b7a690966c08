package identity

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/identity/webauthntest"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const site = "https://reeve.example.com"

// newKeyHolder is a person, in a cluster that security keys know.
func newKeyHolder(t testing.TB, opts ...storetest.Option) *person {
	t.Helper()
	p := newPerson(t, opts...)
	p.configure(RelyingParty{Addresses: []string{site, "https://two.reeve.example.com:8443"}, VerifyUser: true})
	return p
}

func (p *person) configure(r RelyingParty) {
	p.t.Helper()
	update(p.t, p.st, func(tx *store.Tx) error { _, err := ConfigureSecurityKeys(tx, by, root, r); return err })
}

// addKey begins to add a key.
func (p *person) addKey(who Caller) (id reeve.FactorID, options string, err error) {
	err = p.st.Update(p.t.Context(), func(tx *store.Tx) error {
		f, c, err := AddKey(tx, by, who, p.keys, "yubi")
		if err == nil {
			id, options = f.ID, string(c.Options)
		}
		return err
	})
	return id, options, err
}

// confirmKey does as the API does: what a wrong answer uses up is committed.
func (p *person) confirmKey(who Caller, id reeve.FactorID, answer string) (recovery []reeve.Secret, err error) {
	var wrong error
	err = p.st.Update(p.t.Context(), func(tx *store.Tx) (err error) {
		wrong = nil
		if recovery, err = ConfirmKey(tx, by, who, p.keys, id, answer); reeve.CodeOf(err) == "answer_wrong" {
			wrong, err = err, nil
		}
		return err
	})
	if err == nil {
		err = wrong
	}
	return recovery, err
}

// enrolKey adds a key and confirms it.
func (p *person) enrolKey(who Caller) (*webauthntest.Key, reeve.FactorID, []reeve.Secret) {
	p.t.Helper()
	key := webauthntest.New(p.t, site)
	id, recovery := p.enrolThis(who, key)
	return key, id, recovery
}

func (p *person) enrolThis(who Caller, key *webauthntest.Key) (reeve.FactorID, []reeve.Secret) {
	p.t.Helper()
	id, options, err := p.addKey(who)
	if err != nil {
		p.t.Fatal(err)
	}
	recovery, err := p.confirmKey(who, id, key.Enrol(p.t, options))
	if err != nil {
		p.t.Fatal(err)
	}
	return id, recovery
}

// begin asks for a challenge with the right password.
func (p *person) begin() string {
	p.t.Helper()
	c, err := BeginSignIn(p.t.Context(), p.st, p.attempt(good, ""))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(c.Options)
}

// answer signs in with what a key said.
func (p *person) answer(text string) (Caller, error) {
	in := p.attempt(good, "")
	in.Answer = text
	_, secret, err := SignIn(p.t.Context(), p.st, in)
	if err != nil {
		return Caller{}, err
	}
	return authenticate(p.st, secret)
}

func (p *person) stepUp(who Caller, answer string) error {
	in := p.attempt(good, "")
	in.Answer = answer
	_, err := StepUp(p.t.Context(), p.st, who, in)
	return err
}

func (p *person) beginStepUp(who Caller) string {
	p.t.Helper()
	c, err := BeginStepUp(p.t.Context(), p.st, who, p.attempt(good, ""))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(c.Options)
}

func (p *person) unlock() {
	p.t.Helper()
	update(p.t, p.st, func(tx *store.Tx) error { return forgetFailures(tx, p.mustFindIn(tx)) })
}

func (p *person) mustFindIn(tx *store.Tx) reeve.PrincipalID {
	found, err := FindPrincipal(tx, p.name)
	if err != nil {
		p.t.Fatal(err)
	}
	return found.ID
}

// as is another user of the same cluster.
func (p *person) as(name string) *person {
	p.t.Helper()
	other := *p
	other.name = name
	withPassword(p.t, p.st, name)
	return &other
}

func TestASecurityKeySignsInAndStepsUp(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	before := p.mustSignIn("")
	who := p.mustSignIn("")
	key, id, recovery := p.enrolKey(who)
	if len(recovery) != recoveryCodes {
		t.Errorf("the first factor brings %d recovery codes", len(recovery))
	}
	if _, err := p.signIn(""); reeve.CodeOf(err) != "security_key_needed" || reeve.KindOf(err) != reeve.Unauthenticated {
		t.Errorf("the password alone: %v", err)
	}
	in, err := p.answer(key.Answer(t, p.begin()))
	if err != nil || !slices.Equal(in.Session.Methods, []string{"password", "webauthn"}) {
		t.Fatalf("%+v %v", in.Session, err)
	}
	p.clock.Advance(StepUpFor)
	key.Origin = "https://two.reeve.example.com:8443"
	if err := p.stepUp(in, key.Answer(t, p.beginStepUp(in))); err != nil {
		t.Errorf("a step-up at another address of the cluster: %v", err)
	}
	p.mustSignIn(recovery[0].Reveal())
	update(t, p.st, func(tx *store.Tx) error {
		if _, err := GetSession(tx, before.Session.ID); reeve.CodeOf(err) != "session_not_found" {
			t.Errorf("a session from before, without the factor: %v", err)
		}
		f, err := factors.Get(tx, string(id))
		if err == nil && (f.LastUsed.IsZero() || f.Step != int64(key.Counter)) {
			t.Errorf("%+v", f)
		}
		return err
	})
	if !recorded(t, p.st, "factor.confirm", "webauthn") {
		t.Error("the key is not on record")
	}
	update(t, p.st, func(tx *store.Tx) error { return RemoveFactor(tx, by, in, id) })
	p.mustSignIn("")
	if _, err := BeginSignIn(t.Context(), p.st, p.attempt(good, "")); reeve.CodeOf(err) != "security_key_missing" {
		t.Errorf("a challenge without a key: %v", err)
	}
}

// Everything about an answer is somebody's to get wrong, and none of it gets in. Each is
// recorded as a failure, and the right answer to a new challenge works after it.
func TestWrongAnswersOfSecurityKeysAreRefused(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	key, _, _ := p.enrolKey(p.mustSignIn(""))
	other := p.as("bob")
	otherKey, _, _ := other.enrolKey(other.mustSignIn(""))
	for what, answer := range map[string]func() string{
		"another origin": func() string { k := key.Clone(); k.Origin = "https://reeve.example.org"; return k.Answer(t, p.begin()) },
		"no TLS":         func() string { k := key.Clone(); k.Origin = "http://reeve.example.com"; return k.Answer(t, p.begin()) },
		"another port":   func() string { k := key.Clone(); k.Origin = site + ":444"; return k.Answer(t, p.begin()) },
		"a name below": func() string {
			k := key.Clone()
			k.Origin = "https://x.reeve.example.com"
			return k.Answer(t, p.begin())
		},
		"another domain":            func() string { k := key.Clone(); k.Domain = "example.com"; return k.Answer(t, p.begin()) },
		"a forged signature":        func() string { k := key.Clone(); k.ForgeSignature = true; return k.Answer(t, p.begin()) },
		"no PIN":                    func() string { k := key.Clone(); k.Unverified = true; return k.Answer(t, p.begin()) },
		"a registration":            func() string { k := key.Clone(); k.Type = "webauthn.create"; return k.Answer(t, p.begin()) },
		"a key that turned synced":  func() string { k := key.Clone(); k.Syncs = true; return k.Answer(t, p.begin()) },
		"an unknown key":            func() string { return webauthntest.New(t, site).Answer(t, p.begin()) },
		"the key of somebody":       func() string { return otherKey.Answer(t, p.begin()) },
		"the challenge of somebody": func() string { return key.Answer(t, other.begin()) },
		"an invented challenge": func() string {
			k := key.Clone()
			k.Challenge = strings.Repeat("A", 43)
			return k.Answer(t, p.begin())
		},
		"too late": func() string { a := key.Answer(t, p.begin()); p.clock.Advance(CeremonyLife); return a },
		"garbage":  func() string { return "{}" },
		"much": func() string {
			return strings.Replace(key.Answer(t, p.begin()), "{", "{"+strings.Repeat(" ", maxAnswer), 1)
		},
		"an enrolment": func() string { return key.Clone().Enrol(t, p.begin()) },
	} {
		text, before := answer(), count(t, p.st)
		if _, err := p.answer(text); reeve.CodeOf(err) != "second_factor_wrong" || reeve.KindOf(err) != reeve.Unauthenticated {
			t.Errorf("%s: %v", what, err)
		}
		if count(t, p.st) != before+1 {
			t.Errorf("%s is not on record once", what)
		}
		p.unlock()
		if _, err := p.answer(key.Answer(t, p.begin())); err != nil {
			t.Errorf("the right answer after %s: %v", what, err)
		}
	}
}

// An answer is good once, whether it was right or wrong, also at the next leader, and many
// at once with one are one.
func TestAChallengeIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/state.db"
	clock, cipher := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC)), storetest.NewCipher()
	open := func() *storetest.Node {
		return storetest.Start(t, storetest.WithPath(path), storetest.WithClock(clock.Now), storetest.WithCipher(cipher))
	}
	node := open()
	p := &person{t: t, st: node.Store, clock: clock, keys: cipher, name: "ada"}
	withPassword(t, p.st, p.name)
	p.configure(RelyingParty{Addresses: []string{site}, VerifyUser: true})
	key := webauthntest.New(t, site)
	key.Counterless = true // so that nothing but the challenge stops a replay
	p.enrolThis(p.mustSignIn(""), key)
	used := key.Answer(t, p.begin())
	if _, err := p.answer(used); err != nil {
		t.Fatal(err)
	}
	if _, err := p.answer(used); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("the same answer again: %v", err)
	}
	options := p.begin()
	forged := key.Clone()
	forged.ForgeSignature = true
	if _, err := p.answer(forged.Answer(t, options)); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("forged: %v", err)
	}
	if _, err := p.answer(key.Answer(t, options)); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("the right answer to a challenge that a wrong one used up: %v", err)
	}
	p.unlock()
	pending := key.Answer(t, p.begin())
	node.Stop()
	p.st = open().Store
	in := make(chan bool, 4)
	for range cap(in) {
		go func() { _, err := p.answer(pending); in <- err == nil }()
	}
	got := 0
	for range cap(in) {
		if <-in {
			got++
		}
	}
	if got != 1 {
		t.Errorf("of many with one answer, to another leader than gave the challenge, %d got in", got)
	}
}

// A challenge is for one purpose, of one person, in one session.
func TestAChallengeIsForOnePurposeOnePersonAndOneSession(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	who := p.mustSignIn("")
	key, _, recovery := p.enrolKey(who)
	second := p.mustSignIn(recovery[0].Reveal())
	wrong := func(what string, err error) {
		t.Helper()
		if code := reeve.CodeOf(err); code != "second_factor_wrong" && code != "answer_wrong" {
			t.Errorf("%s: %v", what, err)
		}
		p.unlock()
	}
	_, err := p.answer(key.Answer(t, p.beginStepUp(who)))
	wrong("a step-up's challenge signs in", err)
	wrong("a sign-in's challenge steps up", p.stepUp(who, key.Answer(t, p.begin())))
	wrong("another session's challenge steps up", p.stepUp(second, key.Answer(t, p.beginStepUp(who))))
	id, options, err := p.addKey(who)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.answer(key.Answer(t, options))
	wrong("an enrolment's challenge signs in", err)
	wrong("an enrolment's challenge steps up", p.stepUp(who, key.Answer(t, options)))
	fresh := webauthntest.New(t, site)
	_, err = p.confirmKey(who, id, fresh.Enrol(t, p.begin()))
	wrong("a sign-in's challenge enrols", err)
	_, err = p.confirmKey(second, id, fresh.Enrol(t, options))
	wrong("another session enrols", err)
	if _, err = p.confirmKey(who, id, fresh.Enrol(t, options)); err != nil {
		t.Errorf("none of which uses the challenge up: %v", err)
	}
}

func TestWrongEnrolmentsOfSecurityKeysAreRefused(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	who := p.mustSignIn("")
	p.enrolThis(who, webauthntest.New(t, site))
	for what, change := range map[string]func(k *webauthntest.Key){
		"another origin": func(k *webauthntest.Key) { k.Origin = "https://reeve.example.org" },
		"another domain": func(k *webauthntest.Key) { k.Domain = "reeve.example.org" },
		"no PIN":         func(k *webauthntest.Key) { k.Unverified = true },
		"an answer":      func(k *webauthntest.Key) { k.Type = "webauthn.get" },
		"forged":         func(k *webauthntest.Key) { k.Vouch, k.ForgeSignature = "self", true },
	} {
		key := webauthntest.New(t, site)
		id, options, err := p.addKey(who)
		if err != nil {
			t.Fatal(err)
		}
		bad := key.Clone()
		change(bad)
		if _, err := p.confirmKey(who, id, bad.Enrol(t, options)); reeve.CodeOf(err) != "answer_wrong" {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := p.confirmKey(who, id, key.Enrol(t, options)); reeve.CodeOf(err) != "answer_wrong" {
			t.Errorf("the challenge is not used up by %s: %v", what, err)
		}
	}
	id, options, err := p.addKey(who)
	if err != nil {
		t.Fatal(err)
	}
	own, maker := webauthntest.New(t, site), webauthntest.New(t, site)
	own.Vouch, maker.Vouch = "self", "chain"
	if _, err := p.confirmKey(who, id, maker.Enrol(t, options)); reeve.CodeOf(err) != "answer_wrong" {
		t.Errorf("with certificates of a maker: %v", err)
	}
	text := own.Enrol(t, options)
	if _, err := p.confirmKey(who, id, text); err != nil {
		t.Errorf("vouched for by itself alone: %v", err)
	}
	if id, options, err = p.addKey(who); err != nil {
		t.Fatal(err)
	}
	text = webauthntest.New(t, site).Enrol(t, options)
	p.clock.Advance(CeremonyLife)
	if _, err := p.confirmKey(who, id, text); reeve.CodeOf(err) != "answer_wrong" {
		t.Errorf("too late: %v", err)
	}
	if _, err := p.confirm(who, id, "123456"); reeve.CodeOf(err) != "factor_kind" {
		t.Errorf("a code for a key: %v", err)
	}
}

func TestAKeyIsTheFactorOfOnePersonOnce(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	who := p.mustSignIn("")
	key, _, _ := p.enrolKey(who)
	bob := p.as("bob")
	for owner, caller := range map[*person]Caller{p: who, bob: bob.mustSignIn("")} {
		id, options, err := owner.addKey(caller)
		if err != nil {
			t.Fatal(err)
		}
		if owner == p && !strings.Contains(options, "excludeCredentials") {
			t.Error("the browser is not told which keys are there already")
		}
		if _, err := owner.confirmKey(caller, id, key.Clone().Enrol(t, options)); reeve.CodeOf(err) != "security_key_taken" {
			t.Errorf("%s: %v", owner.name, err)
		}
	}
}

// CVE-2026-5807: who does not know the password begins nothing and ends nothing, and who
// knows one ends nothing of others and keeps nobody out.
func TestNobodyCancelsTheCeremonyOfAnother_CVE_2026_5807(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	key, _, _ := p.enrolKey(p.mustSignIn(""))
	mallory := p.as("mallory")
	evil, _, _ := mallory.enrolKey(mallory.mustSignIn(""))
	options := p.begin()
	for _, name := range []string{"ada", "mallory", "nobody"} {
		in := p.attempt("wrong", "")
		in.Name = name
		if _, err := BeginSignIn(t.Context(), p.st, in); reeve.CodeOf(err) != "sign_in_failed" {
			t.Errorf("%s begins: %v", name, err)
		}
		in.Answer = key.Clone().Answer(t, options)
		if _, _, err := SignIn(t.Context(), p.st, in); reeve.CodeOf(err) != "sign_in_failed" {
			t.Errorf("%s answers: %v", name, err)
		}
	}
	if _, err := mallory.answer(evil.Answer(t, options)); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("another's challenge: %v", err)
	}
	for range ceremoniesPerNetwork {
		mallory.begin()
	}
	if _, err := BeginSignIn(t.Context(), p.st, mallory.attempt(good, "")); reeve.CodeOf(err) != "ceremonies_too_many" || reeve.KindOf(err) != reeve.TooMany {
		t.Errorf("one more: %v", err)
	}
	if _, err := p.answer(key.Answer(t, options)); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// CVE-2024-8185: what is kept of sign-ins that nobody finishes has a bound, and who fills it
// from elsewhere does not keep the owner out.
func TestOpenCeremoniesHaveABound_CVE_2024_8185(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	who := p.mustSignIn("")
	key, _, _ := p.enrolKey(who)
	for range ceremoniesPerNetwork {
		p.begin()
	}
	if _, err := BeginSignIn(t.Context(), p.st, p.attempt(good, "")); reeve.CodeOf(err) != "ceremonies_too_many" {
		t.Errorf("one more: %v", err)
	}
	elsewhere := p.attempt(good, "")
	elsewhere.From = elsewhere.From.Next().Next()
	for range 256 {
		elsewhere.From = elsewhere.From.Next()
	}
	c, err := BeginSignIn(t.Context(), p.st, elsewhere)
	if err != nil {
		t.Fatalf("from elsewhere: %v", err)
	}
	elsewhere.Answer = key.Answer(t, string(c.Options))
	if _, _, err := SignIn(t.Context(), p.st, elsewhere); err != nil {
		t.Error(err)
	}
	for range 20 {
		p.beginStepUp(who)
		if _, _, err := p.addKey(who); err != nil {
			t.Fatal(err)
		}
	}
	if n := p.openCeremonies(); n != ceremoniesPerNetwork+2 {
		t.Errorf("%d are kept", n)
	}
	p.clock.Advance(CeremonyLife + time.Second)
	p.begin()
	if n := p.openCeremonies(); n != 1 {
		t.Errorf("%d are kept after their time", n)
	}
}

func (p *person) openCeremonies() (n int) {
	p.t.Helper()
	update(p.t, p.st, func(tx *store.Tx) error {
		n = 0
		for _, err := range ceremonies.List(tx, "") {
			if err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n
}

// A counter that does not grow means that there are two of the key.
func TestACopiedKeyIsRefusedAndOnRecord(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	key, id, recovery := p.enrolKey(p.mustSignIn(""))
	stolen := key.Clone()
	if _, err := p.answer(key.Answer(t, p.begin())); err != nil {
		t.Fatal(err)
	}
	if _, err := p.answer(stolen.Answer(t, p.begin())); reeve.CodeOf(err) != "security_key_copied" || reeve.KindOf(err) != reeve.Unauthenticated {
		t.Errorf("the copy: %v", err)
	}
	if !recorded(t, p.st, "factor.clone_warning", string(p.mustFind())) || !recorded(t, p.st, "session.refuse", "wrong") {
		t.Error("the copy is not on record")
	}
	stolen.Counterless, stolen.Counter = true, 0
	if _, err := p.answer(stolen.Answer(t, p.begin())); reeve.CodeOf(err) != "security_key_copied" {
		t.Errorf("the copy without a counter: %v", err)
	}
	who := p.mustSignIn(recovery[0].Reveal())
	update(t, p.st, func(tx *store.Tx) error { return RemoveFactor(tx, by, who, id) })

	synced := webauthntest.New(t, site)
	synced.Counterless, synced.Syncs = true, true
	p.enrolThis(p.mustSignIn(""), synced)
	for range 2 {
		if _, err := p.answer(synced.Answer(t, p.begin())); err != nil {
			t.Errorf("a key that never counts: %v", err)
		}
	}
}

func TestAKeyWithoutAPINIsEnoughWhereTheClusterSaysSo(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	p.configure(RelyingParty{Addresses: []string{site}})
	key := webauthntest.New(t, site)
	key.Unverified = true
	p.enrolThis(p.mustSignIn(""), key)
	if _, err := p.answer(key.Answer(t, p.begin())); err != nil {
		t.Error(err)
	}
	options := p.begin()
	p.configure(RelyingParty{Addresses: []string{site}, VerifyUser: true})
	if _, err := p.answer(key.Answer(t, options)); reeve.CodeOf(err) != "second_factor_wrong" {
		t.Errorf("after the cluster wants a PIN: %v", err)
	}
}

func TestWhereSecurityKeysAreForIsChecked(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	who := p.mustSignIn("")
	if _, _, err := p.addKey(who); reeve.CodeOf(err) != "security_keys_off" {
		t.Errorf("before it is configured: %v", err)
	}
	try := func(r RelyingParty) (out *RelyingParty, err error) {
		err = p.st.Update(t.Context(), func(tx *store.Tx) (err error) { out, err = ConfigureSecurityKeys(tx, by, root, r); return err })
		return out, err
	}
	for address, code := range map[string]string{
		"": "security_keys_address", "reeve.example.com": "security_keys_address", "http://reeve.example.com": "security_keys_address",
		"https://reeve.example.com/": "security_keys_address", "https://reeve.example.com:443": "security_keys_address", "https://reeve.example.com:0": "security_keys_address",
		"https://reeve.example.com:99999": "security_keys_address", "https://Reeve.example.com": "security_keys_address", "https://192.0.2.1": "security_keys_address",
		"https://[2001:db8::1]": "security_keys_address", "https://ada@reeve.example.com": "security_keys_address", "https://reeve.example.com?x": "security_keys_address",
		"https://réeve.example.com": "security_keys_address", "https://reeve": "security_keys_domain", "https://reeve.example.com.": "security_keys_address",
		"https://localhost:8443": "", "https://reeve.example.com:8443": "",
	} {
		if _, err := try(RelyingParty{Addresses: []string{address}}); reeve.CodeOf(err) != code {
			t.Errorf("%q: %v", address, err)
		}
	}
	if _, err := try(RelyingParty{}); reeve.CodeOf(err) != "security_keys_address" {
		t.Errorf("no address: %v", err)
	}
	if _, err := try(RelyingParty{Addresses: []string{site, site}}); reeve.CodeOf(err) != "security_keys_address" {
		t.Errorf("one twice: %v", err)
	}
	if _, err := try(RelyingParty{Domain: "example.com", Addresses: []string{"https://badexample.com"}}); reeve.CodeOf(err) != "security_keys_address" {
		t.Errorf("an address outside of the domain: %v", err)
	}
	if r, err := try(RelyingParty{Domain: "example.com", Addresses: []string{site, "https://two.example.com"}}); err != nil || r.Domain != "example.com" {
		t.Errorf("%+v %v", r, err)
	}
	p.enrolThis(who, func() *webauthntest.Key { k := webauthntest.New(t, site); k.Unverified = true; return k }())
	if _, err := try(RelyingParty{Addresses: []string{site}}); reeve.CodeOf(err) != "security_keys_in_use" {
		t.Errorf("another domain while there are keys: %v", err)
	}
	if _, err := try(RelyingParty{Domain: "example.com", Addresses: []string{site}}); err != nil {
		t.Errorf("other addresses: %v", err)
	}
	if err := p.st.Update(t.Context(), func(tx *store.Tx) error {
		_, err := ConfigureSecurityKeys(tx, by, who, RelyingParty{Addresses: []string{site}})
		return err
	}); reeve.CodeOf(err) != "grant_exceeds" {
		t.Errorf("by somebody who holds little: %v", err)
	}
}

// Both kinds beside each other: either signs in, and a reset takes all.
func TestAnAppAndAKeyAreSiblings(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	who, _, _ := p.enrol()
	key := webauthntest.New(t, site)
	if _, more := p.enrolThis(who, key); len(more) != 0 {
		t.Error("the second factor brings recovery codes again")
	}
	if _, err := p.signIn(""); reeve.CodeOf(err) != "second_factor_needed" {
		t.Errorf("the password alone: %v", err)
	}
	p.mustSignIn(p.code(0))
	if _, err := p.answer(key.Answer(t, p.begin())); err != nil {
		t.Error(err)
	}
	admin := Caller{Principal: *principal(t, p.st, "boss"), Session: &Session{ID: reeve.NewSessionID()}}
	give(t, p.st, "boss", "administrator", Scope{Everything: true})
	options := p.begin()
	update(t, p.st, func(tx *store.Tx) error { _, err := ResetFactors(tx, by, admin, who.ID); return err })
	p.mustSignIn("")
	if _, err := p.answer(key.Answer(t, options)); err != nil { // no second factor is asked for any more
		t.Error(err)
	}
	update(t, p.st, func(tx *store.Tx) error {
		for f, err := range factors.List(tx, "") {
			t.Errorf("left: %+v %v", f, err)
		}
		return nil
	})
}

// What is kept of a key is sealed again after a change of keys, and works then.
func TestSecurityKeysAreSealedAgainAfterAChangeOfKeys(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	key, id, _ := p.enrolKey(p.mustSignIn(""))
	var old []byte
	get := func() (sealed []byte) {
		update(t, p.st, func(tx *store.Tx) error {
			f, err := factors.Get(tx, string(id))
			sealed = slices.Clone(f.Key)
			return err
		})
		return sealed
	}
	old = get()
	_, n, err := RewrapFactors(t.Context(), p.st, p.keys, func(sealed []byte) bool { return bytes.Equal(sealed, old) }, "")
	if err != nil || n != 1 || bytes.Equal(get(), old) {
		t.Fatal(n, err)
	}
	if _, err := p.answer(key.Answer(t, p.begin())); err != nil {
		t.Error(err)
	}
}

// A restored snapshot brings back neither a key that was removed nor a challenge that was
// answered, and forgets no address.
func TestARestoreBringsNoSecurityKeyBack(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	key := webauthntest.New(t, site)
	key.Counterless = true
	id, recovery := p.enrolThis(p.mustSignIn(""), key)
	answered := key.Answer(t, p.begin())
	old := storetest.New(t, storetest.WithClock(p.clock.Now))
	update(t, old, func(to *store.Tx) error {
		return p.st.View(t.Context(), func(from *store.Tx) error { return Keep(to, from) })
	})
	restored := *p
	restored.st = old
	restored.begin() // a challenge that the cluster does not know
	if _, err := p.answer(answered); err != nil {
		t.Fatal(err)
	}
	who := p.mustSignIn(recovery[0].Reveal())
	update(t, p.st, func(tx *store.Tx) error { return RemoveFactor(tx, by, who, id) })
	p.configure(RelyingParty{Domain: "reeve.example.com", Addresses: []string{site + ":9443"}})
	update(t, old, func(to *store.Tx) error {
		return p.st.View(t.Context(), func(from *store.Tx) error { return Keep(to, from) })
	})
	p.st = old
	if n := p.openCeremonies(); n != 0 {
		t.Errorf("%d challenges are back", n)
	}
	update(t, p.st, func(tx *store.Tx) error {
		if _, err := factors.Get(tx, string(id)); reeve.KindOf(err) != reeve.NotFound {
			t.Errorf("the key is back: %v", err)
		}
		r, err := GetRelyingParty(tx)
		if err == nil && r.Addresses[0] != site+":9443" {
			t.Errorf("%+v", r)
		}
		return err
	})
}

// K1: neither the id of a credential nor its public key is in the store, once it is opened.
func TestNothingOfASecurityKeyIsStoredOpen_K1(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/state.db"
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	node := storetest.Start(t, storetest.WithPath(path), storetest.WithCipher(plaintext{}), storetest.WithClock(clock.Now))
	p := &person{t: t, st: node.Store, clock: clock, keys: storetest.NewCipher(), name: "ada"}
	withPassword(t, p.st, p.name)
	p.configure(RelyingParty{Addresses: []string{site}, VerifyUser: true})
	key, _, _ := p.enrolKey(p.mustSignIn(""))
	if _, err := p.answer(key.Answer(t, p.begin())); err != nil {
		t.Fatal(err)
	}
	node.Stop()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(raw, []byte(credentialHash(key.ID()))) {
		t.Fatal("the file does not show what was stored")
	}
	public := key.Public(t)
	for what, secret := range map[string][]byte{"id": key.ID(), "key": public[len(public)-32:]} {
		if bytes.Contains(raw, secret) {
			t.Errorf("the %s of the credential is in the store", what)
		}
	}
}

// With a second factor a password may have 8 characters; without one it has 15, whichever
// goes last.
func TestAShortPasswordNeverStandsAlone(t *testing.T) {
	t.Parallel()
	const short = "7uz-Qk!w"
	p := newKeyHolder(t)
	who := p.mustSignIn("")
	change := func(from, to string) error {
		return ChangePassword(t.Context(), p.st, who, p.attempt(from, ""), reeve.SecretString(to))
	}
	if err := change(good, short); reeve.CodeOf(err) != "password_short" || !strings.Contains(err.Error(), "15") {
		t.Errorf("without a factor: %v", err)
	}
	_, id, _ := p.enrolKey(who)
	for text, code := range map[string]string{"7uz-Qk!": "password_short", "password": "password_weak", "qwertzui": "password_weak"} {
		if err := change(good, text); reeve.CodeOf(err) != code {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := change(good, short); err != nil {
		t.Fatal(err)
	}
	remove := func() error {
		return p.st.Update(t.Context(), func(tx *store.Tx) error { return RemoveFactor(tx, by, who, id) })
	}
	if err := remove(); reeve.CodeOf(err) != "password_needs_factor" {
		t.Errorf("the last factor: %v", err)
	}
	pending, _, err := p.addKey(who)
	if err != nil {
		t.Fatal(err)
	}
	update(t, p.st, func(tx *store.Tx) error { return RemoveFactor(tx, by, who, pending) }) // it does not count
	if err := change(short, good); err != nil {
		t.Fatal(err)
	}
	if err := remove(); err != nil {
		t.Errorf("beside a long password: %v", err)
	}
	p.mustSignIn("")
}

func TestAResetOfFactorsTakesAShortPasswordAlong(t *testing.T) {
	t.Parallel()
	const short = "7uz-Qk!w"
	p := newKeyHolder(t)
	who := p.mustSignIn("")
	p.enrolKey(who)
	if err := AcceptInvitation(t.Context(), p.st, invite(t, p.st, &who.Principal), reeve.SecretString(short), here, ""); err != nil {
		t.Fatalf("an invitation of somebody with a factor: %v", err)
	}
	admin := Caller{Principal: *principal(t, p.st, "boss"), Session: &Session{ID: reeve.NewSessionID()}}
	give(t, p.st, "boss", "administrator", Scope{Everything: true})
	open := invite(t, p.st, &who.Principal)
	update(t, p.st, func(tx *store.Tx) error { _, err := ResetFactors(tx, by, admin, who.ID); return err })
	if _, _, err := SignIn(t.Context(), p.st, p.attempt(short, "")); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("the short password alone: %v", err)
	}
	if err := AcceptInvitation(t.Context(), p.st, open, reeve.SecretString(short), here, ""); reeve.CodeOf(err) != "password_short" {
		t.Errorf("a short one again: %v", err)
	}
	if err := AcceptInvitation(t.Context(), p.st, open, reeve.SecretString(good), here, ""); err != nil {
		t.Error(err)
	}
	p.mustSignIn("")
}

// A factor that goes while the password is hashed counts.
func TestAPasswordIsMeasuredWhenItIsStored(t *testing.T) {
	t.Parallel()
	p := newKeyHolder(t)
	ada := p.mustFind()
	hashed, err := HashPassword(t.Context(), reeve.SecretString("7uz-Qk!w"), minWithFactor)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.st.Update(t.Context(), func(tx *store.Tx) error { return setPassword(tx, ada, hashed) }); reeve.CodeOf(err) != "password_short" {
		t.Errorf("%v", err)
	}
}

// Whatever a client sends as the answer of a key is read or refused, and what is read has a
// challenge to look up.
func FuzzAnswersOfSecurityKeys(f *testing.F) {
	key := webauthntest.New(f, site)
	f.Add(key.Enrol(f, `{"challenge":"AAAA","rp":{"id":"reeve.example.com"},"user":{"id":"AAAA"}}`))
	f.Add(key.Answer(f, `{"challenge":"AAAA","rpId":"reeve.example.com"}`))
	key.Vouch = "self"
	f.Add(key.Enrol(f, `{"challenge":"AAAA","rp":{"id":"reeve.example.com"},"user":{"id":"AAAA"}}`))
	for _, s := range []string{"", "{}", "[]", `{"id":"AA","rawId":"AA","type":"public-key","response":{}}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := readEnrolment(text); err == nil && (len(p.RawID) == 0 || len(text) > maxAnswer) {
			t.Errorf("%q is taken as a new key", text)
		}
		if p, err := readAnswer(text); err == nil && (len(p.RawID) == 0 || len(text) > maxAnswer) {
			t.Errorf("%q is taken as an answer", text)
		}
	})
}
