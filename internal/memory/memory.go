// Package memory keeps what a process holds in memory to the process. Programs that
// handle secrets call it first thing in main: reeved, reeve-agent, and each connector
// through plugins/sdk. Anything of ours may import it; it imports nothing of ours.
package memory

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KeepPrivate makes the kernel write no core file of this process or of those it
// starts, and lets no other process of the same user read its memory or attach to it
// (security: setrlimit(2) RLIMIT_CORE, prctl(2) PR_SET_DUMPABLE). The second ends at the
// next exec, so every program asks for itself.
func KeepPrivate() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("memory: core files cannot be forbidden: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("memory: the process cannot be made private: %w", err)
	}
	return nil
}
