package main

import (
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// product is what Probe calls the server.
const product = "postgresql"

// oldest is the first version with SCRAM-SHA-256.
const oldest = 10

// versionOf reads what a server reports as server_version when one logs in, such as
// "15.18 (Debian 15.18-0+deb12u1)", "17rc1" or "18devel".
func versionOf(reported string) (major int, number string, err error) {
	number, _, _ = strings.Cut(reported, " ")
	end := strings.IndexFunc(number, func(r rune) bool { return r < '0' || r > '9' })
	digits := number
	if end >= 0 {
		digits = number[:end]
	}
	major, convErr := strconv.Atoi(digits)
	if convErr != nil {
		return 0, "", sdk.Errorf(sdk.ClassUnsupported, "the server's version is not understood").
			WithFix("check that it is a PostgreSQL server")
	}
	if major < oldest {
		return 0, "", sdk.Errorf(sdk.ClassUnsupported, "PostgreSQL %d has no SCRAM-SHA-256 passwords", major).
			WithFix("upgrade it to version %d or later", oldest)
	}
	return major, number, nil
}
