// Package doctest keeps the documentation true: its tests run every command that
// README.md and docs/ show, in order, against real programs and real targets, compare
// what they print with what the page shows, and check that every flag, sub-command,
// path and link that is mentioned exists. It has no code of its own but tests.
//
// How a page is read:
//
//	```console                 a terminal: lines that begin with "$ " are run, the lines
//	                           below are what they must print. "…" stands for anything,
//	                           alone on a line for any number of lines. Times, ids and
//	                           digests match any other of their kind, runs of spaces
//	                           match each other. Without shown lines only success counts.
//	                           A command must fail if and only if the page shows the
//	                           message of one of our programs ("reeve: …") or "[exit status n]".
//	```console keeps-running   a program that stays; it runs on, in a terminal of its own,
//	                           and must end with status 0 on Ctrl-C
//	```console not-run         shown only; how many there are is part of the test
//	```yaml, first line a path written to that path
//
// Placeholders such as 192.0.2.10 stand for the servers the test starts; in a command,
// an id such as job_06h0… stands for the one that was printed last, as it does for a
// reader who copies from the terminal. A prompt is answered as a person would.
package doctest
