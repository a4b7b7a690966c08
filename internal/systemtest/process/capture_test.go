//go:build linux

package process

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// capture is tcpdump at work on the loopback interface.
type capture struct {
	t        testing.TB
	cmd      *exec.Cmd
	path     string
	said     string // file with what tcpdump says
	finished chan struct{}
}

// startCapture records every packet from or to the addresses.
func startCapture(t testing.TB, dir string, addresses ...string) *capture {
	t.Helper()
	c := &capture{t: t, path: filepath.Join(dir, "packets.pcap"), said: filepath.Join(dir, "tcpdump.err"), finished: make(chan struct{})}
	said, err := os.Create(c.said)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = said.Close() }()
	filter := "host " + strings.Join(addresses, " or host ")
	c.cmd = exec.Command("tcpdump", "-i", "lo", "-Z", "root", "-U", "-s", "0", "-B", "65536", "-n", "-w", c.path, filter) //nolint:noctx // ended below
	c.cmd.Stderr = said
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	if err := c.cmd.Start(); err != nil {
		t.Fatalf("tcpdump: %v", err)
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.finished)
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.finished
	})
	eventually(t, 10*time.Second, func() error {
		if text, err := os.ReadFile(c.said); err != nil || !strings.Contains(string(text), "listening on") {
			return fmt.Errorf("tcpdump: %s, %w", text, err)
		}
		return nil
	})
	return c
}

// sync waits until what was sent so far is in the file.
func (c *capture) sync(addr string) {
	c.t.Helper()
	mark := []byte(newCanary("mark"))
	sendAll(c.t, addr, mark)
	eventually(c.t, 30*time.Second, func() error {
		raw, err := os.ReadFile(c.path)
		if err == nil && !bytes.Contains(raw, mark) {
			err = errors.New("the last packet is not captured yet")
		}
		return err
	})
}

// streams ends the capture and returns the bytes of each direction of each connection.
// It fails the test if the kernel dropped packets.
func (c *capture) streams() map[string][]byte {
	c.t.Helper()
	_ = c.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-c.finished:
	case <-time.After(20 * time.Second):
		c.t.Fatal("tcpdump does not end")
	}
	said, err := os.ReadFile(c.said)
	if err != nil || !strings.Contains(string(said), "\n0 packets dropped by kernel") {
		c.t.Errorf("tcpdump has not seen everything: %s, %v", said, err)
	}
	raw, err := os.ReadFile(c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := parsePcap(raw)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// parsePcap puts the payloads of TCP segments together, in the order of capture, by
// "from > to". (pcap-savefile(5); link type 1, Ethernet, which is what lo shows.)
func parsePcap(raw []byte) (map[string][]byte, error) {
	order := binary.ByteOrder(binary.LittleEndian)
	if len(raw) < 24 || order.Uint32(raw) != 0xa1b2c3d4 || order.Uint32(raw[20:]) != 1 {
		return nil, fmt.Errorf("not a capture of this machine's loopback: % x", raw[:min(24, len(raw))])
	}
	out := map[string][]byte{}
	for rest := raw[24:]; len(rest) >= 16; {
		n := int(order.Uint32(rest[8:]))
		if len(rest) < 16+n {
			break
		}
		packet := rest[16 : 16+n]
		rest = rest[16+n:]
		if len(packet) < 34 || packet[12] != 8 || packet[13] != 0 || packet[23] != 6 { // IPv4, TCP
			continue
		}
		ip := packet[14:]
		head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
		if total == 0 || total > len(ip) { // segmentation offload
			total = len(ip)
		}
		if head+20 > total {
			continue
		}
		tcp := ip[head:total]
		payload := tcp[min(int(tcp[12]>>4)*4, len(tcp)):]
		key := fmt.Sprintf("%s:%d > %s:%d", net.IP(ip[12:16]), binary.BigEndian.Uint16(tcp), net.IP(ip[16:20]), binary.BigEndian.Uint16(tcp[2:]))
		out[key] = append(out[key], payload...)
	}
	return out, nil
}

// sampler reads the command line and environment of every process on the machine, again
// and again.
type sampler struct {
	scan *scanner
	stop chan struct{}
	done chan struct{}

	found map[string]finds // by place
	seen  map[string]bool  // names of processes
	reads int

	rounds atomic.Int64 // through all processes
}

// startSampler begins. A process is read when it is new, often while it is young, since
// it may become another program, and then once in a while.
func startSampler(s *scanner) *sampler {
	w := &sampler{scan: s, stop: make(chan struct{}), done: make(chan struct{}), found: map[string]finds{}, seen: map[string]bool{}}
	go func() {
		defer close(w.done)
		type sight struct {
			first time.Time
			next  time.Time
		}
		known := map[string]sight{} // by pid; a pid that comes again was missing in between
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-w.stop:
				return
			case <-tick.C:
			}
			dir, err := os.Open("/proc")
			if err != nil {
				return
			}
			names, _ := dir.Readdirnames(-1)
			_ = dir.Close()
			now, alive := time.Now(), map[string]sight{}
			for _, pid := range names {
				if _, err := strconv.Atoi(pid); err != nil {
					continue
				}
				k, ok := known[pid]
				if !ok {
					k = sight{first: now, next: now}
				}
				if !now.Before(k.next) {
					w.look(pid)
					k.next = now.Add(500 * time.Millisecond)
					if now.Sub(k.first) < 100*time.Millisecond {
						k.next = now
					}
				}
				alive[pid] = k
			}
			known = alive
			w.rounds.Add(1)
		}
	}()
	return w
}

func (w *sampler) look(pid string) {
	for _, what := range []string{"cmdline", "environ"} {
		text, err := os.ReadFile(filepath.Join("/proc", pid, what))
		if err != nil {
			continue // gone
		}
		w.reads++
		if what == "cmdline" {
			name, _, _ := strings.Cut(string(text), "\x00")
			w.seen[filepath.Base(name)] = true
		}
		found := finds{}
		if w.scan.in(text, found); len(found) > 0 {
			name := "/proc/…/" + what
			if w.found[name] == nil {
				w.found[name] = finds{}
			}
			for k, n := range found {
				w.found[name][k] += n
			}
		}
	}
}

func (w *sampler) end() {
	close(w.stop)
	<-w.done
}

// sendSplit sends the secret in each form over a connection to addr, each form in two
// packets.
func sendSplit(t testing.TB, addr, secret string) {
	t.Helper()
	var parts [][]byte
	for _, f := range formsOf([]byte(secret)) {
		parts = append(parts, f.text[:len(f.text)/2], append(bytes.Clone(f.text[len(f.text)/2:]), '\n'))
	}
	sendAll(t, addr, parts...)
}

// sendAll sends each part in a packet of its own: Go does not wait for more to send.
func sendAll(t testing.TB, addr string, parts ...[]byte) {
	t.Helper()
	l, err := net.Listen("tcp", addr) //nolint:noctx // on loopback
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	got := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
		got <- err
	}()
	conn, err := net.Dial("tcp", addr) //nolint:noctx // on loopback
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(conn.Close(), <-got); err != nil {
		t.Fatal(err)
	}
}
