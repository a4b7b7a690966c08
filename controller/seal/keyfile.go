package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// CreateKeyFile writes a fresh seal key to a new file that only its owner may read:
// 32 random bytes as one line of base64. It fails if the file exists.
func CreateKeyFile(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("seal: create key file: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	key := newKey()
	defer clear(key)
	line := append(base64.StdEncoding.AppendEncode(nil, key), '\n')
	defer clear(line)
	if _, err := f.Write(line); err != nil {
		return fmt.Errorf("seal: write key file: %w", err)
	}
	return f.Sync()
}

// AddKey appends a fresh seal key to a key file: the controllers unseal with whichever of
// its keys is the cluster's, so a file can have the next key before a rekeying and lose
// the old one after it. The file is replaced in one step.
func AddKey(path string) (err error) {
	keys, err := readKeyFile(path)
	if err != nil {
		return err
	}
	key := newKey()
	keys = append(keys, reeve.NewSecret(key))
	defer wipeKeys(keys)
	var lines []byte
	for _, k := range keys {
		lines = append(base64.StdEncoding.AppendEncode(lines, k.Bytes()), '\n')
	}
	defer clear(lines)
	if len(lines) > maxKeyFile {
		return reeve.Errorf(reeve.Precondition, "key_file_full", "the key file holds %d keys already", len(keys)-1).
			WithFix("remove the lines of keys that are not in use any more")
	}
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the operator names the file
	if err != nil {
		return fmt.Errorf("seal: key file: %w", err)
	}
	_, err = f.Write(lines)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("seal: key file: %w", err), os.Remove(next))
	}
	return nil
}

// maxKeyFile is the size in bytes up to which a key file is read.
const maxKeyFile = 256

// readKeyFile reads the seal keys of a file, one in each line, the newest last. It refuses
// a file that anybody but its owner may read.
func readKeyFile(path string) ([]reeve.Secret, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, reeve.Errorf(reeve.Precondition, "key_file_unreadable", "the seal's key file cannot be read").
			WithFix("check that %s exists and that this process may read it", path).Wrap(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("seal: key file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return nil, reeve.Errorf(reeve.Precondition, "key_file_exposed", "the seal's key file has mode %v; others may read it", info.Mode()).
			WithFix("chmod 600 %s", path)
	}
	text := make([]byte, maxKeyFile+1) // not io.ReadAll, which leaves copies behind as it grows
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("seal: key file: %w", err)
	}
	var keys []reeve.Secret
	for line := range bytes.Lines(bytes.TrimSpace(text[:n])) {
		key, ok := decodeKey(line)
		if !ok {
			keys = nil
			break
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 || n > maxKeyFile {
		wipeKeys(keys)
		return nil, reeve.Errorf(reeve.Invalid, "key_file_malformed", "the seal's key file does not hold 32 bytes in base64 in each line").
			WithFix("restore %s from where it is kept safe", path)
	}
	return keys, nil
}

// decodeKey reads one line of a key file.
func decodeKey(line []byte) (reeve.Secret, bool) {
	line = bytes.TrimSpace(line)
	key := make([]byte, base64.StdEncoding.DecodedLen(len(line)))
	n, err := base64.StdEncoding.Strict().Decode(key, line)
	if err != nil || n != keySize {
		clear(key)
		return reeve.Secret{}, false
	}
	return reeve.NewSecret(key[:n]), true
}

func wipeKeys(keys []reeve.Secret) {
	for _, k := range keys {
		k.Wipe()
	}
}
