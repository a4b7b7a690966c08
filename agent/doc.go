// Package agent is Reeve's agent: a process near the targets that dials out to the
// controllers, does leased jobs through connectors, and keeps nothing but its own
// identity and what it has yet to report. This package is composition only; what the
// agent does is in link, worker, pluginhost and logship. Nothing of the agent imports
// the controller.
package agent
