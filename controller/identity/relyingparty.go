package identity

import (
	"cmp"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-webauthn/webauthn/protocol"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// RelyingParty is what security keys know the cluster as (WebAuthn Level 3 §4). A key that
// was added for one domain answers to no other, so all controllers share it.
type RelyingParty struct {
	Domain     string   `cbor:"1,keyasint"` // the RP ID
	Addresses  []string `cbor:"2,keyasint"` // origins at which browsers find the cluster; people are sent to the first
	VerifyUser bool     `cbor:"3,keyasint"` // the key must ask for a PIN, a finger or a face
}

// partyID is the id of the one record.
const partyID = "cluster"

// mostAddresses is how many addresses a relying party can have.
const mostAddresses = 16

var parties = store.NewTable("relying_party", store.Key(func(*RelyingParty) string { return partyID }))

// GetRelyingParty returns what security keys know the cluster as; code
// security_keys_off before [ConfigureSecurityKeys].
func GetRelyingParty(tx *store.Tx) (*RelyingParty, error) {
	p, err := parties.Get(tx, partyID)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, reeve.Errorf(reeve.Precondition, "security_keys_off", "security keys cannot be used: it is not configured at which address browsers find the cluster").
			WithFix("have an administrator run: reeve security-keys configure --url https://NAME")
	}
	return p, err
}

// ConfigureSecurityKeys says at which addresses browsers find the cluster; without a domain
// it is the host of the first. The grantor must hold every privilege everywhere: a page at
// such an address can ask anybody's key. Codes security_keys_address, security_keys_domain,
// security_keys_in_use for another domain while there are keys, grant_exceeds.
func ConfigureSecurityKeys(tx *store.Tx, by audit.Actor, grantor Caller, in RelyingParty) (*RelyingParty, error) {
	if err := MayActForAll(tx, grantor); err != nil {
		return nil, err
	}
	if err := in.complete(); err != nil {
		return nil, err
	}
	was, err := parties.Get(tx, partyID)
	if err != nil && reeve.KindOf(err) != reeve.NotFound {
		return nil, err
	}
	event := audit.Event{By: by, Action: "security_keys.configure", Object: partyID, After: in.audited()}
	if err == nil {
		event.Before = was.audited()
		if err := in.movesNobody(tx, was); err != nil {
			return nil, err
		}
	}
	if err := parties.Put(tx, &in); err != nil {
		return nil, err
	}
	return &in, audit.Record(tx, event)
}

func (r *RelyingParty) audited() map[string]string {
	return map[string]string{"domain": r.Domain, "addresses": joined(r.Addresses), "verify_user": strconv.FormatBool(r.VerifyUser)}
}

// movesNobody refuses to lock out who has a key for the domain there was.
func (r *RelyingParty) movesNobody(tx *store.Tx, was *RelyingParty) error {
	if r.Domain == was.Domain {
		return nil
	}
	for _, err := range factors.Scan(tx, "credential", store.Range{}) {
		if err != nil {
			return err
		}
		return reeve.Errorf(reeve.Conflict, "security_keys_in_use", "there are security keys for %s, which answer to no other domain", was.Domain).
			WithFix("keep the domain, or have everybody who has a key add an authenticator app and remove the key first").WithField("/domain")
	}
	return nil
}

// domainRule is a name as browsers write it: small, ASCII, no dot at the end.
var domainRule = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// complete checks the parts and fills in the domain.
func (r *RelyingParty) complete() error {
	wrong := func(i int, format string, args ...any) error {
		return reeve.Errorf(reeve.Invalid, "security_keys_address", format, args...).
			WithFix("give https://NAME or https://NAME:PORT, as the browser shows it").WithField("/urls/" + strconv.Itoa(i))
	}
	if len(r.Addresses) == 0 || len(r.Addresses) > mostAddresses {
		return wrong(0, "between one and %d addresses are needed", mostAddresses)
	}
	for i, a := range r.Addresses {
		u, err := url.Parse(a)
		if err != nil {
			return wrong(i, "an address cannot be read")
		}
		port, err := strconv.ParseUint(cmp.Or(u.Port(), "443"), 10, 16)
		canonical := "https://" + u.Hostname()
		if u.Port() != "" {
			canonical += ":" + strconv.FormatUint(port, 10)
		}
		switch _, ip := netip.ParseAddr(u.Hostname()); {
		case err != nil || port == 0 || a != canonical || u.Port() == "443":
			return wrong(i, "an address is not https with a name, and a port if it is not 443, and nothing else")
		case ip == nil:
			return wrong(i, "security keys know no IP addresses, only names")
		case !domainRule.MatchString(u.Hostname()):
			return wrong(i, "the name in an address is not one in small ASCII letters")
		case slices.Index(r.Addresses, a) != i:
			return wrong(i, "an address is there twice")
		}
		if r.Domain == "" {
			r.Domain = u.Hostname()
		}
		if u.Hostname() != r.Domain && !strings.HasSuffix(u.Hostname(), "."+r.Domain) {
			return wrong(i, "%s is neither %s nor below it", u.Hostname(), r.Domain)
		}
	}
	if !domainRule.MatchString(r.Domain) || protocol.ValidateRPID(r.Domain) != nil {
		return reeve.Errorf(reeve.Invalid, "security_keys_domain", "%s is no domain that a security key can be for", r.Domain).
			WithFix("give a name of two parts or more, or localhost").WithField("/domain")
	}
	return nil
}
