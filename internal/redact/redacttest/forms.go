// Package redacttest lists the forms in which redaction must find a secret, written
// without the redactor's own code. Tests of whatever redacts may import it.
package redacttest

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
)

// Forms are texts that hold a printable ASCII secret, by the name of the form.
func Forms(s string) map[string]string {
	u16 := func(hi, lo int) string {
		b := make([]byte, 0, 2*len(s))
		for _, r := range s {
			pair := [2]byte{byte(r >> 8), byte(r)}
			b = append(b, pair[hi], pair[lo])
		}
		return string(b)
	}
	return map[string]string{
		"raw":            s,
		"utf-16le":       u16(1, 0),
		"utf-16be":       u16(0, 1),
		"base64":         base64.StdEncoding.EncodeToString([]byte(s)),
		"base64 at 1":    base64.StdEncoding.EncodeToString([]byte("x" + s + "yz")),
		"base64 at 2":    base64.URLEncoding.EncodeToString([]byte("xx" + s + "yz")),
		"base64 of utf":  base64.StdEncoding.EncodeToString([]byte(u16(1, 0))),
		"hex":            hex.EncodeToString([]byte(s)),
		"HEX":            strings.ToUpper(hex.EncodeToString([]byte(s))),
		"percent":        url.QueryEscape(s),
		"percent, path":  url.PathEscape(s),
		"json":           strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s),
		"json, html":     strings.NewReplacer(`\`, `\\`, `"`, `\"`, "<", `\u003c`, ">", `\u003e`, "&", `\u0026`).Replace(s),
		"xml":            strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&#34;", "'", "&#39;").Replace(s),
		"xml, named":     strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&apos;").Replace(s),
		"sh":             strings.ReplaceAll(s, `'`, `'\''`),
		"sh, double":     strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(s),
		"sql":            strings.ReplaceAll(s, `'`, `''`),
		"mysql":          strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s),
		"ldap unicode":   u16(1, 0),
		"ansi inside":    s[:len(s)/2] + "\x1b[31m" + s[len(s)/2:],
		"cr inside":      s[:len(s)/2] + "\r" + s[len(s)/2:],
		"wrapped":        s[:len(s)/2] + "\r\n" + s[len(s)/2:],
		"base64 wrapped": base64.StdEncoding.EncodeToString([]byte(s))[:5] + "\n" + base64.StdEncoding.EncodeToString([]byte(s))[5:],
	}
}
