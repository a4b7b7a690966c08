//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/controller/store"
)

// replica is what a controller's disk holds.
type replica struct {
	index uint64
	hash  [sha256.Size]byte
}

// powerCut kills all controllers at once, compares what their disks hold, and starts them
// again. What they have in common only ever differs by the entries the last of them had
// not written yet, so it tries until the three are at one index.
func (w *world) powerCut(ctx context.Context) []loss {
	for range 5 {
		for _, a := range w.fleet.Agents {
			_ = a.Pause() // they would write
		}
		sleep(ctx, 1200*time.Millisecond) // the disks are written to a few times a second
		var wg sync.WaitGroup
		for _, c := range w.fleet.Controllers {
			wg.Go(c.Kill)
		}
		wg.Wait()
		w.count("power")
		var all []replica
		for _, name := range controllers {
			r, err := readReplica(filepath.Join(w.disks[name].Backing(), "data", "state.db"))
			if err != nil {
				return []loss{{"the disk of " + name + " can be read after a power cut", err.Error()}}
			}
			all = append(all, r)
		}
		if err := w.heal(ctx); err != nil {
			return []loss{{"the cluster comes back after a power cut", err.Error()}}
		}
		if same, err := compare(all); err != nil {
			return []loss{{"replicas at one index hold the same", err.Error()}}
		} else if same {
			return nil
		}
	}
	return []loss{{"replicas come to the same index when nothing is asked", "five tries, and they did not"}}
}

// compare reports whether all replicas are at one index; two at one index that differ are
// an error.
func compare(all []replica) (same bool, err error) {
	for i, a := range all {
		for _, b := range all[i+1:] {
			if a.index == b.index && a.hash != b.hash {
				return false, fmt.Errorf("at index %d one has state %x, another %x", a.index, a.hash[:8], b.hash[:8])
			}
		}
	}
	return !slices.ContainsFunc(all, func(r replica) bool { return r.index != all[0].index }), nil
}

// readReplica opens a copy of a controller's state. It needs no key: what is hashed is
// what is replicated, sealed.
func readReplica(path string) (r replica, err error) {
	dir, err := os.MkdirTemp("", "reeve-chaos-replica-")
	if err != nil {
		return r, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := copyFile(filepath.Join(dir, "state.db"), path); err != nil {
		return r, err
	}
	log := slog.New(slog.DiscardHandler)
	st, err := store.Open(store.Config{Path: filepath.Join(dir, "state.db"), Cipher: seal.NewManager(log), Logger: log})
	if err != nil {
		return r, err
	}
	defer func() {
		if e := st.Close(); err == nil {
			err = e
		}
	}()
	r.index, r.hash, err = st.StateHash()
	return r, err
}

func copyFile(to, from string) error {
	in, err := os.Open(from) //nolint:gosec // our own
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600) //nolint:gosec // our own
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
