package identity

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

var by = audit.System("test")

func update(t testing.TB, st *store.Store, fn func(*store.Tx) error) {
	t.Helper()
	if err := st.Update(context.Background(), fn); err != nil {
		t.Fatal(err)
	}
}

func principal(t testing.TB, st *store.Store, name string) *Principal {
	t.Helper()
	var p *Principal
	update(t, st, func(tx *store.Tx) (err error) {
		p, err = CreatePrincipal(tx, by, name, User, Profile{})
		return err
	})
	return p
}

func token(t testing.TB, st *store.Store, in NewToken) (*Token, reeve.Secret) {
	t.Helper()
	var tok *Token
	var secret reeve.Secret
	update(t, st, func(tx *store.Tx) (err error) {
		tok, secret, err = CreateToken(tx, by, in)
		return err
	})
	return tok, secret
}

func authenticate(st *store.Store, s reeve.Secret) (p Caller, err error) {
	err = st.View(context.Background(), func(tx *store.Tx) error {
		p, err = Authenticate(tx, s, netip.Addr{})
		return err
	})
	return p, err
}

func TestATokenIsItsPrincipalUntilItExpiresOrIsRevoked(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	ada, bob := principal(t, st, "ada"), principal(t, st, "bob")
	_, adas := token(t, st, NewToken{Principal: ada.ID, Description: "laptop", Expires: clock.Now().Add(time.Hour)})
	bobs, bobSecret := token(t, st, NewToken{Principal: bob.ID})
	if got, err := authenticate(st, adas); err != nil || !cmp.Equal(got.Principal, *ada) {
		t.Fatalf("%+v %v", got, err)
	}
	if got, err := authenticate(st, bobSecret); err != nil || got.ID != bob.ID {
		t.Fatalf("%+v %v", got, err)
	}
	clock.Advance(time.Hour)
	if _, err := authenticate(st, adas); reeve.CodeOf(err) != "token_expired" || reeve.KindOf(err) != reeve.Unauthenticated {
		t.Fatal(err)
	}
	if _, err := authenticate(st, bobSecret); err != nil {
		t.Fatal(err)
	}
	update(t, st, func(tx *store.Tx) error { return RevokeToken(tx, by, bobs.ID) })
	if _, err := authenticate(st, bobSecret); reeve.CodeOf(err) != "token_unknown" || reeve.KindOf(err) != reeve.Unauthenticated {
		t.Fatal(err)
	}
	if err := st.Update(t.Context(), func(tx *store.Tx) error { return RevokeToken(tx, by, bobs.ID) }); reeve.CodeOf(err) != "token_not_found" {
		t.Fatal(err)
	}
}

func TestEveryChangeOfPrincipalsAndTokensIsRecorded_U1(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	p := principal(t, st, "ada")
	tok, secret := token(t, st, NewToken{Principal: p.ID, Description: "ci"})
	update(t, st, func(tx *store.Tx) error { return noteUse(tx, secret) })
	update(t, st, func(tx *store.Tx) error { return RevokeToken(tx, by, tok.ID) })
	var got []string
	if err := st.View(t.Context(), func(tx *store.Tx) error {
		entries, err := audit.List(tx, 0, 0, audit.Filter{})
		for _, e := range entries {
			got = append(got, e.Action+" "+e.Object)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{"principal.create " + string(p.ID), "token.create " + string(tok.ID), "token.revoke " + string(tok.ID)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestBadInputIsRefused(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	p := principal(t, st, "ada")
	create := func(name string, kind Kind) func(*store.Tx) error {
		return func(tx *store.Tx) error { _, err := CreatePrincipal(tx, by, name, kind, Profile{}); return err }
	}
	tokenFor := func(in NewToken) func(*store.Tx) error {
		return func(tx *store.Tx) error {
			_, s, err := CreateToken(tx, by, in)
			if err != nil && !s.Empty() {
				t.Error("a token beside an error")
			}
			return err
		}
	}
	update(t, st, create("root", Root))
	for name, tt := range map[string]struct {
		do   func(*store.Tx) error
		code string
	}{
		"no name":         {create("", User), "name_invalid"},
		"long name":       {create(strings.Repeat("a", 65), User), "name_invalid"},
		"upper case":      {create("Ada", User), "name_invalid"},
		"control":         {create("ada\n", User), "name_invalid"},
		"taken":           {create("ada", Service), "principal_name_taken"},
		"second root":     {create("root2", Root), "root_exists"},
		"kind":            {create("x", "admin"), "principal_kind_invalid"},
		"for nobody":      {tokenFor(NewToken{Principal: reeve.NewPrincipalID()}), "principal_not_found"},
		"expired already": {tokenFor(NewToken{Principal: p.ID, Expires: time.Unix(1, 0)}), "expiry_past"},
		"description":     {tokenFor(NewToken{Principal: p.ID, Description: strings.Repeat("x", 201)}), "description_too_long"},
	} {
		if err := st.Update(t.Context(), tt.do); reeve.CodeOf(err) != tt.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLastUseIsKeptToTheHour(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 10, 20, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	tok, secret := token(t, st, NewToken{Principal: principal(t, st, "ada").ID})
	for _, step := range []struct {
		wait  time.Duration
		stale bool
		want  time.Time
	}{
		{0, true, time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)},
		{39 * time.Minute, false, time.Date(2026, 1, 1, 10, 0, 0, 0, time.UTC)},
		{2 * time.Minute, true, time.Date(2026, 1, 1, 11, 0, 0, 0, time.UTC)},
	} {
		clock.Advance(step.wait)
		var stale bool
		if err := st.View(t.Context(), func(tx *store.Tx) (err error) {
			c, err := Authenticate(tx, secret, netip.Addr{})
			stale = c.UseIsStale(tx.Now())
			return err
		}); err != nil || stale != step.stale {
			t.Fatalf("after %s: stale %v, %v", step.wait, stale, err)
		}
		update(t, st, func(tx *store.Tx) error { return noteUse(tx, secret) })
		if err := st.View(t.Context(), func(tx *store.Tx) error {
			got, err := GetToken(tx, tok.ID)
			if err == nil && !got.LastUsed.Equal(step.want) {
				t.Errorf("after %s: last used %s, want %s", step.wait, got.LastUsed, step.want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTokensAreListedInPages(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada, bob := principal(t, st, "ada"), principal(t, st, "bob")
	var ids []reeve.TokenID
	for i := range 6 {
		who := ada
		if i%3 == 2 {
			who = bob
		}
		tok, _ := token(t, st, NewToken{Principal: who.ID})
		ids = append(ids, tok.ID)
	}
	for name, tt := range map[string]struct {
		principal reeve.PrincipalID
		after     reeve.TokenID
		limit     int
		want      []reeve.TokenID
	}{
		"all":      {"", "", 10, ids},
		"page":     {"", ids[1], 2, ids[2:4]},
		"ada's":    {ada.ID, "", 10, []reeve.TokenID{ids[0], ids[1], ids[3], ids[4]}},
		"ada's on": {ada.ID, ids[1], 1, ids[3:4]},
		"the end":  {bob.ID, ids[5], 10, nil},
	} {
		var got []reeve.TokenID
		if err := st.View(t.Context(), func(tx *store.Tx) error {
			page, err := ListTokens(tx, tt.principal, tt.after, tt.limit)
			for _, tok := range page {
				got = append(got, tok.ID)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestATypingErrorIsToldFromAnUnknownToken(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	_, secret := token(t, st, NewToken{Principal: principal(t, st, "ada").ID})
	rapid.Check(t, func(rt *rapid.T) {
		typo := bytes.Clone(secret.Bytes())
		at := rapid.IntRange(0, len(typo)-1).Draw(rt, "at")
		typo[at] ^= byte(rapid.IntRange(1, 255).Draw(rt, "xor"))
		for name, bad := range map[string][]byte{"typo": typo, "cut": secret.Bytes()[:at], "more": append(bytes.Clone(secret.Bytes()), 'a')} {
			_, err := authenticate(st, reeve.NewSecret(bad))
			if code := reeve.CodeOf(err); code != "token_malformed" && code != "session_malformed" || reeve.KindOf(err) != reeve.Unauthenticated {
				rt.Fatalf("%s at %d: %v", name, at, err)
			}
		}
	})
	raw := bytes.Repeat([]byte{7}, bearerBytes)
	if _, err := authenticate(st, tokenBearer.encode(raw)); reeve.CodeOf(err) != "token_unknown" {
		t.Fatal(err)
	}
}

// K1: no token is on disk, in audit, or in an error, in any form.
func TestNoTokenIsStored_K1(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	plain := plaintext{} // so that the test sees what the store would seal
	node := storetest.Start(t, storetest.WithPath(path), storetest.WithCipher(plain))
	st := node.Store
	tok, secret := token(t, st, NewToken{Principal: principal(t, st, "ada").ID, Description: "find-me"})
	update(t, st, func(tx *store.Tx) error { return noteUse(tx, secret) })
	_, failure := authenticate(st, reeve.NewSecret(secret.Bytes()[:secret.Len()-1]))
	raw, err := tokenBearer.decode(secret)
	if err != nil {
		t.Fatal(err)
	}
	seen := fmt.Sprintf("%v %+v %v %v", tok, *tok, failure, secret)
	update(t, st, func(tx *store.Tx) error { return RevokeToken(tx, by, tok.ID) })
	node.Stop()
	disk, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(disk, []byte("find-me")) {
		t.Fatal("the state file does not show what was stored")
	}
	body := strings.TrimPrefix(secret.Reveal(), TokenPrefix)
	for _, form := range []string{string(raw), hex.EncodeToString(raw), body[:40], body[8:]} {
		if bytes.Contains(disk, []byte(form)) || strings.Contains(seen, form) {
			t.Fatal("the token is readable somewhere")
		}
	}
}

// plaintext is a cipher that does nothing.
type plaintext struct{}

func (plaintext) Seal(_, p []byte) ([]byte, error) { return bytes.Clone(p), nil }
func (plaintext) Open(_, s []byte) ([]byte, error) { return bytes.Clone(s), nil }

func FuzzDecodeToken(f *testing.F) {
	f.Add(tokenBearer.encode(make([]byte, bearerBytes)).Bytes())
	f.Add([]byte(TokenPrefix))
	f.Fuzz(func(t *testing.T, text []byte) {
		raw, err := tokenBearer.decode(reeve.NewSecret(text))
		if err != nil {
			if reeve.CodeOf(err) != "token_malformed" {
				t.Fatal(err)
			}
			return
		}
		if again := tokenBearer.encode(raw); !bytes.Equal(again.Bytes(), text) {
			t.Fatal("two texts for one token")
		}
	})
}

func noteUse(tx *store.Tx, secret reeve.Secret) error {
	c, err := Authenticate(tx, secret, netip.Addr{})
	if err != nil {
		return err
	}
	return NoteUse(tx, c)
}
