package rest

import (
	"bytes"
	"context"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/identity/oidc"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Cookies of browsers. A name that begins with __Host- is one that only this very origin
// can set, over TLS, and no sibling or parent domain.
const (
	// sessionCookie holds the secret of a session. It goes along with nothing that a page of
	// another site begins.
	sessionCookie = "__Host-reeve-session"
	// loginCookie binds a sign-in at an OpenID provider to the browser that began it: it holds
	// the state, and the verifier, which the controllers do not keep. It must come along when
	// the provider sends the browser back, which is a navigation that another site begins.
	loginCookie = "__Host-reeve-oidc"
)

// setCookie sets a cookie that no script can read, until the browser ends; or for seconds,
// or ends it if seconds are negative.
func setCookie(c *gin.Context, name, value string, same http.SameSite, seconds int) {
	http.SetCookie(c.Writer, &http.Cookie{Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: same, MaxAge: seconds}) //nolint:gosec // same is Strict or Lax
}

func setSessionCookie(c *gin.Context, secret reeve.Secret) {
	setCookie(c, sessionCookie, secret.Reveal(), http.SameSiteStrictMode, 0)
}

// cookieOf is the value of a cookie, if it is there once.
func cookieOf(r *http.Request, name string) string {
	if all := r.CookiesNamed(name); len(all) == 1 {
		return all[0].Value
	}
	return ""
}

// credential is what a call proves with who makes it: a bearer token, or else the session of
// a browser. No token of a program counts as a cookie.
func credential(r *http.Request) (reeve.Secret, error) {
	if byCookie(r) {
		return reeve.SecretString(cookieOf(r, sessionCookie)), nil
	}
	return bearer(r.Header.Get("Authorization"))
}

// byCookie reports whether a call proves itself with the session of a browser.
func byCookie(r *http.Request) bool {
	return len(r.Header.Values("Authorization")) == 0 && strings.HasPrefix(cookieOf(r, sessionCookie), identity.SessionPrefix)
}

// refuseCrossSite refuses what pages of other origins, siblings among them, have a browser
// send (CSRF), for all routes: code cross_origin. It is asked where the browser came to; the
// leader would compare with another host.
func (s *Server) refuseCrossSite(c *gin.Context) {
	if forwarderOf(c.Request) == "" && crossSite(c.Request) {
		s.fail(c, reeve.Errorf(reeve.Denied, "cross_origin", "this came from a page of another origin, or does not show that it came from one of this").
			WithFix("call from a page of the controller that is called; programs: use a token instead of a cookie"))
	}
}

// crossSite reports whether another origin may have begun a request. Browsers say where it
// came from (Sec-Fetch-Site, Origin); a program that says nothing is believed, unless what
// it shows is a cookie, which browsers send by themselves.
func crossSite(r *http.Request) bool {
	if new(http.CrossOriginProtection).Check(r) != nil {
		return true
	}
	if !byCookie(r) {
		return false
	}
	site := r.Header.Get("Sec-Fetch-Site")
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return site != "" && site != "same-origin" && site != "none"
	}
	return site != "same-origin" && (site != "" || r.Header.Get("Origin") == "") // Check has compared Origin
}

// SignInBrowser implements the contract.
func (s *Server) SignInBrowser(ctx context.Context, r SignInBrowserRequestObject) (SignInBrowserResponseObject, error) {
	shown, secret, err := s.signIn(ctx, r.Body)
	if err != nil {
		return nil, err
	}
	setSessionCookie(ginContext(ctx), secret)
	return SignInBrowser201JSONResponse(shown), nil
}

// beginBrowser begins what a browser goes on with at a provider. Its origin is what it says,
// which counts only if the provider's settings name it.
func (s *Server) beginBrowser(ctx context.Context, in oidc.Start, returnTo *string) (client.BrowserBegun, error) {
	c := ginContext(ctx)
	if in.Origin = c.GetHeader("Origin"); in.Origin == "" {
		return client.BrowserBegun{}, reeve.Errorf(reeve.Denied, "oidc_origin_unknown", "this call does not say from what origin it comes").WithFix("call it from a page in a browser; programs: reeve login --oidc")
	}
	if in.ReturnTo = "/"; returnTo != nil {
		in.ReturnTo = *returnTo
	}
	begun, err := oidc.Begin(c.Request.Context(), s.Store, s.signsIn(ctx), in)
	if err != nil {
		return client.BrowserBegun{}, err
	}
	setCookie(c, loginCookie, begun.State+"."+begun.Verifier.Reveal(), http.SameSiteLaxMode, int(oidc.LoginLife.Seconds()))
	return client.BrowserBegun{Url: begun.URL, ExpiresAt: begun.Expires}, nil
}

// BeginOIDCBrowser implements the contract.
func (s *Server) BeginOIDCBrowser(ctx context.Context, r BeginOIDCBrowserRequestObject) (BeginOIDCBrowserResponseObject, error) {
	out, err := s.beginBrowser(ctx, oidc.Start{Provider: r.Provider}, r.Body.ReturnTo)
	if err != nil {
		return nil, err
	}
	return BeginOIDCBrowser201JSONResponse(out), nil
}

// BeginStepUpBrowser implements the contract.
func (s *Server) BeginStepUpBrowser(ctx context.Context, r BeginStepUpBrowserRequestObject) (BeginStepUpBrowserResponseObject, error) {
	session, err := ofProvider(ctx)
	if err != nil {
		return nil, err
	}
	out, err := s.beginBrowser(ctx, oidc.Start{Provider: session.Provider, Session: session.ID}, r.Body.ReturnTo)
	if err != nil {
		return nil, err
	}
	return BeginStepUpBrowser201JSONResponse(out), nil
}

// finishBrowser ends what this very browser began. Without its cookie nothing is looked up,
// counted or recorded: any page could have a browser come here with anything.
func (s *Server) finishBrowser(ctx context.Context, in oidc.Answer) (oidc.Back, error) {
	c := ginContext(ctx)
	state, verifier, _ := strings.Cut(cookieOf(c.Request, loginCookie), ".")
	if verifier == "" || in.State != "" && in.State != state {
		return oidc.Back{To: "/"}, oidc.LoginUnknown()
	}
	in.State, in.Verifier, in.Keys = state, verifier, s.Seal
	back, err := oidc.FinishInBrowser(c.Request.Context(), s.Store, s.signsIn(ctx), in)
	if !slices.Contains([]string{"second_factor_needed", "second_factor_wrong", "security_key_needed"}, reeve.CodeOf(err)) && reeve.KindOf(err) != reeve.TooMany {
		setCookie(c, loginCookie, "", http.SameSiteLaxMode, -1)
	}
	if err == nil && !back.Secret.Empty() {
		setSessionCookie(c, back.Secret)
	}
	return back, err
}

// FinishOIDCBrowser implements the contract.
func (s *Server) FinishOIDCBrowser(ctx context.Context, r FinishOIDCBrowserRequestObject) (FinishOIDCBrowserResponseObject, error) {
	back, err := s.finishBrowser(ctx, oidc.Answer{Provider: r.Provider, SecondFactor: secret(r.Body.Code)})
	if err != nil {
		return nil, err
	}
	shown, err := s.shownSession(ctx, back.Session)
	if err != nil {
		return nil, err
	}
	return FinishOIDCBrowser200JSONResponse(shown), nil
}

// CallbackOIDC implements the contract.
func (s *Server) CallbackOIDC(ctx context.Context, r CallbackOIDCRequestObject) (CallbackOIDCResponseObject, error) {
	in := oidc.Answer{Provider: r.Provider, State: value(r.Params.State), Code: value(r.Params.Code), Issuer: value(r.Params.Iss), Denied: value(r.Params.Error)}
	if in.State == "" || (in.Code == "") == (in.Denied == "") {
		return nil, reeve.Errorf(reeve.Invalid, "oidc_answer_malformed", "this is no answer of an OpenID provider to a sign-in").WithFix("begin again")
	}
	back, err := s.finishBrowser(ctx, in)
	ginContext(ctx).Set(backKey, back.To)
	if err != nil {
		return nil, err
	}
	shown, err := s.shownSession(ctx, back.Session)
	if err != nil {
		return nil, err
	}
	page := backPage{To: back.To, User: shown.User, Provider: r.Provider, Proved: back.Secret.Empty()}
	body, err := page.render()
	if err != nil {
		return nil, err
	}
	return CallbackOIDC200TexthtmlResponse{Body: bytes.NewReader(body), ContentLength: int64(len(body))}, nil
}

// backKey is under what the Gin context knows where a browser goes on to.
const backKey = "reeve.back"

// backPage is what a browser shows that came back from a provider.
type backPage struct {
	To             string
	User, Provider string // who is signed in, by whom; "": nobody is
	Proved         bool   // the session there was, that is
	Code, Why, Fix string // else
}

// backHTML goes on by itself where there is nothing to read. That it is a page and not a
// redirect makes the next request one that this origin begins, so that it carries the
// session's cookie; and what was in the address does not stay in the browser's history.
var backHTML = template.Must(template.New("back").Parse(`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Reeve</title>{{if .User}}<meta http-equiv="refresh" content="0; url={{.To}}">{{end}}</head>
<body>{{if .User}}
<p>{{if .Proved}}It is you: {{.User}}, says {{.Provider}}.{{else}}You are signed in to Reeve as {{.User}}, by {{.Provider}}.{{end}}</p>
<p><a href="{{.To}}">Go on</a></p>{{else}}
<p>You are not signed in: {{.Why}} ({{.Code}}).</p>{{if .Fix}}
<p>To do: {{.Fix}}.</p>{{end}}
<p><a href="{{.To}}">Back</a></p>{{end}}
</body>
</html>
`))

// render makes the page. By the headers that every answer has, nothing runs or loads in it
// (CVE-2026-33758), and nothing of its address goes anywhere.
func (p backPage) render() ([]byte, error) {
	var out bytes.Buffer
	err := backHTML.Execute(&out, p)
	return out.Bytes(), err
}

// showsPage reports whether somebody reads the answer in a browser: what went wrong is then
// a page as well.
func (s *Server) showsPage(c *gin.Context) bool {
	r := s.contract.routes[route(c)]
	return r != nil && r.Operation.OperationID == "CallbackOIDC" && strings.Contains(c.GetHeader("Accept"), "text/html")
}

// failurePage is a problem as a page. Where only a second factor is missing, the page that it
// leads to asks for it.
func failurePage(c *gin.Context, p client.Problem) ([]byte, error) {
	to := c.GetString(backKey)
	if to == "" {
		to = "/"
	}
	if (p.Code == "second_factor_needed" || p.Code == "security_key_needed") && !strings.Contains(to, "#") {
		to += "#second-factor"
	}
	return backPage{To: to, Code: p.Code, Why: p.Detail, Fix: value(p.Fix)}.render()
}
