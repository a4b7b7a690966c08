// Package tds is a SQL Server for tests: the wire protocol TDS 7.4 and 8.0 with TLS, and behind
// it a small model of logins, users, roles, permissions and sessions that the statements of a
// connector change and read. Only tests import it. It listens on loopback.
//
// It is strict: a packet, an option, a statement, a column or a function that it does not know is
// reported to the test as an error, and answered with one. It reads statements with the tokens of
// plugins/sdk/template, so a name that breaks out of its quotes is another statement here as on a
// real server. DESIGN.md says what it proves and what it cannot.
package tds
