package seal

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Purpose separates keys by what they are for: a value sealed for one purpose
// never opens for another.
type Purpose string

// The purposes. Each keyring has a key for every one of them.
const (
	Data        Purpose = "data"       // records of the store, data keys of secrets
	AuditHMAC   Purpose = "audit-hmac" // recognisable but unreadable values in audit records
	TokenHMAC   Purpose = "token-hmac" // tokens that must be found again but not read
	CAWrap      Purpose = "ca-wrap"    // private keys of the cluster's CAs
	HPKEReceive Purpose = "hpke-recv"  // what agents send to the cluster
	Backup      Purpose = "backup"     // manifests of backups
)

var purposes = []Purpose{Data, AuditHMAC, TokenHMAC, CAWrap, HPKEReceive, Backup}

const keySize = 32 // bytes: AES-256, HMAC-SHA-256

// The states of a term: one of each purpose is active, and seals; retired ones
// still open what they sealed.
const (
	active  = "active"
	retired = "retired"
)

type term struct {
	Purpose Purpose   `cbor:"1,keyasint,omitempty"`
	Number  uint32    `cbor:"2,keyasint,omitempty"`
	Key     []byte    `cbor:"3,keyasint,omitempty"`
	Created time.Time `cbor:"4,keyasint,omitempty"`
	State   string    `cbor:"5,keyasint,omitempty"`
}

// keyring is the opened keyring. It is never changed in place.
type keyring struct {
	Version uint64 `cbor:"1,keyasint,omitempty"` // grows with every change
	Terms   []term `cbor:"2,keyasint,omitempty"`
}

func newKeyring(now time.Time) *keyring {
	k := &keyring{}
	for _, p := range purposes {
		k = k.rotated(p, now)
	}
	return k
}

// rotated is a copy with a fresh active term for the purpose.
func (k *keyring) rotated(p Purpose, now time.Time) *keyring {
	next := k.clone()
	next.Version++
	var newest uint32
	for i := range next.Terms {
		if t := &next.Terms[i]; t.Purpose == p {
			t.State = retired
			newest = max(newest, t.Number)
		}
	}
	next.Terms = append(next.Terms, term{Purpose: p, Number: newest + 1, Key: newKey(), Created: now.UTC(), State: active})
	return next
}

func (k *keyring) active(p Purpose) (term, bool) {
	for _, t := range k.Terms {
		if t.Purpose == p && t.State == active {
			return t, true
		}
	}
	return term{}, false
}

func (k *keyring) term(p Purpose, number uint32) (term, bool) {
	for _, t := range k.Terms {
		if t.Purpose == p && t.Number == number {
			return t, true
		}
	}
	return term{}, false
}

func (k *keyring) wipe() {
	for _, t := range k.Terms {
		clear(t.Key)
	}
}

func newKey() []byte {
	b := make([]byte, keySize)
	_, _ = rand.Read(b) // never fails
	return b
}

// A sealed value is: format byte, term (4 bytes), salt (16), nonce (12), ciphertext
// and tag (16). Its key is HMAC-SHA-256(term key, salt), used this once, so that no
// number of values under one term wears out AES-GCM's 96-bit random nonces.
const (
	sealedFormat = 1
	saltSize     = 16
	headerSize   = 1 + 4 + saltSize
)

// bind is the additional data of a value: where it may be opened.
func bind(cluster string, p Purpose, number uint32, aad []byte) []byte {
	return lengthPrefixed([]byte("reeve/v1"), []byte(cluster), []byte(p), []byte(strconv.FormatUint(uint64(number), 10)), aad)
}

func (k *keyring) seal(cluster string, p Purpose, aad, plaintext []byte) ([]byte, error) {
	t, ok := k.active(p)
	if !ok {
		return nil, purposeUnknown(p)
	}
	out := make([]byte, 0, headerSize+12+len(plaintext)+16)
	out = append(out, sealedFormat)
	out = binary.BigEndian.AppendUint32(out, t.Number)
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	out = append(out, salt...)
	aead, err := t.messageAEAD(salt)
	if err != nil {
		return nil, err
	}
	return aead.Seal(out, nil, plaintext, bind(cluster, p, t.Number, aad)), nil //nolint:gosec // G407: this AEAD makes its own random nonce
}

func (k *keyring) open(cluster string, p Purpose, aad, sealed []byte) ([]byte, error) {
	if len(sealed) < headerSize || sealed[0] != sealedFormat {
		return nil, notOpened(p)
	}
	t, ok := k.term(p, binary.BigEndian.Uint32(sealed[1:]))
	if !ok {
		return nil, notOpened(p)
	}
	aead, err := t.messageAEAD(sealed[1+4 : headerSize])
	if err != nil {
		return nil, err
	}
	plaintext, err := aead.Open(nil, nil, sealed[headerSize:], bind(cluster, p, t.Number, aad))
	if err != nil {
		return nil, notOpened(p).Wrap(err)
	}
	return plaintext, nil
}

// age compares the term of a sealed value with the active one: negative for a value of
// an older term, positive for one of a term this keyring does not have yet.
func (k *keyring) age(p Purpose, sealed []byte) int {
	t, ok := k.active(p)
	if !ok || len(sealed) < headerSize || sealed[0] != sealedFormat {
		return 0
	}
	return cmp.Compare(binary.BigEndian.Uint32(sealed[1:]), t.Number)
}

func notOpened(p Purpose) *reeve.Error {
	return reeve.Errorf(reeve.Internal, "sealed_value_corrupt", "a value sealed for %q does not open: it was altered, moved, or sealed by another cluster", p)
}

func (t term) messageAEAD(salt []byte) (cipher.AEAD, error) {
	key := t.messageKey(salt)
	defer clear(key)
	return newAEAD(key)
}

// messageKey is the key of the one value that has this salt.
func (t term) messageKey(salt []byte) []byte {
	mac := hmac.New(sha256.New, t.Key)
	mac.Write([]byte("reeve/v1/message-key"))
	mac.Write(salt)
	return mac.Sum(nil)
}

// newAEAD is AES-256-GCM that puts a random nonce before each ciphertext.
func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return aead, nil
}

func (k *keyring) wrap(root []byte, cluster string) ([]byte, error) {
	aead, err := newAEAD(root)
	if err != nil {
		return nil, err
	}
	// cbor.Marshal would leave the keys in a buffer of its pool, and a buffer that grows where it was before.
	buf := bytes.NewBuffer(make([]byte, 0, keyringHead+len(k.Terms)*termSize))
	defer func() { clear(buf.Bytes()) }()
	room := buf.Available()
	if err := encoding.MarshalToBuffer(k, buf); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if buf.Len() > room {
		return nil, fmt.Errorf("seal: %d terms take %d bytes, more than %d", len(k.Terms), buf.Len(), room)
	}
	return aead.Seal(nil, nil, buf.Bytes(), lengthPrefixed([]byte("reeve/v1"), []byte(cluster), []byte("keyring"))), nil //nolint:gosec // G407: this AEAD makes its own random nonce
}

// What an encoded keyring takes at most, in bytes: with it a term of 32 bytes for its key,
// up to 35 for its instant and the rest for its words and numbers.
const (
	keyringHead = 32
	termSize    = 160
)

var encoding = func() cbor.UserBufferEncMode {
	m, err := cbor.EncOptions{}.UserBufferEncMode()
	if err != nil {
		panic(err) // of options that never change
	}
	return m
}()

func unwrapKeyring(root []byte, cluster string, wrapped []byte) (*keyring, error) {
	aead, err := newAEAD(root)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, wrapped, lengthPrefixed([]byte("reeve/v1"), []byte(cluster), []byte("keyring")))
	if err != nil {
		return nil, stateCorrupt("keyring").Wrap(err)
	}
	defer clear(plain)
	var k keyring
	if err := cbor.Unmarshal(plain, &k); err != nil {
		return nil, stateCorrupt("keyring").Wrap(err)
	}
	return &k, nil
}

func lengthPrefixed(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p))) //nolint:gosec // sizes of values in memory
		out = append(out, p...)
	}
	return out
}

func (k *keyring) clone() *keyring {
	c := &keyring{Version: k.Version, Terms: make([]term, len(k.Terms))}
	for i, t := range k.Terms {
		t.Key = append([]byte(nil), t.Key...)
		c.Terms[i] = t
	}
	return c
}

func purposeUnknown(p Purpose) *reeve.Error {
	return reeve.Errorf(reeve.Internal, "seal_purpose_unknown", "the keyring has no active key for %q", p)
}
