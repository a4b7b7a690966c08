// Package logship takes the log of a job attempt from the worker to the controller:
// it redacts every line (internal/redact) before the line touches a disk or a wire, keeps it in a
// bounded spool until the controller has it durably, and ships it in order, again
// from where the controller left off after every interruption. It owns the spool
// file. Only the agent imports it; plugins never see it.
package logship
