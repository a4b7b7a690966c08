// Package jobs owns the work that agents do: the queue, the leases that hand one job
// to one agent at a time, what became of it, its live log, and the ledger of which
// agent was given which secret.
//
// Everything durable is decided inside a store transaction by the pure rules in
// rules.go; the Broker is the leader's loop around them and holds in memory only what
// a new leader can rebuild: lease renewals, the order of the queue, connected agents.
//
// The life of a job (a change on a target is marked Mutates):
//
//	queued ──grant──▶ leased ──done──▶ done
//	  ▲                 │ ├──not_done, deterministic──▶ failed
//	  │◀──backoff───────┤ ├──not_done, five times, or past the deadline──▶ dead
//	  │                 │ └──not_done, cancel requested──▶ cancelled
//	  │             unknown, or the lease ran out
//	  │                 ▼
//	  └──────── quarantined (a change only) ──▶ dead, uncertain
//
// A quarantined job is queued, with Quarantined set: it keeps its account to itself
// until nothing the lost agent started can still happen on the target. Its agent's
// late report is welcome until then.
//
// It is imported by lifecycle, gateway, rest and the composition; it imports store,
// audit and vault. A kind of job gives its result upwards through a Handler.
package jobs
