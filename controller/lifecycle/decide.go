package lifecycle

import (
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// What follows are the rules of security.md §3 as functions of what was seen. They
// load and store nothing.

// The slots in which a job is given secrets.
const (
	slotManagement = "management"
	slotCurrent    = "current"
	slotCandidate  = "candidate"
	slotHistory    = "history-" // and a number from 1, newest first
)

// The verdicts of a login (plugins/sdk). Only these two decide anything; every other
// one means "ask again later".
const (
	verdictOK  = "ok"
	verdictBad = "bad_credential"
)

// maxCandidates is how many passwords a target may refuse before Reeve stops (C3).
const maxCandidates = 3

// loginBudget is how many failed logins one job may cause on an account, below any
// sensible lockout threshold (security.md §3, rule 6).
const loginBudget = 2

// sight is what the logins of one report showed.
type sight struct {
	worked *agentv1.LoginAttempt // the best that worked: candidate, then current, then newest of history
	bad    []uint32              // versions the target refused
	vague  string                // a verdict that decides nothing, if any
}

// see reads an observation. A slot that was tried twice counts with its last verdict:
// the agent reports the last fresh login.
func see(o *agentv1.Observation) sight {
	var s sight
	last := map[string]*agentv1.LoginAttempt{}
	var order []string
	for _, l := range o.GetLogins() {
		if l.GetSlot() == slotManagement {
			continue
		}
		if last[l.GetSlot()] == nil {
			order = append(order, l.GetSlot())
		}
		last[l.GetSlot()] = l
	}
	slices.SortStableFunc(order, func(a, b string) int { return slotRank(a) - slotRank(b) })
	for _, slot := range order {
		switch l := last[slot]; l.GetVerdict() {
		case verdictOK:
			if s.worked == nil {
				s.worked = l
			}
		case verdictBad:
			s.bad = append(s.bad, l.GetVersion())
		default:
			s.vague = l.GetVerdict()
		}
	}
	return s
}

// ok reports whether the slot's last login worked.
func ok(o *agentv1.Observation, slot string) bool {
	worked := false
	for _, l := range o.GetLogins() {
		if l.GetSlot() == slot {
			worked = l.GetVerdict() == verdictOK
		}
	}
	return worked
}

// slotRank: the candidate first ("old also works" is no failure, rule 8), then current,
// then history from the newest.
func slotRank(slot string) int {
	switch slot {
	case slotCandidate:
		return 0
	case slotCurrent:
		return 1
	}
	n := 0
	for _, c := range strings.TrimPrefix(slot, slotHistory) {
		n = n*10 + int(c-'0')
	}
	return 1 + n
}

// remedy is what follows when it is looked for a password that works.
type remedy string

const (
	adopt      remedy = "adopt"      // one works: it becomes, or stays, the current one
	askLater   remedy = "ask_later"  // nothing was decided
	tryOlder   remedy = "try_older"  // there are versions that were not tried yet
	reconcile  remedy = "reconcile"  // none works: set one with the management account
	giveUp     remedy = "give_up"    // none works and Reeve must not or cannot set one
	regenerate remedy = "regenerate" // the target refuses the candidate and the old one works: another candidate
)

// heal decides what follows logins that looked for a password that works (C13).
// untried are versions left to try; mayReconcile is whether the management account may
// set a password and has not just done so in vain.
func heal(s sight, untried int, mayReconcile bool) (remedy, Sync) {
	switch {
	case s.worked != nil:
		return adopt, InSync
	case mutant.Is(mutant.NoHealing):
		return giveUp, Stranded
	case s.vague == "unreachable":
		return askLater, Unreachable
	case s.vague != "" || len(s.bad) == 0:
		return askLater, Uncertain
	case untried > 0:
		return tryOlder, OutOfSync
	case mayReconcile:
		return reconcile, OutOfSync
	default:
		return giveUp, Stranded
	}
}

// afterRefusal decides what follows the login that checks, after the target refused
// a candidate, whether the old password still works (C12). Only if it does, seen
// fresh, is the candidate given up.
func afterRefusal(s sight, candidate uint32, attempt int, untried int, mayReconcile bool) (remedy, Sync) {
	if s.worked.GetSlot() == slotCurrent && slices.Contains(s.bad, candidate) {
		if attempt < maxCandidates {
			return regenerate, InSync
		}
		return giveUp, InSync
	}
	return heal(s, untried, mayReconcile)
}

// ending is what a report, or the end of a job without one, means for the account.
type ending string

const (
	again   ending = "again"   // the job will be delivered again, and begins by probing
	done    ending = "done"    // the agent says that it is so; what it saw must agree
	refused ending = "refused" // proven to have had no effect
	unknown ending = "unknown" // given up, and it may have had an effect
)

// endingOf reads a job's state. A job that failed cleanly after a delivery that nobody
// knows the outcome of is unknown.
func endingOf(j *jobs.Job) ending {
	switch {
	case !j.State.Final():
		return again
	case j.State == jobs.StateDone:
		return done
	case j.State == jobs.StateUncertain, j.Doubtful:
		return unknown
	default:
		return refused
	}
}

// stopsAsset reports whether a failure says that nothing will work on the asset until
// a person acts: the target is not who it was, or the management account is shut out.
// s is what logins as the account itself showed: they fail with the same classes.
func stopsAsset(operation string, outcome reeve.Outcome, c reeve.Class, s sight) bool {
	switch c {
	case reeve.ClassHostKeyChanged, reeve.ClassHostKeyUnknown:
		return true
	case reeve.ClassAuthFailed, reeve.ClassLocked, reeve.ClassExpired, reeve.ClassDisabled, reeve.ClassMustChange:
		return operation != opVerify && outcome == reeve.NotDone && s.vague == ""
	default:
		return false
	}
}
