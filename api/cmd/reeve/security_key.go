package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reeve-pam/reeve/api/client"
)

// maxKeyAnswer bounds what a page says for a security key, in bytes.
const maxKeyAnswer = 16 << 10

// What a security key is asked.
const (
	addKey   = "add"
	proveKey = "prove"
)

// keyPrompt is what a page of the cluster asks a security key for, and where it comes back
// to: a port of this machine that only this program listens on.
type keyPrompt struct {
	do     string
	page   string // https address
	opts   string // JSON
	host   string // 127.0.0.1:port
	path   string // that sends a browser to the page
	state  string // that it comes back with
	code   string // that page and terminal show
	answer chan string
}

// askKey has a browser on this machine ask a security key, at a page of the cluster: a
// terminal cannot. The page and the terminal show the same code, so that nobody shows their
// key for what somebody else began.
func (a *app) askKey(ctx context.Context, do string, challenge client.KeyChallenge) (string, error) {
	if u, err := url.Parse(challenge.Url); err != nil || u.Scheme != "https" {
		return "", errors.New("the controller gave no https address to open in a browser")
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("no port of 127.0.0.1 can be listened on: %w", err)
	}
	code := rand.Text()
	p := keyPrompt{do: do, page: challenge.Url, opts: challenge.Options, host: l.Addr().String(), path: "/" + rand.Text(), state: rand.Text(),
		code: code[:4] + "-" + code[4:8], answer: make(chan string, 1)}
	stop := loopback(ctx, l, &p)
	defer stop()
	a.say("open this in a browser on this machine, where the security key is:\n\n  http://%s%s\n\nthe page shows %s; if it shows another code, leave it", p.host, p.path, p.code)
	waiting, cancel := context.WithDeadline(ctx, challenge.ExpiresAt)
	defer cancel()
	select {
	case answer := <-p.answer:
		return answer, nil
	case <-waiting.Done():
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", errors.New("no security key answered in time; begin again")
	}
}

// ServeHTTP sends a browser to the page, once it has the address that the terminal shows,
// and takes one answer.
func (p *keyPrompt) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Host != p.host || r.Method != http.MethodGet:
		quietPage(w, http.StatusNotFound, "There is nothing here.")
	case r.URL.Path == p.path:
		_, port, _ := net.SplitHostPort(p.host)
		q := url.Values{"do": {p.do}, "port": {port}, "state": {p.state}, "code": {p.code}, "options": {base64.RawURLEncoding.EncodeToString([]byte(p.opts))}}
		w.Header().Set("Location", p.page+"#"+q.Encode())
		quietPage(w, http.StatusSeeOther, "The page is at the cluster.")
	case r.URL.Path == "/callback":
		answer, err := readKeyAnswer(r.URL.RawQuery, p.state)
		if err != nil {
			quietPage(w, http.StatusBadRequest, "This is not the answer that reeve waits for in the terminal.")
			return
		}
		select {
		case p.answer <- answer:
			quietPage(w, http.StatusOK, "The security key has answered. You can close this page and go back to the terminal.")
		default:
			quietPage(w, http.StatusConflict, "This has been answered already.")
		}
	default:
		quietPage(w, http.StatusNotFound, "There is nothing here.")
	}
}

// readKeyAnswer reads what the page came back with. It fails with errNotThis for anything
// but one answer to what was asked with this state.
func readKeyAnswer(query, state string) (string, error) {
	q, err := url.ParseQuery(query)
	if err != nil || state == "" || len(q["state"]) != 1 || q.Get("state") != state || len(q["answer"]) != 1 {
		return "", errNotThis
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(q.Get("answer"))
	if err != nil || len(raw) == 0 || len(raw) > maxKeyAnswer {
		return "", errNotThis
	}
	return string(raw), nil
}

// factorFlags say with which second factor somebody proves who they are.
type factorFlags struct {
	codeFile string
	key      bool
}

func (f *factorFlags) on(c *cobra.Command) {
	c.Flags().StringVar(&f.codeFile, "code-file", "-", "file with the code of the second factor; - asks for it, if one is needed")
	c.Flags().BoolVar(&f.key, "key", false, "use a security key rather than a code, in a browser on this machine")
	c.MarkFlagsMutuallyExclusive("code-file", "key")
}

// withFactor proves who somebody is, and asks for a code or a security key if one is needed.
func withFactor[T any](ctx context.Context, a *app, with factorFlags, begin func() (client.KeyChallenge, error), prove func(code, answer *string) (T, error)) (T, error) {
	var out T
	if !with.key {
		var err error
		out, err = prove(nil, nil)
		r, ok := errors.AsType[*refusal](err)
		switch {
		case !ok || r.code != "second_factor_needed" && r.code != "security_key_needed":
			return out, err
		case r.code == "second_factor_needed" || with.codeFile != "-": // a recovery code stands in for a key
			code, err := a.readSecret(with.codeFile, "Code of the second factor")
			if err != nil {
				return out, err
			}
			text := code.Reveal()
			return prove(&text, nil)
		}
	}
	challenge, err := begin()
	if err != nil {
		return out, err
	}
	answer, err := a.askKey(ctx, proveKey, challenge)
	if err != nil {
		return out, err
	}
	return prove(nil, &answer)
}

func (a *app) factorAddKeyCmd() *cobra.Command {
	var name string
	c := &cobra.Command{
		Use: "add-key", Short: "Add a security key or passkey as your second factor; your other sessions end",
		Long: `Add a security key or passkey as your second factor. It answers to a page of the cluster, in a browser on this machine: open the address
that is printed. The first second factor brings recovery codes, which are shown once.`,
		Example: "  reeve factor add-key --name yubikey", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			kind := client.Webauthn
			made, err := call[client.CreatedFactor](c.AddFactor(cmd.Context(), client.FactorRequest{Kind: &kind, Name: &name}))
			if err != nil {
				return err
			}
			if made.Challenge == nil {
				return errors.New("the controller gave no challenge for the key")
			}
			answer, err := a.askKey(cmd.Context(), addKey, *made.Challenge)
			if err != nil {
				return err
			}
			got, err := call[client.RecoveryCodes](c.ConfirmFactor(cmd.Context(), made.Factor.Id, client.ConfirmRequest{Answer: &answer}))
			if err != nil {
				return err
			}
			return a.show(got, func() {
				a.say("from now on you sign in with the key as well: reeve login NAME --key")
				a.recoveryCodes(got.Codes)
			})
		},
	}
	c.Flags().StringVar(&name, "name", "", "what to call it")
	return c
}

func (a *app) securityKeysCmd() *cobra.Command {
	show := &cobra.Command{
		Use: "show", Short: "Show where security keys can be used", Example: "  reeve security-keys show", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return a.showSecurityKeys(call[client.SecurityKeys](c.GetSecurityKeys(cmd.Context())))
		},
	}
	var in client.SecurityKeysRequest
	var domain string
	var noPIN bool
	configure := &cobra.Command{
		Use: "configure", Short: "Say at which addresses browsers find the cluster", Args: exactArgs(),
		Long: `Say at which addresses browsers find the cluster, so that people can use security keys there. People are sent to the first. Keys are for a
domain: the host of the first address, or --domain, which all hosts are in. It stays as long as there are keys, so take the one that
will. Browsers must trust the certificate there.`,
		Example: "  reeve security-keys configure --url https://reeve.example.com:8443\n" +
			"  reeve security-keys configure --domain reeve.example.com --url https://a.reeve.example.com --url https://b.reeve.example.com",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			if domain != "" {
				in.Domain = &domain
			}
			verify := !noPIN
			in.UserVerification = &verify
			return a.showSecurityKeys(call[client.SecurityKeys](c.ConfigureSecurityKeys(cmd.Context(), &client.ConfigureSecurityKeysParams{IdempotencyKey: newKey()}, in)))
		},
	}
	f := configure.Flags()
	f.StringSliceVar(&in.Urls, "url", nil, "https address of the cluster, as the browser shows it; may be repeated (required)")
	f.StringVar(&domain, "domain", "", "that keys are for; left out: the host of the first address")
	f.BoolVar(&noPIN, "no-pin", false, "accept keys that ask for no PIN, finger or face")
	_ = configure.MarkFlagRequired("url")
	return group("security-keys", "Say where security keys can be used", "  reeve security-keys show", show, configure)
}

func (a *app) showSecurityKeys(k client.SecurityKeys, err error) error {
	if err != nil {
		return err
	}
	return a.show(k, func() {
		a.pairs("domain", k.Domain, "addresses", strings.Join(k.Urls, " "), "asks for PIN", yes(&k.UserVerification))
	})
}
