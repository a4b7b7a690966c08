//go:build linux

package testlab_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/testlab"
)

const childVar = "REEVELAB_TEST_CHILD"

// TestMain lets the test binary be a program that uses a lab and is then killed.
func TestMain(m *testing.M) {
	if os.Getenv(childVar) == "" {
		os.Exit(m.Run())
	}
	act := child
	if os.Getenv(childVar) == "bolt" {
		act = writeBolt
	}
	if err := act(); err != nil {
		fmt.Fprintln(os.Stdout, "failed:", err)
		os.Exit(1)
	}
	select {} // until killed
}

// child starts one of everything, prints the process ids and then "up".
func child() error {
	lab, err := testlab.Open(context.Background(), "")
	if err != nil {
		return err
	}
	net, err := lab.Network("host")
	if err != nil {
		return err
	}
	h, err := lab.SSHHost(testlab.HostOptions{Node: net.Node("host")})
	if err != nil {
		return err
	}
	d, err := lab.MariaDB(testlab.MariaDBOptions{})
	if err != nil {
		return err
	}
	disk, err := lab.Disk()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(disk.Backing(), "file"), nil, 0o600); err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "%d %d\nup\n", h.PID(), d.PID())
	return err
}

func TestNothingIsLeftOfAKilledProcess(t *testing.T) {
	t.Parallel()
	testlab.New(t) // obeys REEVE_LAB
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var host, db int
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "up" {
		if _, err := fmt.Sscanf(lines.Text(), "%d %d", &host, &db); err != nil {
			t.Fatalf("child: %s", lines.Text())
		}
	}
	dirs := filepath.Join("/dev/shm", fmt.Sprintf("reevelab-%d-*", cmd.Process.Pid))
	if left, _ := filepath.Glob(dirs); len(left) != 1 {
		t.Fatalf("the child's directories: %v", left)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	deadline := time.Now().Add(10 * time.Second)
	for _, pid := range []int{host, db} {
		for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d lives on", pid)
			}
			runtime.Gosched()
		}
	}
	testlab.New(t) // reaps
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(mounts), fmt.Sprintf("reevelab-%d", cmd.Process.Pid)) {
		t.Errorf("a mount is left, or: %v", err)
	}
	if left, _ := filepath.Glob(dirs); len(left) != 0 {
		t.Errorf("left of the child: %v", left)
	}
}

func TestCloseEndsServersAndRemovesTheDirectory(t *testing.T) {
	t.Parallel()
	lab := testlab.New(t)
	h := testlab.NewHost(t, lab, testlab.HostOptions{})
	pid := h.PID()
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the host's process 1 after Close: %v", err)
	}
	if _, err := lab.SSHHost(testlab.HostOptions{}); err == nil {
		t.Error("a closed lab starts hosts")
	}
}

func TestEveryServerHasAnAddressOfItsOwn(t *testing.T) {
	t.Parallel()
	one, two := testlab.New(t), testlab.New(t)
	addrs := []string{
		testlab.NewHost(t, one, testlab.HostOptions{}).Addr,
		testlab.NewHost(t, one, testlab.HostOptions{}).Addr,
		testlab.NewHost(t, two, testlab.HostOptions{}).Addr,
	}
	slices.Sort(addrs)
	if len(slices.Compact(slices.Clone(addrs))) != len(addrs) {
		t.Errorf("addresses: %v", addrs)
	}
}

func TestDoctorNamesEveryNeed(t *testing.T) {
	t.Parallel()
	var names []string
	for _, c := range testlab.Doctor() {
		names = append(names, c.Name)
		t.Logf("%-12s %-6t %s %s", c.Name, c.OK, c.Detail, c.Fix)
		if c.OK == (c.Fix != "") || c.Detail == "" {
			t.Errorf("%s: OK %t, detail %q, fix %q", c.Name, c.OK, c.Detail, c.Fix)
		}
	}
	want := []string{"namespaces", "overlay", "sshd", "sudo", "telnetd", "systemd-socket-activate", "mariadbd", "postgres", "samba", "slapd", "chromedriver", "rsyslogd", "nft", "ip", "fuse"}
	if d := cmp.Diff(want, names); d != "" {
		t.Error(d)
	}
}
