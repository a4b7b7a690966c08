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
package checkpoint

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
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
	Time    time.Time // when it was signed; never before the record's
}

const originPrefix = "reeve.audit/"

func (c *Checkpoint) text() string {
	return fmt.Sprintf("%s%s\n%d\n%s\nhead %s\ntime %s\n", originPrefix, c.Cluster, c.Head.Sequence, c.Root, c.Head.Hash,
		c.Time.UTC().Format(time.RFC3339Nano))
}

// parse reads exactly what text writes.
func parse(text string) (*Checkpoint, error) {
	bad := errors.New("this is no checkpoint of an audit trail")
	lines := strings.Split(text, "\n")
	if len(lines) != 6 {
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
	if c.text() != text {
		return nil, bad
	}
	return c, nil
}

// NewKey makes the key with which a cluster signs, and the one that verifies, which is public.
func NewKey(cluster string) (signing, verifying string, err error) {
	return note.GenerateKey(rand.Reader, originPrefix+cluster)
}

// Sign returns the checkpoint as a signed note.
func Sign(c Checkpoint, signing string) ([]byte, error) {
	signer, err := note.NewSigner(signing)
	if err != nil {
		return nil, errors.New("checkpoint: the signing key cannot be read") // not the error: it may hold the key
	}
	return note.Sign(&note.Note{Text: c.text()}, signer)
}

// Open returns the checkpoint of a signed note, if the key signed it.
func Open(signed []byte, verifying string) (*Checkpoint, error) {
	verifier, err := note.NewVerifier(verifying)
	if err != nil {
		return nil, errors.New("this is no key that verifies checkpoints: it looks like reeve.audit/CLUSTER+1a2b3c4d+…")
	}
	n, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return nil, fmt.Errorf("the key %s did not sign this checkpoint: it was altered, or is of another cluster", verifier.Name())
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
