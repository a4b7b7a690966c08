package sdktest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// onTheWire lives an account's life through a proxy that keeps what it passes on, and
// looks for passwords there.
func onTheWire(ctx context.Context, s *suite) error {
	if why := s.cfg.InTheClear; why != "" {
		return notApplicable(why)
	}
	p, there, err := newProxy(ctx, s.cfg.Target, whole, 0)
	if err != nil {
		return err
	}
	defer p.close()
	p.record()
	a := s.account()
	next, wrong := s.password(), s.password()
	for _, step := range []struct {
		action   sdk.Action
		password sdk.Secret
	}{{sdk.Provision, a.password}, {sdk.Rotate, next}, {sdk.Disable, sdk.Secret{}}, {sdk.Enable, sdk.Secret{}}} {
		if _, err := s.applyAt(ctx, there, step.action, a, step.password); err != nil {
			return fmt.Errorf("%s through a proxy: %w", step.action, err)
		}
	}
	if s.has(sdk.PowerVerify) {
		for _, password := range []sdk.Secret{next, wrong} {
			if _, err := s.client.Verify(ctx, there, sdk.Credential{Username: a.name, Password: password}); err != nil {
				return fmt.Errorf("verify through a proxy: %w", err)
			}
		}
	}
	if _, err := s.applyAt(ctx, there, sdk.Deprovision, a, sdk.Secret{}); err != nil {
		return fmt.Errorf("deprovision through a proxy: %w", err)
	}
	streams := p.recorded()
	if len(streams) == 0 {
		return errors.New("nothing went through the proxy")
	}
	for what, password := range map[string]sdk.Secret{"the new account's password": a.password, "the password after the rotation": next,
		"the wrong password": wrong, "the management account's password": s.cfg.Target.Management.Password} {
		if password.Len() < 8 {
			continue
		}
		for _, stream := range streams {
			if form := inClear(stream, password.Reveal()); form != "" {
				return fmt.Errorf("%s is on the wire (%s)", what, form)
			}
		}
	}
	return nil
}

// inClear says in which form a password stands in a stream, "" for none.
func inClear(stream []byte, password string) string {
	raw, wide := []byte(password), utf16Of(password)
	// In a Login7 message of TDS: nibbles swapped, and 0xA5 ([MS-TDS] 2.2.6.4).
	scrambled := make([]byte, len(wide))
	for i, b := range wide {
		scrambled[i] = (b<<4 | b>>4) ^ 0xa5
	}
	for form, value := range map[string][]byte{
		"as it is": raw, "UTF-16": wide, "as TDS scrambles it": scrambled, "quoted for a URL": []byte(url.QueryEscape(password)),
	} {
		if bytes.Contains(stream, value) {
			return form
		}
	}
	lower := bytes.ToLower(stream)
	for _, value := range [][]byte{raw, wide} {
		if bytes.Contains(lower, []byte(hex.EncodeToString(value))) {
			return "hex"
		}
		for shift := range 3 {
			if bytes.Contains(stream, []byte(base64Within(value, shift))) {
				return "base64"
			}
		}
	}
	return ""
}

// base64Within is how value looks within something longer, where shift bytes more than a
// multiple of three stand before it: without the signs that its neighbours share.
func base64Within(value []byte, shift int) string {
	padded := append(make([]byte, shift), value...)
	text := base64.RawStdEncoding.EncodeToString(padded)
	if len(padded)%3 != 0 {
		text = text[:len(text)-1]
	}
	return text[[]int{0, 2, 3}[shift]:]
}
