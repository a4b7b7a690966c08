package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/sdktest/direct"
)

// canary is in every password of these tests.
const canary = "Canary-41cf"

const first, second = canary + `-1 '"\$%;--` + "`", canary + "-2 ünï"

var rig = direct.Rig{Connector: connector{}, Canary: canary}

var (
	apply     = rig.Apply
	applyWith = rig.ApplyWith
	must      = rig.Must
	wantClass = rig.WantClass
	role      = rig.Role
	secret    = direct.Secret
)

func TestMain(m *testing.M) {
	tameDriver()
	os.Exit(m.Run())
}

func target(d *testlab.DomainController) sdk.Target {
	return sdk.Target{
		Address:    d.Addr,
		Port:       636,
		Options:    map[string]string{optionOU: testlab.AccountsOU, optionStartTLS: "no"},
		Trust:      sdk.Trust{CAPEM: d.CAPEM},
		Management: sdk.Credential{Username: testlab.Management, Password: secret(d.ManagementPassword)},
	}
}

// asAdministrator is target with a management account that may do everything.
func asAdministrator(d *testlab.DomainController) sdk.Target {
	t := target(d)
	t.Management = sdk.Credential{Username: testlab.Administrator, Password: secret(d.AdministratorPassword())}
	return t
}

// custom is a role of a site's own.
func custom(phase sdk.Phase, commands ...string) sdk.Role {
	return sdk.Role{
		Name: "site-role", Version: 1, Phases: map[sdk.Phase][]string{phase: commands},
		Params: []sdk.RoleParam{{Name: "P", Pattern: `^.*$`}},
	}
}

func intent(action sdk.Action) sdk.Intent {
	return sdk.Intent{Action: action, Account: "alice", AccountID: "acct_1", Comment: "for alice, ticket 7"}
}

func wantLogin(t *testing.T, d *testlab.DomainController, user, password string, works bool) {
	t.Helper()
	err := d.Login(t.Context(), user, password)
	if works && err != nil || !works && !errors.Is(err, testlab.ErrRefused) {
		t.Errorf("login as %s: %v, want it to work: %t", user, err, works)
	}
}

func wantVerdict(t *testing.T, tgt sdk.Target, user, password string, want sdk.VerdictKind) sdk.Verdict {
	t.Helper()
	tgt.Management = sdk.Credential{}
	v, err := connector{}.Verify(t.Context(), tgt, sdk.Credential{Username: user, Password: secret(password)})
	if err != nil || v.Kind != want || strings.Contains(v.Message, canary) {
		t.Errorf("verify %s: %+v, %v, want %s", user, v, err, want)
	}
	if v.Kind != sdk.VerdictOK && (v.Message == "" || v.Fix == "") {
		t.Errorf("verify %s: it is not said what to do: %+v", user, v)
	}
	return v
}

// addGroup makes a group in the unit whose groups the management account may change.
func addGroup(t *testing.T, d *testlab.DomainController, cn, name string) (dn string) {
	t.Helper()
	value, err := rdn(cn)
	if err != nil {
		t.Fatal(err)
	}
	dn = value + "," + testlab.GroupsOU
	if err := d.Add(t.Context(), dn, map[string][]string{"objectClass": {"group"}, "sAMAccountName": {name}}); err != nil {
		t.Fatal(err)
	}
	return dn
}

func entry(t *testing.T, d *testlab.DomainController, name string) *ldap.Entry {
	t.Helper()
	a, err := d.Account(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func set(t *testing.T, d *testlab.DomainController, dn, attribute string, values ...string) {
	t.Helper()
	if err := d.Replace(t.Context(), dn, map[string][]string{attribute: values}); err != nil {
		t.Fatalf("set %s of %s: %v", attribute, dn, err)
	}
}

// otherAuthority is well-formed and has signed nothing.
const otherAuthority = `-----BEGIN CERTIFICATE-----
MIIBazCCARGgAwIBAgIBATAKBggqhkjOPQQDAjAcMRowGAYDVQQDExFhbm90aGVy
IGF1dGhvcml0eTAgFw0yMzExMTQyMjEzMjBaGA8yMDk2MTAwMjA3MDY0MFowHDEa
MBgGA1UEAxMRYW5vdGhlciBhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMB
BwNCAAR4tjbGvwtLMx4rqPxHAlEYXsK16iQYjdk/mfKMTAaJqMPp9Xogyl+8X098
nQprrn+o2uNnX2JfonTYE1b+rFCKo0IwQDAOBgNVHQ8BAf8EBAMCAgQwDwYDVR0T
AQH/BAUwAwEB/zAdBgNVHQ4EFgQU/Rfy2soj7gswE7U2ny1MF0lR8TYwCgYIKoZI
zj0EAwIDSAAwRQIgCj9qiAxt+pGr58M/+us7TX8rKuQAxB0T1yBEsm33gWMCIQC1
roJuUWCrQMrIQpz5sy5pE6Vl/QuUbj44dxlQI0nxwA==
-----END CERTIFICATE-----
`

// newName renames and moves an object. The name is written as servers understand it.
func newName(dn, cn, parent string) *ldap.ModifyDNRequest {
	value, err := rdn(cn)
	if err != nil {
		panic(err)
	}
	return ldap.NewModifyDNRequest(dn, value, true, parent)
}

// certificate is one for 127.0.0.1, and what it is trusted by.
func certificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
