// Package backup is the form of a backup file: a manifest, which the cluster
// authenticates, and after it the snapshot of the controller's state it speaks of. The
// controller writes and restores backups; the command line checks them offline. It
// imports internal/reeve and nothing else of ours.
//
//	magic, uvarint length, manifest (JSON), MAC (32 bytes),
//	SHA-256 of everything before, snapshot
//
// Without a key the two digests show every changed byte. That the manifest, and by its
// digest the snapshot, are the cluster's own shows the MAC, for which the cluster's keys
// are needed.
package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
	magic       = "reeve-backup/1\n"
	maxManifest = 64 << 10 // bytes
)

// Manifest says what a backup holds.
type Manifest struct {
	Cluster    string    `json:"cluster"`
	Node       string    `json:"node"`       // name of the controller that wrote it
	Version    string    `json:"version"`    // of the program
	Time       time.Time `json:"time"`       // when it was written
	Recorded   time.Time `json:"recorded"`   // of the newest change in it
	Revision   uint64    `json:"revision"`   // of that change
	Index      uint64    `json:"index"`      // of the log entry that made it
	Generation uint32    `json:"generation"` // of the seal key whose shares, or file, open it
	Keyring    uint64    `json:"keyring"`    // version of the keyring in it
	Size       int64     `json:"size"`       // bytes of the snapshot
	SHA256     string    `json:"sha256"`     // of the snapshot, hex
}

// Header is a manifest as it was written.
type Header struct {
	Manifest Manifest
	Signed   []byte // what MAC authenticates
	MAC      []byte // HMAC-SHA-256
}

// Write writes a backup. sign makes the MAC of the manifest's bytes.
func Write(w io.Writer, m Manifest, sign func([]byte) ([]byte, error), snapshot io.WriterTo) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	head := binary.AppendUvarint([]byte(magic), uint64(len(body)))
	head = append(head, body...)
	mac, err := sign(head)
	if err != nil {
		return err
	}
	if len(mac) != sha256.Size {
		return fmt.Errorf("backup: a MAC of %d bytes", len(mac))
	}
	head = append(head, mac...)
	sum := sha256.Sum256(head)
	if _, err := w.Write(append(head, sum[:]...)); err != nil {
		return err
	}
	_, err = snapshot.WriteTo(w)
	return err
}

// Open reads the manifest and returns it with the snapshot, whose reader fails at its
// end unless it is, byte by byte, the one of the manifest. Invalid "snapshot_corrupt".
func Open(r io.Reader) (*Header, io.Reader, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	read := bytes.NewBuffer(nil)
	take := func(n int) ([]byte, error) {
		at := read.Len()
		if _, err := io.CopyN(read, in, int64(n)); err != nil {
			return nil, corrupt(err)
		}
		return read.Bytes()[at:], nil
	}
	if got, err := take(len(magic)); err != nil || string(got) != magic {
		return nil, nil, corrupt(errors.New("not a backup of this format"))
	}
	size, err := binary.ReadUvarint(in)
	if err != nil || size > maxManifest {
		return nil, nil, corrupt(fmt.Errorf("a manifest of %d bytes: %w", size, err))
	}
	read.Write(binary.AppendUvarint(nil, size))
	body, err := take(int(size)) //nolint:gosec // bounded above
	if err != nil {
		return nil, nil, err
	}
	h := &Header{}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&h.Manifest); err != nil {
		return nil, nil, corrupt(err)
	}
	h.Signed = bytes.Clone(read.Bytes())
	mac, err := take(sha256.Size)
	if err != nil {
		return nil, nil, err
	}
	h.MAC = bytes.Clone(mac)
	want := sha256.Sum256(read.Bytes())
	if got, err := take(sha256.Size); err != nil || !bytes.Equal(got, want[:]) {
		return nil, nil, corrupt(errors.New("the manifest was changed"))
	}
	return h, &checked{r: in, left: h.Manifest.Size, want: h.Manifest.SHA256, sum: sha256.New()}, nil
}

// Check reads a backup to its end and returns its manifest.
func Check(r io.Reader) (*Manifest, error) {
	h, snapshot, err := Open(r)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, snapshot); err != nil {
		return nil, err
	}
	return &h.Manifest, nil
}

// checked passes on exactly the snapshot of a manifest.
type checked struct {
	r    *bufio.Reader
	left int64
	want string
	sum  hash.Hash
}

func (c *checked) Read(p []byte) (int, error) {
	if c.left <= 0 {
		if _, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
			return 0, corrupt(errors.New("bytes follow the snapshot"))
		}
		if c.left < 0 || hex.EncodeToString(c.sum.Sum(nil)) != c.want {
			return 0, corrupt(errors.New("the snapshot was changed"))
		}
		return 0, io.EOF
	}
	n, err := c.r.Read(p[:min(int64(len(p)), c.left)])
	c.sum.Write(p[:n])
	c.left -= int64(n)
	if err != nil {
		return n, corrupt(fmt.Errorf("the snapshot is cut short: %w", err))
	}
	return n, nil
}

func corrupt(err error) *reeve.Error {
	return reeve.Errorf(reeve.Invalid, "snapshot_corrupt", "the snapshot is damaged or not a snapshot; nothing was changed").
		WithFix("use another copy").Wrap(err)
}
