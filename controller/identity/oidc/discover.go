package oidc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
	// patience is how long a provider may take for all that one call of the API needs of it.
	patience = 10 * time.Second
	// maxAnswer bounds what is read of one answer of a provider, in bytes.
	maxAnswer = 1 << 20
)

// allowed are the signatures that count, whatever a provider says: neither none nor one
// that whoever has the client secret could make.
var allowed = []string{oidc.RS256, oidc.ES256, oidc.EdDSA}

// source is a provider that has been asked who it is.
type source struct {
	*oidc.Provider
	algorithms  []string
	basic       bool // it takes the client's secret as HTTP Basic
	namesItself bool // it says in each answer that it is from it (RFC 9207)
}

// guard lets nothing but bounded answers of https through.
type guard struct{ next http.RoundTripper }

var errNotSecure = errors.New("it names an address that is not https")

func (g guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" {
		return nil, errNotSecure
	}
	resp, err := g.next.RoundTrip(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// asking bounds how many calls of the API wait for providers at once: anybody can begin a
// sign-in, also with a provider that hangs.
var asking = make(chan struct{}, 32)

// within returns a context with which a provider is asked: with its authority, without
// redirects, for as long as patience lasts. Code oidc_logins_too_many.
func (p *Provider) within(ctx context.Context) (context.Context, context.CancelFunc, error) {
	select {
	case asking <- struct{}{}:
	default:
		return nil, nil, loginsTooMany()
	}
	var roots *x509.CertPool // of the system
	if p.Authority != "" {
		roots = x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(p.Authority))
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext:     (&net.Dialer{Timeout: patience}).DialContext, TLSHandshakeTimeout: patience, MaxResponseHeaderBytes: 1 << 16,
	}
	c := &http.Client{Transport: guard{transport}, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, c), patience)
	return ctx, func() {
		cancel()
		transport.CloseIdleConnections()
		<-asking
	}, nil
}

// discover asks a provider who it is. Codes oidc_provider_silent, oidc_provider_unfit.
func (p *Provider) discover(ctx context.Context) (*source, error) {
	found, err := oidc.NewProvider(ctx, p.Issuer)
	if err != nil {
		return nil, p.trouble(err)
	}
	var says struct {
		Algorithms  []string `json:"id_token_signing_alg_values_supported"`
		Methods     []string `json:"token_endpoint_auth_methods_supported"`
		NamesItself bool     `json:"authorization_response_iss_parameter_supported"`
	}
	if err := found.Claims(&says); err != nil {
		return nil, p.unfit("what it says of itself cannot be read")
	}
	s := &source{Provider: found, basic: len(says.Methods) == 0 || slices.Contains(says.Methods, "client_secret_basic"), namesItself: says.NamesItself}
	for _, a := range allowed {
		if slices.Contains(says.Algorithms, a) {
			s.algorithms = append(s.algorithms, a)
		}
	}
	if len(s.algorithms) == 0 {
		return nil, p.unfit("it signs with none of RS256, ES256 and EdDSA")
	}
	if u, err := url.Parse(found.Endpoint().AuthURL); err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return nil, p.unfit("where it wants people to sign in is no https address")
	}
	return s, nil
}

// config is how Reeve talks to the provider about a sign-in.
func (p *Provider) config(s *source, l *login) *oauth2.Config {
	e := s.Endpoint()
	e.AuthStyle = oauth2.AuthStyleInParams // one try: a code is good for one
	if len(p.Secret) > 0 && s.basic {
		e.AuthStyle = oauth2.AuthStyleInHeader
	}
	return &oauth2.Config{ClientID: p.ClientID, ClientSecret: string(p.Secret), Endpoint: e, RedirectURL: l.redirect(),
		Scopes: append([]string{oidc.ScopeOpenID, "profile", "email"}, p.Scopes...)}
}

func (p *Provider) unfit(why string) error {
	return reeve.Errorf(reeve.Upstream, "oidc_provider_unfit", "the OpenID provider %s cannot be used: %s", p.Name, why).
		WithFix("compare its settings with those of: reeve oidc list")
}

// trouble is why a provider could not be asked. Its own words go nowhere: they may hold
// what was sent to it.
func (p *Provider) trouble(err error) error {
	if _, other := errors.AsType[*oidc.IssuerMismatchError](err); other {
		return p.unfit("it says that its issuer is another")
	}
	if errors.Is(err, errNotSecure) {
		return p.unfit(errNotSecure.Error())
	}
	why := "its answer is not the one expected"
	if netErr, ok := errors.AsType[net.Error](err); ok && netErr.Timeout() || errors.Is(err, context.DeadlineExceeded) {
		why = "there was no answer within " + patience.String()
	} else if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		why = "its certificate is not trusted"
	} else if _, ok := errors.AsType[*net.OpError](err); ok {
		why = "no connection could be made"
	}
	return reeve.Errorf(reeve.Upstream, "oidc_provider_silent", "the OpenID provider %s does not answer as it should: %s", p.Name, why).
		WithFix("try again; if that does not help, sign in with a password and have an administrator look at it")
}
