package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// SharePrefix starts every unseal share, so that secret scanners can find one.
const SharePrefix = "reeves_"

// The text of a share is SharePrefix and, in unpadded base64url: a version byte,
// the generation of the seal key (4 bytes), the share's number, 32 bytes, and
// the CRC-32 of all that, which tells a typing error from a share that is wrong.
const (
	shareVersion = 1
	shareLength  = 1 + 4 + 1 + keySize + 4
)

// share is one decoded unseal share.
type share struct {
	generation uint32
	point
}

// makeShares splits a seal key.
func makeShares(key []byte, generation uint32, n, threshold int) []share {
	shares := make([]share, 0, n)
	for _, p := range split(key, n, threshold) {
		shares = append(shares, share{generation: generation, point: p})
	}
	return shares
}

func digests(cluster string, shares []share) (out [][]byte) {
	for _, s := range shares {
		out = append(out, s.digest(cluster))
	}
	return out
}

// encodeShares is the texts for the holders. The shares are overwritten.
func encodeShares(shares []share) []reeve.Secret {
	texts := make([]reeve.Secret, len(shares))
	for i, s := range shares {
		texts[i] = encodeShare(s)
		clear(s.y)
	}
	return texts
}

// encodeShare is the text a holder keeps.
func encodeShare(s share) reeve.Secret {
	raw := make([]byte, 0, shareLength)
	raw = append(raw, shareVersion)
	raw = binary.BigEndian.AppendUint32(raw, s.generation)
	raw = append(raw, s.x)
	raw = append(raw, s.y...)
	raw = binary.BigEndian.AppendUint32(raw, crc32.ChecksumIEEE(raw))
	defer clear(raw)
	return reeve.NewSecret(base64.RawURLEncoding.AppendEncode([]byte(SharePrefix), raw))
}

// decodeShare reads what encodeShare wrote; white space around it is ignored.
func decodeShare(text reeve.Secret) (share, error) {
	body, ok := bytes.CutPrefix(bytes.TrimSpace(text.Bytes()), []byte(SharePrefix))
	if !ok || len(body) != base64.RawURLEncoding.EncodedLen(shareLength) || bytes.ContainsAny(body, "\r\n") {
		return share{}, malformedShare()
	}
	raw, err := base64.RawURLEncoding.Strict().AppendDecode(nil, body)
	if err != nil {
		return share{}, malformedShare()
	}
	defer clear(raw)
	end := len(raw) - 4
	if raw[0] != shareVersion || raw[5] == 0 || binary.BigEndian.Uint32(raw[end:]) != crc32.ChecksumIEEE(raw[:end]) {
		return share{}, malformedShare()
	}
	return share{
		generation: binary.BigEndian.Uint32(raw[1:]),
		point:      point{x: raw[5], y: bytes.Clone(raw[6:end])},
	}, nil
}

func malformedShare() *reeve.Error {
	return reeve.Errorf(reeve.Invalid, "unseal_share_malformed", "this is not an unseal share: it is incomplete or mistyped").
		WithFix("enter the share exactly as it was printed, with its prefix %s", SharePrefix)
}

// digest is what is stored of a share: enough to recognise it, too little to guess
// its 256 bits.
func (s share) digest(cluster string) []byte {
	h := sha256.New()
	h.Write(lengthPrefixed([]byte("reeve/v1/share"), []byte(cluster), binary.BigEndian.AppendUint32(nil, s.generation), []byte{s.x}, s.y))
	return h.Sum(nil)
}
