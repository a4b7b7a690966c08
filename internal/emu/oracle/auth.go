package oracle

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"encoding/hex"
	"strconv"
	"strings"
)

// Iterations of PBKDF2, as servers use them by default: for the verifier and for the key of a session.
const (
	verifierIterations = 4096
	sessionIterations  = 3
)

// verifierKind is the 12c verifier.
const verifierKind = 18453

// verifier is what a server stores of a password.
type verifier struct {
	salt []byte
	hash []byte
}

func newVerifier(password string) verifier {
	v := verifier{salt: random(16)}
	_, v.hash = v.of(password)
	return v
}

// of computes the key that both sides derive from a password, and its hash.
func (v verifier) of(password string) (speedy, hash []byte) {
	salt := append(append([]byte{}, v.salt...), "AUTH_PBKDF2_SPEEDY_KEY"...)
	speedy = derive(password, salt, verifierIterations, 64)
	sum := sha512.Sum512(append(append([]byte{}, speedy...), v.salt...))
	return speedy, sum[:]
}

func (v verifier) matches(password string) bool {
	_, hash := v.of(password)
	return hmac.Equal(hash, v.hash)
}

func derive(secret string, salt []byte, iterations, length int) []byte {
	key, err := pbkdf2.Key(sha512.New, secret, salt, iterations, length)
	if err != nil { // the parameters are constants
		panic(err)
	}
	return key
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func encrypt(key, data []byte) []byte {
	out := make([]byte, len(data))
	iv := make([]byte, aes.BlockSize)                             // the protocol has none: each key is used for one random value
	cipher.NewCBCEncrypter(block(key), iv).CryptBlocks(out, data) //nolint:gosec // see above
	return out
}

func decrypt(key, data []byte) []byte {
	out := make([]byte, len(data))
	cipher.NewCBCDecrypter(block(key), make([]byte, aes.BlockSize)).CryptBlocks(out, data)
	return out
}

func block(key []byte) cipher.Block {
	b, err := aes.NewCipher(key)
	if err != nil { // the key is 32 bytes long
		panic(err)
	}
	return b
}

func upperHex(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) }

// blocks decodes what is whole blocks of a cipher; nil if it is not.
func blocks(text string, least int) []byte {
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%aes.BlockSize != 0 || len(b) < least {
		return nil
	}
	return b
}

// unpadded takes the padding off; nil if there is none.
func unpadded(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	n := int(b[len(b)-1])
	if n < 1 || n > aes.BlockSize || n > len(b) {
		return nil
	}
	return b[:len(b)-n]
}

// login is a login under way.
type login struct {
	name      string
	verifier  verifier // of the user; of nobody, if there is no such user
	known     bool
	as        string // administrative privilege asked for
	serverKey []byte
	salt      []byte // of the session's key
}

// authHeader reads what the two calls of a login have in common.
func (s *session) authHeader(r *reader) (user, as string, pairs map[string]string) {
	r.skip(3)
	has := r.byte()
	length := r.count()
	as = administrative(r.uint())
	r.skip(1)
	n := r.count()
	r.skip(2)
	if has != 0 {
		if s.convLength {
			user = string(r.clr())
		} else {
			user = string(r.take(length))
		}
	}
	pairs = map[string]string{}
	for range n {
		if r.short || r.wrong {
			break
		}
		k, v := r.pair()
		pairs[k] = v
	}
	return user, as, pairs
}

// modes are the bits by which a login asks for an administrative privilege.
var modes = map[uint64]string{0x20: "SYSDBA", 0x40: "SYSOPER", 1 << 24: "SYSBACKUP", 1 << 25: "SYSDG", 1 << 26: "SYSKM"}

func administrative(mode uint64) string {
	for bit, name := range modes {
		if mode&bit != 0 {
			return name
		}
	}
	return ""
}

// loginName is the user a client means: as quoted, or in upper case.
func loginName(text string) string {
	if len(text) > 2 && text[0] == '"' && text[len(text)-1] == '"' {
		return text[1 : len(text)-1]
	}
	return strings.ToUpper(text)
}

// sessionKey is the first half of a login. A user that is not there looks like any other.
func (s *session) sessionKey() error {
	var user, as string
	if err := s.parse(func(r *reader) { user, as, _ = s.authHeader(r) }); err != nil {
		return err
	}
	l := &login{name: loginName(user), as: as, serverKey: random(32), salt: random(16)}
	l.verifier, l.known = s.server.DB.verifierOf(l.name)
	s.login = l
	var w writer
	w.bytes(msgParameter)
	w.uint(6)
	w.pair("AUTH_SESSKEY", upperHex(encrypt(l.verifier.hash[:32], l.serverKey)), 0)
	w.pair("AUTH_VFR_DATA", upperHex(l.verifier.salt), verifierKind)
	w.pair("AUTH_PBKDF2_CSK_SALT", upperHex(l.salt), 0)
	w.pair("AUTH_PBKDF2_VGEN_COUNT", strconv.Itoa(verifierIterations), 0)
	w.pair("AUTH_PBKDF2_SDER_COUNT", strconv.Itoa(sessionIterations), 0)
	w.pair("AUTH_GLOBALLY_UNIQUE_DBID\x00", upperHex(random(16)), 0)
	w.summary(nil, 0, 0)
	return s.link.send(w.b)
}

// proof checks what the client sent; key is that of the session, password the clear one.
func (l *login) proof(pairs map[string]string) (key []byte, password string, ok bool) {
	client := blocks(pairs["AUTH_SESSKEY"], 32)
	sent := blocks(pairs["AUTH_PASSWORD"], 32)
	if client == nil || sent == nil {
		return nil, "", false
	}
	clientKey := decrypt(l.verifier.hash[:32], client[:32])
	key = derive(upperHex(append(clientKey, l.serverKey...)), l.salt, sessionIterations, 32)
	plain := unpadded(decrypt(key, sent))
	if len(plain) <= 16 || !l.known {
		return key, "", false
	}
	password = string(plain[16:])
	if !l.verifier.matches(password) {
		return key, "", false
	}
	if text := pairs["AUTH_PBKDF2_SPEEDY_KEY"]; text != "" {
		speedy := blocks(text, 80)
		want, _ := l.verifier.of(password)
		if speedy == nil || !hmac.Equal(decrypt(key, speedy)[16:80], want) {
			return key, "", false
		}
	}
	return key, password, true
}

// authenticate is the second half of a login.
func (s *session) authenticate() error {
	var as string
	var pairs map[string]string
	if err := s.parse(func(r *reader) { _, as, pairs = s.authHeader(r) }); err != nil {
		return err
	}
	faults := s.server.faultsNow()
	if faults.HangAtLogin {
		return s.link.stall()
	}
	if s.login == nil {
		return notEmulated("a login without its first half")
	}
	if as != s.login.as {
		return notEmulated("a login whose halves ask for different privileges")
	}
	key, _, ok := s.login.proof(pairs)
	if pairs["AUTH_NEWPASSWORD"] != "" {
		return notEmulated("a change of password at login")
	}
	if faults.Rogue {
		s.entry = s.server.DB.logon(Management, "", s.link.conn)
		return s.welcome(random(32))
	}
	if e := s.server.DB.admit(s.login.name, as, ok); e != nil {
		return s.fail(e)
	}
	s.entry = s.server.DB.logon(s.login.name, as, s.link.conn)
	return s.welcome(key)
}

// welcome tells the client about its session, with the proof that the server knows the password too.
func (s *session) welcome(key []byte) error {
	proof := append(random(16), "SERVER_TO_CLIENT"...)
	for range 16 {
		proof = append(proof, 16)
	}
	properties := [][2]string{
		{"AUTH_VERSION_STRING", "- Production"},
		{"AUTH_VERSION_SQL", "26"},
		{"AUTH_XACTION_TRAITS", "3"},
		{"AUTH_VERSION_NO", strconv.Itoa(s.server.options.number())},
		{"AUTH_VERSION_STATUS", "0"},
		{"AUTH_CAPABILITY_TABLE", ""},
		{"AUTH_DBNAME", Service},
		{"AUTH_SESSION_ID", strconv.Itoa(s.entry.sid)},
		{"AUTH_SERIAL_NUM", strconv.Itoa(s.entry.serial)},
		{"AUTH_INSTANCE_NO", "1"},
		{"AUTH_SC_SERVER_HOST", "emulator"},
		{"AUTH_SC_DBUNIQUE_NAME", SID},
		{"AUTH_SC_INSTANCE_NAME", SID},
		{"AUTH_SC_SERVICE_NAME", strings.ToLower(Service)},
		{"AUTH_SC_DB_DOMAIN", ""},
		{"AUTH_MAX_OPEN_CURSORS", "300"},
		{"AUTH_DB_MOUNT_ID\x00", "1"},
		{"AUTH_USER_ID", "100"},
		{"AUTH_MAX_IDEN_LENGTH", "128"},
		{"AUTH_SVR_RESPONSE", upperHex(encrypt(key, proof))},
	}
	var w writer
	w.bytes(msgParameter)
	w.uint(uint64(len(properties)))
	for _, p := range properties {
		w.pair(p[0], p[1], 0)
	}
	settings := []struct {
		code  uint64
		value string
	}{
		{16, "AMERICAN"}, {9, "AMERICA"}, {7, "DD-MON-RR"}, {2, ".,"}, {10, "AL32UTF8"}, {0, "$"}, {1, "AMERICA"},
		{8, "AMERICAN"}, {11, "BINARY"}, {12, "GREGORIAN"},
	}
	w.bytes(msgServer, 5)
	w.uint(0)
	w.bytes(0)
	w.uint(uint64(len(settings)))
	w.bytes(0)
	for _, p := range settings {
		w.pair("", p.value, p.code)
	}
	w.uint(0)
	w.summary(nil, 0, 0)
	return s.link.send(w.b)
}
