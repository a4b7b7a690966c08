package connector

import (
	"slices"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
)

func setShell(u, shell string) operation {
	return operation{Step: sdk.Step{
		ID: "shell", Title: "Make sure that the account's shell is " + shell, Changes: true,
		Command: "usermod -s " + shell + " -- " + u,
	}, needed: func(s state) bool { return s.shell != shell }}
}

// authorize lets a public key log in as the account. It is done as the account, which may
// have made a link of any part of the path.
func authorize(u, key string) (operation, error) {
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(key)) //nolint:dogsled // of a line that has nothing else
	if err != nil {
		return operation{}, sdk.Errorf(sdk.ClassInvalid, "the role's public key cannot be read")
	}
	line, err := quote.ShArg(key + " reeve")
	if err != nil {
		return operation{}, sdk.Errorf(sdk.ClassInvalid, "the role's public key has a NUL byte")
	}
	fingerprint := ssh.FingerprintSHA256(public)
	return operation{Step: sdk.Step{
		ID: "key-" + fingerprint, Title: "Make sure that the key " + fingerprint + " may log in as the account", Changes: true,
		Command: "h=$(getent passwd -- " + u + ") && h=${h%:*} && exec runuser -u " + u + ` -- sh -c 'cd "$1" && umask 077 && mkdir -p .ssh && f=.ssh/authorized_keys && ` +
			`{ [ ! -s "$f" ] || [ -z "$(tail -c 1 "$f")" ] || echo >>"$f"; } && printf "%s\n" "$2" >>"$f"' sh "${h##*:}" ` + line,
	}, needed: func(s state) bool { return !slices.Contains(s.keys, fingerprint) }}, nil
}
