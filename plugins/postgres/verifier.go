package main

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// mask stands for the verifier in plans.
const mask = "********"

// scramIterations is the server's own number, so that logins cost what they cost elsewhere.
// https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-SCRAM-ITERATIONS
const scramIterations = 4096

// verifier is what the server stores of a password: enough to check a login, and not to
// make one. https://www.postgresql.org/docs/current/catalog-pg-authid.html, RFC 5802 section 3
func verifier(password sdk.Secret) (string, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	return salted(password, salt)
}

func salted(password sdk.Secret, salt []byte) (string, error) {
	text := password.Reveal()
	if !unambiguous(text) {
		return "", sdk.Errorf(sdk.ClassPolicyRejected, "the password has characters that programs prepare differently before they log in").
			WithFix("leave out compatibility characters, invisible ones and letters with separate accents")
	}
	key, err := pbkdf2.Key(sha256.New, text, salt, scramIterations, sha256.Size)
	if err != nil {
		return "", sdk.Errorf(sdk.ClassInternal, "the password cannot be hashed").Wrap(err)
	}
	stored := sha256.Sum256(mac(key, "Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return "SCRAM-SHA-256$" + strconv.Itoa(scramIterations) + ":" + b64(salt) + "$" + b64(stored[:]) + ":" + b64(mac(key, "Server Key")), nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// unambiguous reports whether every client sends the password as it is. SASLprep (RFC 4013),
// which libpq does, and OpaqueString (RFC 8265), which others do, both change some characters
// and not the same ones; where neither changes anything, or refuses and so leaves the
// password alone, all agree.
func unambiguous(password string) bool {
	if !utf8.ValidString(password) || !norm.NFKC.IsNormalString(password) {
		return false
	}
	for _, r := range password {
		if r > unicode.MaxASCII && (unicode.IsSpace(r) || unicode.Is(unicode.Zs, r) || unicode.Is(mappedToNothing, r)) {
			return false
		}
	}
	return true
}

// mappedToNothing are the characters SASLprep leaves out: RFC 3454, table B.1, and U+200B, which is both there and a space (C.1.2).
var mappedToNothing = &unicode.RangeTable{R16: []unicode.Range16{
	{Lo: 0x00AD, Hi: 0x00AD, Stride: 1}, {Lo: 0x034F, Hi: 0x034F, Stride: 1}, {Lo: 0x1806, Hi: 0x1806, Stride: 1},
	{Lo: 0x180B, Hi: 0x180D, Stride: 1}, {Lo: 0x200B, Hi: 0x200D, Stride: 1}, {Lo: 0x2060, Hi: 0x2060, Stride: 1},
	{Lo: 0xFE00, Hi: 0xFE0F, Stride: 1}, {Lo: 0xFEFF, Hi: 0xFEFF, Stride: 1},
}}
