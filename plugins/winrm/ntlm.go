package main

import (
	"crypto"
	"crypto/md5" //nolint:gosec // MS-NLMP 2.2.2.1 asks for it
	"crypto/x509"
	"encoding/binary"
	"errors"

	"github.com/Azure/go-ntlmssp"
)

// Of MS-NLMP 2.2.1.2 and 2.2.2.1.
const (
	challengeHead     = 48 // bytes before the payload at least
	targetInfoField   = 40 // length, capacity, offset
	avEnd             = 0
	avChannelBindings = 10
)

var errChallenge = errors.New("the NTLM challenge is malformed")

// negotiate is the first message of a login.
func negotiate() ([]byte, error) { return ntlmssp.NewNegotiateMessage("", "") }

// authenticate answers a challenge. The proof covers the certificate of the TLS connection (binding), so that whoever is in between
// cannot use it on a connection of his own.
func authenticate(challenge, binding []byte, user, password string) ([]byte, error) {
	challenge, err := bound(challenge, binding)
	if err != nil {
		return nil, err
	}
	return ntlmssp.NewAuthenticateMessage(challenge, user, password, nil)
}

// bound adds the channel binding to the target information of a challenge. The library copies that into what it proves.
func bound(challenge, binding []byte) ([]byte, error) {
	if len(challenge) < challengeHead {
		return nil, errChallenge
	}
	length := int(binary.LittleEndian.Uint16(challenge[targetInfoField:]))
	offset := int64(binary.LittleEndian.Uint32(challenge[targetInfoField+4:]))
	if offset < challengeHead || offset+int64(length) > int64(len(challenge)) {
		return nil, errChallenge
	}
	var info []byte
	for pairs := challenge[offset : offset+int64(length)]; ; {
		if len(pairs) < 4 {
			return nil, errChallenge
		}
		id, size := binary.LittleEndian.Uint16(pairs), 4+int(binary.LittleEndian.Uint16(pairs[2:]))
		if size > len(pairs) {
			return nil, errChallenge
		}
		if id == avEnd {
			break
		}
		if id != avChannelBindings {
			info = append(info, pairs[:size]...)
		}
		pairs = pairs[size:]
	}
	if len(binding) > 0 {
		info = append(attribute(info, avChannelBindings, len(binding)), binding...)
	}
	info = attribute(info, avEnd, 0)
	if len(info) > 1<<16-1 {
		return nil, errChallenge
	}
	out := append([]byte(nil), challenge...)
	binary.LittleEndian.PutUint16(out[targetInfoField:], uint16(len(info)))
	binary.LittleEndian.PutUint16(out[targetInfoField+2:], uint16(len(info)))
	binary.LittleEndian.PutUint32(out[targetInfoField+4:], uint32(len(out)))
	return append(out, info...), nil
}

func attribute(b []byte, id uint16, size int) []byte {
	return binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, id), uint16(size))
}

// channelBinding is the MD5 of a gss_channel_bindings_struct that holds the certificate (RFC 5929 section 4, RFC 2744 section 3.11).
func channelBinding(cert *x509.Certificate) []byte {
	hash := crypto.SHA256
	switch cert.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		hash = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		hash = crypto.SHA512
	}
	h := hash.New()
	h.Write(cert.Raw)
	data := append([]byte("tls-server-end-point:"), h.Sum(nil)...)
	// No addresses: initiator's type and length, acceptor's type and length.
	b := binary.LittleEndian.AppendUint32(make([]byte, 16), uint32(len(data)))
	sum := md5.Sum(append(b, data...)) //nolint:gosec // see the import
	return sum[:]
}
