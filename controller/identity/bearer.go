package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Prefixes of the secrets that people and programs show, so that secret scanners can find
// them. Each is followed by 32 random bytes and their CRC-32 in lower-case base32.
const (
	TokenPrefix      = "reevet_"
	SessionPrefix    = "reeves_"
	InvitationPrefix = "reevei_"
	WrapPrefix       = "reevew_"
)

const (
	bearerBytes = 32
	bearerSum   = 4
)

// bearer is a kind of secret that is shown as it is. With 256 random bits there is
// nothing to guess, so what is stored is a plain hash.
type bearer struct {
	prefix string
	noun   string // for errors, and the first word of their codes
}

var (
	tokenBearer      = bearer{TokenPrefix, "token"}
	sessionBearer    = bearer{SessionPrefix, "session"}
	invitationBearer = bearer{InvitationPrefix, "invitation"}
	wrapBearer       = bearer{WrapPrefix, "wrap"}
)

var bearerEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// make returns a new secret and what to store of it.
func (k bearer) make() (secret reeve.Secret, hash string) {
	raw := make([]byte, bearerBytes)
	_, _ = rand.Read(raw) // never fails
	defer clear(raw)
	return k.encode(raw), k.digest(raw)
}

func (k bearer) encode(raw []byte) reeve.Secret {
	b := binary.BigEndian.AppendUint32(bytes.Clone(raw), k.sum(raw))
	defer clear(b)
	return reeve.NewSecret(bearerEncoding.AppendEncode([]byte(k.prefix), b))
}

// hash is what is stored of a secret; code <noun>_malformed for what cannot be one.
func (k bearer) hash(secret reeve.Secret) (string, error) {
	raw, err := k.decode(secret)
	if err != nil {
		return "", err
	}
	defer clear(raw)
	return k.digest(raw), nil
}

func (k bearer) digest(raw []byte) string {
	h := sha256.New()
	h.Write([]byte("reeve/v1/" + k.noun + ":"))
	h.Write(raw)
	return hex.EncodeToString(h.Sum(nil))
}

// sum finds typing errors, in the prefix too; tokens were made before there were others.
func (k bearer) sum(raw []byte) uint32 {
	if k == tokenBearer {
		return crc32.ChecksumIEEE(raw)
	}
	return crc32.Update(crc32.ChecksumIEEE([]byte(k.prefix)), crc32.IEEETable, raw)
}

func (k bearer) decode(secret reeve.Secret) ([]byte, error) {
	body, ok := bytes.CutPrefix(secret.Bytes(), []byte(k.prefix))
	if !ok || len(body) != bearerEncoding.EncodedLen(bearerBytes+bearerSum) || bytes.ContainsAny(body, "\r\n") {
		return nil, k.malformed()
	}
	b, err := bearerEncoding.AppendDecode(nil, body)
	if err != nil || !bytes.Equal(bearerEncoding.AppendEncode(nil, b), body) {
		return nil, k.malformed()
	}
	raw, sum := b[:bearerBytes], b[bearerBytes:]
	if binary.BigEndian.Uint32(sum) != k.sum(raw) {
		return nil, k.malformed()
	}
	return raw, nil
}

func (k bearer) malformed() *reeve.Error {
	return reeve.Errorf(reeve.Unauthenticated, k.noun+"_malformed", "this is not a %s: it is incomplete or mistyped", k.noun).
		WithFix("send the %s exactly as it was printed, with its prefix %s", k.noun, k.prefix)
}
