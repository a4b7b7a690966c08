// Connector-ad works on Active Directory domains, through one domain controller and LDAP
// over TLS. It imports the SDK and the driver, and nobody imports it; DESIGN.md beside
// this file argues its choices.
package main

import (
	"io"
	"log"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/idle"
)

// maxAnswer bounds one message of a server. A page of entries is far smaller.
const maxAnswer = 16 << 20

func main() {
	tameDriver()
	sdk.Serve(connector{kept: idle.New((*session).close)})
}

// tameDriver sets what the driver has for the whole process.
func tameDriver() {
	ber.MaxPacketLengthBytes = maxAnswer
	ldap.Logger(log.New(io.Discard, "", 0)) // errors are returned as well
}

// connector implements every power of the SDK but Run.
type connector struct {
	kept *idle.Pool[*session] // connections of management accounts; nil: none is kept
}

var (
	_ sdk.Prober        = connector{}
	_ sdk.Provisioner   = connector{}
	_ sdk.Verifier      = connector{}
	_ sdk.Inspector     = connector{}
	_ sdk.Discoverer    = connector{}
	_ sdk.RightsChecker = connector{}
)
