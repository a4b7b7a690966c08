// Package oracle is an emulator of an Oracle Database for tests: the TNS and TTC protocols over TLS (TCPS), real
// password verification (O5LOGON with the 12c verifier), and a model of users, roles, privileges, sessions and profiles.
// Only tests import it. DESIGN.md says what it is worth and what it is not.
//
// It is strict: a packet, call, statement or query it does not know fails the test that started it. It is stateful:
// what statements change, later statements, queries and logins see. Statements are read with the tokens of
// [template.PLSQL], so a name or password that breaks out of its quotes becomes another statement, which it refuses.
package oracle
