// Package simulation plays millions of password rotations against the real store, vault,
// job broker, lifecycle engine and agent worker, in one event loop with a seeded clock,
// network and replicated log, and lets a fault strike at every effect boundary. It is all
// test code: randomness is seeded with testing/cryptotest, which exists in test binaries
// alone, so nothing that ships can ever use a seeded source. docs/simulation.md says how
// to run it and what it found; nothing imports it.
package simulation
