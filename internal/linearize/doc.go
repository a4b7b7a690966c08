// Package linearize puts a cluster of three controllers under faults while clients work
// on it, writes down what every client asked and was told, and asks porcupine whether
// one order of all of it explains every answer (O2). docs/linearizability.md says how to
// run it and how to read what it writes.
//
// The nodes are real: hashicorp/raft with its log on disk, over mutual TLS on loopback,
// and the store, vault, jobs, pki and REST packages on top, in one process. Nothing but
// tests imports it.
package linearize
