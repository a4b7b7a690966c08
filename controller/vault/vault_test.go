package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// rig is a vault over a store whose clock the test moves.
type rig struct {
	*Vault
	t     *testing.T
	store *store.Store
	clock *storetest.Clock
	fault *storetest.Faults
	path  string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, clock: storetest.NewClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), fault: new(storetest.Faults),
		path: filepath.Join(t.TempDir(), "state.db")}
	cipher := storetest.NewCipher()
	r.Vault = New(cipher)
	r.store = storetest.New(t, storetest.WithClock(r.clock.Now), storetest.WithFaults(r.fault), storetest.WithCipher(cipher),
		storetest.WithPath(r.path))
	return r
}

func (r *rig) try(fn func(*store.Tx) error) error { return r.store.Update(context.Background(), fn) }

func (r *rig) do(fn func(*store.Tx) error) {
	r.t.Helper()
	if err := r.try(fn); err != nil {
		r.t.Fatal(err)
	}
}

// lease marks a version leased and returns the fence.
func (r *rig) lease(id reeve.SecretID, version uint32) (fence uint64) {
	r.t.Helper()
	r.do(func(tx *store.Tx) error {
		fence = tx.Revision()
		_, err := r.MarkLeased(tx, id, version, tx.Now())
		return err
	})
	return fence
}

func (r *rig) candidate(id reeve.SecretID, value string) (version uint32) {
	r.t.Helper()
	r.do(func(tx *store.Tx) (err error) {
		version, err = r.AddCandidate(tx, id, reeve.SecretString(value))
		return err
	})
	return version
}

func (r *rig) create() (id reeve.SecretID) {
	r.t.Helper()
	r.do(func(tx *store.Tx) (err error) {
		id, err = r.Create(tx, Password, "acct_1")
		return err
	})
	return id
}

func (r *rig) promote(id reeve.SecretID, version uint32, fence uint64) error {
	r.t.Helper()
	p, err := NewProof("job_1", fence, &agentv1.LoginAttempt{Secret: string(id), Version: version, Verdict: "ok"})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.try(func(tx *store.Tx) error { return r.Promote(tx, p) })
}

// rotate makes, leases and promotes a new version.
func (r *rig) rotate(id reeve.SecretID, value string) uint32 {
	r.t.Helper()
	v := r.candidate(id, value)
	if err := r.promote(id, v, r.lease(id, v)); err != nil {
		r.t.Fatal(err)
	}
	return v
}

func (r *rig) states(id reeve.SecretID) map[uint32]State {
	r.t.Helper()
	out := map[uint32]State{}
	r.do(func(tx *store.Tx) error {
		all, err := r.Versions(tx, id)
		for _, v := range all {
			out[v.Number] = v.State
		}
		return err
	})
	return out
}

func (r *rig) want(id reeve.SecretID, want map[uint32]State) {
	r.t.Helper()
	if diff := cmp.Diff(want, r.states(id)); diff != "" {
		r.t.Errorf("versions (-want +got):\n%s", diff)
	}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if got := reeve.CodeOf(err); got != code {
		t.Errorf("error code %q, want %q (%v)", got, code, err)
	}
}

func TestASecretHasAtMostOneCandidate_R3(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create()
	v := r.candidate(id, "first-one")
	err := r.try(func(tx *store.Tx) error {
		_, err := r.AddCandidate(tx, id, reeve.SecretString("second-one"))
		return err
	})
	wantCode(t, err, "candidate_exists")
	r.want(id, map[uint32]State{v: Candidate})

	r.do(func(tx *store.Tx) error { return r.Abandon(tx, id, v) })
	w := r.candidate(id, "second-one")
	r.want(id, map[uint32]State{v: Abandoned, w: Candidate})
}

func TestPromoteNeedsTheLiveFence_R4(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create()
	v := r.candidate(id, "some-value")

	wantCode(t, r.promote(id, v, 0), "proof_stale")
	wantCode(t, r.promote(id, v, 7), "proof_stale") // it was never leased
	old := r.lease(id, v)
	live := r.lease(id, v)
	wantCode(t, r.promote(id, v, old), "proof_stale")
	r.want(id, map[uint32]State{v: Candidate})

	if err := r.promote(id, v, live); err != nil {
		t.Fatal(err)
	}
	r.want(id, map[uint32]State{v: Current})
}

func TestALoginThatDidNotWorkIsNoProof_R4(t *testing.T) {
	t.Parallel()
	for _, verdict := range []string{"", "bad_credential", "locked", "must_change", "unreachable", "unknown", "OK"} {
		_, err := NewProof("job_1", 1, &agentv1.LoginAttempt{Verdict: verdict})
		wantCode(t, err, "not_proven")
	}
}

func TestARepeatedProofStepsTheVersionOnce_R7(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create()
	a := r.rotate(id, "value-one")
	b := r.candidate(id, "value-two")
	fence := r.lease(id, b)
	for range 3 {
		if err := r.promote(id, b, fence); err != nil {
			t.Fatal(err)
		}
	}
	r.want(id, map[uint32]State{a: Retired, b: Current})
	r.lease(id, b) // a later job; the old report comes again
	if err := r.promote(id, b, fence); err != nil {
		t.Errorf("a repeated report of what is current already: %v", err)
	}
	wantCode(t, r.promote(id, a, fence), "proof_stale")
	r.want(id, map[uint32]State{a: Retired, b: Current})
}

func TestHealingPromotesAnOlderVersion_R2(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create()
	a, b := r.rotate(id, "value-one"), r.rotate(id, "value-two")
	c := r.candidate(id, "value-three")
	if err := r.promote(id, a, r.lease(id, a)); err != nil {
		t.Fatal(err)
	}
	r.want(id, map[uint32]State{a: Current, b: Retired, c: Candidate})
}

func TestHistoryIsNewestFirstAndHoldsWhatWasEverSent_R1(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create()
	a := r.rotate(id, "value-1")
	sent := r.candidate(id, "value-2")
	r.lease(id, sent)
	r.do(func(tx *store.Tx) error { return r.Abandon(tx, id, sent) })
	never := r.candidate(id, "value-3")
	r.do(func(tx *store.Tx) error { return r.Abandon(tx, id, never) })
	r.rotate(id, "value-4")
	r.candidate(id, "value-5")

	var got []uint32
	r.do(func(tx *store.Tx) error {
		h, err := r.History(tx, id)
		for _, v := range h {
			got = append(got, v.Number)
		}
		return err
	})
	if diff := cmp.Diff([]uint32{sent, a}, got); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

func TestALeasedVersionOutlivesThirtyDaysAndTwoProofs_R1(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create()
	prune := func() (n int) {
		t.Helper()
		r.do(func(tx *store.Tx) (err error) {
			n, err = r.Prune(tx, audit.System("test"), id)
			return err
		})
		return n
	}
	sent := r.candidate(id, "value-sent")
	r.lease(id, sent)
	r.do(func(tx *store.Tx) error { return r.Abandon(tx, id, sent) })
	unsent := r.candidate(id, "value-unsent")
	r.do(func(tx *store.Tx) error { return r.Abandon(tx, id, unsent) })
	if n := prune(); n != 1 {
		t.Errorf("pruned %d versions, want only the one that was never sent", n)
	}
	r.clock.Advance(10 * Retention) // long ago, but nothing later is proven
	one := r.rotate(id, "value-one")
	if n := prune(); n != 0 {
		t.Errorf("pruned %d versions after one later proof", n)
	}
	two := r.rotate(id, "value-two") // one is retired only now
	r.want(id, map[uint32]State{sent: Abandoned, one: Retired, two: Current})
	if n := prune(); n != 1 {
		t.Errorf("pruned %d versions, want the one sent long ago", n)
	}
	three, four := r.rotate(id, "value-three"), r.rotate(id, "value-four")
	r.clock.Advance(Retention - time.Second)
	if n := prune(); n != 0 {
		t.Errorf("pruned %d versions before 30 days", n)
	}
	r.clock.Advance(time.Second)
	if n := prune(); n != 2 { // one and two; three has but one proof after it
		t.Errorf("pruned %d versions, want 2", n)
	}
	r.want(id, map[uint32]State{three: Retired, four: Current})
}

func TestMovedCiphertextDoesNotOpen_K2(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, b := r.create(), r.create()
	r.rotate(a, "value-a1")
	r.rotate(b, "value-b1")
	r.rotate(b, "value-b2")
	moves := map[string]func(tx *store.Tx, x, y *record, s *Info) error{
		"value of another version": func(tx *store.Tx, x, y *record, _ *Info) error { x.Value = y.Value; return versions.Put(tx, x) },
		"key of another version":   func(tx *store.Tx, x, y *record, _ *Info) error { x.Key = y.Key; return versions.Put(tx, x) },
		"both of another version": func(tx *store.Tx, x, y *record, _ *Info) error {
			x.Key, x.Value = y.Key, y.Value
			return versions.Put(tx, x)
		},
		"another kind": func(tx *store.Tx, _, _ *record, s *Info) error { s.Kind = SSHKey; return secrets.Put(tx, s) },
	}
	type place struct {
		id      reeve.SecretID
		version uint32
	}
	for name, move := range moves {
		for _, from := range []place{{a, 1}, {b, 1}} {
			err := r.try(func(tx *store.Tx) error {
				s, x, err := load(tx, b, 2)
				if err != nil {
					return err
				}
				_, y, err := load(tx, from.id, from.version)
				if err != nil {
					return err
				}
				if err := move(tx, x, y, s); err != nil {
					return err
				}
				if _, _, err := r.Open(tx, b, 2); err == nil {
					t.Errorf("%s from %v: opened", name, from)
				}
				return errRollback
			})
			if err != errRollback { //nolint:errorlint // returned as it is
				t.Fatal(err)
			}
		}
	}
	r.do(func(tx *store.Tx) error {
		_, s, err := r.Open(tx, b, 2)
		if err == nil && !s.Equal(reeve.SecretString("value-b2")) {
			t.Error("the untouched version opens to something else")
		}
		return err
	})
}

var errRollback = reeve.Errorf(reeve.Internal, "rollback", "undo what the test did")

func TestEveryVersionHasItsOwnDataKey_K2(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create()
	a, b := r.rotate(id, "same-value"), r.rotate(id, "same-value")
	r.do(func(tx *store.Tx) error {
		_, x, _ := load(tx, id, a)
		_, y, _ := load(tx, id, b)
		kx, err := r.cipher.Open(binding("key", &Info{ID: id, Kind: Password}, a), x.Key)
		if err != nil {
			return err
		}
		ky, err := r.cipher.Open(binding("key", &Info{ID: id, Kind: Password}, b), y.Key)
		if err != nil {
			return err
		}
		if len(kx) != 32 || bytes.Equal(kx, ky) {
			t.Error("two versions share a data key, or it is not 256 bits")
		}
		return nil
	})
}

func TestRevealIsRecordedBeforeAnythingLeaves_U1(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create()
	v := r.rotate(id, "revealed-value")
	by := audit.Actor{Kind: "user", ID: "prin_1", Name: "alice"}
	got, err := r.Reveal(t.Context(), r.store, by, id, 0, "ticket 7")
	if err != nil || got.Version != v || !got.Value.Equal(reeve.SecretString("revealed-value")) {
		t.Fatalf("version %d: %v", got.Version, err)
	}
	for _, fate := range []storetest.Fate{storetest.Refuse, storetest.Lose, storetest.CommitUnknown} {
		r.fault.Next(fate)
		got, err := r.Reveal(t.Context(), r.store, by, id, 0, "ticket 8")
		if err == nil || !got.Value.Empty() {
			t.Errorf("fate %v: a value left although its record may not be committed", fate)
		}
	}
	var actions []string
	r.do(func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 100, audit.Filter{Object: string(id)})
		for _, e := range all {
			actions = append(actions, e.Action+" "+e.Details["reason"])
		}
		return err
	})
	// CommitUnknown did commit: a record without a reveal is the safe side.
	if diff := cmp.Diff([]string{"secret.reveal ticket 7", "secret.reveal ticket 8"}, actions); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}

func TestRevealRefusesWhatIsNotProven(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create()
	r.candidate(id, "not-proven-yet")
	_, err := r.Reveal(t.Context(), r.store, audit.System("test"), id, 0, "x")
	wantCode(t, err, "secret_unproven")
}

func TestNoPlaintextOutsideOpen_K1(t *testing.T) {
	t.Parallel()
	const canary = "canary-6f1d0c2b9a"
	r := newRig(t)
	id := r.create()
	v := r.rotate(id, canary)
	r.do(func(tx *store.Tx) error {
		// Inside the transaction the record is already unsealed by the store.
		_, rec, err := load(tx, id, v)
		if err != nil {
			return err
		}
		shown := fmt.Sprintf("%v %+v %#v %s", rec, rec, rec, rec.Value)
		if j, err := json.Marshal(rec); err != nil || bytes.Contains(j, []byte(canary)) {
			t.Errorf("record in JSON shows the value (%v)", err)
		}
		if bytes.Contains([]byte(shown), []byte(canary)) || bytes.Contains(rec.Key, []byte(canary)) {
			t.Error("the unsealed store record shows the value")
		}
		return nil
	})
	got, err := r.Reveal(t.Context(), r.store, audit.System("test"), id, 0, "x")
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v", got, got); bytes.Contains([]byte(s), []byte(canary)) {
		t.Error("printing a revealed secret shows it")
	}
	disk, err := os.ReadFile(r.path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(disk, []byte(canary)) {
		t.Error("the value is readable on the disk")
	}
}

func TestUnknownSecretsAndVersions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.create()
	for name, fn := range map[string]func(*store.Tx) error{
		"open":  func(tx *store.Tx) error { _, _, err := r.Open(tx, id, 9); return err },
		"lease": func(tx *store.Tx) error { _, err := r.MarkLeased(tx, id, 9, tx.Now()); return err },
		"get":   func(tx *store.Tx) error { _, err := r.Get(tx, "sec_none"); return err },
	} {
		if err := r.try(fn); reeve.KindOf(err) != reeve.NotFound {
			t.Errorf("%s: %v, want not found", name, err)
		}
	}
	wantCode(t, r.try(func(tx *store.Tx) error { _, err := r.Create(tx, "token", "x"); return err }), "secret_kind_invalid")
	wantCode(t, r.try(func(tx *store.Tx) error { _, err := r.AddCandidate(tx, id, reeve.Secret{}); return err }), "secret_empty")
	v := r.rotate(id, "some-value")
	wantCode(t, r.try(func(tx *store.Tx) error { return r.Abandon(tx, id, v) }), "not_candidate")
}
