package winrm

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5" //nolint:gosec // as below
	"crypto/rand"
	"crypto/rc4" //nolint:gosec // as below
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/crypto/md4" //nolint:staticcheck,gosec // what NTLM is made of
)

// Flags of MS-NLMP 2.2.2.5.
const (
	flagUnicode     = 0x00000001
	flagTarget      = 0x00000004
	flagSign        = 0x00000010
	flagSeal        = 0x00000020
	flagNTLM        = 0x00000200
	flagAlwaysSign  = 0x00008000
	flagServer      = 0x00020000
	flagESS         = 0x00080000
	flagTargetInfo  = 0x00800000
	flagVersion     = 0x02000000
	flag128         = 0x20000000
	flagKeyExchange = 0x40000000
	flag56          = 0x80000000
)

var (
	errNTLM   = errors.New("the NTLM message is malformed")
	signature = []byte("NTLMSSP\x00")
)

// ntlm is the server's side of one login.
type ntlm struct {
	negotiate, challenge []byte
	nonce                [8]byte
}

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

func fromUTF16(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(md5.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

func pair(b []byte, id uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, id)
	return append(binary.LittleEndian.AppendUint16(b, uint16(len(value))), value...)
}

// begin answers the first message with a challenge (2.2.1.2).
func (n *ntlm) begin(message []byte, host string) ([]byte, error) {
	if len(message) < 16 || !bytes.HasPrefix(message, signature) || binary.LittleEndian.Uint32(message[8:]) != 1 {
		return nil, errNTLM
	}
	n.negotiate = bytes.Clone(message)
	flags := binary.LittleEndian.Uint32(message[12:])
	if flags&flagESS == 0 { // clients of NTLMv2 leave out flagNTLM, and some say Unicode only later
		return nil, errNTLM
	}
	flags &= flagUnicode | flagTarget | flagSign | flagSeal | flagNTLM | flagAlwaysSign | flagESS | flag128 | flagKeyExchange | flag56
	flags |= flagUnicode | flagNTLM | flagServer | flagTargetInfo | flagVersion
	_, _ = rand.Read(n.nonce[:]) // never fails
	name := utf16le(host)
	var info []byte
	for id, value := range map[uint16][]byte{1: name, 2: name, 3: utf16le(strings.ToLower(host)), 4: utf16le(strings.ToLower(host))} {
		info = pair(info, id, value)
	}
	info = pair(info, 7, binary.LittleEndian.AppendUint64(nil, uint64(time.Now().UnixNano()/100)+116444736000000000))
	info = pair(info, 0, nil)
	c := make([]byte, 56)
	copy(c, signature)
	binary.LittleEndian.PutUint32(c[8:], 2)
	field := func(at, size, offset int) {
		binary.LittleEndian.PutUint16(c[at:], uint16(size))
		binary.LittleEndian.PutUint16(c[at+2:], uint16(size))
		binary.LittleEndian.PutUint32(c[at+4:], uint32(offset))
	}
	field(12, len(name), 56)
	binary.LittleEndian.PutUint32(c[20:], flags)
	copy(c[24:], n.nonce[:])
	field(40, len(info), 56+len(name))
	copy(c[48:], []byte{10, 0, 0x7c, 0x4f, 0, 0, 0, 15})
	n.challenge = append(append(c, name...), info...)
	return n.challenge, nil
}

// part is a field of an AUTHENTICATE message.
func part(m []byte, at int) []byte {
	size, offset := int(binary.LittleEndian.Uint16(m[at:])), int64(binary.LittleEndian.Uint32(m[at+4:]))
	if offset+int64(size) > int64(len(m)) {
		return nil
	}
	return m[offset : offset+int64(size)]
}

// proof is what an AUTHENTICATE message says and shows (2.2.1.3).
type proof struct {
	user    string
	domain  string
	binding []byte
	message []byte
	answer  []byte // of NTLMv2: 16 bytes of proof, then what it covers
	mic     bool
}

func readProof(m []byte) (*proof, error) {
	if len(m) < 64 || !bytes.HasPrefix(m, signature) || binary.LittleEndian.Uint32(m[8:]) != 3 {
		return nil, errNTLM
	}
	p := &proof{domain: fromUTF16(part(m, 28)), user: fromUTF16(part(m, 36)), message: m, answer: part(m, 20)}
	if len(p.answer) < 48 { // NTLMv1, or nothing
		return nil, errNTLM
	}
	for info := p.answer[44:]; len(info) >= 4; {
		id, size := binary.LittleEndian.Uint16(info), 4+int(binary.LittleEndian.Uint16(info[2:]))
		if id == 0 {
			return p, nil
		}
		if size > len(info) {
			return nil, errNTLM
		}
		switch value := info[4:size]; {
		case id == 6 && len(value) == 4:
			p.mic = value[0]&2 != 0
		case id == 10:
			p.binding = value
		}
		info = info[size:]
	}
	return nil, errNTLM
}

// fits reports whether the proof was made with the password.
func (n *ntlm) fits(p *proof, password string) bool {
	h := md4.New() //nolint:gosec // MS-NLMP 3.3.1
	h.Write(utf16le(password))
	key := mac(h.Sum(nil), utf16le(strings.ToUpper(p.user)+p.domain))
	shown := mac(key, n.nonce[:], p.answer[16:])
	if !hmac.Equal(shown, p.answer[:16]) {
		return false
	}
	if !p.mic {
		return true
	}
	session := mac(key, shown)
	if flags := binary.LittleEndian.Uint32(p.message[60:]); flags&flagKeyExchange != 0 && len(part(p.message, 52)) == 16 {
		c, err := rc4.NewCipher(session) //nolint:gosec // MS-NLMP 3.4.5.1
		if err != nil {
			return false
		}
		session = make([]byte, 16)
		c.XORKeyStream(session, part(p.message, 52))
	}
	if len(p.message) < 88 {
		return false
	}
	bare := bytes.Clone(p.message)
	clear(bare[72:88])
	return hmac.Equal(mac(session, n.negotiate, n.challenge, bare), p.message[72:88])
}

// bindingOf is the channel binding that a client of a server with this certificate shows. Ours is signed with SHA-256.
func bindingOf(cert *x509.Certificate) []byte {
	hash := sha256.Sum256(cert.Raw)
	data := append([]byte("tls-server-end-point:"), hash[:]...)
	sum := md5.Sum(append(binary.LittleEndian.AppendUint32(make([]byte, 16), uint32(len(data))), data...)) //nolint:gosec // MS-NLMP 2.2.2.1
	return sum[:]
}
