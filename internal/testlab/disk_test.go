//go:build linux

package testlab_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/reeve-pam/reeve/internal/testlab"
)

// writeBolt commits to the database named by the last argument, once for each line of
// its input, reads the commit back through the memory map, and prints what went wrong.
func writeBolt() error {
	db, err := bbolt.Open(os.Args[len(os.Args)-1], 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	asked := bufio.NewScanner(os.Stdin)
	for n := 1; asked.Scan(); n++ {
		key, value := []byte(strconv.Itoa(n)), make([]byte, 5000) // grows the file and the map
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			return b.Put(key, value)
		})
		if err == nil {
			err = db.View(func(tx *bbolt.Tx) error {
				if got := tx.Bucket([]byte("b")).Get(key); len(got) != len(value) {
					return fmt.Errorf("%d bytes read back", len(got))
				}
				return nil
			})
		}
		if _, err := fmt.Fprintln(os.Stdout, err); err != nil {
			return err
		}
	}
	return asked.Err()
}

// writer is a process that writes to a disk.
type writer struct {
	t       *testing.T
	cmd     *exec.Cmd
	ask     io.Writer
	answers chan string // closed when it has ended
	asked   bool        // it owes an answer
	file    string      // the database, behind the disk
}

func startWriter(t *testing.T, d *testlab.Disk) *writer {
	t.Helper()
	w := &writer{t: t, answers: make(chan string), file: filepath.Join(d.Backing(), "db")}
	w.cmd = exec.CommandContext(t.Context(), os.Args[0], filepath.Join(d.Dir(), "db"))
	w.cmd.Env = append(os.Environ(), childVar+"=bolt")
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if w.ask, err = w.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.answers)
		for s := bufio.NewScanner(out); s.Scan(); {
			w.answers <- s.Text()
		}
	}()
	t.Cleanup(func() { d.Heal(); w.kill() })
	w.commits(20)
	return w
}

// kill ends the process and waits until it is gone.
func (w *writer) kill() {
	_ = w.cmd.Process.Kill()
	for range w.answers { //nolint:revive // until it is closed
	}
	_ = w.cmd.Wait()
}

// commit asks for a commit, unless one is under way, and returns what became of it; ok
// is false if nothing has for so long.
func (w *writer) commit(patience time.Duration) (answer string, ok bool) {
	w.t.Helper()
	if !w.asked {
		if _, err := io.WriteString(w.ask, "\n"); err != nil {
			w.t.Fatal(err)
		}
	}
	w.asked = true
	select {
	case answer, open := <-w.answers:
		if !open {
			w.t.Fatal("the writer has ended")
		}
		w.asked = false
		return answer, true
	case <-time.After(patience):
		return "", false
	}
}

// commits waits for that many commits and returns how long they took.
func (w *writer) commits(count int) time.Duration {
	w.t.Helper()
	began := time.Now()
	for range count {
		if answer, _ := w.commit(20 * time.Second); answer != "<nil>" {
			w.t.Fatalf("commit: %q", answer)
		}
	}
	return time.Since(began)
}

// hangs asks for a commit that must not come to an end.
func (w *writer) hangs() {
	w.t.Helper()
	if answer, ok := w.commit(500 * time.Millisecond); ok {
		w.t.Fatalf("commit: %q", answer)
	}
}

// fails asks for a commit that must fail.
func (w *writer) fails(with error) {
	w.t.Helper()
	if answer, _ := w.commit(20 * time.Second); !strings.HasSuffix(answer, with.Error()) {
		w.t.Fatalf("commit: %q, not %q", answer, with)
	}
}

// whole ends the process and checks the database from behind the disk.
func (w *writer) whole() {
	w.t.Helper()
	w.kill()
	db, err := bbolt.Open(w.file, 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return nil
	})
	if err != nil {
		w.t.Error(err)
	}
}

func free(t *testing.T, dir string) uint64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Bavail
}

func TestDiskHangsAndGoesOn(t *testing.T) {
	t.Parallel()
	d := testlab.NewDisk(t, testlab.New(t))
	w := startWriter(t, d)
	d.Hang()
	w.hangs()
	d.Heal()
	w.commits(20)
	w.whole()
}

func TestProcessOnAHungDiskCannotBeKilledUntilItHeals(t *testing.T) {
	t.Parallel()
	d := testlab.NewDisk(t, testlab.New(t))
	w := startWriter(t, d)
	d.Hang()
	w.hangs()
	if err := w.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.answers:
		t.Error("the writer did not wait for its disk")
	case <-time.After(500 * time.Millisecond):
	}
	d.Heal()
	w.whole()
}

func TestDiskSlowsDownEachSync(t *testing.T) {
	t.Parallel()
	d := testlab.NewDisk(t, testlab.New(t))
	w := startWriter(t, d)
	const delay = 300 * time.Millisecond
	d.Slow(delay)
	if took := w.commits(3); took < 3*delay {
		t.Errorf("3 commits took %s", took)
	}
	d.Heal()
	w.commits(20)
	w.whole()
}

func TestFullDiskTakesNothing(t *testing.T) {
	t.Parallel()
	d := testlab.NewDisk(t, testlab.New(t))
	w := startWriter(t, d)
	if free(t, d.Dir()) == 0 {
		t.Error("the disk is full from the start")
	}
	d.Full()
	w.fails(unix.ENOSPC)
	if n := free(t, d.Dir()); n != 0 {
		t.Errorf("%d blocks are free", n)
	}
	d.Heal()
	w.commits(20)
	w.whole()
}

func TestFailingDiskFails(t *testing.T) {
	t.Parallel()
	d := testlab.NewDisk(t, testlab.New(t))
	w := startWriter(t, d)
	d.Fail()
	w.fails(unix.EIO)
	d.Heal()
	w.commits(20)
	w.whole()
}

func TestClosingTheLabFreesWhoeverHangsOnItsDisk(t *testing.T) {
	t.Parallel()
	lab := testlab.New(t)
	d := testlab.NewDisk(t, lab)
	w := startWriter(t, d)
	d.Hang()
	w.hangs()
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	w.kill()
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), d.Dir()) {
		t.Errorf("the disk is still mounted, or: %v", err)
	}
	if _, err := os.Stat(d.Backing()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the disk's files: %v", err)
	}
}
