package main

import (
	"context"
	"encoding/binary"
	"strings"
	"unicode/utf16"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// mask stands for a password in plans.
const mask = "********"

// unicodePassword is the value of unicodePwd: the password in quotes, in UTF-16LE. Quotes in it need no escape
// (MS-ADTS 3.1.1.3.1.5.1).
func unicodePassword(password sdk.Secret) string {
	var b strings.Builder
	for _, u := range utf16.Encode([]rune(`"` + password.Reveal() + `"`)) {
		var unit [2]byte
		binary.LittleEndian.PutUint16(unit[:], u)
		b.Write(unit[:])
	}
	return b.String()
}

// reset sets an account's password twice: a domain controller goes on accepting the password before the last one for
// an hour, and after this that is the new one itself.
func (w *work) reset(ctx context.Context, password sdk.Secret) error {
	before := w.account.passwordTicks
	for range 2 {
		err := w.guarded(ctx, "set the password", w.account.kind(), func(r *ldap.ModifyRequest) {
			r.Replace("unicodePwd", []string{unicodePassword(password)})
		})
		if err != nil {
			return err
		}
	}
	if err := w.refresh(ctx); err != nil {
		return err
	}
	if w.account.passwordTicks <= before {
		return sdk.Errorf(sdk.ClassUnknownOutcome, "the server accepted a password for %s, but pwdLastSet did not move", w.in.Account).
			WithFix("look at the domain controller's directory service log")
	}
	return nil
}

// accepts tries one login at the same server, to see whether a password is set already. It is never tried on an
// account that too many wrong ones could lock.
func (w *work) accepts(ctx context.Context, password sdk.Secret) (bool, error) {
	fresh, err := dial(ctx, w.target, w.place, w.at)
	if err != nil {
		return false, err
	}
	defer fresh.close()
	err = fresh.conn.Bind(w.account.dn, password.Reveal())
	if is(err, ldap.LDAPResultInvalidCredentials) {
		switch reasonOf(words(err)) { // told only if the password is right
		case "533", "701", "773", "530", "531", "532":
			return true, nil
		}
		return false, nil
	}
	return err == nil, loginFailureUnless(ctx, w.at, err)
}

func loginFailureUnless(ctx context.Context, at string, err error) error {
	if err == nil {
		return nil
	}
	return loginFailure(ctx, at, err)
}
