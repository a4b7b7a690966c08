package transport

import (
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// pinned parses the trusted host keys, given as "ssh-ed25519 AAAA…" or as lines of a
// known_hosts file. Lines that revoke a key or name a certificate authority are
// refused, never ignored.
func pinned(trust sdk.Trust) ([]ssh.PublicKey, error) {
	var keys []ssh.PublicKey
	for _, line := range trust.HostKeys {
		line = strings.TrimSpace(line)
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			var marker string
			marker, _, key, _, _, err = ssh.ParseKnownHosts([]byte(line))
			if err == nil && marker != "" {
				return nil, sdk.Errorf(sdk.ClassInvalid, "host key lines marked @%s are not supported", marker).
					WithFix("give the host's own key")
			}
		}
		if err != nil {
			return nil, sdk.Errorf(sdk.ClassInvalid, "a trusted host key cannot be read").Wrap(err).
				WithFix(`give it as "ssh-ed25519 AAAA…", as ssh-keyscan prints it`)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// algorithms asks for the kinds of keys that are pinned first, so that a host with
// several keys shows the one that is known, and then for the others, so that a host
// whose key changed kind is told apart from one that speaks nothing we know.
func algorithms(keys []ssh.PublicKey) []string {
	var wanted []string
	for _, k := range keys {
		if k.Type() == ssh.KeyAlgoRSA { // the key format; SHA-1 signatures are not accepted
			wanted = append(wanted, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		wanted = append(wanted, k.Type())
	}
	for _, a := range ssh.SupportedAlgorithms().HostKeys {
		if !strings.Contains(a, "-cert-v01@") && !slices.Contains(wanted, a) {
			wanted = append(wanted, a)
		}
	}
	return wanted
}

func checkHostKey(keys []ssh.PublicKey, key ssh.PublicKey) *sdk.Error {
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	details := map[string]string{"host_key": line, "fingerprint": ssh.FingerprintSHA256(key)}
	if len(keys) == 0 {
		return &sdk.Error{
			Class:   sdk.ClassHostKeyUnknown,
			Message: "the host showed the key " + ssh.FingerprintSHA256(key) + ", which nobody has approved yet",
			Fix:     "compare the fingerprint with the host's own (ssh-keygen -lf) and approve it",
			Details: details,
		}
	}
	var known []string
	for _, k := range keys {
		if k.Type() == key.Type() && string(k.Marshal()) == string(key.Marshal()) {
			return nil
		}
		known = append(known, ssh.FingerprintSHA256(k))
	}
	details["trusted_fingerprint"] = strings.Join(known, " ")
	return &sdk.Error{
		Class: sdk.ClassHostKeyChanged,
		Message: "the host showed the key " + ssh.FingerprintSHA256(key) + ", but " +
			strings.Join(known, ", ") + " is trusted",
		Fix:     "somebody may be between the agent and the host; if the host was reinstalled, approve its new key",
		Details: details,
	}
}
