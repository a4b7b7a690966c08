// Package webauthntest is a browser with a security key, in software: it answers
// challenges as WebAuthn Level 3 says, or wrongly where a test asks for that. Only tests
// import it.
package webauthntest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// Flags of authenticator data (§6.1).
const (
	userPresent     = 1 << 0
	userVerified    = 1 << 2
	backupEligible  = 1 << 3
	credentialAdded = 1 << 6
)

// Key is a security key with one credential, in a browser that shows one page.
type Key struct {
	Origin string // of the page

	// What is wrong, and what the key is like.
	Domain         string // that is signed instead of the one asked for
	Type           string // of the client data, instead of what was done
	Challenge      string // that is answered instead of the one given
	Unverified     bool   // asks for no PIN
	Counterless    bool
	Syncs          bool
	ForgeSignature bool
	Vouch          string // attestation: "" none, self, or chain, of a maker
	Counter        uint32 // of uses so far

	id      []byte
	private *ecdsa.PrivateKey
	owner   string
}

// New makes a key in a browser that shows a page of an origin.
func New(t testing.TB, origin string) *Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k := &Key{Origin: origin, private: private, id: make([]byte, 32)}
	_, _ = rand.Read(k.id)
	return k
}

// ID is the credential id, and Public the key, as they come in a registration.
func (k *Key) ID() []byte { return k.id }

// Public is the public key in COSE (RFC 9053 §7.1.1).
func (k *Key) Public(t testing.TB) []byte {
	t.Helper()
	point, err := k.private.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return encode(t, map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]})
}

// Clone is a copy of the key as it is now.
func (k *Key) Clone() *Key {
	c := *k
	return &c
}

// Enrol answers creation options.
func (k *Key) Enrol(t testing.TB, options string) string {
	t.Helper()
	var in struct {
		Challenge string `json:"challenge"`
		RP        struct {
			ID string `json:"id"`
		} `json:"rp"`
		User struct {
			ID string `json:"id"`
		} `json:"user"`
	}
	read(t, options, &in)
	k.owner = in.User.ID
	data := k.authenticatorData(in.RP.ID, credentialAdded)
	data = append(data, make([]byte, 16)...)                      // AAGUID: none
	data = binary.BigEndian.AppendUint16(data, uint16(len(k.id))) //nolint:gosec // 32
	data = append(append(data, k.id...), k.Public(t)...)
	client := k.clientData(t, "webauthn.create", in.Challenge)
	format, statement := "none", map[string]any{}
	if k.Vouch != "" {
		format, statement = "packed", map[string]any{"alg": -7, "sig": k.sign(t, data, client)}
	}
	if k.Vouch == "chain" {
		statement["x5c"] = [][]byte{{0x30, 0}}
	}
	return k.answer(t, map[string]any{
		"clientDataJSON":    text(client),
		"attestationObject": text(encode(t, map[string]any{"fmt": format, "attStmt": statement, "authData": data})),
		"transports":        []string{"usb"},
	})
}

// Answer answers request options.
func (k *Key) Answer(t testing.TB, options string) string {
	t.Helper()
	var in struct {
		Challenge string `json:"challenge"`
		RPID      string `json:"rpId"`
	}
	read(t, options, &in)
	client, data := k.clientData(t, "webauthn.get", in.Challenge), k.authenticatorData(in.RPID, 0)
	return k.answer(t, map[string]any{"clientDataJSON": text(client), "authenticatorData": text(data), "signature": text(k.sign(t, data, client)), "userHandle": k.owner})
}

func (k *Key) sign(t testing.TB, data, client []byte) []byte {
	t.Helper()
	hash := sha256.Sum256(client)
	signed := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, signed[:])
	if err != nil {
		t.Fatal(err)
	}
	if k.ForgeSignature {
		signature[len(signature)-1] ^= 1
	}
	return signature
}

func (k *Key) answer(t testing.TB, response map[string]any) string {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"id": text(k.id), "rawId": text(k.id), "type": "public-key", "response": response, "clientExtensionResults": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (k *Key) clientData(t testing.TB, kind, challenge string) []byte {
	t.Helper()
	if k.Type != "" {
		kind = k.Type
	}
	if k.Challenge != "" {
		challenge = k.Challenge
	}
	raw, err := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": k.Origin, "crossOrigin": false})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (k *Key) authenticatorData(domain string, flags byte) []byte {
	if k.Domain != "" {
		domain = k.Domain
	}
	flags |= userPresent
	if !k.Unverified {
		flags |= userVerified
	}
	if k.Syncs {
		flags |= backupEligible
	}
	if !k.Counterless {
		k.Counter++
	}
	hash := sha256.Sum256([]byte(domain))
	return binary.BigEndian.AppendUint32(append(hash[:], flags), k.Counter)
}

// ChallengeOf is the challenge in options.
func ChallengeOf(t testing.TB, options string) string {
	t.Helper()
	var in struct {
		Challenge string `json:"challenge"`
	}
	read(t, options, &in)
	return in.Challenge
}

func text(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func read(t testing.TB, options string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(options), into); err != nil {
		t.Fatal(err)
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	mode, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := mode.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
