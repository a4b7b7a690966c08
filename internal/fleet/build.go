//go:build linux

package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// buildFlags are those of the Makefile, so that the build cache is shared with it.
var buildFlags = []string{"build", "-trimpath", "-tags", "nomsgpack", "-ldflags", "-s -w"}

// Build builds the programs of this source tree into dir as `make build` lays them out:
// reeved, reeve-agent and reeve in it, the connectors ssh, mysql and those asked for in
// "connectors" below it. It works from any directory of the module.
func Build(ctx context.Context, dir string, connectors ...string) error {
	const module = "github.com/reeve-pam/reeve/"
	type build struct {
		out  string
		from []string
	}
	all := []build{{dir + "/", []string{module + "controller/cmd/reeved", module + "agent/cmd/reeve-agent", module + "api/cmd/reeve"}}}
	for _, name := range append([]string{"ssh", "mysql"}, connectors...) {
		all = append(all, build{filepath.Join(dir, "connectors", "connector-"+name), []string{module + "plugins/" + name}})
	}
	for _, b := range all {
		args := append(append([]string{}, buildFlags...), "-o", b.out)
		cmd := exec.CommandContext(ctx, "go", append(args, b.from...)...) //nolint:gosec // our own packages
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", strings.Join(b.from, " "), err, text)
		}
	}
	return nil
}
