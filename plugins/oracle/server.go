package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// product is what fingerprints call the server.
const product = "oracle"

// server is what a server is, and the table of what it can do.
type server struct{ major, minor int }

// serverOf reads the number that a server gives at login, such as 0x0C200100 for 12.2.0.1.0 and 0x13000000 for 19. From
// 18 on its second byte is the release update.
func serverOf(number string) (server, error) {
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return server{}, sdk.Errorf(sdk.ClassUnsupported, "the server's version is not understood").
			WithFix("check that an Oracle Database of 12.1 or later is at that address")
	}
	s := server{major: int(n >> 24), minor: int(n >> 20 & 0xF)}
	if s.major >= 18 {
		s.minor = int(n >> 16 & 0xFF)
	}
	return s, s.check()
}

// parsed makes a server of the version in a fingerprint, such as "19.0".
func parsed(kind, version string) (server, error) {
	first, second, ok := strings.Cut(version, ".")
	major, err1 := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(second)
	if kind != product || !ok || err1 != nil || err2 != nil {
		return server{}, sdk.Errorf(sdk.ClassUnsupported, "the target was not probed as an Oracle Database").WithFix("probe it again")
	}
	s := server{major, minor}
	return s, s.check()
}

func (s server) check() error {
	if !s.atLeast(12, 1) {
		return sdk.Errorf(sdk.ClassUnsupported, "Oracle %s is older than 12.1", s.version()).WithFix("upgrade it to 12.1 or later")
	}
	return nil
}

func (s server) version() string { return fmt.Sprintf("%d.%d", s.major, s.minor) }

func (s server) atLeast(major, minor int) bool {
	return s.major > major || s.major == major && s.minor >= minor
}

// nameLimit and passwordLimit are in bytes.
func (s server) nameLimit() int {
	if s.atLeast(12, 2) {
		return longName
	}
	return shortName
}

func (s server) passwordLimit() int {
	if s.major >= 23 {
		return longPassword
	}
	return shortPassword
}

// changeDates reports whether DBA_USERS says when a password was changed.
func (s server) changeDates() bool { return s.major >= 19 }

// rollover reports whether an old password may stay good for a while.
func (s server) rollover() bool { return s.major >= 19 }
