package seal

import (
	"bytes"
	"encoding/hex"
	"testing"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// FIPS 197 §4.2 gives {57}·{83} = {c1}; §4.2.1 {57}·{13} = {fe}; its S-box table is
// built on {53}^-1 = {ca}.
func TestFieldArithmeticIsThatOfFIPS197(t *testing.T) {
	t.Parallel()
	if mul(0x57, 0x83) != 0xc1 || mul(0x57, 0x13) != 0xfe || inverse(0x53) != 0xca || inverse(0) != 0 {
		t.Fatal("wrong field")
	}
	for a := 1; a < 256; a++ {
		if mul(byte(a), inverse(byte(a))) != 1 {
			t.Fatalf("%#x times its inverse is not 1", a)
		}
		for b := range 256 {
			if got, want := mul(byte(a), byte(b)), schoolbook(a, b); got != want {
				t.Fatalf("%#x·%#x = %#x, want %#x", a, b, got, want)
			}
		}
	}
}

func schoolbook(a, b int) byte {
	product := 0
	for i := range 8 {
		if b>>i&1 == 1 {
			product ^= a << i
		}
	}
	for i := 15; i >= 8; i-- {
		if product>>i&1 == 1 {
			product ^= 0x11b << (i - 8)
		}
	}
	return byte(product)
}

// Shares of "Reeve!" computed by another program for fixed polynomials of degree 2.
func TestCombineKnownShares(t *testing.T) {
	t.Parallel()
	known := map[byte]string{1: "d1e4b2ab12a5", 2: "2a7a1e1ba260", 5: "aec2516c2374", 200: "a7af495585d3", 255: "f513f715cd5b"}
	for _, xs := range [][]byte{{1, 2, 5}, {255, 5, 200}, {2, 255, 1}} {
		var points []point
		for _, x := range xs {
			y, err := hex.DecodeString(known[x])
			if err != nil {
				t.Fatal(err)
			}
			points = append(points, point{x: x, y: y})
		}
		if got := combine(points); string(got) != "Reeve!" {
			t.Fatalf("shares %v give %q", xs, got)
		}
	}
}

func TestAnyThresholdOfSharesGivesTheSecretAndFewerDoNot_K3(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "secret")
		n := rapid.OneOf(rapid.IntRange(2, 10), rapid.Just(255)).Draw(t, "n")
		threshold := rapid.IntRange(2, min(n, 10)).Draw(t, "threshold")
		shuffled := rapid.Permutation(split(secret, n, threshold)).Draw(t, "order")
		if got := combine(shuffled[:threshold]); !bytes.Equal(got, secret) {
			t.Fatal("the threshold of shares gave another secret")
		}
		if got := combine(shuffled[:threshold-1]); bytes.Equal(got, secret) {
			t.Fatal("one share too few gave the secret")
		}
	})
}

func TestShareSurvivesTheRoundTripAndNoTypingError(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := share{generation: rapid.Uint32().Draw(t, "generation"), point: point{
			x: byte(rapid.IntRange(1, 255).Draw(t, "x")), y: rapid.SliceOfN(rapid.Byte(), keySize, keySize).Draw(t, "y")}}
		text := encodeShare(want).Bytes()
		got, err := decodeShare(reeve.NewSecret(append(append([]byte(" "), text...), '\n')))
		if err != nil || got.generation != want.generation || got.x != want.x || !bytes.Equal(got.y, want.y) {
			t.Fatalf("round trip: %v", err)
		}
		typo := bytes.Clone(text)
		typo[rapid.IntRange(0, len(text)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "xor"))
		if s, err := decodeShare(reeve.NewSecret(typo)); err == nil && bytes.Equal(s.y, want.y) && s.x == want.x && s.generation == want.generation {
			t.Fatal("a second text for the same share")
		} else if err == nil {
			t.Fatal("a typing error went unnoticed")
		}
	})
}

func FuzzDecodeShare(f *testing.F) {
	f.Add(encodeShare(share{generation: 1, point: point{x: 3, y: make([]byte, keySize)}}).Bytes())
	f.Add([]byte(SharePrefix))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := decodeShare(reeve.NewSecret(text))
		if err != nil {
			if reeve.CodeOf(err) != "unseal_share_malformed" {
				t.Fatal(err)
			}
			return
		}
		if again := encodeShare(s); !bytes.Equal(again.Bytes(), bytes.TrimSpace(text)) {
			t.Fatal("two texts for one share")
		}
	})
}
