package main

import (
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// markPrefix begins the comment of a role that Reeve made. The rest is Reeve's id of the
// account, a space, and what the intent says for people.
const markPrefix = "reeve:"

// marked is the comment a new account gets. Only a marked one has a colon, since comments
// of intents hold none.
func marked(in sdk.Intent) string {
	if in.AccountID == "" {
		return in.Comment
	}
	return strings.TrimSpace(markPrefix + in.AccountID + " " + in.Comment)
}

// markOf reads a comment: whose the account is, "" for nobody's, and what is said of it.
func markOf(comment string) (accountID, said string) {
	rest, ours := strings.CutPrefix(comment, markPrefix)
	if !ours {
		return "", comment
	}
	accountID, said, _ = strings.Cut(rest, " ")
	return accountID, said
}
