// Package pluginhost finds, checks, starts and ends connectors. It owns their
// processes: nothing runs whose very bytes were not hashed and found among the
// digests a job allows, nothing inherits the agent's environment, files or standard
// streams, and nothing outlives the agent.
//
// A process serves many jobs side by side, for a bounded time (docs/decisions/0007).
// A job that is cancelled or out of time is told to end and gets two seconds for an
// answer; only when none comes is the process killed, and the jobs beside it with it.
// After a process has died with several jobs in it, each job gets one of its own for a
// while, so that the one at fault shows. The agent's worker imports this package, and
// the command line for Describe.
package pluginhost
