package main

import (
	"crypto/sha1" //nolint:gosec // the hash of mysql_native_password
	"encoding/hex"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
)

// mask stands for the password, or its hash, in plans.
const mask = "'********'"

// hash is what mysql_native_password stores: '*' and SHA1(SHA1(password)) in hex.
// https://mariadb.com/kb/en/authentication-plugin-mysql_native_password/
func hash(password sdk.Secret) string {
	once := sha1.Sum(password.Bytes()) //nolint:gosec // see above
	twice := sha1.Sum(once[:])         //nolint:gosec // see above
	return "*" + strings.ToUpper(hex.EncodeToString(twice[:]))
}

// identifiedBy is the clause that sets the password; masked, it is what plans show.
func (s server) identifiedBy(literal string) string {
	if s.hashes() {
		return "IDENTIFIED VIA mysql_native_password USING " + literal
	}
	return "IDENTIFIED BY " + literal
}

// literal is what the statement holds in place of the mask.
func (s server) literal(password sdk.Secret) (string, error) {
	if s.hashes() {
		return "'" + hash(password) + "'", nil
	}
	l, err := quote.MyLit(password.Reveal())
	if err != nil {
		return "", sdk.Errorf(sdk.ClassPolicyRejected, "the password cannot be written in SQL")
	}
	return l, nil
}
