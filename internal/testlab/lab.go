//go:build linux

package testlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// shm is where labs keep their data: memory, so that fsync costs nothing.
const shm = "/dev/shm"

// labDir starts the name of every lab's own directory; the owner's pid follows.
const labDir = "reevelab-"

var labs atomic.Uint64

// Lab owns a directory, a block of loopback addresses and the servers started in it.
// Its methods may be used by many goroutines.
type Lab struct {
	ctx context.Context // ends every server
	dir string

	mu     sync.Mutex
	block  net.Listener // holds the address block
	next   byte         // last address handed out in it
	closed bool
	stops  []func()
}

// Open prepares a lab. Its servers run until Close, or until ctx ends or the process
// does. They keep their data in dir; an empty dir means a new directory in memory,
// which Close removes and which, should the process be killed, the next Open removes.
func Open(ctx context.Context, dir string) (*Lab, error) {
	reap()
	l := &Lab{ctx: ctx, dir: dir}
	if dir == "" {
		l.dir = filepath.Join(shm, fmt.Sprintf("%s%d-%d", labDir, os.Getpid(), labs.Add(1)))
		l.stops = append(l.stops, func() { _ = os.RemoveAll(l.dir) })
	}
	if err := os.MkdirAll(l.dir, 0o755); err != nil { //nolint:gosec // servers run as other users and must pass
		return nil, fmt.Errorf("lab directory: %w", err)
	}
	return l, nil
}

// Close stops every server and waits until nothing of it is left.
func (l *Lab) Close() error {
	l.mu.Lock()
	stops := l.stops
	l.stops, l.closed = nil, true
	block := l.block
	l.block = nil
	l.mu.Unlock()
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i]()
	}
	if block != nil {
		return block.Close()
	}
	return nil
}

// onClose registers what Close must do, last registered first.
func (l *Lab) onClose(stop func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		stop()
		return errors.New("the lab is closed")
	}
	l.stops = append(l.stops, stop)
	return nil
}

// mkdir makes a directory of the lab's own; the name gets a number.
func (l *Lab) mkdir(name string) (string, error) {
	return os.MkdirTemp(l.dir, name+"-")
}

// Address hands out a loopback address that no other server of any process has: all of
// its ports are free, for programs under test.
func (l *Lab) Address() (string, error) { return l.address() }

// address hands out a loopback address that no other server of any process has.
// The block 127.X.Y.0/24 belongs to whoever listens on port 1 of its address 254;
// the kernel frees it when that process dies.
func (l *Lab) address() (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return "", errors.New("the lab is closed")
	}
	if l.block == nil || l.next == 253 {
		var listen net.ListenConfig
		for n := 1 << 8; n < 255<<8; n++ {
			block, err := listen.Listen(l.ctx, "tcp4", fmt.Sprintf("127.%d.%d.254:1", n>>8, n&0xff))
			if errors.Is(err, syscall.EADDRINUSE) {
				continue
			}
			if err != nil {
				return "", fmt.Errorf("reserve a block of loopback addresses: %w", err)
			}
			if old := l.block; old != nil { // full, but its servers still run
				l.stops = append([]func(){func() { _ = old.Close() }}, l.stops...)
			}
			l.block, l.next = block, 0
			break
		}
	}
	if l.block == nil || l.next == 253 {
		return "", errors.New("no block of loopback addresses is free")
	}
	l.next++
	ip := l.block.Addr().(*net.TCPAddr).IP.To4()
	return net.IPv4(ip[0], ip[1], ip[2], l.next).String(), nil
}

// reap removes the directories of labs whose process is dead.
func reap() {
	dirs, _ := filepath.Glob(filepath.Join(shm, labDir+"*"))
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), labDir), "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			unmountBelow(dir)
			_ = os.RemoveAll(dir)
		}
	}
}
