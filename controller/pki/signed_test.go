package pki_test

import (
	"context"
	"crypto/x509"
	"testing"

	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
)

// An authority under which crypto/tls has let a connection in must still be one of the
// cluster's, and the agent one that may be served: for every call, and for open streams.
func TestTheAuthorityOfAConnectionMustStillBeTrusted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "c1")
	d := c.enrolled(siteX, "edge-1")
	var trusted []*x509.Certificate
	c.view(func(tx *store.Tx) (err error) {
		trusted, err = pki.Bundle(tx, pki.RoleAgent)
		return err
	})
	foreign, _ := selfSigned(t, nil, nil, "spiffe://c1")
	for _, tt := range []struct {
		name     string
		signedBy *x509.Certificate
		code     string
	}{{"trusted", trusted[0], ""}, {"foreign", foreign, "certificate_foreign"}, {"to be found out", nil, ""}} {
		_, err := c.auth.Admit(t.Context(), d.cert, tt.signedBy)
		want(t, err, tt.code)
		err = c.st.View(t.Context(), func(tx *store.Tx) error { _, err := pki.CheckAgent(tx, d.cert, tt.signedBy); return err })
		want(t, err, tt.code)
	}
	if err := c.st.Update(context.Background(), func(tx *store.Tx) error { _, err := pki.BanAgent(tx, operator, d.id, "lost"); return err }); err != nil {
		t.Fatal(err)
	}
	_, err := c.auth.Admit(t.Context(), d.cert, trusted[0])
	want(t, err, "agent_banned")
}
