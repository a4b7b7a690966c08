package envelope_test

import (
	"bytes"
	"testing"

	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Whatever arrives in place of an envelope stays shut, with one error that says nothing of the key, unless it is the
// very envelope that was sealed.
func FuzzOpen(f *testing.F) {
	key, err := envelope.GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	ref := envelope.Ref{Slot: "candidate", Secret: "sec_1", Version: 3}
	enc, sealed, err := envelope.Seal(key.PublicKey(), binding(), ref, reeve.SecretString("canary"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(enc, sealed)
	f.Add(enc, sealed[:len(sealed)-1])
	f.Add(enc[:len(enc)-1], sealed)
	f.Add(append(bytes.Clone(enc), 0), sealed)
	f.Add([]byte(nil), []byte(nil))
	f.Fuzz(func(t *testing.T, e, c []byte) {
		s, err := envelope.Open(key, binding(), ref, e, c)
		own := bytes.Equal(e, enc) && bytes.Equal(c, sealed)
		switch {
		case own && (err != nil || s.Reveal() != "canary"):
			t.Fatalf("its own envelope does not open: %v", err)
		case !own && err == nil:
			t.Fatal("a forged envelope opened")
		case !own && reeve.CodeOf(err) != "envelope_invalid":
			t.Fatalf("wrong error: %v", err)
		}
	})
}

// A public key is taken or refused whole: what is taken can be sealed to.
func FuzzParsePublicKey(f *testing.F) {
	private, err := envelope.GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	key := private.PublicKey().Bytes()
	f.Add(key)
	f.Add(key[:len(key)-1])
	f.Add(append(bytes.Clone(key), 0))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := envelope.ParsePublicKey(b)
		if err != nil {
			if reeve.CodeOf(err) != "hpke_key_invalid" {
				t.Fatalf("wrong error: %v", err)
			}
			return
		}
		// X25519 refuses points of low order only when it is used: an error then is right, a panic is not.
		_, _, err = envelope.Seal(k, binding(), envelope.Ref{Slot: "s"}, reeve.SecretString("x"))
		if err != nil && bytes.Equal(b, key) {
			t.Fatal(err)
		}
	})
}
