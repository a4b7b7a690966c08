package sdktest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// scanner looks for secrets in the arguments and environment of every process of this
// machine, over and over, until it is stopped. Processes of targets that are
// namespaces of this machine are among them.
type scanner struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	found  map[string]bool
	passes int
}

func startScanner(ctx context.Context, secrets []string) *scanner {
	ctx, cancel := context.WithCancel(ctx)
	sc := &scanner{cancel: cancel, found: map[string]bool{}}
	sc.wg.Go(func() {
		for ctx.Err() == nil {
			sc.pass(secrets)
		}
	})
	return sc
}

func (sc *scanner) pass(secrets []string) {
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range processes {
		for _, file := range []string{"cmdline", "environ"} {
			data, err := os.ReadFile(filepath.Join(dir, file)) //nolint:gosec // below /proc
			if err != nil {
				continue // it ended, or is somebody else's
			}
			for _, secret := range secrets {
				if strings.Contains(string(data), secret) {
					comm, _ := os.ReadFile(filepath.Join(dir, "comm")) //nolint:gosec // below /proc
					sc.mu.Lock()
					sc.found[fmt.Sprintf("%s of %q", file, strings.TrimSpace(string(comm)))] = true
					sc.mu.Unlock()
				}
			}
		}
	}
	sc.mu.Lock()
	sc.passes++
	sc.mu.Unlock()
}

// stop ends the scan and reports where a secret was.
func (sc *scanner) stop() error {
	sc.cancel()
	sc.wg.Wait()
	if sc.passes == 0 {
		return fmt.Errorf("/proc could not be scanned once")
	}
	for where := range sc.found {
		return fmt.Errorf("a secret was in the %s", where)
	}
	return nil
}
