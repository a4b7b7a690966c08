package main

import "golang.org/x/crypto/ssh"

// fingerprint is the SHA-256 fingerprint of a public key line, as people compare it.
func fingerprint(line string) (string, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return "", err
	}
	return ssh.FingerprintSHA256(key), nil
}
