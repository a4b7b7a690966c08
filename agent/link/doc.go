// Package link is the agent's tie to the controllers: enrolment with a join token,
// the certificate and its renewal, and a connection to whichever controller leads.
// It owns the identity file in the agent's data directory, which holds the agent's
// private keys. Only the agent imports it.
//
// The identity file is replaced as a whole, with fsync, before anything that depends
// on its content leaves the process. Keys are written before the controller is asked
// to certify them and are used again until it has answered, so a lost request, a
// lost answer or a crash at any point is cured by asking again.
package link
