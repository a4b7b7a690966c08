//go:build linux

// Command chaos holds a whole cluster at work to its promises while everything it stands
// on fails: three controllers, two agents in two sites, Linux hosts and a MariaDB, each
// a process of its own on a network of its own, each controller on a disk of its own.
// `make chaos ARGS="--seed S --rounds N"` runs it; docs/chaos.md says what it does, what
// it checks and what it has found.
//
// The plan of all rounds is computed from the seed before anything runs. In each round
// requests and faults meet; then everything is healed, and what was promised is looked
// up on the targets with plain clients and in the targets' own files.
package main
