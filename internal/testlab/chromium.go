//go:build linux

package testlab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
)

// ChromiumOptions describe a browser.
type ChromiumOptions struct {
	// Hosts are names that the browser finds at other addresses than everybody else.
	Hosts map[string]string
	// Trusted are hashes of public keys (SHA-256 of the SubjectPublicKeyInfo, in base64)
	// of servers whose certificates the browser takes as if an authority had vouched for them.
	Trusted []string
}

// Chromium is a browser with one window, steered over WebDriver (W3C).
type Chromium struct {
	srv     *server
	session string // address of it at the driver
}

// chromiumScript makes chromedriver pid 1 of a namespace that sees its own processes.
const chromiumScript = "mount --make-rprivate / && mount -t proc proc /proc && exec chromedriver --port=0"

var chromiumPort = regexp.MustCompile(`started successfully on port (\d+)`)

// Chromium starts a browser without a screen.
func (l *Lab) Chromium(opts ChromiumOptions) (*Chromium, error) {
	dir, err := l.mkdir("chromium")
	if err != nil {
		return nil, err
	}
	b := &Chromium{srv: newServer(l, "chromium", dir, nil)}
	cmd := exec.CommandContext(b.srv.ctx, "/bin/sh", "-c", chromiumScript)
	cmd.Env, cmd.Dir = []string{path, "HOME=" + dir, "TMPDIR=" + dir, "LC_ALL=C.UTF-8"}, dir
	err = b.srv.start(cmd, syscall.CLONE_NEWPID|syscall.CLONE_NEWIPC|syscall.CLONE_NEWNS, func(ctx context.Context) error {
		port := chromiumPort.FindStringSubmatch(b.srv.logged())
		if port == nil {
			return errors.New("it names no port yet")
		}
		b.session = "http://127.0.0.1:" + port[1]
		return b.ask(ctx, http.MethodGet, "/status", nil, nil)
	})
	if err != nil {
		return nil, err
	}
	if err := l.onClose(b.srv.kill); err != nil {
		return nil, err
	}
	// Debian's sandbox is for people: this is root, in namespaces of its own.
	args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--no-first-run", "--user-data-dir=" + dir + "/profile", "--ignore-certificate-errors-spki-list=" + strings.Join(opts.Trusted, ",")}
	var rules []string
	for name, address := range opts.Hosts {
		rules = append(rules, "MAP "+name+" "+address)
	}
	args = append(args, "--host-resolver-rules="+strings.Join(rules, ","))
	var made struct {
		ID string `json:"sessionId"`
	}
	err = b.ask(l.ctx, http.MethodPost, "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName": "chrome", "webauthn:virtualAuthenticators": true, "goog:chromeOptions": map[string]any{"args": args}}}}, &made)
	b.session += "/session/" + made.ID
	return b, err
}

// AddSecurityKey gives the browser a security key that asks for a PIN and gets it
// (WebAuthn Level 3 §11).
func (b *Chromium) AddSecurityKey(ctx context.Context) error {
	return b.ask(ctx, http.MethodPost, "/webauthn/authenticator", map[string]any{"protocol": "ctap2", "transport": "usb", "hasResidentKey": false,
		"hasUserVerification": true, "isUserConsenting": true, "isUserVerified": true}, nil)
}

// Open goes to an address and waits until the page is there.
func (b *Chromium) Open(ctx context.Context, address string) error {
	return b.ask(ctx, http.MethodPost, "/url", map[string]any{"url": address}, nil)
}

// Address is what the address bar shows.
func (b *Chromium) Address(ctx context.Context) (out string, err error) {
	err = b.ask(ctx, http.MethodGet, "/url", nil, &out)
	return out, err
}

// Text is what people read in an element, by CSS selector.
func (b *Chromium) Text(ctx context.Context, selector string) (out string, err error) {
	id, err := b.find(ctx, selector)
	if err == nil {
		err = b.ask(ctx, http.MethodGet, "/element/"+id+"/text", nil, &out)
	}
	return out, err
}

// Click clicks on an element, by CSS selector.
func (b *Chromium) Click(ctx context.Context, selector string) error {
	id, err := b.find(ctx, selector)
	if err == nil {
		err = b.ask(ctx, http.MethodPost, "/element/"+id+"/click", map[string]any{}, nil)
	}
	return err
}

// Problems are what the browser's console complains about.
func (b *Chromium) Problems(ctx context.Context) (out []string, err error) {
	var all []struct {
		Message string `json:"message"`
	}
	err = b.ask(ctx, http.MethodPost, "/se/log", map[string]any{"type": "browser"}, &all)
	for _, m := range all {
		out = append(out, m.Message)
	}
	return out, err
}

func (b *Chromium) find(ctx context.Context, selector string) (string, error) {
	found := map[string]string{}
	err := b.ask(ctx, http.MethodPost, "/element", map[string]any{"using": "css selector", "value": selector}, &found)
	for _, id := range found {
		return id, err
	}
	return "", err
}

// ask sends a command to the driver and reads its answer.
func (b *Chromium) ask(ctx context.Context, method, command string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	r, err := http.NewRequestWithContext(ctx, method, b.session+command, body)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		Value json.RawMessage `json:"value"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var problem struct{ Error, Message string }
		_ = json.Unmarshal(answer.Value, &problem)
		first, _, _ := strings.Cut(problem.Message, "\n")
		return fmt.Errorf("chromium: %s %s: %s: %s", method, command, problem.Error, first)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, out)
}
