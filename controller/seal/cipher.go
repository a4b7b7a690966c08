package seal

import (
	"crypto/hmac"
	"crypto/sha256"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Seal encrypts plaintext under the active term for Data, bound to cluster, term and
// aad. It fails with kind Sealed while the node is sealed. With Open it implements
// store.Cipher.
func (m *Manager) Seal(aad, plaintext []byte) ([]byte, error) { return m.SealFor(Data, aad, plaintext) }

// Open decrypts what Seal made with the same aad. It fails with kind Sealed while the
// node is sealed, and code sealed_value_corrupt for anything else than such a value.
func (m *Manager) Open(aad, sealed []byte) ([]byte, error) { return m.OpenFor(Data, aad, sealed) }

// SealFor is Seal for another purpose.
func (m *Manager) SealFor(p Purpose, aad, plaintext []byte) ([]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.ring == nil {
		return nil, sealedError()
	}
	return m.ring.seal(m.state.Cluster, p, aad, plaintext)
}

// behindLimit is how long a value of a term that this node does not know yet is waited
// for: a node reads what was written with new keys a moment before it takes these over.
const behindLimit = time.Second

// OpenFor is Open for another purpose.
func (m *Manager) OpenFor(p Purpose, aad, sealed []byte) ([]byte, error) {
	plain, behind, err := m.openNow(p, aad, sealed)
	if behind == nil {
		return plain, err
	}
	late := time.NewTimer(behindLimit)
	defer late.Stop()
	select {
	case <-behind:
	case <-late.C:
	}
	plain, _, err = m.openNow(p, aad, sealed)
	return plain, err
}

// openNow also returns what to wait for if the value is of a term to come.
func (m *Manager) openNow(p Purpose, aad, sealed []byte) (plain []byte, behind <-chan struct{}, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.ring == nil {
		return nil, nil, sealedError()
	}
	if m.ring.age(p, sealed) > 0 {
		behind = m.loaded
	}
	plain, err = m.ring.open(m.state.Cluster, p, aad, sealed)
	return plain, behind, err
}

// MACs returns the HMAC-SHA-256 of value under each term of a purpose, the active one
// first. Store the first; look up any of them, since what was stored before a
// rotation was made with an older term.
func (m *Manager) MACs(p Purpose, value []byte) ([][]byte, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.ring == nil {
		return nil, sealedError()
	}
	var macs [][]byte
	for i := len(m.ring.Terms) - 1; i >= 0; i-- { // the active term of a purpose is its last
		if t := m.ring.Terms[i]; t.Purpose == p {
			mac := hmac.New(sha256.New, t.Key)
			mac.Write(lengthPrefixed([]byte("reeve/v1/mac"), []byte(m.state.Cluster), value))
			macs = append(macs, mac.Sum(nil))
		}
	}
	return macs, nil
}

func sealedError() *reeve.Error {
	return reeve.Errorf(reeve.Sealed, "sealed", "this node is sealed").WithFix("give it the unseal shares or its key file")
}
