package transport

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
)

// login is one attempt to log in: the secret is offered once, by whichever method the
// host asks for first, so that an attempt costs one failure at most.
type login struct {
	user     string
	password sdk.Secret
	signer   ssh.Signer

	trusted    bool   // the host's key was accepted
	offered    bool   // the secret was offered
	mustChange bool   // the host asked for a new password
	told       string // with its questions
}

var errOffered = errors.New("the password was offered already")

func newLogin(c sdk.Credential) (*login, error) {
	if c.Username == "" {
		return nil, sdk.Errorf(sdk.ClassInvalid, "there is no user name to log in with").WithFix("give one")
	}
	l := &login{user: c.Username, password: c.Password}
	if c.PrivateKey.Empty() {
		if c.Password.Empty() {
			return nil, sdk.Errorf(sdk.ClassInvalid, "there is neither a password nor a private key to log in with").
				WithFix("give one of them")
		}
		return l, nil
	}
	signer, err := ssh.ParsePrivateKey(c.PrivateKey.Bytes())
	if err != nil { // its text may quote the key
		return nil, sdk.Errorf(sdk.ClassInvalid, "the private key cannot be read").
			WithFix("give an unencrypted private key in PEM or OpenSSH format")
	}
	l.signer = signer
	return l, nil
}

func (l *login) methods() []ssh.AuthMethod {
	if l.signer != nil {
		return []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) {
			l.offered = true
			return []ssh.Signer{l.signer}, nil
		})}
	}
	return []ssh.AuthMethod{
		ssh.PasswordCallback(func() (string, error) {
			if l.offered {
				return "", errOffered
			}
			l.offered = true
			return l.password.Reveal(), nil
		}),
		ssh.KeyboardInteractive(l.answer),
	}
}

// answer gives the password to the one hidden question a host may ask. Any further
// question means that it wants something else, mostly a new password.
func (l *login) answer(_, instruction string, questions []string, echos []bool) ([]string, error) {
	if len(l.told) < 4<<10 {
		l.told += instruction + "\n"
	}
	if len(questions) == 0 {
		return nil, nil
	}
	text := strings.ToLower(instruction + " " + strings.Join(questions, " "))
	if strings.Contains(text, "new password") || strings.Contains(text, "current password") ||
		strings.Contains(text, "new unix password") {
		l.mustChange = true
	}
	if l.offered || len(questions) != 1 || echos[0] {
		return nil, errOffered
	}
	l.offered = true
	return []string{l.password.Reveal()}, nil
}

// failure classifies a login that failed after the host was trusted.
func (l *login) failure(address, banner string, err error) *sdk.Error {
	who := fmt.Sprintf("%s at %s", l.user, address)
	// What pam_unix, pam_faillock and sshd tell about accounts that may not log in although the password is right.
	says := func(what string) bool { return strings.Contains(strings.ToLower(banner+l.told), what) }
	switch {
	case l.mustChange:
		return sdk.Errorf(sdk.ClassMustChange, "the password of %s must be changed before it can be used", who).Wrap(err).
			WithFix(shadow.FixMustChange)
	case says("account has expired"):
		return sdk.Errorf(sdk.ClassExpired, "the host refuses %s: the account has expired", who).Wrap(err).WithFix(shadow.FixExpired)
	case says("account is disabled"):
		return sdk.Errorf(sdk.ClassDisabled, "the host refuses %s: the account is disabled", who).Wrap(err).WithFix(shadow.FixDisabled)
	case says("account is locked"):
		return sdk.Errorf(sdk.ClassLocked, "the host refuses %s: the account is locked", who).Wrap(err).WithFix(shadow.FixLocked)
	case isTimeout(err):
		return sdk.Errorf(sdk.ClassUnreachable, "the host did not answer the login of %s in time", who).Wrap(err).
			WithFix("see whether the host is overloaded, or its account database out of reach")
	case broken(err):
		return sdk.Errorf(sdk.ClassUnreachable, "the connection ended during the login of %s", who).Wrap(err).
			WithFix("see the host's own log (journalctl -u ssh)")
	case !l.offered:
		return sdk.Errorf(sdk.ClassUnsupported, "the host offers %s no way to log in with a %s", who, l.kind()).Wrap(err).
			WithFix("allow it in the host's sshd_config (PasswordAuthentication, PubkeyAuthentication, PermitRootLogin)")
	default:
		return sdk.Errorf(sdk.ClassAuthFailed, "the host does not accept the %s of %s", l.kind(), who).Wrap(err).
			WithFix("%s; logins of root may be forbidden (PermitRootLogin)", shadow.FixRefused)
	}
}

func (l *login) kind() string {
	if l.signer != nil {
		return "private key"
	}
	return "password"
}
