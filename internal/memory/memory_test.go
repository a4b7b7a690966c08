package memory

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const child = "REEVE_TEST_MEMORY_CHILD"

// TestMain lets the test binary stand in for a program: what KeepPrivate does cannot be
// taken back, so it is not done to the test itself.
func TestMain(m *testing.M) {
	if os.Getenv(child) == "" {
		os.Exit(m.Run())
	}
	if err := KeepPrivate(); err != nil {
		panic(err)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		panic("still dumpable")
	}
	limits, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		panic(err)
	}
	_, _ = os.Stdout.Write(limits)
}

func TestAPrivateProcessLeavesNoCoreFile_K1(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(strings.NewReader(string(out))); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "Max core file size"); ok {
			if f := strings.Fields(rest); f[0] != "0" || f[1] != "0" {
				t.Errorf("core files up to %s, at most %s bytes; want none", f[0], f[1])
			}
			return
		}
	}
	t.Error("the kernel says nothing about core files")
}
