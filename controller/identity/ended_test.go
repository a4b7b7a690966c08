package identity

import (
	"context"
	"errors"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

func TestDisablingEndsSessionsAndInvitationsForGood(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := withPassword(t, st, "ada")
	_, session, err := try(st, "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	open := invite(t, st, ada)
	update(t, st, func(tx *store.Tx) error {
		_, err := DisablePrincipal(tx, by, root, ada.ID)
		return err
	})
	if _, err := authenticate(st, session); reeve.KindOf(err) != reeve.Unauthenticated {
		t.Errorf("while disabled: %v", err)
	}
	update(t, st, func(tx *store.Tx) error {
		_, err := EnablePrincipal(tx, by, root, ada.ID)
		return err
	})
	if _, err := authenticate(st, session); reeve.CodeOf(err) != "session_ended" {
		t.Errorf("the session came back: %v", err)
	}
	if err := AcceptInvitation(t.Context(), st, open, reeve.SecretString(good), here, ""); reeve.CodeOf(err) != "invitation_unknown" {
		t.Errorf("the invitation came back: %v", err)
	}
	if _, _, err := try(st, "ada", good); err != nil {
		t.Errorf("enabled: %v", err)
	}
}

func TestARemovedUserLeavesNothingToSignInWith(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := withPassword(t, st, "ada")
	if _, _, err := try(st, "ada", good); err != nil {
		t.Fatal(err)
	}
	_, _, _ = try(st, "ada", "wrong")
	invite(t, st, ada)
	update(t, st, func(tx *store.Tx) error {
		_, err := RemovePrincipal(tx, by, root, ada.ID)
		return err
	})
	update(t, st, func(tx *store.Tx) error {
		for s, err := range sessions.List(tx, "") {
			t.Errorf("left: %+v %v", s, err)
		}
		_, pw := passwords.Get(tx, string(ada.ID))
		_, f := failed.Get(tx, string(ada.ID))
		if reeve.KindOf(pw) != reeve.NotFound || reeve.KindOf(f) != reeve.NotFound {
			t.Errorf("left: %v %v", pw, f)
		}
		for i, err := range invitations.List(tx, "") {
			t.Errorf("left: %+v %v", i, err)
		}
		return nil
	})
	if _, _, err := try(st, "ada", good); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("a removed user: %v", err)
	}
}

func TestAPasswordThatWasChangedEndsAnOpenInvitation(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := withPassword(t, st, "ada")
	open := invite(t, st, ada)
	in := Attempt{Password: reeve.SecretString(good), From: here}
	if err := ChangePassword(t.Context(), st, Caller{Principal: *ada}, in, reeve.SecretString("Canary lantern walrus 9 bicycle")); err != nil {
		t.Fatal(err)
	}
	if err := AcceptInvitation(t.Context(), st, open, reeve.SecretString(good), here, ""); reeve.CodeOf(err) != "invitation_unknown" {
		t.Errorf("the invitation from before: %v", err)
	}
}

// Whoever knows a name can make its owner wait, but not for ever, and not by being quick.
func TestFailuresWhileOneMustWaitDoNotCount(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	withPassword(t, st, "ada")
	for range perAddress - 1 {
		_, _, _ = try(st, "ada", "wrong")
	}
	clock.Advance(firstWait)
	if _, _, err := try(st, "ada", good); err != nil {
		t.Errorf("after the first wait: %v", err)
	}
}

// BeyondTrust, 2024: a stolen key of the API reset passwords of local users.
func TestATokenReplacesNobodysPassword_CVE_2024_12356(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada, fresh, admin := withPassword(t, st, "ada"), principal(t, st, "fresh"), principal(t, st, "admin")
	give(t, st, "admin", Administrator, Scope{Everything: true})
	asked := func(grantor Caller, p *Principal) error {
		return st.Update(t.Context(), func(tx *store.Tx) error {
			_, _, err := Invite(tx, by, grantor, p.ID)
			return err
		})
	}
	byToken := Caller{Principal: *admin, Token: &Token{}}
	if err := asked(byToken, ada); reeve.CodeOf(err) != "reset_by_token" || reeve.KindOf(err) != reeve.Denied {
		t.Errorf("a reset: %v", err)
	}
	if err := asked(byToken, fresh); err != nil {
		t.Errorf("a first password: %v", err)
	}
	if err := errors.Join(asked(Caller{Principal: *admin, Session: &Session{}}, ada), asked(Caller{Principal: root.Principal, Token: &Token{}}, ada)); err != nil {
		t.Errorf("in a session, and by root: %v", err)
	}
}

// Neither giving nor taking away: who may write PAM roles changes them only by what they
// hold.
func TestAPAMRoleChangesOnlyByWhatTheEditorHolds_GHSA_76cc(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := principal(t, st, "ada")
	update(t, st, func(tx *store.Tx) error {
		_, err := CreatePAMRole(tx, by, root, "grants", PAMRoleText{Privileges: []Privilege{AccessGrant, AssetRead}})
		if err == nil {
			_, err = CreatePAMRole(tx, by, root, "team", PAMRoleText{Privileges: []Privilege{AssetRead, VaultReveal}})
		}
		return err
	})
	give(t, st, "ada", "grants", Scope{Everything: true})
	for want, privileges := range map[string][]Privilege{
		"grant_exceeds": {AssetRead},
		"":              {VaultReveal},
	} {
		err := st.Update(t.Context(), func(tx *store.Tx) error {
			_, err := EditPAMRole(tx, by, Caller{Principal: *ada}, "team", PAMRoleText{Privileges: privileges})
			return err
		})
		if reeve.CodeOf(err) != want {
			t.Errorf("to %v: %v, want %q", privileges, err, want)
		}
	}
}

// Tags decide who may do what: who sets them gives, to others and to themselves.
func TestTagsMoveAnObjectOnlyWhereItsMoverMayGive(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada, boss := principal(t, st, "ada"), principal(t, st, "boss")
	principal(t, st, "bob")
	give(t, st, "ada", "asset-manager", Scope{Sites: []reeve.SiteID{"site_a"}})
	give(t, st, "boss", Administrator, Scope{Sites: []reeve.SiteID{"site_a"}})
	update(t, st, func(tx *store.Tx) error {
		_, err := CreatePAMRole(tx, by, root, "revealer", PAMRoleText{Privileges: []Privilege{VaultReveal}})
		return err
	})
	give(t, st, "bob", "revealer", Scope{Tags: map[string]string{"env": "test"}})
	at := func(env string) Object {
		return Object{Kind: "asset", Placed: true, Site: "site_a", Tags: map[string]string{"env": env}}
	}
	for _, c := range []struct {
		who      *Principal
		from, to string
		want     string
	}{{ada, "prod", "test", "grant_exceeds"}, {ada, "test", "prod", ""}, {ada, "test", "test", ""}, {boss, "prod", "test", ""}} {
		err := st.View(t.Context(), func(tx *store.Tx) error { return MayMove(tx, Caller{Principal: *c.who}, at(c.from), at(c.to)) })
		if reeve.CodeOf(err) != c.want {
			t.Errorf("%s from %s to %s: %v, want %q", c.who.Name, c.from, c.to, err, c.want)
		}
	}
}

func TestARestoredSnapshotBringsNothingBackThatEnded(t *testing.T) {
	t.Parallel()
	older := storetest.New(t)
	ada := withPassword(t, older, "ada")
	_, session, err := try(older, "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	open := invite(t, older, ada)
	now := storetest.New(t)
	update(t, older, func(from *store.Tx) error {
		return now.Update(t.Context(), func(to *store.Tx) error { return Keep(to, from) })
	})
	if _, err := authenticate(now, session); err != nil {
		t.Fatalf("the two are not alike: %v", err)
	}
	const next = "Canary lantern walrus 9 bicycle"
	if err := AcceptInvitation(t.Context(), now, open, reeve.SecretString(next), here, ""); err != nil {
		t.Fatal(err)
	}
	for range freeFailures {
		_, _, _ = try(now, "ada", "wrong")
	}
	update(t, now, func(from *store.Tx) error {
		return older.Update(t.Context(), func(to *store.Tx) error { return Keep(to, from) })
	})
	if _, err := authenticate(older, session); reeve.CodeOf(err) != "session_ended" {
		t.Errorf("a session: %v", err)
	}
	if err := AcceptInvitation(t.Context(), older, open, reeve.SecretString(good), here, ""); reeve.CodeOf(err) != "invitation_unknown" {
		t.Errorf("an invitation: %v", err)
	}
	if _, _, err := try(older, "ada", next); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("the lockout: %v", err)
	}
	update(t, older, func(tx *store.Tx) error { _, err := Unlock(tx, by, root, ada.ID); return err })
	if _, _, err := try(older, "ada", good); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("the old password: %v", err)
	}
	if _, _, err := try(older, "ada", next); err != nil {
		t.Errorf("the new password: %v", err)
	}
}

func TestAClusterFoundedAnewKnowsNobodyButRoot(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	update(t, st, func(tx *store.Tx) error { _, err := CreatePrincipal(tx, by, "root", Root, Profile{}); return err })
	ada := withPassword(t, st, "ada")
	_, session, err := try(st, "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	_, tok := token(t, st, NewToken{Principal: ada.ID})
	open := invite(t, st, ada)
	var fresh reeve.Secret
	update(t, st, func(tx *store.Tx) (err error) {
		_, fresh, err = Refound(tx, by)
		return err
	})
	_, a := authenticate(st, session)
	_, b := authenticate(st, tok)
	c := AcceptInvitation(t.Context(), st, open, reeve.SecretString(good), here, "")
	_, _, d := try(st, "ada", good)
	for what, err := range map[string]error{"session": a, "token": b, "invitation": c, "password": d} {
		if reeve.KindOf(err) != reeve.Unauthenticated {
			t.Errorf("the %s: %v", what, err)
		}
	}
	if who, err := authenticate(st, fresh); err != nil || who.Kind != Root {
		t.Errorf("root: %v", err)
	}
}

func TestWhatEndedBetweenTwoTransactionsOfACallCounts_Z4(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := withPassword(t, st, "ada")
	for what, end := range map[string]func(tx *store.Tx, c Caller) error{
		"token":   func(tx *store.Tx, c Caller) error { return RevokeToken(tx, by, c.Token.ID) },
		"session": func(tx *store.Tx, c Caller) error { return EndSession(tx, by, c.Session.ID) },
		"user":    func(tx *store.Tx, c Caller) error { _, err := DisablePrincipal(tx, by, root, c.ID); return err },
	} {
		update(t, st, func(tx *store.Tx) error { _, err := EnablePrincipal(tx, by, root, ada.ID); return err })
		var secret reeve.Secret
		if what == "session" {
			var err error
			if _, secret, err = try(st, "ada", good); err != nil {
				t.Fatal(err)
			}
		} else {
			_, secret = token(t, st, NewToken{Principal: ada.ID})
		}
		who, err := authenticate(st, secret)
		if err != nil {
			t.Fatal(err)
		}
		recheck := func() error { return st.View(t.Context(), func(tx *store.Tx) error { return Recheck(tx, who) }) }
		if err := recheck(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		update(t, st, func(tx *store.Tx) error { return end(tx, who) })
		if err := recheck(); reeve.KindOf(err) != reeve.Unauthenticated {
			t.Errorf("%s: %v", what, err)
		}
	}
}

//nolint:paralleltest // it holds up all hashing
func TestOneNetworkDoesNotKeepOthersWaiting(t *testing.T) {
	st := storetest.New(t)
	withPassword(t, st, "ada")
	ctx, cancel := context.WithCancel(t.Context())
	for range cap(hashing) {
		hashing <- struct{}{}
	}
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			_, _, err := SignIn(ctx, st, Attempt{Name: "ada", Password: reeve.SecretString(good), From: here})
			if reeve.CodeOf(err) == "sign_ins_too_many" {
				t.Error(err)
			}
		})
	}
	for inHand.count(here) < atOnce {
		runtime.Gosched()
	}
	if _, _, err := try(st, "ada", good); reeve.CodeOf(err) != "sign_ins_too_many" || reeve.KindOf(err) != reeve.TooMany {
		t.Errorf("one more from there: %v", err)
	}
	elsewhere := netip.MustParseAddr("198.51.100.1")
	all.Go(func() {
		_, _, err := SignIn(t.Context(), st, Attempt{Name: "ada", Password: reeve.SecretString(good), From: elsewhere})
		if err != nil {
			t.Errorf("from elsewhere: %v", err)
		}
	})
	cancel() // those who wait give up
	for inHand.count(here) > 0 {
		runtime.Gosched()
	}
	for range cap(hashing) {
		<-hashing
	}
	all.Wait()
	if _, _, err := try(st, "ada", good); err != nil || inHand.count(elsewhere) != 0 {
		t.Errorf("afterwards: %v", err)
	}
}

func (h *hands) count(from netip.Addr) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.of[addressKey(from)]
}
