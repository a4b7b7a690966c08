package directory

import (
	"strings"

	"github.com/go-ldap/ldap/v3"
)

// placeholder is where the name goes in a filter.
const placeholder = "%Name%"

// inChain is LDAP_MATCHING_RULE_IN_CHAIN of Active Directory: also through other groups
// (MS-ADTS 3.1.1.3.4.4.3).
const inChain = "1.2.840.113556.1.4.1941"

// userFilter is the filter for one name. Whatever the name holds stays a value: it is
// escaped (RFC 4515 section 3).
func userFilter(pattern, name string) (string, error) {
	filter := strings.ReplaceAll(pattern, placeholder, ldap.EscapeFilter(name))
	_, err := ldap.CompileFilter(filter)
	return filter, err
}

// memberFilter finds the groups of Active Directory that an entry is in, also through
// other groups.
func memberFilter(dn string) string {
	return "(member:" + inChain + ":=" + ldap.EscapeFilter(dn) + ")"
}

// SameGroup reports whether two names of a group mean the same: distinguished names
// whatever their spelling, else letter by letter but for case.
func SameGroup(a, b string) bool {
	x, errX := ldap.ParseDN(a)
	y, errY := ldap.ParseDN(b)
	if errX == nil && errY == nil {
		return x.EqualFold(y)
	}
	return strings.EqualFold(a, b)
}
