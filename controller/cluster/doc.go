// Package cluster is one controller's place in the Raft cluster: its log, its
// mutually authenticated transport, the members and their health, and who leads.
// It wraps hashicorp/raft and is the only package that knows it. A Node satisfies
// store.Replicator and drives a store.Store.
//
// Leadership is read here and nowhere else. Everything that only a leader does
// runs inside Config.Lead, which is called after a barrier, cancelled on loss and
// joined before it is called again.
//
// Only package controller and its tests import cluster. DESIGN.md beside this file
// argues the choices.
package cluster
