//go:build linux

package process

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
)

// keysOf opens what a stopped controller's state file holds of the seal with the key file,
// by code of its own, and returns the seal key, the root key and the keys of the keyring.
func keysOf(t *testing.T, state, keyFile string) map[string][]byte {
	t.Helper()
	st, err := store.Open(store.Config{Path: state, Cipher: seal.NewManager(slog.New(slog.DiscardHandler)), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	var s *seal.State
	if err := st.View(context.Background(), func(tx *store.Tx) (err error) {
		s, err = seal.LoadState(tx)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	line, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(line)))
	if err != nil {
		t.Fatal(err)
	}
	open := func(key, sealed []byte, binding ...[]byte) []byte {
		t.Helper()
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		var aad []byte
		for _, b := range append([][]byte{[]byte("reeve/v1"), []byte(s.Cluster)}, binding...) {
			aad = append(binary.BigEndian.AppendUint32(aad, uint32(len(b))), b...) //nolint:gosec // short
		}
		plain, err := gcm.Open(nil, sealed[:12], sealed[12:], aad)
		if err != nil {
			t.Fatal(err)
		}
		return plain
	}
	keys := map[string][]byte{"seal key": key}
	root := open(key, s.WrappedRoot, []byte("root"), binary.BigEndian.AppendUint32(nil, s.Generation))
	keys["root key"] = root
	var ring struct {
		Terms []struct {
			Purpose string `cbor:"1,keyasint"`
			Number  uint32 `cbor:"2,keyasint"`
			Key     []byte `cbor:"3,keyasint"`
		} `cbor:"2,keyasint"`
	}
	if err := cbor.Unmarshal(open(root, s.WrappedRing, []byte("keyring")), &ring); err != nil {
		t.Fatal(err)
	}
	for _, term := range ring.Terms {
		keys[fmt.Sprintf("term %d of %s", term.Number, term.Purpose)] = term.Key
	}
	if len(keys) < 8 {
		t.Fatalf("only %d keys", len(keys))
	}
	return keys
}

// inMemory counts each value in the memory of a process, as it is.
func inMemory(t *testing.T, pid int, values map[string][]byte) map[string]int {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	found, size := map[string]int{}, 0
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var access string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &access); err != nil || !strings.HasPrefix(access, "rw") || to-from > 4<<30 {
			continue
		}
		// Never-used pages of large reservations cost nothing to read; they are zero.
		buf := make([]byte, min(to-from, 16<<20)+64)
		for at := from; at < to; at += 16 << 20 {
			n, _ := mem.ReadAt(buf[:min(to-at, uint64(len(buf)))], int64(at)) //nolint:gosec // an address
			size += n
			for name, v := range values {
				found[name] += bytes.Count(buf[:n], v)
			}
		}
	}
	if size < 1<<20 {
		t.Fatalf("only %d bytes of memory were read", size)
	}
	return found
}

// What is promised of memory: an unsealed controller holds keys, leading or not, to be
// ready to lead; one that is sealed holds none. The seal key is gone as soon as it has
// opened the root key. Passwords that went through the API are not promised: they are counted.
func TestASealedControllerHasNoKeyInItsMemory_K7(t *testing.T) {
	t.Parallel()
	c := newCluster(t, clusterOptions{controllers: 3})
	c.site("dmz")
	h := c.host("web01", nil)
	c.startAgent("dmz-1", "dmz", nil)
	c.addHost(h, "dmz")
	c.provision(h, "alice")
	c.ok("seal", "rotate") // the old terms and the new ones
	for range 5 {
		c.ok("site", "list")
	}
	password := c.reveal("alice@web01")
	away := c.others(c.leader())[0]
	away.proc.stop()
	values := keysOf(t, filepath.Join(away.data(), "state.db"), c.path("seal.key"))
	away.start()
	c.unseal(away)
	c.allVote()
	values["a revealed password"] = []byte(password)
	values["management password"] = []byte(rootPassword)
	lead := c.leader()
	was := map[string]map[string]int{}
	for _, n := range c.nodes {
		was[n.name] = inMemory(t, n.proc.cmd.Process.Pid, values)
		for name, count := range was[n.name] {
			if isKey := strings.HasPrefix(name, "term ") || name == "root key"; isKey && count == 0 {
				t.Errorf("%s, unsealed: %s is not in its memory: the search finds nothing, or the node is not ready to lead", n.name, name)
			}
		}
	}
	follower := c.others(lead)[0]
	c.ok("cluster", "transfer", follower.name)
	eventually(t, 20*time.Second, func() error {
		if now := c.leader(); now == lead {
			return fmt.Errorf("%s still leads", now.name)
		}
		return nil
	})
	stepped := inMemory(t, lead.proc.cmd.Process.Pid, values)
	for _, n := range c.nodes { // the old leader, and then the others
		c.ok("seal", "seal", "--address", n.api)
		if n == c.nodes[len(c.nodes)-2] {
			break // one goes on, so that the last sealing can be recorded
		}
	}
	for _, n := range c.nodes[:2] {
		var now map[string]int
		// What is under way ends first. And Go moves and frees memory as it likes: a copy that one sealing
		// missed is rare, and must not be there after another.
		var err error
		for range 4 {
			for began := time.Now(); ; time.Sleep(200 * time.Millisecond) {
				now, err = inMemory(t, n.proc.cmd.Process.Pid, values), nil
				for name, count := range now {
					if count > 0 && (strings.HasPrefix(name, "term ") || strings.HasSuffix(name, " key")) {
						err = fmt.Errorf("%s, sealed: %s is %d times in its memory", n.name, name, count)
					}
				}
				if err == nil || time.Since(began) > 15*time.Second {
					break
				}
			}
			if err == nil {
				break
			}
			t.Log(err, "; it is unsealed and sealed once more")
			c.unseal(n)
			c.ok("seal", "seal", "--address", n.api)
		}
		if err != nil {
			t.Error(err)
		}
		t.Logf("%s: root key %d, data term 1 %d, password %d, management password %d while unsealed; 0 keys, password %d, management password %d once sealed",
			n.name, was[n.name]["root key"], was[n.name]["term 1 of data"], was[n.name]["a revealed password"], was[n.name]["management password"],
			now["a revealed password"], now["management password"])
	}
	t.Logf("%s after it stepped down, unsealed: root key %d, seal key %d", lead.name, stepped["root key"], stepped["seal key"])
}
