// Package checkpoint is the form of the signed checkpoints of an audit trail: how the
// Merkle tree over its records is built, what a checkpoint says and how it is signed, and
// how a trail is proven against checkpoints without a controller. The controller signs
// with it, the command line verifies with it.
//
// The tree is that of RFC 6962; its leaves are the 32 bytes of the records' hashes. A
// checkpoint is a signed note (golang.org/x/mod/sumdb/note, Ed25519) whose first three
// lines are those of a C2SP tlog-checkpoint, so that witnesses of such logs can
// co-sign it:
//
//	reeve.audit/CLUSTER
//	NUMBER OF RECORDS
//	ROOT IN BASE64
//	head HASH OF THE LAST RECORD
//	time WHEN IT WAS SIGNED
//	edge ROOTS OF THE TREE'S WHOLE SUBTREES IN BASE64, LARGEST FIRST
//	next KEY THAT SIGNS THE CHECKPOINTS AFTER IT
//
// The edge gives the root, and is what one needs to go on from it: so the records between
// two checkpoints prove that the later continues the earlier, without those before. The
// checkpoints of early releases have none. The line of a next key is there only when the
// key is changed; as it is signed with the old key, who knows that one learns the new one.
package checkpoint

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/reeve-pam/reeve/internal/auditchain"
)

// Tree is as much of the Merkle tree as is needed to append to it and to know its root:
// the roots of its whole subtrees, from the largest, left, to the smallest.
type Tree struct {
	Size uint64      `cbor:"1,keyasint,omitempty"` // records
	Edge []tlog.Hash `cbor:"2,keyasint,omitempty"`
}

// Append adds the next record by its hash, 64 hex digits.
func (t *Tree) Append(hash string) error {
	leaf, err := hex.DecodeString(hash)
	if err != nil || len(leaf) != tlog.HashSize {
		return fmt.Errorf("checkpoint: record %d has no hash", t.Size+1)
	}
	h := tlog.RecordHash(leaf)
	for n := t.Size; n&1 == 1; n >>= 1 { // two whole subtrees of one size are one of the next
		last := len(t.Edge) - 1
		h = tlog.NodeHash(t.Edge[last], h)
		t.Edge = t.Edge[:last]
	}
	t.Edge = append(t.Edge, h)
	t.Size++
	return nil
}

// Root is the root of the tree, the zero Hash of an empty one.
func (t *Tree) Root() (root tlog.Hash) {
	for i := len(t.Edge) - 1; i >= 0; i-- {
		if i == len(t.Edge)-1 {
			root = t.Edge[i]
			continue
		}
		root = tlog.NodeHash(t.Edge[i], root)
	}
	return root
}

// Checkpoint is what was signed: that the trail of a cluster had this root and this head.
type Checkpoint struct {
	Cluster string
	Head    auditchain.Head // the last record of it
	Root    tlog.Hash
	Time    time.Time   // when it was signed; never before the record's
	Edge    []tlog.Hash // of the tree with that root; nil if an early release signed it
	Next    string      // key that verifies the checkpoints of more records; "" for the same
}

const originPrefix = "reeve.audit/"

func (c *Checkpoint) text() string {
	t := fmt.Sprintf("%s%s\n%d\n%s\nhead %s\ntime %s\n", originPrefix, c.Cluster, c.Head.Sequence, c.Root, c.Head.Hash,
		c.Time.UTC().Format(time.RFC3339Nano))
	if len(c.Edge) > 0 {
		t += "edge"
		for _, h := range c.Edge {
			t += " " + h.String()
		}
		t += "\n"
	}
	if c.Next != "" {
		t += "next " + c.Next + "\n"
	}
	return t
}

// parse reads exactly what text writes.
func parse(text string) (*Checkpoint, error) {
	bad := errors.New("this is no checkpoint of an audit trail")
	lines := strings.Split(text, "\n")
	if len(lines) < 6 {
		return nil, bad
	}
	cluster, isOurs := strings.CutPrefix(lines[0], originPrefix)
	n, notNumber := strconv.ParseUint(lines[1], 10, 63)
	root, noRoot := tlog.ParseHash(lines[2])
	head, isHead := strings.CutPrefix(lines[3], "head ")
	at, notTime := time.Parse("time "+time.RFC3339Nano, lines[4])
	if !isOurs || notNumber != nil || noRoot != nil || !isHead || notTime != nil || n == 0 {
		return nil, bad
	}
	c := &Checkpoint{Cluster: cluster, Head: auditchain.Head{Sequence: n, Hash: head}, Root: root, Time: at}
	for _, line := range lines[5:] {
		if edge, ok := strings.CutPrefix(line, "edge "); ok {
			for part := range strings.SplitSeq(edge, " ") {
				h, err := tlog.ParseHash(part)
				if err != nil {
					return nil, bad
				}
				c.Edge = append(c.Edge, h)
			}
		}
		if next, ok := strings.CutPrefix(line, "next "); ok {
			c.Next = next
		}
	}
	if c.text() != text {
		return nil, bad
	}
	if t := (Tree{Size: n, Edge: c.Edge}); c.Edge != nil && (len(c.Edge) != bits.OnesCount64(n) || t.Root() != root) {
		return nil, errors.New("the edge of this checkpoint does not give its root: who signed it is broken, or lies")
	}
	return c, nil
}

// Key is what a cluster signs with: the seed of an Ed25519 key. Nothing prints it.
type Key [ed25519.SeedSize]byte

// NewKey makes a key.
func NewKey() (k Key) {
	_, _ = rand.Read(k[:]) // never fails
	return k
}

// Format implements fmt.Formatter.
func (Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[redacted]")) }

// Verifying is the key that verifies what a cluster signs with k. It is public.
func (k *Key) Verifying(cluster string) (string, error) {
	private := ed25519.NewKeyFromSeed(k[:])
	defer clear(private)
	return note.NewEd25519VerifierKey(originPrefix+cluster, ed25519.PublicKey(bytes.Clone(private[ed25519.SeedSize:])))
}

// Sign returns the checkpoint as a signed note.
func (k *Key) Sign(c Checkpoint) ([]byte, error) {
	verifying, err := k.Verifying(c.Cluster)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(verifying)
	if err != nil {
		return nil, err
	}
	s := signer{Verifier: verifier, private: ed25519.NewKeyFromSeed(k[:])}
	defer clear(s.private)
	return note.Sign(&note.Note{Text: c.text()}, s)
}

// signer is a note.Signer that leaves no copy of the key in a text, which cannot be cleared.
type signer struct {
	note.Verifier
	private ed25519.PrivateKey
}

// Sign implements note.Signer.
func (s signer) Sign(text []byte) ([]byte, error) { return ed25519.Sign(s.private, text), nil }

// Open returns the checkpoint of a signed note, if the key signed it.
func Open(signed []byte, verifying string) (*Checkpoint, error) {
	verifier, err := note.NewVerifier(verifying)
	if err != nil {
		return nil, errors.New("this is no key that verifies checkpoints: it looks like reeve.audit/CLUSTER+1a2b3c4d+…")
	}
	n, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return nil, fmt.Errorf("the key %s did not sign this checkpoint: it was altered, or is of another cluster, or the key was changed before it", verifier.Name())
	}
	for _, sig := range n.Sigs { // of several texts that mean one signature, one is it
		if _, err := base64.StdEncoding.Strict().DecodeString(sig.Base64); err != nil {
			return nil, errors.New("the signature of this checkpoint was altered")
		}
	}
	c, err := parse(n.Text)
	if err != nil {
		return nil, err
	}
	if originPrefix+c.Cluster != verifier.Name() {
		return nil, fmt.Errorf("the checkpoint is one of the cluster %s, the key that of %s", c.Cluster, strings.TrimPrefix(verifier.Name(), originPrefix))
	}
	return c, nil
}

// Unproven is the checkpoint of a note that nobody has proven: good enough to know which
// records to ask for, and for nothing else.
func Unproven(signed []byte) (*Checkpoint, error) {
	_, err := note.Open(signed, note.VerifierList())
	unverified, ok := errors.AsType[*note.UnverifiedNoteError](err)
	if !ok {
		return nil, errors.New("this is no checkpoint of an audit trail")
	}
	return parse(unverified.Note.Text)
}

// OpenAll returns the checkpoints of signed notes, of fewer records first, if the key signed
// them, or one that follows from it: a checkpoint may say which key signs those after it.
// A key that was followed by another proves nothing any more. The error names the note by
// its place in notes.
func OpenAll(notes [][]byte, verifying string) ([]*Checkpoint, error) {
	type numbered struct {
		*Checkpoint
		place int
	}
	all := make([]numbered, 0, len(notes))
	for i, signed := range notes {
		c, err := Unproven(signed)
		if err != nil {
			return nil, &NoteError{Place: i, Err: err}
		}
		all = append(all, numbered{c, i})
	}
	slices.SortStableFunc(all, func(a, b numbered) int { return cmp.Compare(a.Head.Sequence, b.Head.Sequence) })
	out := make([]*Checkpoint, 0, len(all))
	next, after := "", uint64(0)
	for _, one := range all {
		if next != "" && one.Head.Sequence > after {
			verifying, next = next, ""
		}
		c, err := Open(notes[one.place], verifying)
		if err == nil && c.Next != "" && next != "" && c.Next != next {
			err = errors.New("another checkpoint of as many records names another key to follow: two histories were signed")
		}
		if err != nil {
			return nil, &NoteError{Place: one.place, Err: err}
		}
		if c.Next != "" {
			next, after = c.Next, c.Head.Sequence
		}
		out = append(out, c)
	}
	return out, nil
}

// NoteError is about one of several notes.
type NoteError struct {
	Place int // from 0
	Err   error
}

// Error implements error.
func (e *NoteError) Error() string { return fmt.Sprintf("checkpoint %d: %s", e.Place+1, e.Err) }

// Unwrap gives the cause.
func (e *NoteError) Unwrap() error { return e.Err }

// signature is what the lines of signatures begin with, which end a note.
const signature = "— "

// Split takes apart several signed notes that stand one after the other, as in a file to
// which each new one is appended.
func Split(notes []byte) (each [][]byte) {
	begin, signed := 0, false
	for at := 0; at < len(notes); {
		end := len(notes)
		if i := bytes.IndexByte(notes[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		is := bytes.HasPrefix(notes[at:end], []byte(signature))
		if signed && !is {
			each, begin = append(each, notes[begin:at]), at
		}
		signed, at = is, end
	}
	if begin < len(notes) {
		each = append(each, notes[begin:])
	}
	return each
}
