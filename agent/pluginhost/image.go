package pluginhost

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// filePrefix is how the file name of a connector starts.
const filePrefix = "connector-"

// MaxSize is the size in bytes up to which a connector is read at all.
const MaxSize = 256 << 20

// image is a copy of a connector in sealed memory: these bytes were hashed, nobody
// can change them, and these bytes are run.
type image struct {
	file   *os.File
	sha256 string // hex
}

func (i *image) close() { _ = i.file.Close() }

// path is where the process that holds the image, or one forked from it, can run it.
func (i *image) path() string { return fmt.Sprintf("/proc/self/fd/%d", i.file.Fd()) }

// load copies the file at path into sealed memory and hashes the copy.
func load(path string) (*image, error) {
	f, err := os.Open(path) //nolint:gosec // the connector directory, or what the operator named
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, sdk.Errorf(sdk.ClassUnsupported, "there is no connector at %s", path).
				WithFix("put the connector into the agent's connector directory").Wrap(err)
		}
		return nil, unreadable(path, err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, unreadable(path, err)
	case !info.Mode().IsRegular():
		return nil, unreadable(path, errors.New("not a regular file"))
	case info.Size() > MaxSize:
		return nil, unreadable(path, fmt.Errorf("larger than %d bytes", MaxSize))
	}
	mem, err := memory(filepath.Base(path))
	if err != nil {
		return nil, unreadable(path, err)
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(mem, h), io.LimitReader(f, MaxSize+1))
	if err == nil && n > MaxSize {
		err = fmt.Errorf("larger than %d bytes", MaxSize)
	}
	if err == nil {
		_, err = unix.FcntlInt(mem.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = mem.Close()
		return nil, unreadable(path, err)
	}
	return &image{file: mem, sha256: hex.EncodeToString(h.Sum(nil))}, nil
}

// memory makes an executable memory file, closed when another program is run.
func memory(name string) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // kernels before 6.3 do not know MFD_EXEC, and need none
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil //nolint:gosec // a file descriptor is not negative
}

func unreadable(path string, err error) *sdk.Error {
	return sdk.Errorf(sdk.ClassInternal, "the connector %s cannot be loaded: %v", path, err).
		WithFix("put a readable executable for this system there").Wrap(err)
}

// Installed is a connector on the disk.
type Installed struct {
	Name   string
	SHA256 string // hex
}

// List returns the connectors in dir, by name, with the digests their files have now.
// Files that cannot be read are left out. Nothing is run.
func List(dir string) ([]Installed, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, reeve.Errorf(reeve.Precondition, "connectors_unreadable", "the connector directory %s cannot be read", dir).
			WithFix("create it, and put the connectors into it").Wrap(err)
	}
	var out []Installed
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), filePrefix)
		if !ok || !validName(name) {
			continue
		}
		sum, err := digest(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		out = append(out, Installed{Name: name, SHA256: sum})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

func digest(path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // in the connector directory
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() > MaxSize {
		return "", fmt.Errorf("not a regular file of at most %d bytes", MaxSize)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, MaxSize)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// validName reports whether name can be a connector's: it becomes part of a path.
func validName(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-' {
			return false
		}
	}
	return true
}
