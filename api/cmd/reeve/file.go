package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// fileError says what is wrong with a file that the user named, in words and with what to
// do. what is the flag or argument that named it.
func fileError(what, path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return usagef("%s: there is no file %s\n  to do: correct the path", what, path)
	case errors.Is(err, fs.ErrExist):
		return usagef("%s: %s is there already\n  to do: name a new file", what, path)
	case errors.Is(err, fs.ErrPermission):
		return usagef("%s: you have no right to %s\n  to do: have it given to you, or name another file", what, path)
	case errors.Is(err, syscall.EISDIR):
		return usagef("%s: %s is a directory\n  to do: name a file in it", what, path)
	default:
		return usagef("%s: %s cannot be used: %w\n  to do: name another file", what, path, bare(err))
	}
}

// readNamed reads a file that a flag or an argument, or a field of a target file, names.
func readNamed(what, path string) ([]byte, error) {
	raw, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		return nil, fileError(what, path, err)
	}
	return raw, nil
}

// readText is readNamed for what goes into a request as it is; nil for no file.
func readText(what, path string) (*string, error) {
	if path == "" {
		return nil, nil
	}
	raw, err := readNamed(what, path)
	if err != nil {
		return nil, err
	}
	text := string(raw)
	return &text, nil
}

// openNamed opens a file that a flag or an argument names, to be read.
func openNamed(what, path string) (*os.File, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, fileError(what, path, err)
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		_ = f.Close()
		return nil, fileError(what, path, syscall.EISDIR)
	}
	return f, nil
}

// createNamed makes a file that a flag or an argument names, and that was not there, for
// its owner alone.
func createNamed(what, path string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Clean(path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fileError(what, path, err)
	}
	return f, nil
}
