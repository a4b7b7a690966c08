package seal

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

type note struct {
	ID   string `cbor:"1,keyasint,omitempty"`
	Text string `cbor:"2,keyasint,omitempty"`
}

var notes = store.NewTable("note", store.Key(func(n *note) string { return n.ID }))

// canary is stored in a sealed record and must never be seen outside.
const canary = "canary-8d1f-plaintext"

func writeNote(id string) func(*store.Tx) error {
	return func(tx *store.Tx) error { return notes.Put(tx, &note{ID: id, Text: canary}) }
}

func readNote(st *store.Store, id string) error {
	return st.View(context.Background(), func(tx *store.Tx) error {
		n, err := notes.Get(tx, id)
		if err == nil && n.Text != canary {
			return errors.New("another text")
		}
		return err
	})
}

func state(t testing.TB, st *store.Store) *State {
	t.Helper()
	var s *State
	if err := st.View(context.Background(), func(tx *store.Tx) (err error) {
		s, err = LoadState(tx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// founded is an unsealed Manager over its own store, with a 3-of-5 seal.
func founded(t testing.TB) (*Manager, *store.Store, []reeve.Secret) {
	t.Helper()
	m := NewManager(quiet())
	st := storetest.New(t, storetest.WithCipher(m))
	shares, err := m.Init(t.Context(), st, "c1", Scheme{Shares: 5, Threshold: 3}, writeNote("first"))
	if err != nil {
		t.Fatal(err)
	}
	return m, st, shares
}

// sealed is another, sealed node of the same cluster.
func sealed(t testing.TB, st *store.Store) *Manager {
	t.Helper()
	m := NewManager(quiet())
	if err := m.Load(state(t, st)); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestInitUnsealsAndTheTransactionIsSealedAlready(t *testing.T) {
	t.Parallel()
	m, st, shares := founded(t)
	want := Status{Initialised: true, Scheme: SchemeShamir, Generation: 1, Threshold: 3, Shares: 5}
	if diff := cmp.Diff(want, m.Status()); diff != "" || len(shares) != 5 {
		t.Fatal(diff, len(shares))
	}
	if err := readNote(st, "first"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Init(t.Context(), st, "c1", Scheme{Shares: 2, Threshold: 2}, writeNote("x")); reeve.CodeOf(err) != "already_initialised" {
		t.Fatalf("second Init: %v", err)
	}
	late := NewManager(quiet()) // has not loaded the state
	if _, err := late.Init(t.Context(), st, "c1", Scheme{Shares: 2, Threshold: 2}, writeNote("x")); reeve.CodeOf(err) != "already_initialised" {
		t.Fatalf("Init of a late node: %v", err)
	}
	if !late.Status().Sealed || m.Status().Sealed {
		t.Fatalf("late %+v, first %+v", late.Status(), m.Status())
	}
}

func TestOnlyTheThresholdOfSharesUnseals_K3(t *testing.T) {
	t.Parallel()
	first, st, shares := founded(t)
	m := sealed(t, st)
	if _, err := m.Seal(nil, []byte("x")); reeve.KindOf(err) != reeve.Sealed {
		t.Fatalf("sealed node sealed: %v", err)
	}
	for i, n := range []int{4, 0, 0, 4} { // shares 5 and 1, and both again
		s, err := m.Unseal(shares[n])
		if err != nil || !s.Sealed {
			t.Fatalf("step %d: %+v %v", i, s, err)
		}
	}
	if got := m.Status().Given; !cmp.Equal(got, []int{1, 5}) {
		t.Fatalf("given = %v", got)
	}
	if s, err := m.Unseal(shares[2]); err != nil || s.Sealed || len(s.Given) != 0 {
		t.Fatalf("%+v %v", s, err)
	}
	value, err := first.Seal([]byte("aad"), []byte("from the first"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.Open([]byte("aad"), value); err != nil || string(got) != "from the first" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestAWrongShareIsNamedAndSpoilsNothing_K3(t *testing.T) {
	t.Parallel()
	_, st, shares := founded(t)
	other, err := NewManager(quiet()).Init(t.Context(), storetest.New(t), "c1", Scheme{Shares: 5, Threshold: 3}, func(*store.Tx) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	altered := func(change func(*share)) reeve.Secret {
		s, err := decodeShare(shares[3])
		if err != nil {
			t.Fatal(err)
		}
		change(&s)
		return encodeShare(s)
	}
	wrong := map[string]struct {
		share reeve.Secret
		code  string
		named string
	}{
		"one bit":          {altered(func(s *share) { s.y[7] ^= 0x10 }), "unseal_share_wrong", "share number 4"},
		"other number":     {altered(func(s *share) { s.x = 2 }), "unseal_share_wrong", "share number 2"},
		"number too high":  {altered(func(s *share) { s.x = 77 }), "unseal_share_wrong", "share number 77"},
		"other generation": {altered(func(s *share) { s.generation = 2 }), "unseal_share_wrong", "generation 2"},
		"other cluster":    {other[1], "unseal_share_wrong", "share number 2"},
		"typing error":     {mistyped(shares[3]), "unseal_share_malformed", "mistyped"},
		"cut":              {reeve.SecretString(shares[3].Reveal()[:50]), "unseal_share_malformed", "incomplete"},
		"empty":            {reeve.Secret{}, "unseal_share_malformed", "incomplete"},
	}
	for name, w := range wrong {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := sealed(t, st)
			give := func(s reeve.Secret) {
				if _, err := m.Unseal(s); err != nil {
					t.Fatal(err)
				}
			}
			give(shares[0])
			give(shares[1])
			s, err := m.Unseal(w.share)
			if reeve.CodeOf(err) != w.code || !strings.Contains(err.Error(), w.named) || !s.Sealed || !cmp.Equal(s.Given, []int{1, 2}) {
				t.Fatalf("%+v, %v", s, err)
			}
			if text := w.share.Reveal(); len(text) > 20 && strings.Contains(fmt.Sprint(err), text[len(SharePrefix)+6:]) {
				t.Fatal("the error quotes the share")
			}
			give(shares[4])
			if m.Status().Sealed {
				t.Fatal("the good shares no longer count")
			}
		})
	}
}

func mistyped(s reeve.Secret) reeve.Secret {
	b := bytes.Clone(s.Bytes())
	if b[20]++; b[20] == '9'+1 || b[20] == 'Z'+1 || b[20] == 'z'+1 || b[20] == '_'+1 || b[20] == '-'+1 {
		b[20] = 'A'
	}
	return reeve.NewSecret(b)
}

func TestSealNodeForgetsKeysAndShares(t *testing.T) {
	t.Parallel()
	m, st, shares := founded(t)
	root, key := m.root, m.ring.Terms[0].Key
	m.SealNode()
	if !bytes.Equal(root, make([]byte, keySize)) || !bytes.Equal(key, make([]byte, keySize)) {
		t.Fatal("a key was not overwritten")
	}
	if reeve.KindOf(readNote(st, "first")) != reeve.Sealed {
		t.Fatal("a sealed node reads")
	}
	if err := st.Update(t.Context(), writeNote("x")); reeve.KindOf(err) != reeve.Sealed {
		t.Fatalf("a sealed node writes: %v", err)
	}
	for _, i := range []int{0, 1} {
		if _, err := m.Unseal(shares[i]); err != nil {
			t.Fatal(err)
		}
	}
	given := m.given[1].y
	m.SealNode()
	if !bytes.Equal(given, make([]byte, keySize)) || len(m.Status().Given) != 0 {
		t.Fatal("a share was kept")
	}
	for _, i := range []int{2, 3, 4} {
		if _, err := m.Unseal(shares[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := readNote(st, "first"); err != nil {
		t.Fatal(err)
	}
}

func TestKeyFileUnseals(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "seal.key")
	if err := CreateKeyFile(path); err != nil {
		t.Fatal(err)
	}
	if err := CreateKeyFile(path); !errors.Is(err, os.ErrExist) {
		t.Fatalf("an existing key file was replaced: %v", err)
	}
	m := NewManager(quiet())
	st := storetest.New(t, storetest.WithCipher(m))
	if shares, err := m.Init(t.Context(), st, "c1", Scheme{KeyFile: path}, writeNote("first")); err != nil || len(shares) != 0 {
		t.Fatal(len(shares), err)
	}
	m.SealNode()
	if _, err := m.Unseal(encodeShare(share{generation: 1, point: point{x: 1, y: newKey()}})); reeve.CodeOf(err) != "seal_scheme_other" {
		t.Fatalf("share for a key file: %v", err)
	}
	refused := map[string]struct {
		content string
		mode    os.FileMode
	}{
		"key_file_exposed":   {base64.StdEncoding.EncodeToString(newKey()), 0o644},
		"key_file_malformed": {base64.StdEncoding.EncodeToString(newKey()[:31]), 0o600},
		"unseal_key_wrong":   {base64.StdEncoding.EncodeToString(newKey()), 0o600},
	}
	for code, f := range refused {
		bad := filepath.Join(t.TempDir(), code)
		if err := os.WriteFile(bad, []byte(f.content), f.mode); err != nil {
			t.Fatal(err)
		}
		if err := m.UnsealWithKeyFile(bad); reeve.CodeOf(err) != code || strings.Contains(err.Error(), f.content) || !m.Status().Sealed {
			t.Errorf("%s: %v", code, err)
		}
	}
	if err := m.UnsealWithKeyFile(path + "?"); reeve.CodeOf(err) != "key_file_unreadable" {
		t.Fatal(err)
	}
	if err := m.UnsealWithKeyFile(path); err != nil {
		t.Fatal(err)
	}
	if err := readNote(st, "first"); err != nil {
		t.Fatal(err)
	}
}

func TestInitIsAllOrNothing(t *testing.T) {
	t.Parallel()
	scheme := Scheme{Shares: 3, Threshold: 2}
	t.Run("bad scheme", func(t *testing.T) {
		t.Parallel()
		for _, bad := range []Scheme{{}, {Shares: 1, Threshold: 1}, {Shares: 3, Threshold: 1}, {Shares: 2, Threshold: 3}, {Shares: 256, Threshold: 2}} {
			if _, err := NewManager(quiet()).Init(t.Context(), storetest.New(t), "c1", bad, writeNote("x")); reeve.CodeOf(err) != "seal_scheme_invalid" {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	})
	t.Run("the rest fails", func(t *testing.T) {
		t.Parallel()
		m := NewManager(quiet())
		st := storetest.New(t, storetest.WithCipher(m))
		boom := errors.New("boom")
		if shares, err := m.Init(t.Context(), st, "c1", scheme, func(*store.Tx) error { return boom }); !errors.Is(err, boom) || shares != nil {
			t.Fatal(shares, err)
		}
		if s := m.Status(); s.Initialised || !s.Sealed || state(t, st) != nil {
			t.Fatalf("%+v", s)
		}
		if _, err := m.Init(t.Context(), st, "c1", scheme, writeNote("x")); err != nil {
			t.Fatal(err)
		}
	})
	for name, fate := range map[string]storetest.Fate{"unknown but committed": storetest.CommitUnknown, "unknown and lost": storetest.Lose, "refused": storetest.Refuse} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, faults := NewManager(quiet()), new(storetest.Faults)
			st := storetest.New(t, storetest.WithCipher(m), storetest.WithFaults(faults))
			faults.Next(fate)
			if shares, err := m.Init(t.Context(), st, "c1", scheme, writeNote("first")); err == nil || shares != nil || !m.Status().Sealed {
				t.Fatalf("%v %v %+v", shares, err, m.Status())
			}
			shares, err := m.Init(t.Context(), st, "c1", scheme, writeNote("first"))
			if err != nil {
				t.Fatal(err)
			}
			if err := readNote(st, "first"); err != nil {
				t.Fatal(err)
			}
			again := sealed(t, st)
			for _, s := range shares[:2] {
				if _, err := again.Unseal(s); err != nil {
					t.Fatal(err)
				}
			}
			if again.Status().Sealed {
				t.Fatal("the shares returned are not those of the stored state")
			}
		})
	}
}

func TestARotatedTermReachesOtherNodesAndOldValuesStayReadable_K4(t *testing.T) {
	t.Parallel()
	m, st, shares := founded(t)
	follower := sealed(t, st)
	for _, s := range shares[:3] {
		if _, err := follower.Unseal(s); err != nil {
			t.Fatal(err)
		}
	}
	asleep := sealed(t, st)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- follower.Run(ctx, st) }()

	old, err := m.SealFor(CAWrap, nil, []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	macs, err := m.MACs(TokenHMAC, []byte("v"))
	if err != nil || len(macs) != 1 {
		t.Fatal(err)
	}
	older := state(t, st)
	changed, cancel := st.Watch(Table)
	defer cancel()
	by := audit.System("test")
	if err := st.Update(t.Context(), func(tx *store.Tx) error { return m.Rotate(tx, by) }); err != nil {
		t.Fatal(err)
	}
	<-changed
	if err := m.Load(older); err != nil { // as a watcher that is late may do
		t.Fatal(err)
	}
	young, err := m.SealFor(CAWrap, nil, []byte("young"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(old[:5], young[:5]) {
		t.Fatal("still sealing under the old term")
	}
	if after, err := m.MACs(TokenHMAC, []byte("v")); err != nil || len(after) != 2 || !bytes.Equal(after[1], macs[0]) || bytes.Equal(after[0], macs[0]) {
		t.Fatal("the value of before cannot be found, or is not made anew", err)
	}
	if err := readNote(st, "first"); err != nil {
		t.Fatal(err)
	}
	poll, deadline := time.NewTicker(time.Millisecond), time.After(20*time.Second)
	defer poll.Stop()
	for {
		got, err := follower.OpenFor(CAWrap, nil, young)
		if err == nil && string(got) == "young" {
			break
		}
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("the follower never got the new term: %v", err)
		case err := <-done:
			t.Fatalf("Run ended: %v", err)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, s := range shares[:3] { // a node that slept through it all
		if _, err := asleep.Unseal(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := asleep.Load(state(t, st)); err != nil {
		t.Fatal(err)
	}
	for _, v := range [][]byte{old, young} {
		if _, err := asleep.OpenFor(CAWrap, nil, v); err != nil {
			t.Fatal(err)
		}
	}
}

func TestALostRotationChangesNothing_K4(t *testing.T) {
	t.Parallel()
	m, faults := NewManager(quiet()), new(storetest.Faults)
	st := storetest.New(t, storetest.WithCipher(m), storetest.WithFaults(faults))
	if _, err := m.Init(t.Context(), st, "c1", Scheme{Shares: 2, Threshold: 2}, writeNote("first")); err != nil {
		t.Fatal(err)
	}
	before := state(t, st).KeyringVersion
	faults.Next(storetest.Lose)
	if err := st.Update(t.Context(), func(tx *store.Tx) error { return m.Rotate(tx, audit.System("test")) }); reeve.KindOf(err) != reeve.OutcomeUnknown {
		t.Fatal(err)
	}
	if err := st.Update(t.Context(), writeNote("second")); err != nil {
		t.Fatal(err)
	}
	if after := state(t, st).KeyringVersion; after != before {
		t.Fatalf("keyring version %d, was %d", after, before)
	}
	for _, id := range []string{"first", "second"} {
		if err := readNote(st, id); err != nil {
			t.Fatal(err)
		}
	}
}

// K1: neither keys nor shares nor values are on the disk or in the log of the process.
func TestNothingReadableIsWritten_K1(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	m := NewManager(slog.New(slog.NewJSONHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	path := filepath.Join(t.TempDir(), "state.db")
	node := storetest.Start(t, storetest.WithCipher(m), storetest.WithPath(path))
	shares, err := m.Init(t.Context(), node.Store, "c1", Scheme{Shares: 2, Threshold: 2}, writeNote("first"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := [][]byte{[]byte(canary), bytes.Clone(m.root)}
	for _, tm := range m.ring.Terms {
		secrets = append(secrets, bytes.Clone(tm.Key))
	}
	m.SealNode()
	var points []point
	for _, text := range shares {
		s, err := decodeShare(text)
		if err != nil {
			t.Fatal(err)
		}
		points = append(points, s.point)
		secrets = append(secrets, bytes.Clone(s.y), text.Bytes())
		if _, err := m.Unseal(text); err != nil {
			t.Fatal(err)
		}
	}
	secrets = append(secrets, combine(points))
	node.Stop()
	disk, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(disk, []byte("first")) {
		t.Fatal("this is not the state file")
	}
	for i, s := range secrets {
		for name, where := range map[string][]byte{"state file": disk, "log": logged.Bytes()} {
			for _, form := range [][]byte{s, []byte(base64.StdEncoding.EncodeToString(s)), fmt.Appendf(nil, "%x", s)} {
				if bytes.Contains(where, form) {
					t.Errorf("secret %d is in the %s", i, name)
				}
			}
		}
	}
}
