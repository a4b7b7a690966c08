// Package tools pins the programs that build and check Reeve. They live in a module
// of their own so that their hundreds of dependencies stay out of Reeve's go.sum.
package tools
