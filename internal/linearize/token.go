package linearize

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/pki"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/jointoken"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// A join token admits one key. The same key may ask again and gets the same agent; any
// other key is refused and puts that agent into quarantine.

const tokenKeys = 3 // that try each token

type enrolOp struct{ Key int } // 1 to tokenKeys

type enrolAnswer struct{ What, Agent string } // What: admitted, used, quarantined

type enrolState struct {
	Key         int    // 0: nobody was admitted
	Agent       string // "" while nobody was told
	Quarantined bool
}

var tokenModel = model(func(s enrolState, in enrolOp, out *enrolAnswer) (bool, enrolState) {
	switch {
	case s.Key == 0:
		s.Key = in.Key
		if out != nil {
			s.Agent = out.Agent
		}
		return out == nil || out.What == "admitted", s
	case s.Key != in.Key:
		s.Quarantined = true
		return out == nil || out.What == "used", s
	case s.Quarantined:
		return out == nil || out.What == "quarantined", s
	default:
		if out == nil {
			return true, s
		}
		ok := out.What == "admitted" && (s.Agent == "" || s.Agent == out.Agent)
		s.Agent = out.Agent
		return ok, s
	}
})

// keys are what newcomers come with; made once, because making them is slow.
type keys struct {
	csr  [tokenKeys + 1][]byte
	hpke []byte
}

func newKeys() (*keys, error) {
	k := &keys{}
	for i := range k.csr {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		if k.csr[i], err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
			return nil, err
		}
	}
	key, err := envelope.GenerateKey()
	if err != nil {
		return nil, err
	}
	k.hpke = key.PublicKey().Bytes()
	return k, nil
}

var tokenSite = reeve.NewSiteID()

func newToken(ctx context.Context, n *parts) (secret reeve.Secret, err error) {
	err = n.store.Update(ctx, func(tx *store.Tx) error {
		_, text, err := pki.CreateJoinToken(tx, audit.System("linearize"), pki.NewJoinToken{Role: pki.RoleAgent, SiteID: tokenSite,
			Name: strings.ToLower(rand.Text()), Addresses: []string{"127.0.0.1:1"}})
		if err != nil {
			return err
		}
		t, err := jointoken.Parse(text)
		secret = t.Secret
		return err
	})
	return secret, err
}

func (c *client) token(ctx context.Context) {
	key := c.key("token", 6)
	secret, ok := once(ctx, c, key, newToken)
	if !ok {
		return
	}
	in := enrolOp{Key: 1 + c.rand.IntN(tokenKeys)}
	n := c.pick()
	call := c.history.now()
	e, err := n.authority.Enroll(ctx, pki.EnrollRequest{Secret: secret, CSR: c.keys.csr[in.Key], HPKEKey: c.keys.hpke, From: "127.0.0.1"})
	var out enrolAnswer
	v := verdictOf(err)
	switch reeve.CodeOf(err) {
	case "":
		if err == nil {
			out = enrolAnswer{"admitted", string(e.Agent.ID)}
		}
	case "join_token_used":
		out.What = "used"
	case "agent_quarantined":
		out.What = "quarantined"
	default:
		out.What = reeve.CodeOf(err)
	}
	c.note(key, tokenModel, call, in, out, v)
}
