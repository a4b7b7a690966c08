package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/reeve"
)

func overwrite(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// raw is a share before it is text; text makes it one again, with a checksum that fits.
func raw(t *testing.T, share reeve.Secret) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(share.Reveal(), SharePrefix))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func text(raw []byte) reeve.Secret {
	end := len(raw) - 4
	b := binary.BigEndian.AppendUint32(bytes.Clone(raw[:end]), crc32.ChecksumIEEE(raw[:end]))
	return reeve.SecretString(SharePrefix + base64.RawURLEncoding.EncodeToString(b))
}

// Every set of fewer shares than the threshold, in every order, leaves the node sealed;
// every set of the threshold opens it.
func TestNoSetOfTooFewSharesUnseals_K3(t *testing.T) {
	t.Parallel()
	_, st, shares := founded(t) // 3 of 5
	for a := range shares {
		for b := range shares {
			m := sealed(t, st)
			for _, i := range []int{a, b, a, b} {
				if s, err := m.Unseal(shares[i]); err != nil || !s.Sealed {
					t.Fatalf("shares %d and %d: sealed %v, %v", a+1, b+1, s.Sealed, err)
				}
			}
			if err := m.Load(state(t, st)); err != nil || !m.Sealed() {
				t.Fatalf("shares %d and %d: %v", a+1, b+1, err)
			}
			for c := range shares {
				if a == b || c == a || c == b {
					continue
				}
				m := sealed(t, st)
				for _, i := range []int{a, b, c} {
					if _, err := m.Unseal(shares[i]); err != nil {
						t.Fatal(err)
					}
				}
				if m.Sealed() {
					t.Fatalf("shares %d, %d and %d leave it sealed", a+1, b+1, c+1)
				}
			}
		}
	}
}

// Every bit of every share is flipped, once as a typing error and once with a checksum
// that fits: two good shares and that one never unseal, the message names the share, and
// a third good one still does.
func TestNoFlippedBitUnsealsAndTheBadShareIsNamed_K3(t *testing.T) {
	t.Parallel()
	_, st, shares := founded(t) // 3 of 5
	for i, share := range shares {
		t.Run(fmt.Sprint("share ", i+1), func(t *testing.T) {
			t.Parallel()
			good := []reeve.Secret{shares[(i+1)%5], shares[(i+2)%5], shares[(i+3)%5]}
			m := sealed(t, st)
			for _, s := range good[:2] {
				if _, err := m.Unseal(s); err != nil {
					t.Fatal(err)
				}
			}
			try := func(what string, s reeve.Secret, code, named string) {
				t.Helper()
				got, err := m.Unseal(s)
				if !got.Sealed || reeve.CodeOf(err) != code || !strings.Contains(err.Error(), named) || len(got.Given) != 2 {
					t.Fatalf("%s: %+v, %v", what, got, err)
				}
			}
			b := raw(t, share)
			for bit := range len(b) * 8 {
				flipped := bytes.Clone(b)
				flipped[bit/8] ^= 1 << (bit % 8)
				bad := base64.RawURLEncoding.EncodeToString(flipped)
				try(fmt.Sprint("bit ", bit), reeve.SecretString(SharePrefix+bad), "unseal_share_malformed", "mistyped")
				switch {
				case bit/8 >= len(b)-4: // the checksum
				case bit/8 == 0 || flipped[5] == 0: // another version; there is no share 0
					try(fmt.Sprint("bit ", bit, ", summed"), text(flipped), "unseal_share_malformed", "incomplete")
				default:
					try(fmt.Sprint("bit ", bit, ", summed"), text(flipped), "unseal_share_wrong", fmt.Sprintf("share number %d ", flipped[5]))
				}
			}
			if s, err := m.Unseal(good[2]); err != nil || s.Sealed {
				t.Fatalf("the good shares no longer count: %+v, %v", s, err)
			}
		})
	}
}
