// Package worker does the agent's work: it pulls leased jobs, keeps their leases,
// carries them out through connectors, and reports what became of them. It owns the
// outbox file. Only package agent imports it.
//
// What it never does: guess. A job that may have touched its target and cannot be
// shown to be done or not done is reported as unknown. The intent to change is on the
// disk before the connector is called, the outcome before it is reported, and it stays
// there until the controller has it or has declared it stale.
package worker
