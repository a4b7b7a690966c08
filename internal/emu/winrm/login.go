package winrm

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"strings"
)

// login is how far somebody is who logs in with NTLM. It belongs to a connection.
type login struct {
	ntlm *ntlm
	user string
}

type connection struct{} // key of a context

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// authenticate says who sends a request, or sends the client away.
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request) (user string, ok bool) {
	l := r.Context().Value(connection{}).(*login)
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch {
	case scheme == "" && l.user != "":
		return l.user, true
	case scheme == "Basic" && s.options.Basic:
		name, password, _ := r.BasicAuth()
		if a := s.Host.login(name, func(p string) bool { return p == password }); a != nil {
			return a.Name, true
		}
	case scheme == "Negotiate" && !s.options.NoNegotiate:
		raw, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			break
		}
		message, wrapped := unwrap(raw)
		if l.ntlm == nil || len(message) > 8 && message[8] == 1 {
			l.ntlm, l.user = &ntlm{}, ""
			challenge, err := l.ntlm.begin(message, HostName)
			if err != nil {
				s.problem("%v", err)
				break
			}
			if wrapped {
				challenge = wrap(challenge)
			}
			w.Header().Set("WWW-Authenticate", "Negotiate "+base64.StdEncoding.EncodeToString(challenge))
			w.WriteHeader(http.StatusUnauthorized)
			return "", false
		}
		if l.user = s.prove(l.ntlm, message); l.user != "" {
			return l.user, true
		}
		l.ntlm = nil
	}
	if !s.options.NoNegotiate {
		w.Header().Add("WWW-Authenticate", "Negotiate")
	}
	if s.options.Basic {
		w.Header().Add("WWW-Authenticate", `Basic realm="WSMAN"`)
	}
	w.WriteHeader(http.StatusUnauthorized)
	return "", false
}

// prove checks the last message of an NTLM login.
func (s *Server) prove(n *ntlm, message []byte) (user string) {
	p, err := readProof(message)
	if err != nil {
		s.problem("%v", err)
		return ""
	}
	switch {
	case len(p.binding) > 0 && s.certificate != nil && !bytes.Equal(p.binding, make([]byte, 16)):
		if !bytes.Equal(p.binding, bindingOf(s.certificate)) { // somebody in between
			return ""
		}
	case s.options.RequireBinding:
		return ""
	}
	a := s.Host.login(p.user, func(password string) bool { return n.fits(p, password) })
	if a == nil {
		return ""
	}
	return a.Name
}

// unwrap finds the NTLM message in a SPNEGO token.
func unwrap(b []byte) (message []byte, wrapped bool) {
	i := bytes.Index(b, signature)
	if i < 0 {
		return b, false
	}
	return b[i:], i > 0
}

// wrap puts a challenge into a SPNEGO token (RFC 4178, NegTokenResp).
func wrap(challenge []byte) []byte {
	b, err := asn1.Marshal(struct {
		State asn1.Enumerated       `asn1:"explicit,tag:0"`
		Mech  asn1.ObjectIdentifier `asn1:"explicit,tag:1"`
		Token []byte                `asn1:"explicit,tag:2"`
	}{1, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 2, 10}, challenge})
	if err == nil {
		b, err = asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 1, IsCompound: true, Bytes: b})
	}
	if err != nil {
		panic(err) // constants and bytes always marshal
	}
	return b
}
