package backup_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/backup"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const snapshot = "what the cluster knows"

func sign(b []byte) ([]byte, error) {
	sum := sha256.Sum256(append([]byte("key"), b...))
	return sum[:], nil
}

func write(t testing.TB) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(snapshot))
	m := backup.Manifest{Cluster: "example", Node: "c1", Time: time.Unix(1e9, 0).UTC(), Revision: 7, Size: int64(len(snapshot)), SHA256: hex.EncodeToString(sum[:])}
	var out bytes.Buffer
	if err := backup.Write(&out, m, sign, strings.NewReader(snapshot)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestABackupIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	h, r, err := backup.Open(bytes.NewReader(write(t)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != snapshot || h.Manifest.Cluster != "example" || h.Manifest.Revision != 7 {
		t.Errorf("%q, %v, %+v", got, err, h.Manifest)
	}
	if mac, _ := sign(h.Signed); !bytes.Equal(mac, h.MAC) {
		t.Error("the MAC is not that of what was signed")
	}
}

func TestAnyChangedByteIsRefused_K5(t *testing.T) {
	t.Parallel()
	whole := write(t)
	refused := func(what string, at int, raw []byte) {
		t.Helper()
		if _, err := backup.Check(bytes.NewReader(raw)); reeve.CodeOf(err) != "snapshot_corrupt" {
			t.Errorf("%s at %d: %v", what, at, err)
		}
	}
	for i := range whole {
		bad := bytes.Clone(whole)
		bad[i] ^= 1
		refused("changed", i, bad)
		refused("cut", i, whole[:i])
	}
	refused("longer", len(whole), append(bytes.Clone(whole), 0))
}

func FuzzOpen(f *testing.F) {
	f.Add(write(f))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := backup.Check(bytes.NewReader(raw))
		if err == nil && m == nil || err != nil && reeve.CodeOf(err) != "snapshot_corrupt" {
			t.Errorf("%v, %v", m, err)
		}
	})
}
