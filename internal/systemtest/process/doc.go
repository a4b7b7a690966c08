// Package process tests Reeve as its users run it: the real programs as separate
// processes, driven by the command line, on real targets. It holds nothing but tests
// and their harness; nobody imports it.
//
// What is asserted is what a user or an operator sees: exit statuses, the stable code
// in brackets on standard error, the JSON of -o json, the programs' own logs, and the
// targets' own files.
package process
