// Package envelope is how the secrets of one job travel from the leader to one
// agent: sealed with HPKE (RFC 9180) to the agent's current key, bound to cluster,
// site, agent, job, fence and connector. The controller seals, the agent opens;
// nothing between them, gRPC buffers and traces included, sees plaintext.
package envelope

import (
	"crypto/hpke"
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Binding is everything a sealed secret is good for. An envelope opened with
// any other value fails.
type Binding struct {
	Cluster   string
	Site      reeve.SiteID
	Agent     reeve.AgentID
	Job       reeve.JobID
	Fence     uint64
	Connector string
}

// Ref names the secret inside.
type Ref struct {
	Slot    string // what the job uses it for: management, current, candidate, …
	Secret  reeve.SecretID
	Version uint32
}

func (b Binding) info() []byte {
	return lengthPrefixed("reeve/job/v1", b.Cluster, string(b.Site), string(b.Agent), string(b.Job),
		strconv.FormatUint(b.Fence, 10), b.Connector)
}

func (r Ref) aad() []byte {
	return lengthPrefixed(r.Slot, string(r.Secret), strconv.FormatUint(uint64(r.Version), 10))
}

// GenerateKey makes an agent's key pair: MLKEM768-X25519, a hybrid that stays safe
// if either half falls.
func GenerateKey() (hpke.PrivateKey, error) { return hpke.MLKEM768X25519().GenerateKey() }

// ParsePrivateKey reads what PrivateKey.Bytes wrote.
func ParsePrivateKey(b []byte) (hpke.PrivateKey, error) {
	return hpke.MLKEM768X25519().NewPrivateKey(b)
}

// ParsePublicKey reads an agent's public key, as it came from the wire.
func ParsePublicKey(b []byte) (hpke.PublicKey, error) {
	k, err := hpke.MLKEM768X25519().NewPublicKey(b)
	if err != nil {
		return nil, reeve.Errorf(reeve.Invalid, "hpke_key_invalid", "the agent's HPKE public key is not an MLKEM768-X25519 key")
	}
	return k, nil
}

// Seal encrypts one secret to the agent's key.
func Seal(to hpke.PublicKey, b Binding, r Ref, s reeve.Secret) (enc, ciphertext []byte, err error) {
	enc, sender, err := hpke.NewSender(to, hpke.HKDFSHA256(), hpke.AES256GCM(), b.info())
	if err != nil {
		return nil, nil, fmt.Errorf("envelope: %w", err)
	}
	ciphertext, err = sender.Seal(r.aad(), s.Bytes())
	if err != nil {
		return nil, nil, fmt.Errorf("envelope: %w", err)
	}
	return enc, ciphertext, nil
}

// Open decrypts what Seal made for the same binding and reference.
func Open(key hpke.PrivateKey, b Binding, r Ref, enc, ciphertext []byte) (reeve.Secret, error) {
	recipient, err := hpke.NewRecipient(enc, key, hpke.HKDFSHA256(), hpke.AES256GCM(), b.info())
	if err != nil {
		return reeve.Secret{}, openError(r).Wrap(err)
	}
	plain, err := recipient.Open(r.aad(), ciphertext)
	if err != nil {
		return reeve.Secret{}, openError(r).Wrap(err)
	}
	return reeve.NewSecret(plain), nil
}

func openError(r Ref) *reeve.Error {
	return reeve.Errorf(reeve.Invalid, "envelope_invalid", "the sealed secret %s of this job does not open with this agent's key", r.Slot)
}

func lengthPrefixed(parts ...string) []byte {
	var out []byte
	for _, p := range parts {
		out = binary.BigEndian.AppendUint32(out, uint32(len(p))) //nolint:gosec // lengths of identifiers
		out = append(out, p...)
	}
	return out
}
