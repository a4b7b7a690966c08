//go:build linux

package testlab

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Disk is a directory that can hang, slow down, fill up and fail like a disk. It is a
// FUSE file system on a directory in memory, served by this process, so the programs
// that suffer are other processes: one that waits for itself may never wake up. This
// process looks at the files in Backing.
//
// A process that waits for a hung disk waits as for a real one: in the kernel, where not
// even kill -9 ends it before Heal. Whoever stops its processes heals the disk first.
type Disk struct {
	dir, backing string
	served       chan struct{} // closed when the server has ended

	mu      sync.Mutex
	fault   fault
	changed chan struct{} // closed when fault is no longer the one at work
}

// fault is what is wrong with a disk. The zero value is a disk in good health.
type fault struct {
	hang  bool
	delay time.Duration // of each sync
	full  bool
	fail  bool
}

// Disk mounts a disk in good health. Close of the lab unmounts it, whoever still has
// files open on it.
func (l *Lab) Disk() (*Disk, error) {
	dir, err := l.mkdir("disk")
	if err != nil {
		return nil, err
	}
	d := &Disk{dir: filepath.Join(dir, "mnt"), backing: filepath.Join(dir, "data"),
		served: make(chan struct{}), changed: make(chan struct{})}
	for _, path := range []string{d.dir, d.backing} {
		if err := os.Mkdir(path, 0o755); err != nil { //nolint:gosec // servers run as other users and must pass
			return nil, err
		}
	}
	if err := d.mount(); err != nil {
		return nil, fmt.Errorf("mount a disk: %w", err)
	}
	return d, l.onClose(d.unmount)
}

// Dir is the root of the disk, for the programs that use it.
func (d *Disk) Dir() string { return d.dir }

// Backing is the directory in which the disk keeps its files; it knows no fault, and what
// a program wrote without a sync may not be there yet.
func (d *Disk) Backing() string { return d.backing }

// Hang makes everything that needs the disk wait: syncs, reads of what is not cached,
// changes of names and the question how much space is free.
func (d *Disk) Hang() { d.set(fault{hang: true}) }

// Slow makes each fsync and fdatasync take that much longer.
func (d *Disk) Slow(delay time.Duration) { d.set(fault{delay: delay}) }

// Full takes all free space away: syncs of what was written fail with ENOSPC, also over
// existing bytes, as they do where blocks are copied on write. So does making files.
func (d *Disk) Full() { d.set(fault{full: true}) }

// Fail makes every sync, every read of what is not cached and every change of names fail
// with EIO.
func (d *Disk) Fail() { d.set(fault{fail: true}) }

// Heal ends the fault; what waited goes on.
func (d *Disk) Heal() { d.set(fault{}) }

func (d *Disk) set(f fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
	close(d.changed)
	d.changed = make(chan struct{})
}

// access is what an operation asks of the disk.
type access int

const (
	reads  access = iota // bytes or the state of the disk
	writes               // bytes or names
	syncs
)

// admit waits as long as the fault says, and returns what the fault answers.
func (d *Disk) admit(a access) fuse.Status {
	for {
		d.mu.Lock()
		f, changed := d.fault, d.changed
		d.mu.Unlock()
		switch {
		case f.hang:
			<-changed
			continue
		case f.fail:
			return fuse.EIO
		case f.full && a == writes:
			return fuse.Status(unix.ENOSPC)
		case f.delay > 0 && a == syncs:
			select {
			case <-changed:
				continue
			case <-time.After(f.delay):
			}
		}
		return fuse.OK
	}
}

// mount mounts by itself instead of leaving it to the library, which would let every
// program started later inherit the file that keeps the file system alive.
func (d *Disk) mount() error {
	root, err := fs.NewLoopbackRoot(d.backing)
	if err != nil {
		return err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,allow_other", fd, os.Geteuid(), os.Getegid())
	if err := unix.Mount("reevelab", d.dir, "fuse.reevelab", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		_ = unix.Close(fd)
		return err
	}
	quiet := log.New(io.Discard, "", 0) // it reports every answer that nobody waits for any more
	raw := fs.NewNodeFS(root, &fs.Options{MountOptions: fuse.MountOptions{Logger: quiet}, Logger: quiet})
	server, err := fuse.NewServer(&faulty{RawFileSystem: raw, disk: d}, fmt.Sprintf("/dev/fd/%d", fd),
		&fuse.MountOptions{AllowOther: true, Name: "reevelab", Logger: quiet,
			DisabledCapabilities: fuse.CAP_PASSTHROUGH, // or the kernel reads and writes past every fault
			// As over a disk: what was written stays in memory, readable also through a
			// memory map, until it is synced or the kernel finds time for it.
			ExtraCapabilities: fuse.CAP_WRITEBACK_CACHE, ExplicitDataCacheControl: true,
		})
	if err != nil { // it has closed fd
		_ = unix.Unmount(d.dir, unix.MNT_FORCE|unix.MNT_DETACH)
		return err
	}
	go func() {
		defer close(d.served)
		server.Serve()
	}()
	return nil
}

// unmount lets everybody go on and takes the disk away from them: forced, the kernel
// ends the connection, and with it the server, even if files are open.
func (d *Disk) unmount() {
	d.Heal()
	if err := unix.Unmount(d.dir, unix.MNT_FORCE|unix.MNT_DETACH); err == nil {
		<-d.served
	}
}

// unmountBelow detaches the disks that a dead process left mounted in its lab.
func unmountBelow(dir string) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			_ = unix.Unmount(fields[4], unix.MNT_FORCE|unix.MNT_DETACH)
		}
	}
}
