package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"strconv"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// binding is the additional data of a version's data key and value: moving either
// to another secret, version, kind or field makes it fail to open (K2).
func binding(field string, s *Info, version uint32) []byte {
	var b []byte
	for _, part := range []string{"reeve/vault/v1", field, string(s.ID), strconv.FormatUint(uint64(version), 10), string(s.Kind)} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part))) //nolint:gosec // five short strings
		b = append(b, part...)
	}
	return b
}

// seal encrypts value under a fresh 256-bit data key, which is used for nothing
// else, and wraps the key with the keyring.
func (v *Vault) seal(s *Info, version uint32, value reeve.Secret) (key, sealed []byte, err error) {
	dek := make([]byte, 32)
	defer clear(dek)
	_, _ = rand.Read(dek) // never fails (Go 1.24)
	gcm, err := newGCM(dek)
	if err != nil {
		return nil, nil, err
	}
	sealed = gcm.Seal(nil, nil, value.Bytes(), binding("value", s, version)) //nolint:gosec // no nonce is given: this mode draws its own
	key, err = v.cipher.Seal(binding("key", s, version), dek)
	return key, sealed, err
}

func (v *Vault) open(s *Info, r *record) (reeve.Secret, error) {
	dek, err := v.cipher.Open(binding("key", s, r.Number), r.Key)
	if err != nil {
		return reeve.Secret{}, err
	}
	defer clear(dek)
	gcm, err := newGCM(dek)
	if err != nil {
		return reeve.Secret{}, err
	}
	plain, err := gcm.Open(nil, nil, r.Value, binding("value", s, r.Number))
	if err != nil {
		return reeve.Secret{}, reeve.Errorf(reeve.Internal, "secret_corrupt",
			"version %d of %s does not open with its own key", r.Number, s.ID)
	}
	return reeve.NewSecret(plain), nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, reeve.Errorf(reeve.Internal, "secret_corrupt", "a data key is not 256 bits long")
	}
	gcm, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, reeve.Errorf(reeve.Internal, "secret_corrupt", "AES-GCM is not available").Wrap(err)
	}
	return gcm, nil
}
