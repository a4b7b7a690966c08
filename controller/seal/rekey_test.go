package seal

import (
	"context"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// restarting is the cipher of a node whose process may be replaced by another.
type restarting struct{ now atomic.Pointer[Manager] }

func (r *restarting) Seal(aad, plain []byte) ([]byte, error)  { return r.now.Load().Seal(aad, plain) }
func (r *restarting) Open(aad, sealed []byte) ([]byte, error) { return r.now.Load().Open(aad, sealed) }

// ceremony is a node that is rotated, rewrapped and rekeyed, with everything its operators
// ever held in their hands.
type ceremony struct {
	t      *testing.T
	st     *store.Store
	faults *storetest.Faults
	node   restarting
	by     audit.Actor
	shares map[uint32][]reeve.Secret // by generation
	keys   map[uint32]reeve.Secret   // lines of key files, likewise
	wrote  int
}

func newCeremony(t *testing.T) *ceremony {
	c := &ceremony{t: t, faults: new(storetest.Faults), by: audit.System("test"), shares: map[uint32][]reeve.Secret{}, keys: map[uint32]reeve.Secret{}}
	m := NewManager(quiet())
	c.node.now.Store(m)
	c.st = storetest.New(t, storetest.WithCipher(&c.node), storetest.WithFaults(c.faults))
	shares, err := m.Init(t.Context(), c.st, "c1", Scheme{Shares: 3, Threshold: 2}, writeNote("0"))
	if err != nil {
		t.Fatal(err)
	}
	c.shares[1], c.wrote = shares, 1
	return c
}

func (c *ceremony) update(fn func(m *Manager, tx *store.Tx) error) error {
	return c.st.Update(context.Background(), func(tx *store.Tx) error { return fn(c.node.now.Load(), tx) })
}

// write adds records, sealed under the term of now.
func (c *ceremony) write(n int) error {
	return c.update(func(_ *Manager, tx *store.Tx) error {
		for i := range n {
			if err := writeNote(fmt.Sprint(c.wrote + i))(tx); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *ceremony) rotate() error {
	return c.update(func(m *Manager, tx *store.Tx) error { return m.Rotate(tx, c.by) })
}

func (c *ceremony) start(n NewSeal) error {
	var shares []reeve.Secret
	err := c.update(func(m *Manager, tx *store.Tx) (err error) {
		_, shares, err = m.StartRekey(tx, c.by, n)
		return err
	})
	if err != nil {
		return err // what was not answered is in nobody's hands
	}
	to := state(c.t, c.st).Generation + 1
	if n.Key.Empty() {
		c.shares[to] = shares
	} else {
		c.keys[to] = n.Key
	}
	return nil
}

// prove gives back one share, or the key.
func (c *ceremony) prove(number int) error {
	s := state(c.t, c.st)
	if s.Next == nil {
		return nil
	}
	p := Proof{Key: c.keys[s.Generation+1]}
	if number > 0 {
		p = Proof{Share: c.shares[s.Generation+1][number-1]}
	}
	return c.update(func(m *Manager, tx *store.Tx) error {
		_, err := m.ProveRekey(tx, c.by, s.Next.ID, p)
		return err
	})
}

// rewrap does one step of it.
func (c *ceremony) rewrap() error {
	_, _, err := c.st.Reseal(context.Background(), func(v []byte) bool { return c.node.now.Load().Stale(Data, v) }, "")
	return err
}

func line(key []byte) reeve.Secret {
	return reeve.NewSecret(base64.StdEncoding.AppendEncode(nil, key))
}

// kill replaces the process by one that knows only what is stored, and unseals it: the
// keys of the generation in force do it, those of no other do.
func (c *ceremony) kill() {
	c.t.Helper()
	s := state(c.t, c.st)
	opened := 0
	for generation := uint32(1); generation <= s.Generation+1; generation++ {
		m := NewManager(quiet())
		if err := m.Load(s); err != nil {
			c.t.Fatal(err)
		}
		if key, ok := c.keys[generation]; ok {
			path := writeKeyFile(c.t, key)
			_ = m.UnsealWithKeyFile(path) // the wrong one is refused: seen by the count
		}
		for _, share := range c.shares[generation] {
			_, _ = m.Unseal(share)
		}
		if !m.Sealed() {
			if generation != s.Generation {
				c.t.Errorf("the keys of generation %d unseal; %d is in force", generation, s.Generation)
			}
			opened++
			c.node.now.Store(m)
		}
	}
	if opened != 1 {
		c.t.Fatalf("generation %d: the keys of %d generations unseal", s.Generation, opened)
	}
}

func writeKeyFile(t *testing.T, lines ...reeve.Secret) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "seal.key")
	if err := CreateKeyFile(path); err != nil { // right mode; the content is replaced
		t.Fatal(err)
	}
	var text []byte
	for _, l := range lines {
		text = append(append(text, l.Bytes()...), '\n')
	}
	overwrite(t, path, text)
	return path
}

// check reads every record and counts active terms.
func (c *ceremony) check() {
	c.t.Helper()
	for i := range c.wrote {
		if err := readNote(c.st, fmt.Sprint(i)); err != nil {
			c.t.Fatalf("record %d: %v", i, err)
		}
	}
	m := c.node.now.Load()
	for _, p := range purposes {
		n := 0
		for _, t := range m.ring.Terms {
			if t.Purpose == p && t.State == active {
				n++
			}
		}
		if n != 1 {
			c.t.Errorf("%d active terms for %s", n, p)
		}
	}
}

// stale counts the stored values of older terms.
func (c *ceremony) stale() (n int) {
	c.t.Helper()
	count := func(v []byte) bool {
		if c.node.now.Load().Stale(Data, v) {
			n++
		}
		return false
	}
	if next, _, err := c.st.Reseal(context.Background(), count, ""); err != nil || next != "" {
		c.t.Fatal(next, err)
	}
	return n
}

// The process is killed at every step of rotating, rewrapping and rekeying, before the
// step is committed, after it, and not knowing: all records stay readable, one term of
// each purpose is active, and the keys of exactly one generation unseal. What is left
// can be done by the next process.
func TestKilledAtAnyStepOfRotateRewrapAndRekey_K4(t *testing.T) {
	t.Parallel()
	key := line(newKey())
	steps := func(c *ceremony) []func() error {
		return []func() error{
			func() error { return c.write(300) }, c.rotate, c.rewrap, c.rewrap, // two batches and the rest
			func() error { return c.start(NewSeal{Shares: 3, Threshold: 2}) },
			func() error { return c.prove(1) }, c.rotate, func() error { return c.prove(3) }, func() error { return c.prove(2) },
			func() error { return c.write(10) }, c.rewrap, c.rewrap,
			func() error { return c.start(NewSeal{Key: key}) }, func() error { return c.prove(0) },
			c.rotate, c.rewrap, c.rewrap,
		}
	}
	total := len(steps(&ceremony{}))
	for name, fate := range map[string]storetest.Fate{"after": storetest.CommitUnknown, "lost": storetest.Lose, "before": storetest.Refuse} {
		for at := range total {
			t.Run(fmt.Sprintf("%s %d", name, at), func(t *testing.T) {
				t.Parallel()
				c := newCeremony(t)
				for i, step := range steps(c) {
					if i == at {
						c.faults.Next(fate)
					}
					err := step()
					if i == 0 && (err == nil || fate == storetest.CommitUnknown) {
						c.wrote += 300
					} else if i == 9 && (err == nil || fate == storetest.CommitUnknown) {
						c.wrote += 10
					}
					if i == at {
						if err == nil {
							t.Fatal("the step did not notice the fault: it changes nothing")
						}
						break
					}
					if err != nil {
						t.Fatalf("step %d: %v", i, err)
					}
				}
				c.kill()
				c.check()
				if s := state(t, c.st); s.Next != nil { // the shares may be lost: begin again
					if err := c.update(func(m *Manager, tx *store.Tx) error { return m.CancelRekey(tx, c.by, s.Next.ID) }); err != nil {
						t.Fatal(err)
					}
				}
				last := line(newKey())
				for _, err := range []error{c.rotate(), c.start(NewSeal{Key: last}), c.prove(0), c.rewrap(), c.rewrap(), c.rewrap()} {
					if err != nil {
						t.Fatal(err)
					}
				}
				if n := c.stale(); n != 0 {
					t.Errorf("%d values are sealed under older terms after everything was rewrapped", n)
				}
				c.kill()
				c.check()
			})
		}
	}
}

// An unsealed node follows a rekeying by itself; one that missed it, or that comes when
// the handover is gone, is sealed and needs the new shares.
func TestUnsealedNodesFollowARekeying_K4(t *testing.T) {
	t.Parallel()
	c := newCeremony(t)
	other := func() *Manager {
		m := sealed(t, c.st)
		for _, s := range c.shares[1] {
			if _, err := m.Unseal(s); err != nil {
				t.Fatal(err)
			}
		}
		return m
	}
	follows, missed, late := other(), other(), other()
	opens := func(m *Manager) error {
		v, err := c.node.Seal([]byte("a"), []byte("x"))
		if err == nil {
			_, err = m.Open([]byte("a"), v)
		}
		return err
	}
	rekey := func() {
		t.Helper()
		for _, err := range []error{c.start(NewSeal{Shares: 3, Threshold: 2}), c.prove(2), c.prove(2), c.prove(1)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if g := state(t, c.st).Next.Proven; !slices.Equal(g, []int{1, 2}) {
			t.Fatalf("proven: %v", g)
		}
		if err := c.prove(3); err != nil {
			t.Fatal(err)
		}
	}
	rekey()
	first := state(t, c.st)
	if err := follows.Load(first); err != nil || opens(follows) != nil {
		t.Fatalf("a node that was there: %v", err)
	}
	gone := *first
	gone.Handover = nil
	if err := late.Load(&gone); reeve.KindOf(err) != reeve.Sealed || !late.Sealed() {
		t.Fatalf("a node that came late: %v", err)
	}
	rekey()
	if err := follows.Load(state(t, c.st)); err != nil || opens(follows) != nil {
		t.Fatalf("a node that was there twice: %v", err)
	}
	if err := missed.Load(state(t, c.st)); reeve.KindOf(err) != reeve.Sealed || !missed.Sealed() {
		t.Fatalf("a node that missed one: %v", err)
	}
	if _, err := missed.Unseal(c.shares[1][0]); reeve.CodeOf(err) != "unseal_share_wrong" {
		t.Fatalf("a share of before: %v", err)
	}
	for _, s := range c.shares[3][1:] {
		if _, err := missed.Unseal(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := opens(missed); err != nil {
		t.Fatal(err)
	}
}

// The handover is kept for as long as promised, and not longer.
func TestTheHandoverIsForgotten(t *testing.T) {
	t.Parallel()
	var now atomic.Int64
	now.Store(time.Now().Unix())
	m := NewManager(quiet())
	st := storetest.New(t, storetest.WithCipher(m), storetest.WithClock(func() time.Time { return time.Unix(now.Load(), 0) }))
	if _, err := m.Init(t.Context(), st, "c1", Scheme{Shares: 2, Threshold: 2}, writeNote("first")); err != nil {
		t.Fatal(err)
	}
	key := line(newKey())
	do := func(fn func(tx *store.Tx) error) {
		t.Helper()
		if err := st.Update(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
	}
	var r *Rekeying
	do(func(tx *store.Tx) (err error) {
		r, _, err = m.StartRekey(tx, audit.System("test"), NewSeal{Key: key})
		return err
	})
	do(func(tx *store.Tx) error {
		_, err := m.ProveRekey(tx, audit.System("test"), r.ID, Proof{Key: key})
		return err
	})
	for _, c := range []struct {
		after time.Duration
		want  bool
	}{{HandoverTerm - time.Second, false}, {HandoverTerm + time.Second, true}, {HandoverTerm + 2*time.Second, false}} {
		at := state(t, st).HandoverAt
		if at.IsZero() {
			at = time.Unix(now.Load(), 0)
		}
		now.Store(at.Add(c.after).Unix())
		do(func(tx *store.Tx) error {
			got, err := ForgetHandover(tx)
			if got != c.want {
				t.Errorf("after %s: forgotten %v", c.after, got)
			}
			return err
		})
	}
	if s := state(t, st); s.Handover != nil || !s.HandoverAt.IsZero() {
		t.Error("it is still there")
	}
}

func TestARekeyingRefusesWhatDoesNotBelongToIt_K3(t *testing.T) {
	t.Parallel()
	c := newCeremony(t)
	if err := c.start(NewSeal{Shares: 3, Threshold: 2}); err != nil {
		t.Fatal(err)
	}
	id := state(t, c.st).Next.ID
	prove := func(id reeve.RekeyID, p Proof) error {
		return c.update(func(m *Manager, tx *store.Tx) error { _, err := m.ProveRekey(tx, c.by, id, p); return err })
	}
	flipped, err := decodeShare(c.shares[2][1])
	if err != nil {
		t.Fatal(err)
	}
	flipped.y[3] ^= 4
	for code, err := range map[string]error{
		"rekey_unknown":          prove("rekey_0", Proof{Share: c.shares[2][0]}),
		"unseal_share_wrong":     prove(id, Proof{Share: encodeShare(flipped)}),
		"unseal_share_malformed": prove(id, Proof{Share: reeve.SecretString("x")}),
		"seal_scheme_other":      prove(id, Proof{Key: line(newKey())}),
		"rekey_under_way":        c.start(NewSeal{Shares: 3, Threshold: 2}),
	} {
		if reeve.CodeOf(err) != code {
			t.Errorf("want %s: %v", code, err)
		}
	}
	if reeve.CodeOf(prove(id, Proof{Share: c.shares[1][0]})) != "unseal_share_wrong" {
		t.Error("a share of the seal in force counts for the one to come")
	}
	if err := c.update(func(m *Manager, tx *store.Tx) error { return m.CancelRekey(tx, c.by, id) }); err != nil {
		t.Fatal(err)
	}
	if reeve.CodeOf(prove(id, Proof{Share: c.shares[2][0]})) != "rekey_unknown" {
		t.Error("a rekeying that was cancelled goes on")
	}
	for code, n := range map[string]NewSeal{"seal_scheme_invalid": {Shares: 2, Threshold: 3}, "key_malformed": {Key: reeve.SecretString("abc")}} {
		if err := c.start(n); reeve.CodeOf(err) != code {
			t.Errorf("want %s: %v", code, err)
		}
	}
	if s := state(t, c.st); s.Generation != 1 || s.Next != nil {
		t.Errorf("generation %d", s.Generation)
	}
}

// A key file holds the next key before a rekeying and the one of before after it, so that
// no restart in between finds a sealed node.
func TestAKeyFileWithTheNextKeyUnsealsBeforeAndAfter_K4(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "seal.key")
	if err := CreateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	m := NewManager(quiet())
	st := storetest.New(t, storetest.WithCipher(m))
	if _, err := m.Init(t.Context(), st, "c1", Scheme{KeyFile: path}, writeNote("first")); err != nil {
		t.Fatal(err)
	}
	restarts := func() {
		t.Helper()
		again := sealed(t, st)
		if err := again.UnsealWithKeyFile(path); err != nil || again.Sealed() {
			t.Fatalf("a node that restarts: %v", err)
		}
	}
	if err := AddKey(path); err != nil {
		t.Fatal(err)
	}
	restarts()
	keys, err := readKeyFile(path)
	if err != nil || len(keys) != 2 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	next := line(keys[1].Bytes())
	var r *Rekeying
	for _, fn := range []func(tx *store.Tx) error{
		func(tx *store.Tx) (err error) {
			r, _, err = m.StartRekey(tx, audit.System("test"), NewSeal{Key: next})
			return err
		},
		func(tx *store.Tx) error {
			_, err := m.ProveRekey(tx, audit.System("test"), r.ID, Proof{Key: line(keys[0].Bytes())})
			if reeve.CodeOf(err) != "unseal_key_wrong" {
				t.Errorf("the old key as proof of the new: %v", err)
			}
			return nil
		},
		func(tx *store.Tx) error {
			_, err := m.ProveRekey(tx, audit.System("test"), r.ID, Proof{Key: next})
			return err
		},
	} {
		if err := st.Update(t.Context(), fn); err != nil {
			t.Fatal(err)
		}
		restarts()
	}
	overwrite(t, path, append(next.Bytes(), '\n'))
	restarts()
	for range 10 {
		if err = AddKey(path); err != nil {
			break
		}
	}
	if reeve.CodeOf(err) != "key_file_full" {
		t.Errorf("a file that grows for ever: %v", err)
	}
	restarts()
}
