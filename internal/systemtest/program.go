package systemtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
)

// programs are built once for each test binary, in a directory that CleanUp removes.
var programs struct {
	sync.Mutex
	dir   string
	built map[string]func() error
}

// program builds one of our programs, the first time, and returns its path. Who needs one
// does not wait for others.
func program(name, pkg string) (string, error) {
	path, build, err := planned(name, pkg)
	if err != nil {
		return "", err
	}
	return path, build()
}

func planned(name, pkg string) (path string, build func() error, err error) {
	programs.Lock()
	defer programs.Unlock()
	if programs.dir == "" {
		dir, err := os.MkdirTemp("", "reeve-systemtest-")
		if err != nil {
			return "", nil, err
		}
		programs.dir, programs.built = dir, map[string]func() error{}
	}
	path = filepath.Join(programs.dir, name)
	if programs.built[name] == nil {
		programs.built[name] = sync.OnceValue(func() error {
			cmd := exec.Command("go", "build", "-tags", "nomsgpack", "-o", path, "github.com/reeve-pam/reeve/"+pkg) //nolint:gosec,noctx // our own, for the whole binary
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
			}
			return nil
		})
	}
	return path, programs.built[name], nil
}

// always are the connectors that every agent has.
var always = []string{"ssh", "mysql"}

// Connectors is the directory of the connectors ssh and mysql, and of others that were
// asked for, built from this tree.
func Connectors(others ...string) (string, error) {
	for _, name := range slices.Concat(always, others) {
		if _, err := program("connectors/connector-"+name, "plugins/"+name); err != nil {
			return "", err
		}
	}
	return filepath.Join(programs.dir, "connectors"), nil
}

// CleanUp removes the programs that were built. TestMain of a package whose tests run
// agents calls it last.
func CleanUp() { _ = os.RemoveAll(programs.dir) }
