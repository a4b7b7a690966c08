package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// The products this connector tells apart.
const (
	mariaDB = "mariadb"
	mySQL   = "mysql"
)

// server is what a server is, and the table of what it can do.
type server struct {
	product string // mariaDB or mySQL
	version [3]int
}

// oldest is the first version of each product that can lock an account.
// https://mariadb.com/kb/en/account-locking/
// https://dev.mysql.com/doc/refman/5.7/en/account-locking.html
var oldest = map[string][3]int{mariaDB: {10, 4, 2}, mySQL: {5, 7, 6}}

// serverOf reads what VERSION() returns, such as "10.11.14-MariaDB-0+deb12u2" or
// "8.0.36-28". Some MariaDB servers put "5.5.5-" in front, for old replicas.
func serverOf(version string) (server, error) {
	s := server{product: mySQL}
	if strings.Contains(strings.ToLower(version), "mariadb") {
		s.product = mariaDB
		version = strings.TrimPrefix(version, "5.5.5-")
	}
	return parsed(s.product, version)
}

// parsed makes a server of a product and a version that begins with three numbers.
func parsed(product, version string) (server, error) {
	s := server{product: product}
	number, _, _ := strings.Cut(version, "-")
	parts := strings.Split(number, ".")
	least, known := oldest[product]
	if !known || len(parts) != 3 {
		return server{}, sdk.Errorf(sdk.ClassUnsupported, "the server is not a MariaDB or MySQL that is understood")
	}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || n < 0 {
			return server{}, sdk.Errorf(sdk.ClassUnsupported, "the server's version is not understood")
		}
		s.version[i] = n
	}
	if !s.atLeast(least) {
		return server{}, sdk.Errorf(sdk.ClassUnsupported, "%s %s cannot lock accounts", product, s.number()).
			WithFix("upgrade it to %d.%d.%d or later", least[0], least[1], least[2])
	}
	return s, nil
}

func (s server) number() string {
	return fmt.Sprintf("%d.%d.%d", s.version[0], s.version[1], s.version[2])
}

func (s server) atLeast(v [3]int) bool {
	for i := range v {
		if s.version[i] != v[i] {
			return s.version[i] > v[i]
		}
	}
	return true
}

// attributes reports whether accounts can carry a JSON document of ours.
// https://dev.mysql.com/doc/refman/8.0/en/create-user.html#create-user-comments-attributes
func (s server) attributes() bool { return s.product == mySQL && s.atLeast([3]int{8, 0, 21}) }

// hashes reports whether the server is given a hash instead of the password. MariaDB
// writes statements into its logs as they came; MySQL leaves passwords out of its logs
// (https://dev.mysql.com/doc/refman/8.0/en/password-logging.html) and its default
// plugin has no hash that a client could prepare simply.
func (s server) hashes() bool { return s.product == mariaDB }

// killRight is the privilege that allows to end other accounts' sessions.
// https://mariadb.com/kb/en/grant/#connection-admin
// https://dev.mysql.com/doc/refman/8.0/en/privileges-provided.html#priv_connection-admin
func (s server) killRight() string {
	switch {
	case s.product == mariaDB && s.atLeast([3]int{10, 5, 2}):
		return "CONNECTION ADMIN"
	case s.product == mySQL && s.version[0] >= 8:
		return "CONNECTION_ADMIN"
	default:
		return "SUPER"
	}
}
