//go:build linux

package testlab

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// template returns a directory that build filled once for this recipe and this set of
// installed packages. It lies in the user's cache directory, is shared by all labs of
// all processes and must not be written to.
func template(name, recipe string, build func(dir string) error) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	cache = filepath.Join(cache, "reevelab")
	packages, err := os.Stat("/var/lib/dpkg/status") // changes whenever a package does
	if err != nil {
		return "", fmt.Errorf("the lab's servers come from Debian packages: %w", err)
	}
	key := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d", recipe, packages.Size(), packages.ModTime().UnixNano()))
	dir := filepath.Join(cache, fmt.Sprintf("%s-%x", name, key[:8]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil { //nolint:gosec // read by servers that run as other users
		return "", fmt.Errorf("cache directory: %w", err)
	}
	prune(cache, name)
	part, err := os.MkdirTemp(cache, "."+name+"-")
	if err != nil {
		return "", fmt.Errorf("template %s: %w", name, err)
	}
	defer func() { _ = os.RemoveAll(part) }()
	if err := os.Chmod(part, 0o755); err != nil { //nolint:gosec // becomes the root directory of a host
		return "", fmt.Errorf("template %s: %w", name, err)
	}
	if err := build(part); err != nil {
		return "", fmt.Errorf("template %s: %w", name, err)
	}
	err = os.Rename(part, dir)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		return dir, nil // another process was faster
	}
	if err != nil {
		return "", fmt.Errorf("template %s: %w", name, err)
	}
	return dir, nil
}

// prune removes templates, finished and half-made, that nobody can be using any more.
func prune(cache, name string) {
	for _, pattern := range []string{name + "-*", "." + name + "-*"} {
		old, _ := filepath.Glob(filepath.Join(cache, pattern))
		for _, dir := range old {
			if st, err := os.Stat(dir); err == nil && time.Since(st.ModTime()) > 7*24*time.Hour {
				_ = os.RemoveAll(dir)
			}
		}
	}
}
