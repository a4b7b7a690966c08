package lifecycle

import (
	"slices"
	"strings"
	"testing"

	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// model is the small model of security.md §3, explored completely: one account, a few
// versions, an agent that may die anywhere, and a target that may make a change late or
// never. The controller's side uses the engine's own rules (heal, afterRefusal).
type model struct {
	target    uint8 // version that opens the target
	flying    uint8 // a change that is on its way; 0: none
	kept      uint8 // versions the vault keeps, as bits
	current   uint8
	candidate uint8 // 0: none
	next      uint8 // last version made
	attempt   uint8
	phase     modelPhase
	sync      bool // the account says that current opens the target
}

type modelPhase uint8

const (
	idleNow modelPhase = iota
	working            // an agent has the lease
	inDoubt            // the lease is lost and its quarantine over
)

// variant is what a rotation must not be; the zero variant is what the engine does.
type variant struct {
	discard   bool // deletes a candidate that did not make it
	trustExit bool // takes exit status 0 for success
	noHeal    bool // takes the old password for valid when an outcome is unknown
	// bounded: a change lands within the quarantine or never. R1 must hold without it.
	bounded bool
}

const lastVersion = 6

func (m model) keep(v uint8) model { m.kept |= 1 << v; return m }

func (m model) opens() bool { return m.kept&(1<<m.target) != 0 }

// login is one fresh login.
func (m model) login(slot string, version uint8) *agentv1.LoginAttempt {
	verdict := verdictBad
	if m.target == version {
		verdict = verdictOK
	}
	return &agentv1.LoginAttempt{Slot: slot, Version: uint32(version), Verdict: verdict}
}

func (m model) promote(v uint8) model {
	if m.candidate == v {
		m.candidate = 0
	}
	m.current, m.phase, m.sync, m.attempt = v, idleNow, true, 0
	return m
}

// steps are all states that may follow.
func (m model) steps(v variant) map[string]model {
	out := map[string]model{}
	if m.flying != 0 {
		landed, lost := m, m
		landed.target, landed.flying, lost.flying = m.flying, 0, 0
		out["the change lands"], out["the change is lost"] = landed, lost
	}
	switch m.phase {
	case idleNow:
		if m.candidate != 0 {
			again := m
			again.phase, again.sync = working, false
			out["rotate again"] = again
		} else if m.next < lastVersion {
			begun := m.keep(m.next + 1)
			begun.next++
			begun.candidate, begun.attempt, begun.phase, begun.sync = begun.next, 1, working, false
			out["rotate"] = begun
		}
	case working:
		m.agent(v, out)
	case inDoubt:
		if v.bounded && m.flying != 0 {
			break
		}
		m.doubt(v, out)
	}
	return out
}

// agent is the procedure on the target, with a death after each step.
func (m model) agent(v variant, out map[string]model) {
	dead := m
	dead.phase = inDoubt
	out["dies before sending"] = dead
	if m.target == m.candidate {
		out["new password works already"] = m.promote(m.candidate)
		return
	}
	made, late := m, m
	made.target, late.flying = m.candidate, m.candidate
	out["changed, verified"] = made.promote(m.candidate)
	made.phase, late.phase = inDoubt, inDoubt
	out["changed, dies before verifying"], out["dies, the change is late"] = made, late
	if v.trustExit {
		late = late.promote(m.candidate)
		lost := m.promote(m.candidate)
		out["exit 0, the change is late"], out["exit 0, nothing happened"] = late, lost
	}
	m.refusedByPolicy(out)
}

// refusedByPolicy: the target refuses the candidate, and a login checks the old one.
func (m model) refusedByPolicy(out map[string]model) {
	s := see(&agentv1.Observation{Logins: []*agentv1.LoginAttempt{m.login(slotCandidate, m.candidate), m.login(slotCurrent, m.current)}})
	what, sync := afterRefusal(s, uint32(m.candidate), int(m.attempt), len(m.older()), true)
	m.remedy(what, sync, s, "refused, ", out)
}

func (m model) older() (out []uint8) {
	for v := m.next; v > 0; v-- {
		if v != m.current && v != m.candidate && m.kept&(1<<v) != 0 {
			out = append(out, v)
		}
	}
	return out
}

func (m model) remedy(what remedy, sync Sync, s sight, prefix string, out map[string]model) {
	switch what {
	case adopt:
		out[prefix+"a login works"] = m.promote(uint8(s.worked.GetVersion())) //nolint:gosec // small
	case tryOlder:
		if slices.Contains(m.older(), m.target) {
			out[prefix+"an older one works"] = m.promote(m.target)
			return
		}
		m.phase = working
		out[prefix+"no older one works, reconcile"] = m
	case reconcile:
		m.phase = working
		out[prefix+"reconcile"] = m
	case regenerate:
		if m.next < lastVersion {
			m = m.keep(m.next + 1)
			m.next++
			m.candidate, m.phase = m.next, working
			m.attempt++
			out[prefix+"another candidate"] = m
		}
	case giveUp:
		m.candidate, m.phase, m.attempt, m.sync = 0, idleNow, 0, sync == InSync
		out[prefix+"stop"] = m
	}
}

// doubt is what the controller does when the outcome is unknown.
func (m model) doubt(v variant, out map[string]model) {
	switch {
	case v.discard:
		m.kept &^= 1 << m.candidate
		m.candidate, m.phase, m.sync = 0, idleNow, true
		out["discard the candidate"] = m
	case v.noHeal:
		m.phase, m.sync = idleNow, true
		out["assume the old one"] = m
	default:
		again := m
		again.phase = working
		out["deliver again"] = again
		s := see(&agentv1.Observation{Logins: []*agentv1.LoginAttempt{m.login(slotCandidate, m.candidate), m.login(slotCurrent, m.current)}})
		what, sync := heal(s, len(m.older()), true)
		m.remedy(what, sync, s, "probe: ", out)
	}
}

// explore looks at every state that can be reached, and returns the shortest way to one
// that breaks an invariant, and how many states there are. R2 can only be asked for where
// changes are bounded.
func explore(v variant) (broken string, trace []string, states int) {
	start := model{target: 1, current: 1, next: 1, sync: true}.keep(1)
	type edge struct {
		from model
		by   string
	}
	came := map[model]edge{start: {}}
	for queue := []model{start}; len(queue) > 0; queue = queue[1:] {
		m := queue[0]
		switch {
		case !m.opens():
			broken = "R1"
		case v.bounded && m.phase == idleNow && m.flying == 0 && m.sync && m.current != m.target:
			broken = "R2"
		}
		if broken != "" {
			for at := m; at != start; at = came[at].from {
				trace = append(trace, came[at].by)
			}
			slices.Reverse(trace)
			return broken, trace, len(came)
		}
		for by, n := range m.steps(v) {
			if _, seen := came[n]; !seen {
				came[n] = edge{m, by}
				queue = append(queue, n)
			}
		}
	}
	return "", nil, len(came)
}

func TestTheRulesLoseNoPassword_R1_R2(t *testing.T) {
	t.Parallel()
	broken, trace, states := explore(variant{bounded: true})
	if broken != "" {
		t.Errorf("%s breaks after: %s", broken, strings.Join(trace, "; "))
	}
	// Without any bound on how late a change may land, the password still is not lost.
	broken, trace, more := explore(variant{})
	if broken != "" {
		t.Errorf("R1 breaks after: %s", strings.Join(trace, "; "))
	}
	t.Logf("%d states with bounded changes, %d without", states, more)
	if states < 100 || more < 2*states {
		t.Errorf("only %d and %d states: the model does not move", states, more)
	}
}

// The rules that look simpler do lose passwords; if the model did not show it, it would
// prove nothing about the others.
func TestSimplerRulesLosePasswords_R1_R2(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		variant
		want  string
		steps int // at most
	}{
		"discard the candidate": {variant{discard: true}, "R1", 4},
		"trust the exit status": {variant{trustExit: true, bounded: true}, "R2", 3},
		"do not heal":           {variant{noHeal: true, bounded: true}, "R2", 4},
	} {
		broken, trace, _ := explore(c.variant)
		if broken == "" || len(trace) > c.steps {
			t.Errorf("%s: %q after %v, want %s within %d steps", name, broken, trace, c.want, c.steps)
		}
		t.Logf("%s: %s breaks after: %s", name, broken, strings.Join(trace, "; "))
	}
}
