//go:build linux

package fleet_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// One fleet through all that fate can do to a process.
func TestAFleetRunsIsMistreatedAndLeavesNothing(t *testing.T) {
	t.Parallel()
	testlab.Require(t)
	ctx := t.Context()
	bin := t.TempDir()
	if err := fleet.Build(ctx, bin); err != nil {
		t.Fatal(err)
	}
	f, err := fleet.New(fleet.Options{Dir: filepath.Join(t.TempDir(), "fleet"), Bin: bin, Timing: "lan"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Kill)
	t.Cleanup(func() {
		if t.Failed() {
			f.Tails(os.Stderr, 10)
		}
	})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(f.StartControllers(ctx, 3))
	must(f.RegisterConnectors(ctx))
	a, err := f.AddAgent(ctx, fleet.AgentOptions{Name: "dmz-1", Site: "dmz", Concurrency: 4})
	must(err)

	addSite := func(name string) error {
		key := "fleet-test-" + name
		_, err := fleet.Call[client.Site](ctx, f, func(ctx context.Context, api *client.Client) (*http.Response, error) {
			return api.AddSite(ctx, &client.AddSiteParams{IdempotencyKey: &key}, client.SiteRequest{Name: name})
		})
		return err
	}
	lead, err := f.Leader(ctx)
	must(err)
	must(lead.Pause())
	must(addSite("while-the-leader-is-paused"))
	must(lead.Resume())
	lead, err = f.Leader(ctx)
	must(err)
	lead.Kill()
	must(addSite("after-the-leader-was-killed"))
	must(lead.Start())
	if lead.Start() == nil {
		t.Error("a running process was started again")
	}
	must(fleet.Eventually(ctx, time.Minute, f.AllVote))
	must(fleet.Eventually(ctx, time.Minute, func(ctx context.Context) error { return f.Connected(ctx, "dmz-1") }))

	pids := []int{a.PID()}
	for _, c := range f.Controllers {
		pids = append(pids, c.PID())
	}
	must(f.Stop())
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			t.Error(fmt.Errorf("process %d is left", pid))
		}
	}
}
