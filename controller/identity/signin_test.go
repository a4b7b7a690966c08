package identity

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const good = "Canary ferret umbrella quartz 7"

func TestMain(m *testing.M) {
	hashMemory, answerAfter = 64, 300*time.Millisecond // KiB
	onHash = func(ctx context.Context) {
		if n, ok := ctx.Value(counted{}).(*atomic.Int32); ok {
			n.Add(1)
		}
	}
	os.Exit(m.Run())
}

var here = netip.MustParseAddr("192.0.2.10")

// withPassword is a user that has accepted an invitation.
func withPassword(t testing.TB, st *store.Store, name string) *Principal {
	t.Helper()
	p := principal(t, st, name)
	if err := AcceptInvitation(t.Context(), st, invite(t, st, p), reeve.SecretString(good), here, "node_1"); err != nil {
		t.Fatal(err)
	}
	return p
}

func invite(t testing.TB, st *store.Store, p *Principal) (secret reeve.Secret) {
	t.Helper()
	update(t, st, func(tx *store.Tx) (err error) {
		_, secret, err = Invite(tx, by, root, p.ID)
		return err
	})
	return secret
}

func try(st *store.Store, name, password string) (*Session, reeve.Secret, error) {
	return SignIn(context.Background(), st, Attempt{Name: name, Password: reeve.SecretString(password), From: here, Client: "test", Node: "node_1"})
}

func TestASessionEndsWhenIdleAndAtTheLatestAfterTwelveHours(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	ada := withPassword(t, st, "ada")
	_, secret, err := try(st, " ADA ", good)
	if err != nil {
		t.Fatal(err)
	}
	_, idle, err := try(st, "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	began := clock.Now()
	for clock.Now().Sub(began) < SessionLife-10*time.Minute {
		clock.Advance(10 * time.Minute)
		c, err := authenticate(st, secret)
		if err != nil || c.ID != ada.ID || c.Session == nil {
			t.Fatalf("after %s: %+v %v", clock.Now().Sub(began), c, err)
		}
		update(t, st, func(tx *store.Tx) error { return NoteUse(tx, c) })
	}
	if _, err := authenticate(st, idle); reeve.CodeOf(err) != "session_ended" {
		t.Errorf("an idle session: %v", err)
	}
	clock.Advance(10 * time.Minute)
	if _, err := authenticate(st, secret); reeve.CodeOf(err) != "session_ended" || reeve.KindOf(err) != reeve.Unauthenticated {
		t.Errorf("after twelve hours: %v", err)
	}
}

// CVE-2025-6004, CVE-2025-5999: there is one spelling of a name, and the lockout belongs to
// the user, whatever was typed, on every leader.
func TestAnotherSpellingDoesNotResetTheLockout_CVE_2025_6004(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	ada := withPassword(t, st, "ada")
	spelling := func(i int) string { return []string{"ada", "ADA", " ada\t", "Ａd\u1d43", "aDa\u00a0"}[i%5] }
	for i := range freeFailures {
		if _, _, err := try(st, spelling(i), "wrong"); reeve.CodeOf(err) != "sign_in_failed" {
			t.Fatalf("%q: %v", spelling(i), err)
		}
	}
	if _, _, err := try(st, "Ada", good); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("the right password during the wait: %v", err)
	}
	clock.Advance(firstWait)
	if _, _, err := try(st, "ADA", good); err != nil {
		t.Errorf("after the wait: %v", err)
	}
	for i := range mostFailures {
		_, _, _ = try(st, spelling(i), "wrong")
		clock.Advance(longestWait)
	}
	for i := range 5 {
		if _, _, err := try(st, spelling(i), good); reeve.CodeOf(err) != "sign_in_failed" {
			t.Errorf("%q after a hundred failures: %v", spelling(i), err)
		}
	}
	update(t, st, func(tx *store.Tx) error { _, err := Unlock(tx, by, root, ada.ID); return err })
	if _, _, err := try(st, "ada", good); err != nil {
		t.Errorf("unlocked: %v", err)
	}
}

// CVE-2025-6004: a spelling either lets in, and then failures with it lock out, or it is nobody's. None does only one of both.
func TestWhateverLetsInAlsoLocksOut_CVE_2025_6004(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	ada := withPassword(t, st, "ada.king")
	withPassword(t, st, "ada.king@corp")
	update(t, st, func(tx *store.Tx) error {
		_, err := EditPrincipal(tx, by, root, ada.ID, Profile{Email: "ada@example.com"})
		return err
	})
	letIn := 0
	for _, name := range []string{"ada.king", "ADA.KING", "Ada.King", " ada.king", "ada.king ", "\tada.king\n", "ada.king\u00a0", "\u2003ada.king", "ada.king\u3000", "ａｄａ．ｋｉｎｇ", "ada․king", "ada.ﬀking", "ada.\u212aing",
		"ada.king\u200b", "\ufeffada.king", "ada\u00ad.king", "ada.king\x00", "ada.king\x00x", "а\u0434a.king", "áda.king", "a\u0301da.king", "ada.kıng", "ada.kİng", "ada.king.", ".ada.king", "ada..king", "ada,king", "ada.king@",
		"ada.king@example.com", "ada@example.com", "ADA@EXAMPLE.COM", "@ada.king", "ada.king@corp", "ada.king@CORP ", "ada.king@corp.", "ada.king@corp@corp", `CORP\ada.king`, "corp/ada.king", "ada.king%40corp", "ada.king+1", "ada.king;", "\"ada.king\"",
		string(ada.ID), strings.ToUpper(string(ada.ID)), "ada.king" + strings.Repeat(" ", 300)} {
		_, _, err := try(st, name, good)
		if err != nil && reeve.CodeOf(err) != "sign_in_failed" {
			t.Fatalf("%q: %v", name, err)
		}
		var refused, locked bool
		for range freeFailures {
			_, _, _ = try(st, name, "wrong")
		}
		for _, plain := range []string{"ada.king", "ada.king@corp"} {
			_, _, after := try(st, plain, good)
			locked = locked || after != nil
		}
		refused = err != nil
		if refused == locked {
			t.Errorf("%q: lets in %t, locks out %t", name, !refused, locked)
		}
		if !refused {
			letIn++
		}
		clock.Advance(longestWait)
		for _, plain := range []string{"ada.king", "ada.king@corp"} {
			if _, _, err := try(st, plain, good); err != nil {
				t.Fatalf("%q, after %q: %v", plain, name, err)
			}
		}
	}
	if letIn < 12 || letIn > 20 {
		t.Errorf("%d spellings let in", letIn)
	}
}

func TestTooManyFailuresFromOneNetworkAreRefused(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	withPassword(t, st, "ada")
	for i := range perAddress {
		if _, _, err := try(st, fmt.Sprintf("guess-%d", i), "wrong"); reeve.CodeOf(err) != "sign_in_failed" {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if _, _, err := try(st, "ada", good); reeve.KindOf(err) != reeve.TooMany || reeve.CodeOf(err) != "sign_ins_too_many" {
		t.Errorf("one more: %v", err)
	}
	elsewhere := Attempt{Name: "ada", Password: reeve.SecretString(good), From: netip.MustParseAddr("198.51.100.1")}
	if _, _, err := SignIn(t.Context(), st, elsewhere); err != nil {
		t.Errorf("from elsewhere: %v", err)
	}
	clock.Advance(addressWindow)
	if _, _, err := try(st, "ada", good); err != nil {
		t.Errorf("later: %v", err)
	}
	if a, b := addressKey(netip.MustParseAddr("2001:db8::1")), addressKey(netip.MustParseAddr("2001:db8::ffff")); a != b {
		t.Errorf("one subscriber counts as two: %s %s", a, b)
	}
}

// CVE-2025-6011: an unknown user, a wrong password, a disabled user and one without a
// password get the same answer, leave the same records and cost one hash each.
func TestNobodyLearnsWhichUsersThereAre_CVE_2025_6011(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	withPassword(t, st, "ada")
	off := withPassword(t, st, "off")
	principal(t, st, "fresh")
	update(t, st, func(tx *store.Tx) error { _, err := DisablePrincipal(tx, by, root, off.ID); return err })
	want := signInFailed().Error()
	for name, password := range map[string]string{"ada": "wrong", "nobody": good, "off": good, "fresh": good, "": good, strings.Repeat("x", 4000): good} {
		before := count(t, st)
		_, _, err := try(st, name, password)
		if err == nil || err.Error() != want {
			t.Errorf("%q: %v", name, err)
		}
		if after := count(t, st); after != before+1 {
			t.Errorf("%q left %d records", name, after-before)
		}
	}
}

func count(t testing.TB, st *store.Store) (n uint64) {
	t.Helper()
	if err := st.View(t.Context(), func(tx *store.Tx) error {
		h, err := audit.Head(tx)
		n = h.Sequence
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// CVE-2023-42820, CVE-2023-43650: an invitation cannot be guessed, works once, and ends with
// the next one; guesses count.
func TestAnInvitationWorksOnce_CVE_2023_42820_CVE_2023_43650(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	ada := principal(t, st, "ada")
	accept := func(s reeve.Secret) error {
		return AcceptInvitation(t.Context(), st, s, reeve.SecretString(good), here, "")
	}
	first, second := invite(t, st, ada), invite(t, st, ada)
	var ones [bearerBytes * 8]int // how often each bit is set: they are random, all 256
	const drawn = 1000
	for range drawn {
		secret, _ := invitationBearer.make()
		raw, err := invitationBearer.decode(secret)
		if err != nil {
			t.Fatal(err)
		}
		for i := range ones {
			ones[i] += int(raw[i/8]>>(i%8)) & 1
		}
	}
	for i, n := range ones {
		if n < drawn/4 || n > drawn*3/4 { // fifteen deviations off
			t.Errorf("bit %d is set in %d of %d", i, n, drawn)
		}
	}
	if err := accept(first); reeve.CodeOf(err) != "invitation_unknown" {
		t.Errorf("a replaced invitation: %v", err)
	}
	if err := accept(second); err != nil {
		t.Fatal(err)
	}
	if err := accept(second); reeve.CodeOf(err) != "invitation_unknown" {
		t.Errorf("a used invitation: %v", err)
	}
	_, session, err := try(st, "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	late := invite(t, st, ada)
	if _, err := authenticate(st, session); err != nil {
		t.Errorf("an invitation alone ends a session: %v", err)
	}
	clock.Advance(InvitationLife)
	if err := accept(late); reeve.CodeOf(err) != "invitation_unknown" {
		t.Errorf("an old invitation: %v", err)
	}
	for range perAddress {
		guess, _ := invitationBearer.make()
		_ = accept(guess)
	}
	if err := accept(invite(t, st, ada)); reeve.CodeOf(err) != "sign_ins_too_many" {
		t.Errorf("after many guesses: %v", err)
	}
}

func TestANewPasswordEndsWhatTheOldOneOpened(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := withPassword(t, st, "ada")
	_, mine, err := try(st, "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := try(st, "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	who, err := authenticate(st, mine)
	if err != nil {
		t.Fatal(err)
	}
	const next = "Canary lantern walrus 9 bicycle"
	in := Attempt{Password: reeve.SecretString("wrong"), From: here}
	if err := ChangePassword(t.Context(), st, who, in, reeve.SecretString(next)); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("without the old password: %v", err)
	}
	in.Password = reeve.SecretString(good)
	if err := ChangePassword(t.Context(), st, who, in, reeve.SecretString(next)); err != nil {
		t.Fatal(err)
	}
	if _, err := authenticate(st, mine); err != nil {
		t.Errorf("the session in which it was changed: %v", err)
	}
	if _, err := authenticate(st, other); reeve.CodeOf(err) != "session_ended" {
		t.Errorf("another session: %v", err)
	}
	if _, _, err := try(st, "ada", good); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("the old password: %v", err)
	}
	if err := AcceptInvitation(t.Context(), st, invite(t, st, ada), reeve.SecretString(good), here, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := authenticate(st, mine); reeve.CodeOf(err) != "session_ended" {
		t.Errorf("a session from before the reset: %v", err)
	}
}

func TestPasswordsThatAreEasyToGuessAreRefused(t *testing.T) {
	t.Parallel()
	for text, code := range map[string]string{
		"short": "password_short", "fourteen chars": "password_short", strings.Repeat("ab1!", 70): "password_long",
		"passwordpassword": "password_weak", "qwertyuiopasdfgh": "password_weak", "aaaaaaaaaaaaaaaaaaaa": "password_weak",
		"ada.lovelace.ada": "password_weak", "bad \xff\xfe utf-8 of sixteen": "password_invalid",
		good: "",
	} {
		_, err := HashPassword(t.Context(), reeve.SecretString(text), minPassword, "ada", "lovelace")
		if reeve.CodeOf(err) != code {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && text != "short" && strings.Contains(err.Error(), text) {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestASteppedUpSessionIsFreshForFiveMinutes(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	withPassword(t, st, "ada")
	_, secret, err := try(st, "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	clock.Advance(StepUpFor)
	who, err := authenticate(st, secret)
	if err != nil || who.Session.Fresh(clock.Now()) {
		t.Fatalf("five minutes later: %v %v", who.Session, err)
	}
	in := Attempt{Password: reeve.SecretString("wrong"), From: here}
	if _, err := StepUp(t.Context(), st, who, in); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("with a wrong password: %v", err)
	}
	in.Password = reeve.SecretString(good)
	s, err := StepUp(t.Context(), st, who, in)
	if err != nil || !s.Fresh(clock.Now()) {
		t.Errorf("%+v %v", s, err)
	}
}

// K1: neither a password nor the secret of a session or invitation is kept anywhere.
func TestNoSecretOfSignInIsStored_K1(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/state.db"
	node := storetest.Start(t, storetest.WithPath(path), storetest.WithCipher(plaintext{}))
	ada := principal(t, node.Store, "ada")
	invitation := invite(t, node.Store, ada)
	if err := AcceptInvitation(t.Context(), node.Store, invitation, reeve.SecretString(good), here, ""); err != nil {
		t.Fatal(err)
	}
	_, session, err := try(node.Store, "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	_, _, _ = try(node.Store, "ada", "Canary-wrong-password")
	node.Stop()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	disk := string(raw)
	if !strings.Contains(disk, "session.refuse") {
		t.Fatal("the state file does not show what was stored")
	}
	for _, s := range []string{good, "Canary", session.Reveal()[7:], invitation.Reveal()[7:]} {
		if strings.Contains(disk, s) {
			t.Errorf("%q is stored", s)
		}
	}
}

func FuzzCanonicalNames(f *testing.F) {
	for _, s := range []string{"ada", "ADA ", "Ａda", "ada\x00", "İ", "ß"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c := canonical(s)
		if validName(c) && canonical(c) != c {
			t.Errorf("%q: %q is not the last word", s, c)
		}
		if strings.TrimSpace(s) == s && validName(s) && c != s {
			t.Errorf("%q becomes %q", s, c)
		}
	})
}

func TestSessionsAreListedAndEndedOneByOneOrAll(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	ada := withPassword(t, st, "ada")
	var ids []reeve.SessionID
	for range 3 {
		s, _, err := try(st, "ada", good)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, s.ID)
	}
	listed := func() (got []reeve.SessionID) {
		update(t, st, func(tx *store.Tx) error {
			for s, err := range ListSessions(tx, ada.ID) {
				if err != nil {
					return err
				}
				got = append(got, s.ID)
			}
			return nil
		})
		return got
	}
	if got := listed(); !slices.Equal(got, ids) {
		t.Errorf("%v, want %v", got, ids)
	}
	update(t, st, func(tx *store.Tx) error { return EndSession(tx, by, ids[1]) })
	if got := listed(); !slices.Equal(got, []reeve.SessionID{ids[0], ids[2]}) {
		t.Errorf("%v", got)
	}
	update(t, st, func(tx *store.Tx) error { return EndSessions(tx, by, ada.ID) })
	if got := listed(); len(got) > 0 {
		t.Errorf("%v", got)
	}
}
