package lifecycle

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// A step of a random history of one account: what people ask for, where the agent
// dies, what the target does, and time.
type step struct {
	what, point, fate string
	n                 int
	wait              time.Duration
}

var steps = rapid.Custom(func(t *rapid.T) step {
	return step{
		what: rapid.SampledFrom([]string{"rotate", "rotate", "verify", "disable", "enable", "crash", "keep the report", "report late", "lie",
			"late comes", "refuse", "down", "pass", "pass"}).Draw(t, "what"),
		point: rapid.SampledFrom([]string{"taken", "before-apply", "sent", "sent", "applied", "verified"}).Draw(t, "point"),
		fate:  rapid.SampledFrom([]string{"now", "late", "never"}).Draw(t, "fate"),
		n:     rapid.IntRange(0, 4).Draw(t, "n"),
		wait:  rapid.SampledFrom([]time.Duration{time.Second, time.Minute, 5 * time.Minute, time.Hour}).Draw(t, "wait"),
	}
})

// Whatever happens in whatever order, a kept version opens the target at all times
// (R1), an account that says it is in sync is (R2), there is one candidate at most (R3),
// and left alone on a healthy target every account comes right by itself.
func TestNoHistoryLosesThePassword_R1_R2_R3_R4_R7(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		script := rapid.SliceOfN(steps, 1, 16).Draw(rt, "script")
		problem := ""
		inBubble(t, func(_ *testing.T, r *rig) { problem = r.play(script) })
		if problem != "" {
			rt.Fatal(problem)
		}
	})
}

// play does a script, one step after the other, and says what went wrong.
func (r *rig) play(script []step) string {
	_, m := r.asset("web1")
	a := r.provision(request("web1"))
	for i, s := range script {
		if err := r.step(a.ID, m, s); err != nil {
			return fmt.Sprintf("step %d (%s): %v", i, s.what, err)
		}
		if err := r.invariants(a.ID, m); err != nil {
			return fmt.Sprintf("after step %d (%s): %v", i, s.what, err)
		}
	}
	r.agent.mu.Lock()
	r.agent.crash, r.agent.mute, r.agent.lie = "", false, false
	r.agent.mu.Unlock()
	m.mu.Lock()
	m.refuse, m.down = 0, false
	m.mu.Unlock()
	m.settle()
	a = r.account(a.ID)
	m.mu.Lock()
	m.accounts[a.Name].locked = a.State == Disabled // a lock that landed late is a person's to undo
	m.mu.Unlock()
	r.pass(2 * probeAtMost)
	if err := r.may(func(tx *store.Tx) error { _, err := r.Verify(tx, alice, a.ID); return err }); err != nil {
		return err.Error()
	}
	r.pass(afterCrash)
	m.surprise = false
	if err := r.invariants(a.ID, m); err != nil {
		return "left alone: " + err.Error()
	}
	if a = r.account(a.ID); a.State == Active && a.Sync != InSync {
		return fmt.Sprintf("left alone the account is %s: %+v", a.Sync, a.LastError)
	}
	return ""
}

// may does what a person asks for; being refused is an answer.
func (r *rig) may(fn func(*store.Tx) error) error {
	err := r.try(fn)
	if k := reeve.KindOf(err); k == reeve.Conflict || k == reeve.Precondition {
		return nil
	}
	return err
}

func (r *rig) step(id reeve.AccountID, m *machine, s step) error {
	defer synctest.Wait()
	switch s.what {
	case "rotate":
		return r.may(func(tx *store.Tx) error { _, err := r.Rotate(tx, alice, id); return err })
	case "verify":
		return r.may(func(tx *store.Tx) error { _, err := r.Verify(tx, alice, id); return err })
	case "disable":
		return r.may(func(tx *store.Tx) error { _, err := r.Disable(tx, alice, id); return err })
	case "enable":
		return r.may(func(tx *store.Tx) error { _, err := r.Enable(tx, alice, id); return err })
	case "report late":
		r.agent.mu.Lock()
		kept := r.agent.kept
		r.agent.kept = nil
		r.agent.mu.Unlock()
		for _, report := range kept {
			if _, err := report(); err != nil && reeve.KindOf(err) != reeve.NotFound {
				return err
			}
		}
	case "late comes":
		m.settle()
	case "pass":
		r.pass(s.wait)
	case "refuse", "down":
		m.mu.Lock()
		defer m.mu.Unlock()
		if s.what == "refuse" {
			m.refuse = s.n
		} else {
			m.down = s.n > 2
		}
	default:
		r.agent.mu.Lock()
		defer r.agent.mu.Unlock()
		switch s.what {
		case "crash":
			r.agent.crash, r.agent.fate = s.point, s.fate
		case "keep the report":
			r.agent.mute = true
		case "lie":
			r.agent.lie = true
		}
	}
	return nil
}

func (r *rig) invariants(id reeve.AccountID, m *machine) error {
	synctest.Wait()
	a := r.account(id)
	all, info := r.kept(a) // fails on R3
	password, opens := m.password(a.Name), false
	for _, s := range all {
		opens = opens || s == password
	}
	if password != "" && !opens {
		return fmt.Errorf("R1: none of %d kept versions opens the target", len(all))
	}
	busy := false
	r.do(func(tx *store.Tx) error { busy = idle(tx, a) != nil; return nil })
	m.mu.Lock()
	pending := len(m.late) > 0 || m.surprise
	m.mu.Unlock()
	if !busy && !pending && a.Sync == InSync && all[info.Current] != password {
		return fmt.Errorf("R2: version %d is current and the account in sync, but it does not open the target (%d versions)", info.Current, len(all))
	}
	return nil
}
