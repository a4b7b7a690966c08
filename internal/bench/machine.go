package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is where and when it was measured.
type machine struct {
	When   string `json:"when"`
	CPUs   int    `json:"cpus"`
	CPU    string `json:"cpu"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
	Disk   string `json:"disk"` // file system that holds the data
	Go     string `json:"go"`
	Load   string `json:"load"` // average of the minute before: what else ran
}

func (m machine) String() string {
	return fmt.Sprintf("%s: %d × %s, %s, %s on Linux %s, %s; load before: %s", m.When, m.CPUs, m.CPU, m.Memory, m.Disk, m.Kernel, m.Go, m.Load)
}

func describe(dir string) machine {
	m := machine{When: time.Now().UTC().Format("2006-01-02 15:04 UTC"), CPUs: runtime.NumCPU(), Go: runtime.Version(),
		CPU: "CPU", Memory: "?", Kernel: "?", Disk: "?", Load: "?"}
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range bytes.Lines(raw) {
			if key, value, ok := strings.Cut(string(line), ":"); ok && strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
			}
		}
	}
	if raw, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(raw), " ")
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.Memory = fmt.Sprintf("%d GB", (info.Totalram*uint64(info.Unit)+(1<<29))>>30)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel, _, _ = strings.Cut(unix.ByteSliceToString(name.Release[:]), "-") // without what its builder added
	}
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) == nil {
		known := map[int64]string{unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
			unix.TMPFS_MAGIC: "tmpfs (syncs nothing!)", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs"}
		m.Disk = known[int64(fs.Type)] //nolint:unconvert // other widths on other processors
		if m.Disk == "" {
			m.Disk = fmt.Sprintf("file system %x", fs.Type)
		}
	}
	return m
}
