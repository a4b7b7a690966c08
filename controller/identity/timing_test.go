package identity

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"

	"github.com/reeve-pam/reeve/controller/store"
)

// Z5: who may not come in learns from the time an answer takes as little as from its text.
// Hashing is cheap here, so that whatever else differs between users that are there and
// those that are not shows. The kinds take turns in random order, so that a busy machine
// slows all of them, and what is compared is how often an attacker would guess right.
func TestHowLongAFailureTakesTellsNothingOfTheUser_Z5(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	withPassword(t, st, "ada")
	off := withPassword(t, st, "off")
	principal(t, st, "fresh")
	keyed := &person{t: t, st: st, clock: clock, keys: storetest.NewCipher(), name: "keyed"}
	withPassword(t, st, keyed.name)
	keyed.configure(RelyingParty{Addresses: []string{site}, VerifyUser: true})
	keyed.enrolKey(keyed.mustSignIn(""))
	update(t, st, func(tx *store.Tx) error { _, err := DisablePrincipal(tx, by, root, off.ID); return err })
	kinds := []string{"nobody", "ada", "off", "fresh", "keyed"}
	const rounds = 600
	took := map[string][]time.Duration{}
	want := signInFailed().Error()
	for round := range rounds {
		order := slices.Clone(kinds)
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] }) //nolint:gosec // an order
		clock.Advance(longestWait)                                                           // nobody waits, and no network is closed
		for _, name := range order {
			in := Attempt{Name: name, Password: reeve.SecretString("wrong"), From: netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", round%250))}
			began := time.Now()
			_, _, err := SignIn(t.Context(), st, in)
			took[name] = append(took[name], time.Since(began))
			if err == nil || err.Error() != want || reeve.CodeOf(err) != "sign_in_failed" {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	for _, name := range kinds[1:] {
		t.Logf("%s: %.3f", name, guessedRight(took["nobody"], took[name]))
		if right := guessedRight(took["nobody"], took[name]); right < 0.35 || right > 0.65 {
			t.Errorf("who has one answer for nobody and one for %s tells them apart %.0f of 100 times (medians %s and %s)",
				name, 100*max(right, 1-right), median(took["nobody"]), median(took[name]))
		}
	}
}

// guessedRight is how often one of b took longer than one of a, of all pairs: half of the
// time if nothing can be learnt (Mann and Whitney's U).
func guessedRight(a, b []time.Duration) float64 {
	n := 0.0
	for _, x := range a {
		for _, y := range b {
			switch {
			case y > x:
				n++
			case y == x:
				n += 0.5
			}
		}
	}
	return n / float64(len(a)*len(b))
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
