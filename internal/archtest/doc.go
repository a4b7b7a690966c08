// Package archtest holds the arrows of docs/architecture.md as tests: which package
// may import which, and why. It has no code of its own.
package archtest
