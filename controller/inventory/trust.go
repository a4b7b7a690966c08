package inventory

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // the format of hashed names in known_hosts
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// Trust is what an asset's identity is checked against. Nothing is trusted that a
// person did not import or approve.
type Trust struct {
	HostKeys   []string  `cbor:"1,keyasint,omitempty"` // SSH: "ssh-ed25519 AAAA…"
	CAPEM      string    `cbor:"2,keyasint,omitempty"` // TLS: certificates that may have signed the server's
	ServerName string    `cbor:"3,keyasint,omitempty"` // TLS: name to expect, if not the address
	Pending    *ShownKey `cbor:"4,keyasint,omitempty"` // seen at first contact, waits for approval
	Changed    *ShownKey `cbor:"5,keyasint,omitempty"` // seen instead of a trusted one: all work has stopped
}

// ShownKey is an identity a target showed.
type ShownKey struct {
	Key         string    `cbor:"1,keyasint,omitempty"` // SSH public key line, or a certificate in PEM
	Fingerprint string    `cbor:"2,keyasint,omitempty"` // "SHA256:…", computed here from Key
	SeenAt      time.Time `cbor:"3,keyasint"`
}

// Proto is the trust an agent is given with a job.
func (t *Trust) Proto() *connectorv1.Trust {
	return &connectorv1.Trust{HostKeys: t.HostKeys, CaPem: t.CAPEM, ServerName: t.ServerName}
}

// Fingerprints lists what is trusted, for people.
func (t *Trust) Fingerprints() []string {
	var out []string
	for _, line := range t.HostKeys {
		if k, err := parseShownKey(line); err == nil {
			out = append(out, k.Fingerprint)
		}
	}
	certs, _ := parseCertificates(t.CAPEM)
	for _, c := range certs {
		out = append(out, certificateFingerprint(c))
	}
	return out
}

// parseShownKey reads an SSH public key line or a certificate in PEM. The fingerprint
// is the one ssh-keygen -l prints, and for a certificate the SHA-256 of its DER in hex.
func parseShownKey(s string) (*ShownKey, error) {
	if strings.Contains(s, "-----BEGIN") {
		certs, err := parseCertificates(s)
		if err != nil {
			return nil, err
		}
		return &ShownKey{Key: encodeCertificates(certs[:1]), Fingerprint: certificateFingerprint(certs[0])}, nil
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s))
	if err != nil {
		return nil, reeve.Errorf(reeve.Invalid, "host_key_invalid", "not an SSH public key").
			WithFix(`give lines such as "ssh-ed25519 AAAA…"`).WithField("/host_keys")
	}
	return &ShownKey{Key: keyLine(key), Fingerprint: ssh.FingerprintSHA256(key)}, nil
}

func keyLine(k ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) }

func certificateFingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return "SHA256:" + hex.EncodeToString(sum[:])
}

func parseCertificates(text string) ([]*x509.Certificate, error) {
	wrong := func(why string) ([]*x509.Certificate, error) {
		return nil, reeve.Errorf(reeve.Invalid, "ca_invalid", "the trusted certificates are not usable: %s", why).
			WithFix("give one or more CERTIFICATE blocks in PEM and nothing else").WithField("/ca_pem")
	}
	var out []*x509.Certificate
	for rest := []byte(text); len(strings.TrimSpace(string(rest))) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return wrong("there is text that is not PEM")
		}
		if block.Type != "CERTIFICATE" {
			return wrong("there is a block of type " + strconv.Quote(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return wrong("a certificate does not parse")
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return wrong("there are none")
	}
	return out, nil
}

func encodeCertificates(certs []*x509.Certificate) string {
	var b strings.Builder
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}

// importAll replaces what is trusted by what is given; empty fields change nothing.
func (t *Trust) importAll(a *Asset, hostKeys []string, caPEM, serverName string) error {
	if len(hostKeys) > 0 {
		keys, err := parseHostKeys(strings.Join(hostKeys, "\n"), a.Address, a.Port)
		if err != nil {
			return err
		}
		t.HostKeys = keys
	}
	if caPEM != "" {
		certs, err := parseCertificates(caPEM)
		if err != nil {
			return err
		}
		t.CAPEM = encodeCertificates(certs)
	}
	if serverName != "" {
		if err := checkAddress(serverName, 0); err != nil {
			return reeve.Errorf(reeve.Invalid, "server_name_invalid", "%q is not a host name", serverName).WithField("/server_name")
		}
		t.ServerName = serverName
	}
	return nil
}

// parseHostKeys reads public key lines, and lines of a known_hosts file. Of the latter
// only those for this address and port count, so that pasting a whole file never makes
// another host's key trusted. Fuzzed.
func parseHostKeys(text, address string, port uint32) ([]string, error) {
	host := knownhosts.Normalize(net.JoinHostPort(address, strconv.FormatUint(uint64(port), 10)))
	var keys []string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if k, err := parseShownKey(line); err == nil && k.Key != "" && looksLikeKey(line) {
			keys = append(keys, k.Key)
			continue
		}
		marker, hosts, key, _, _, err := ssh.ParseKnownHosts([]byte(line))
		if err != nil {
			return nil, reeve.Errorf(reeve.Invalid, "host_key_invalid", "a line is neither a public key nor of a known_hosts file").
				WithFix(`give lines such as "ssh-ed25519 AAAA…" or "host ssh-ed25519 AAAA…"`).WithField("/host_keys")
		}
		if marker != "" {
			return nil, reeve.Errorf(reeve.Invalid, "host_key_invalid", "lines marked @%s are not supported", marker).WithField("/host_keys")
		}
		if slices.ContainsFunc(hosts, func(pattern string) bool { return matchesHost(pattern, host) }) {
			keys = append(keys, keyLine(key))
		}
	}
	if len(keys) == 0 {
		return nil, reeve.Errorf(reeve.Invalid, "host_key_not_listed", "no line is for %s", host).
			WithFix("run ssh-keyscan against the asset's own address and port").WithField("/host_keys")
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// looksLikeKey tells "ssh-ed25519 AAAA" from "host ssh-ed25519 AAAA": authorized_keys
// lines may start with options, which known_hosts names could be mistaken for.
func looksLikeKey(line string) bool {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return false
	}
	raw, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil {
		return false
	}
	key, err := ssh.ParsePublicKey(raw)
	return err == nil && key.Type() == fields[0]
}

// matchesHost compares a name of a known_hosts line, plain or hashed
// ("|1|salt|HMAC-SHA1", sshd(8)), with a normalized host.
func matchesHost(pattern, host string) bool {
	rest, hashed := strings.CutPrefix(pattern, "|1|")
	if !hashed {
		return pattern == host
	}
	salt64, sum64, ok := strings.Cut(rest, "|")
	salt, err1 := base64.StdEncoding.DecodeString(salt64)
	sum, err2 := base64.StdEncoding.DecodeString(sum64)
	if !ok || err1 != nil || err2 != nil {
		return false
	}
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(host))
	return hmac.Equal(mac.Sum(nil), sum)
}

// TrustChange is what ImportTrust sets; empty fields change nothing.
type TrustChange struct {
	HostKeys          []string // public key lines, or lines of a known_hosts file
	CAPEM, ServerName string
}

// ImportTrust replaces what is trusted of an asset. A key that waited for approval, or
// had changed, is decided by that.
func ImportTrust(tx *store.Tx, by audit.Actor, id reeve.AssetID, ch TrustChange) (*Asset, error) {
	a, err := activeAsset(tx, id)
	if err != nil {
		return nil, err
	}
	if len(ch.HostKeys) == 0 && ch.CAPEM == "" && ch.ServerName == "" {
		return nil, reeve.Errorf(reeve.Invalid, "trust_empty", "nothing to trust was given").
			WithFix("give a fingerprint to approve, host keys, or CA certificates")
	}
	if err := a.Trust.importAll(a, ch.HostKeys, ch.CAPEM, ch.ServerName); err != nil {
		return nil, err
	}
	return a, trusted(tx, by, a, "asset.import_trust")
}

// ApproveHostKey trusts the key the target showed at first contact, or the one it
// shows since it changed; then only that one is trusted. The fingerprint must be that
// key's: the approver says which key they compared. Otherwise it is Conflict
// "fingerprint_mismatch" and nothing changes.
func ApproveHostKey(tx *store.Tx, by audit.Actor, id reeve.AssetID, fingerprint string) (*Asset, error) {
	a, err := activeAsset(tx, id)
	if err != nil {
		return nil, err
	}
	shown, replaces := a.Trust.Pending, false
	if a.Trust.Changed != nil {
		shown, replaces = a.Trust.Changed, true
	}
	switch {
	case shown == nil || shown.Key == "":
		return nil, reeve.Errorf(reeve.Conflict, "no_pending_key", "no host key of asset %q waits for approval", a.Name).
			WithFix("run: reeve asset verify %s", a.Name)
	case fingerprint != shown.Fingerprint:
		return nil, reeve.Errorf(reeve.Conflict, "fingerprint_mismatch", "asset %q showed %s, not the fingerprint given",
			a.Name, shown.Fingerprint).
			WithFix("compare the fingerprint with the target's own and give that one").WithField("/fingerprint")
	}
	if strings.HasPrefix(shown.Key, "-----BEGIN") {
		if replaces {
			a.Trust.CAPEM = ""
		}
		a.Trust.CAPEM += shown.Key
	} else {
		if replaces {
			a.Trust.HostKeys = nil
		}
		a.Trust.HostKeys = append(a.Trust.HostKeys, shown.Key)
	}
	return a, trusted(tx, by, a, "asset.approve_host_key")
}

// trusted saves an asset whose trust was decided. Whether its management account works
// on the machine now trusted is open until it is probed again.
func trusted(tx *store.Tx, by audit.Actor, a *Asset, action string) error {
	a.Trust.Pending, a.Trust.Changed = nil, nil
	if a.Management != nil {
		a.Management.VerifiedAt, a.Management.LastError = time.Time{}, nil
	}
	old, err := assets.Get(tx, string(a.ID))
	if err != nil {
		return err
	}
	if err := assets.Put(tx, a); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: action, Object: string(a.ID), Details: map[string]string{"name": a.Name},
		Before: map[string]string{"trusted": strings.Join(old.Trust.Fingerprints(), " ")}, After: map[string]string{"trusted": strings.Join(a.Trust.Fingerprints(), " ")}})
}
