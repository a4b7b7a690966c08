package identity

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"

	"github.com/reeve-pam/reeve/controller/store"
)

var signIns = flag.Int("sign-ins", 0, "time so many failed sign-ins of each kind; `make timing` does")

// counted is a context in which hashes are counted; see TestMain.
type counted struct{}

// ledger counts what a store opens and seals, by table.
type ledger struct {
	store.Cipher
	mu   sync.Mutex
	work map[string]int
}

func (l *ledger) count(what string, aad []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, table := range []string{"audit", "failed_sign_in", "password", "principal", "directory"} {
		if bytes.Contains(aad, []byte(table)) {
			what += " " + table
			break
		}
	}
	l.work[what]++
}

func (l *ledger) Seal(aad, plaintext []byte) ([]byte, error) {
	l.count("seal", aad)
	return l.Cipher.Seal(aad, plaintext)
}

func (l *ledger) Open(aad, sealed []byte) ([]byte, error) {
	l.count("open", aad)
	return l.Cipher.Open(aad, sealed)
}

// Z5: what a failed sign-in costs is the same for a name that nobody has, a wrong password, and somebody who is disabled, locked or
// has no password: one hash, and the same records written. Who is there is read, and their password, which takes some microseconds
// beside a hash of a hundred thousand. This is counted; how long it takes, `make timing` measures.
func TestAFailureCostsTheSameWhoeverItIs_Z5(t *testing.T) {
	t.Parallel()
	cost := func(name string) map[string]int {
		clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
		l := &ledger{Cipher: storetest.NewCipher(), work: map[string]int{}}
		st := storetest.New(t, storetest.WithClock(clock.Now), storetest.WithCipher(l))
		strangers(t, st, clock)
		withPassword(t, st, "locked")
		for range freeFailures {
			_, _, _ = try(st, "locked", "wrong")
		}
		for range 2 { // the first brings what is kept in memory
			clock.Advance(time.Minute)
			var hashes atomic.Int32
			l.mu.Lock()
			l.work = map[string]int{}
			l.mu.Unlock()
			ctx := context.WithValue(t.Context(), counted{}, &hashes)
			if _, _, err := SignIn(ctx, st, Attempt{Name: name, Password: reeve.SecretString("wrong"), From: here}); reeve.CodeOf(err) != "sign_in_failed" {
				t.Fatalf("%s: %v", name, err)
			}
			l.mu.Lock()
			l.work["hash"] = int(hashes.Load())
			l.mu.Unlock()
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.work
	}
	want := cost("nobody")
	if want["hash"] != 1 || want["seal audit"] == 0 || want["seal failed_sign_in"] != 2 {
		t.Errorf("a failure of nobody costs %v", want)
	}
	for _, name := range []string{"ada", "off", "fresh", "keyed", "locked", "ADA", "another", ""} {
		got := cost(name)
		for _, read := range []string{"open principal", "open password"} {
			if got[read] > 1 {
				t.Errorf("%q: %s %d times", name, read, got[read])
			}
			delete(got, read)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q costs other work than nobody: %s", name, diff)
		}
	}
}

// strangers are users that exist: with a password, disabled, with none, with a security key.
func strangers(t *testing.T, st *store.Store, clock *storetest.Clock) {
	t.Helper()
	withPassword(t, st, "ada")
	off := withPassword(t, st, "off")
	principal(t, st, "fresh")
	keyed := &person{t: t, st: st, clock: clock, keys: storetest.NewCipher(), name: "keyed"}
	withPassword(t, st, keyed.name)
	keyed.configure(RelyingParty{Addresses: []string{site}, VerifyUser: true})
	keyed.enrolKey(keyed.mustSignIn(""))
	update(t, st, func(tx *store.Tx) error { _, err := DisablePrincipal(tx, by, root, off.ID); return err })
}

// Z5: who may not come in learns from the time an answer takes as little as from its text.
// Hashing is cheap here, so that whatever else differs between users that are there and
// those that are not shows. The kinds take turns in random order, so that a busy machine
// slows all of them, and what is compared is how often an attacker would guess right.
// It measures, so it does not run unless asked.
func TestHowLongAFailureTakesTellsNothingOfTheUser_Z5(t *testing.T) {
	if *signIns == 0 {
		t.Skip("it measures time: make timing")
	}
	clock := storetest.NewClock(time.Date(2026, 1, 1, 8, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	strangers(t, st, clock)
	kinds := []string{"nobody", "ada", "off", "fresh", "keyed"}
	took := map[string][]time.Duration{}
	want := signInFailed().Error()
	for round := range *signIns {
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
	// What chance alone gives: four standard deviations of U, and one in a hundred.
	bound := 0.01 + 4/math.Sqrt(6*float64(*signIns))
	_, _ = fmt.Fprintf(os.Stdout, "timing: nobody: median %s of %d failed sign-ins\n", median(took["nobody"]), *signIns)
	for _, name := range kinds[1:] {
		right := guessedRight(took["nobody"], took[name])
		_, _ = fmt.Fprintf(os.Stdout, "timing: %s: median %s; told from nobody %.2f times of 100 (50: nothing is learnt)\n", name, median(took[name]), 100*right)
		if math.Abs(right-0.5) > bound {
			t.Errorf("one answer for nobody and one for %s are told apart %.2f of 100 times, chance alone is within %.2f", name, 100*right, 100*(0.5+bound))
		}
	}
}

// guessedRight is how often one of b took longer than one of a, of all pairs: half of the
// time if nothing can be learnt (Mann and Whitney's U).
func guessedRight(a, b []time.Duration) float64 {
	a, n := slices.Sorted(slices.Values(a)), 0
	for _, y := range b {
		below, _ := slices.BinarySearch(a, y)
		notAbove, _ := slices.BinarySearch(a, y+1)
		n += below + notAbove
	}
	return float64(n) / float64(2*len(a)*len(b))
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
