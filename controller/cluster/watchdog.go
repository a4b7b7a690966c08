package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Free space on the leader's disk, as fractions of the file system.
const (
	lowDisk   = 0.05 // proposals are refused
	emptyDisk = 0.02 // the leader ends
)

// runWatchdog ends the process when this node leads and its storage hangs or is full,
// and says on any node what is wrong with its disk. hashicorp/raft does not notice: a
// leader whose log store hangs goes on sending heartbeats, stays leader and blocks every
// write (measured: for minutes; with Apply, VerifyLeader and LeadershipTransfer blocked
// too). So nothing here touches the disk or takes a lock that is held over I/O.
func (n *Node) runWatchdog(ctx context.Context, r *raft.Raft) {
	every := time.NewTicker(min(500*time.Millisecond, n.cfg.DiskLimit/10))
	defer every.Stop()
	var awake alarm
	awake.ring(n.now(), n.cfg.DiskLimit)
	said := sickness("")
	var slowAt, movedAt int64 // since when the disk is slow; when leadership was last handed over for that
	var moving sync.WaitGroup
	defer moving.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
		awakeFor := awake.ring(n.now(), n.cfg.DiskLimit)
		if sick := n.sickness(awakeFor); sick != said {
			if before := said; sick == healthy { // report may log on when this loop has gone on
				n.report(func() { n.log.Info("raft: the disk of the data directory is well again", "before", before) })
			} else {
				n.report(func() {
					n.log.Error("raft: the disk of the data directory is not well", "disk", string(sick), "problem", sick.explain(), "error", n.diskError())
				})
			}
			said = sick
		}
		if r.State() != raft.Leader {
			n.diskFull.Store(false)
			continue
		}
		reason, since := n.hung()
		since = min(since, awakeFor)
		if since > n.cfg.DiskLimit {
			n.fence("this leader's storage hangs", "reason", reason, "since", since)
			return
		}
		if n.checkSpace(ctx) {
			return
		}
		// Only by what was written at last: a disk that hangs is told from a slow one by ending the process.
		if time.Duration(n.canaryTook.Load()) <= slowSync {
			slowAt = 0
		} else if slowAt == 0 {
			slowAt = n.now()
		} else if n.now()-slowAt > int64(slowPatience) && (movedAt == 0 || n.now()-movedAt > int64(movePause)) {
			movedAt = n.now()
			moving.Go(func() { n.moveAway(ctx) })
		}
	}
}

const (
	// slowPatience is for how long a leader's disk may be slow before it asks another to lead.
	slowPatience = 2 * time.Second
	// movePause is how long it then waits before it does so again: all disks may be slow.
	movePause = time.Minute
)

// moveAway hands leadership over, because every change waits for this leader's disk.
func (n *Node) moveAway(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.DiskLimit)
	defer cancel()
	if err := n.TransferLeadership(ctx, ""); err != nil {
		n.log.Warn("raft: leadership was not handed over by a leader with a slow disk", "reason", err)
	}
}

// fence ends the process so that another node can lead, and says why. It does not
// return, but in tests.
func (n *Node) fence(why string, fields ...any) {
	n.report(func() {
		fields = append(fields, "data_dir", n.cfg.DataDir,
			"fix", "mend the disk, then start the controller again; until then the others carry on")
		n.log.Error("raft: ending the process", append([]any{"because", why}, fields...)...)
	})
	n.cfg.Exit(ExitFenced)
}

// report logs, but does not wait for a log that may lie on the same disk.
func (n *Node) report(log func()) {
	done := make(chan struct{})
	go func() { defer close(done); log() }()
	select {
	case <-done:
	case <-time.After(reportPatience):
	}
}

const reportPatience = 500 * time.Millisecond

// exit ends the process. A thread that waits for a hung disk outlives that, and as long
// as it does, the kernel keeps every connection open and accepts new ones, which nobody
// will ever serve. So they are shut down first; whoever is connected goes elsewhere.
func exit(status int) {
	files, _ := os.ReadDir("/proc/self/fd")
	for _, f := range files {
		fd, err := strconv.Atoi(f.Name())
		if err != nil {
			continue
		}
		if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && domain != unix.AF_UNIX {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		}
	}
	os.Exit(status)
}

// alarm rings every so often, and notices when it did not: then the whole process was
// stopped (SIGSTOP, a paused machine), and the disk has had no time to answer.
type alarm struct{ last, since int64 }

// ring returns for how long the process has been running without such a gap.
func (a *alarm) ring(now int64, limit time.Duration) time.Duration {
	if a.last == 0 || time.Duration(now-a.last) > limit/2 {
		a.since = now
	}
	a.last = now
	return time.Duration(now - a.since)
}

// sickness is what is wrong with the disk, in a word; empty: nothing.
type sickness string

const (
	healthy sickness = ""
	hanging sickness = "hanging"
	failing sickness = "failing"
	full    sickness = "full"
	slow    sickness = "slow"
)

// slowSync is how long a synced write of a few bytes takes on a disk that is called slow.
const slowSync = time.Second

func (s sickness) explain() string {
	return map[sickness]string{
		hanging: "the data directory does not answer; look at its disk or its storage network",
		failing: "the data directory cannot be written; look at its disk and the kernel's log, replace it if need be",
		full:    "the data directory has less than 5 % left; make room on its disk",
		slow:    "a synced write in the data directory takes longer than a second; every change waits for that: look at the disk's load",
	}[s]
}

// sickness judges by the canary; awakeFor is how long this process has been running.
func (n *Node) sickness(awakeFor time.Duration) sickness {
	waits := min(n.age(&n.canaryAt), awakeFor)
	switch {
	case waits > n.cfg.DiskLimit/2:
		return hanging
	case n.canaryErr.Load() != nil:
		return failing
	case n.freeSpace() < lowDisk:
		return full
	case max(waits, time.Duration(n.canaryTook.Load())) > slowSync:
		return slow
	}
	return healthy
}

func (n *Node) diskError() error {
	if err := n.canaryErr.Load(); err != nil {
		return *err
	}
	return nil
}

// DiskProblem says what is wrong with the disk of the data directory and what to do
// about it; empty while nothing is. It does not touch the disk.
func (n *Node) DiskProblem() string { return n.sickness(time.Duration(n.now())).explain() }

// freeSpace is the canary's newest finding: the free fraction of the file system.
func (n *Node) freeSpace() float64 { return math.Float64frombits(n.free.Load()) }

// now is the monotonic clock: it does not jump when the machine's time is set.
func (n *Node) now() int64 { return int64(time.Since(n.opened)) + 1 }

// age is the time since the instant, or 0 if there is none.
func (n *Node) age(instant *atomic.Int64) time.Duration {
	start := instant.Load()
	if start == 0 {
		return 0
	}
	return time.Duration(n.now() - start)
}

// hung returns the longest time something has waited for the disk, and what.
func (n *Node) hung() (reason string, since time.Duration) {
	for what, instant := range map[string]*atomic.Int64{
		"canary not written":  &n.canaryOK,
		"log takes no entry":  &n.enqueued,
		"entry not committed": &n.oldest,
	} {
		if age := n.age(instant); age > since {
			reason, since = what, age
		}
	}
	return reason, since
}

// checkSpace refuses proposals while space is low, and ends a leader without any. It
// reports whether it did that.
func (n *Node) checkSpace(ctx context.Context) bool {
	free := n.freeSpace()
	if low := free < lowDisk; low != n.diskFull.Swap(low) {
		n.log.Warn("raft: the leader's disk space crossed the limit", "free_percent", int(100*free), "refusing_writes", low)
	}
	if free >= emptyDisk {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.DiskLimit)
	defer cancel()
	err := n.TransferLeadership(ctx, "")
	switch reeve.CodeOf(err) {
	case "no_other_voter":
		return false // alone: refusing writes and answering reads is all that can be done
	case "not_leader":
		return false // not yet, or not any more
	}
	if err != nil {
		n.log.Warn("raft: leadership was not handed over", "reason", err)
	}
	n.fence("this leader's disk is full", "free_percent", int(100*free))
	return true
}

// runCanary writes and syncs a small file in the data directory, often enough for the
// watchdog, and asks for the space left. A disk that fails, rather than hangs, leaves
// canaryOK behind as well; one that is full has answered.
func (n *Node) runCanary(ctx context.Context) {
	every := time.NewTicker(n.cfg.DiskLimit / 5)
	defer every.Stop()
	path := filepath.Join(n.cfg.DataDir, "raft", "canary")
	for {
		began := n.now()
		n.canaryAt.Store(began)
		free, err := n.cfg.freeDisk()
		if err == nil {
			err = writeSynced(path)
		}
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			free, err = 0, nil
		}
		if err == nil {
			n.free.Store(math.Float64bits(free))
			n.canaryOK.Store(n.now())
			n.canaryErr.Store(nil)
		} else {
			n.canaryErr.Store(&err)
		}
		n.canaryTook.Store(n.now() - began)
		n.canaryAt.Store(0)
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

func writeSynced(path string) error {
	f, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%d\n", time.Now().UnixNano())
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func freeFraction(dir string) (float64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	if fs.Blocks == 0 {
		return 1, nil // a file system without a size
	}
	return float64(fs.Bavail) / float64(fs.Blocks), nil
}
