// Package redact takes secrets out of text: it knows the forms in which a secret may
// turn up (as it is, in UTF-16, base64, hexadecimal, quoted for URLs, JSON, XML, shells,
// SQL, LDAP) and finds them also with control sequences in between. The agent redacts
// the log of a job with it before a line touches disk or wire, and the controller again
// before it stores what arrives. Anything of ours may import it.
package redact
