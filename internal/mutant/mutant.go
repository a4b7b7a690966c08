// Package mutant names deliberate faults that can be built into Reeve, so that the programs which claim to catch such
// faults (the linearizability checker, the simulation) are themselves put to the test.
//
// Without the build tag "mutants", which no release is built with, [Is] is the constant false and the faulty branches
// are not compiled in. With it, exactly one mutant at a time is active: the one named by the environment variable
// REEVE_MUTANT, or by [Set].
//
// Production code asks at the one line that would be wrong:
//
//	if !mutant.Is(mutant.FenceIgnored) && fence != lease.Fence { … }
//
// Any package may import it; it imports nothing.
package mutant

// Name is one deliberate fault.
type Name string

// The mutants. Each says what is broken, and what should catch it.
const (
	FenceIgnored Name = "fence-ignored" // an outcome under an old lease is accepted

	// Caught by internal/linearize.
	AckedEarly          Name = "acked-early"           // an update is acknowledged before it is committed: a write is lost
	DirtyAnswer         Name = "dirty-answer"          // an answer leaves before the state it rests on is committed
	UnknownRetried      Name = "unknown-retried"       // an update of unknown outcome is run again: applied twice
	UnknownRefused      Name = "unknown-refused"       // an update of unknown outcome is said not to have been made
	InFlightUnseen      Name = "in-flight-unseen"      // an update reads committed state only
	UniqueCommittedOnly Name = "unique-committed-only" // a unique index is checked against committed state only
	TermGuardOff        Name = "term-guard-off"        // an entry counts whatever term and state it was computed in
	BaseGuardOff        Name = "base-guard-off"        // an entry counts though one it was computed on was lost
	SnapshotUnflushed   Name = "snapshot-unflushed"    // a snapshot lacks what the log is then cut of
	ReplayAhead         Name = "replay-ahead"          // a restart begins the log two entries too late
	LedEarly            Name = "led-early"             // a new leader works before it has applied what was committed
	BarrierSkipped      Name = "barrier-skipped"       // a read does not ask whether this node still leads
	FollowerReads       Name = "follower-reads"        // a follower answers from what it has
	TokenKept           Name = "token-kept"            // a join token stays good after it was used
	ProofUnfenced       Name = "proof-unfenced"        // a login under an older lease promotes a secret
	IdempotencyLost     Name = "idempotency-lost"      // the answer to an idempotency key is not kept

	// Caught by internal/simulation, as is FenceIgnored.
	CandidateDiscarded Name = "candidate-discarded"  // a candidate of unknown fate is thrown away
	ExitStatusTrusted  Name = "exit-status-trusted"  // a change is believed without a fresh login
	NoHealing          Name = "no-healing"           // no password is looked for when the current one fails
	HistoryPrunedEarly Name = "history-pruned-early" // old versions go before nothing can need them
	NoQuarantine       Name = "no-quarantine"        // an account is given on while a lost agent may still change it
	LeaseUnconfirmed   Name = "lease-unconfirmed"    // an agent believes the lease a job came with, whenever that was
)
