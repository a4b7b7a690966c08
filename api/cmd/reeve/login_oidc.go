package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// loginOIDC signs in through a browser (RFC 8252). The person confirms in this terminal
// which sign-in they approve: the page in the browser and the terminal show the same code,
// and nothing is kept before that (CVE-2026-33757).
func (a *app) loginOIDC(ctx context.Context, provider string) error {
	file, err := a.loadContext()
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("no port of 127.0.0.1 can be listened on: %w", err)
	}
	defer l.Close()
	verifier := reeve.SecretString(rand.Text() + rand.Text())
	sum := sha256.Sum256(verifier.Bytes())
	begun, err := call[client.OIDCBegun](c.BeginOIDC(ctx, provider, client.OIDCBeginRequest{
		Challenge: base64.RawURLEncoding.EncodeToString(sum[:]), Port: l.Addr().(*net.TCPAddr).Port}, anonymous))
	if err != nil {
		return err
	}
	if u, err := url.Parse(begun.Url); err != nil || u.Scheme != "https" {
		return errors.New("the controller gave no https address to open in a browser")
	}
	code := rand.Text()
	code = code[:4] + "-" + code[4:8]
	a.say("open this in a browser on this machine, and sign in at %s:\n\n  %s\n\nthe page at the end shows %s; if it shows another code, say no here", provider, begun.Url, code)
	waiting, cancel := context.WithDeadline(ctx, begun.ExpiresAt)
	defer cancel()
	back, err := awaitCallback(waiting, l, begun.State, code)
	if err != nil {
		return err
	}
	text := verifier.Reveal()
	given := back.code.Reveal()
	in := client.OIDCFinishRequest{State: begun.State, Code: &given, Verifier: &text}
	if back.issuer != "" {
		in.Issuer = &back.issuer
	}
	made, err := call[client.CreatedSession](c.FinishOIDC(ctx, provider, in, anonymous))
	if err != nil {
		return err
	}
	err = errors.New("not signed in: you did not say yes")
	if a.agrees(ctx, fmt.Sprintf("sign in here as %s, by %s? Does the browser show %s? Type yes or no: ", made.Session.User, provider, code)) {
		file.Session = made.Secret
		err = a.saveContext(file)
	}
	if err != nil { // nobody will use the session
		_, ended := call[none](c.EndSession(context.WithoutCancel(ctx), "current", func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+made.Secret)
			return nil
		}))
		return errors.Join(err, ended)
	}
	return a.show(made.Session, func() {
		a.say("signed in as %s until %s, or 15 minutes after the last use", made.Session.User, when(&made.Session.EndsAt))
	})
}

// agrees asks a question that only yes answers with yes.
func (a *app) agrees(ctx context.Context, question string) bool {
	_, _ = io.WriteString(a.err, question)
	typed := make(chan string, 1)
	go func() { // ends with the program: a read from a terminal cannot be called off
		line, _ := bufio.NewReader(io.LimitReader(a.in, 100)).ReadString('\n')
		typed <- line
	}()
	select {
	case line := <-typed:
		return strings.EqualFold(strings.TrimSpace(line), "yes")
	case <-ctx.Done():
		return false
	}
}

// callback is what a browser came back with.
type callback struct {
	code   reeve.Secret
	issuer string
	denied string // why there is no code: a word of RFC 6749, or ""
}

var (
	errNotThis = errors.New("not the sign-in that is waited for")
	// denials are the words of RFC 6749 §4.1.2.1 and OpenID Connect Core 1.0 §3.1.2.6. Others
	// are not repeated: anybody can make a browser come here with anything.
	denials = []string{"access_denied", "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope", "server_error",
		"temporarily_unavailable", "interaction_required", "login_required", "account_selection_required", "consent_required"}
)

// readCallback reads what a browser came back with. It fails with errNotThis for anything
// but one answer to the sign-in of this state.
func readCallback(query, state string) (callback, error) {
	q, err := url.ParseQuery(query)
	if err != nil || len(query) > 8192 {
		return callback{}, errNotThis
	}
	one := func(name string) string {
		if len(q[name]) != 1 {
			return ""
		}
		return q[name][0]
	}
	if state == "" || one("state") != state || len(q["iss"]) > 1 || len(q["code"]) > 1 || len(q["error"]) > 1 {
		return callback{}, errNotThis
	}
	out := callback{issuer: one("iss")}
	switch code, why := one("code"), one("error"); {
	case why != "" && code == "":
		if out.denied = "another reason"; slices.Contains(denials, why) {
			out.denied = why
		}
	case code != "" && why == "" && len(code) <= 4096:
		out.code = reeve.SecretString(code)
	default:
		return callback{}, errNotThis
	}
	return out, nil
}

// awaitCallback serves the one page that the browser comes back to. The page holds nothing
// of what it was asked with (CVE-2026-33758).
func awaitCallback(ctx context.Context, l net.Listener, state, code string) (callback, error) {
	got := make(chan callback, 1)
	defer loopback(ctx, l, callbackPage(l.Addr().String(), state, code, got))()
	select {
	case back := <-got:
		if back.denied != "" {
			return callback{}, fmt.Errorf("the provider did not let you in: %s", back.denied)
		}
		return back, nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return callback{}, errors.New("nobody signed in at the provider in time; begin again")
		}
		return callback{}, ctx.Err()
	}
}

// loopback serves pages to a browser on this machine until stop is called.
func loopback(ctx context.Context, l net.Listener, h http.Handler) (stop func()) {
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, MaxHeaderBytes: 1 << 15, Handler: h}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // ends when it is closed
	}()
	return func() {
		quiet, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = s.Shutdown(quiet) // the page is on its way
		_ = s.Close()
		<-served
	}
}

// quietPage answers with one sentence, which may hold nothing that anybody sent.
func quietPage(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Connection", "close")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, "<!doctype html><html lang=\"en\"><title>Reeve</title><p>"+text+"</p></html>\n")
}

func callbackPage(host, state, code string, got chan<- callback) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page := func(status int, text string) { quietPage(w, status, text) }
		if r.Host != host || r.URL.Path != "/callback" || r.Method != http.MethodGet {
			page(http.StatusNotFound, "There is nothing here.")
			return
		}
		back, err := readCallback(r.URL.RawQuery, state)
		if err != nil {
			page(http.StatusBadRequest, "This is not the sign-in that reeve waits for in the terminal.")
			return
		}
		select {
		case got <- back:
		default:
			page(http.StatusConflict, "This sign-in has been answered already.")
			return
		}
		if back.denied != "" {
			page(http.StatusOK, "The provider did not let you in. You can close this page.")
			return
		}
		page(http.StatusOK, "The code of this sign-in is <strong>"+code+"</strong>. Go back to the terminal, and say yes there only if it shows the same code and you began this sign-in.")
	})
}
