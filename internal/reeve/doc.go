// Package reeve holds the few nouns every part of Reeve shares: typed
// identifiers, error kinds, the three-valued outcome of work on a target, and
// the Secret type. It imports the standard library only and nothing of ours, so
// controller, agent, plugins and command line may all import it.
package reeve
