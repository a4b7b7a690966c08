package seal

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// K2: a sealed value opens only where it was sealed: every component of its binding counts.
func TestASealedValueOpensOnlyInItsPlace_K2(t *testing.T) {
	t.Parallel()
	ring := newKeyring(time.Now())
	sealed, err := ring.seal("c1", Data, []byte("account/acct_1/5"), []byte("canary"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ring.open("c1", Data, []byte("account/acct_1/5"), sealed); err != nil || string(got) != "canary" {
		t.Fatalf("own place: %q %v", got, err)
	}
	// The same keys under all purposes and two terms, so that only the binding differs.
	shared := ring.clone()
	own, _ := ring.active(Data)
	for i := range shared.Terms {
		shared.Terms[i].Key = own.Key
	}
	shared.Terms = append(shared.Terms, term{Purpose: Data, Number: 2, Key: own.Key, State: retired})
	otherTerm := bytes.Clone(sealed)
	binary.BigEndian.PutUint32(otherTerm[1:], 2)
	noTerm := bytes.Clone(sealed)
	binary.BigEndian.PutUint32(noTerm[1:], 9)
	moved := map[string]struct {
		cluster string
		purpose Purpose
		aad     string
		sealed  []byte
	}{
		"cluster":            {"c2", Data, "account/acct_1/5", sealed},
		"purpose":            {"c1", CAWrap, "account/acct_1/5", sealed},
		"table":              {"c1", Data, "site/acct_1/5", sealed},
		"id":                 {"c1", Data, "account/acct_2/5", sealed},
		"version":            {"c1", Data, "account/acct_1/4", sealed},
		"empty aad":          {"c1", Data, "", sealed},
		"term":               {"c1", Data, "account/acct_1/5", otherTerm},
		"term there is not":  {"c1", Data, "account/acct_1/5", noTerm},
		"cluster into aad":   {"c", Data, "1account/acct_1/5", sealed},
		"purpose of no term": {"c1", "dat", "aaccount/acct_1/5", sealed},
	}
	for name, m := range moved {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := shared.open(m.cluster, m.purpose, []byte(m.aad), m.sealed); reeve.CodeOf(err) != "sealed_value_corrupt" || got != nil {
				t.Fatalf("opened, or wrong error: %v", err)
			}
		})
	}
}

// The binding is injective: parts cannot be shifted into one another.
func TestBindingIsInjective_K2(t *testing.T) {
	t.Parallel()
	part := rapid.StringMatching(`[a\x00\x01]{0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		type place struct {
			cluster, purpose, aad string
			term                  uint32
		}
		draw := func(n string) place {
			return place{part.Draw(t, n+"c"), part.Draw(t, n+"p"), part.Draw(t, n+"a"), rapid.Uint32Max(12).Draw(t, n+"t")}
		}
		a, b := draw("1"), draw("2")
		same := bytes.Equal(bind(a.cluster, Purpose(a.purpose), a.term, []byte(a.aad)), bind(b.cluster, Purpose(b.purpose), b.term, []byte(b.aad)))
		if same != (a == b) {
			t.Fatalf("%+v and %+v: same binding %v", a, b, same)
		}
	})
}

func TestAnyChangedByteOfASealedValueIsRefused(t *testing.T) {
	t.Parallel()
	ring := newKeyring(time.Now())
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		sealed, err := ring.seal("c1", Data, nil, plain)
		if err != nil {
			t.Fatal(err)
		}
		at := rapid.IntRange(0, len(sealed)-1).Draw(t, "at")
		sealed[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "xor"))
		if _, err := ring.open("c1", Data, nil, sealed); reeve.CodeOf(err) != "sealed_value_corrupt" {
			t.Fatalf("byte %d: %v", at, err)
		}
		if _, err := ring.open("c1", Data, nil, sealed[:at]); reeve.CodeOf(err) != "sealed_value_corrupt" {
			t.Fatalf("cut at %d: %v", at, err)
		}
	})
}

func TestRotationKeepsOneActiveTermAndOpensWhatOldOnesSealed_K4(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ring := newKeyring(time.Now())
		type value struct {
			p      Purpose
			sealed []byte
		}
		var values []value
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			p := rapid.SampledFrom(purposes).Draw(t, "purpose")
			if rapid.Bool().Draw(t, "rotate") {
				ring = ring.rotated(p, time.Now())
			}
			sealed, err := ring.seal("c", p, nil, []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, value{p, sealed})
		}
		for _, p := range purposes {
			n := 0
			for _, tm := range ring.Terms {
				if tm.Purpose == p && tm.State == active {
					n++
				}
			}
			if n != 1 {
				t.Fatalf("%d active terms for %s", n, p)
			}
		}
		for _, v := range values {
			if _, err := ring.open("c", v.p, nil, v.sealed); err != nil {
				t.Fatalf("%s: %v", v.p, err)
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	ring := newKeyring(time.Now())
	good, _ := ring.seal("c", Data, nil, []byte("x"))
	f.Add(good)
	f.Add([]byte{sealedFormat})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if _, err := ring.open("c", Data, nil, sealed); err != nil && reeve.CodeOf(err) != "sealed_value_corrupt" {
			t.Fatal(err)
		}
	})
}

// The buffer in which a keyring is encoded must never grow, or keys would stay behind (K7).
func TestAKeyringOfManyTermsIsWrapped_K7(t *testing.T) {
	t.Parallel()
	now := time.Date(2999, 12, 31, 23, 59, 59, 999999999, time.UTC)
	k := newKeyring(now)
	for range 300 {
		for _, p := range purposes {
			k = k.rotated(p, now)
		}
	}
	root := newKey()
	wrapped, err := k.wrap(root, "cluster")
	if err != nil {
		t.Fatal(err)
	}
	again, err := unwrapKeyring(root, "cluster", wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Terms) != len(k.Terms) || !bytes.Equal(again.Terms[7].Key, k.Terms[7].Key) {
		t.Errorf("%d terms of %d came back", len(again.Terms), len(k.Terms))
	}
}
