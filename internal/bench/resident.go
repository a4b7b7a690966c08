package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
)

// memoryRows: resident memory (VmRSS of /proc/PID/status, shared pages included) of the programs as they are released,
// idle after they have worked once: the agent is enrolled and has run a job of each connector.
func memoryRows() []row {
	idle := &idle{}
	var rows []row
	for _, p := range []struct {
		name, work string
		limit      float64
		pids       func(*fleet.Fleet) ([]int, error)
	}{
		{"agent", "resident memory, idle: agent", 25, agentPID},
		{"connector-ssh", "resident memory, idle: connector ssh", 20, connectorPID("ssh")},
		{"connector-mysql", "resident memory, idle: connector mysql", 20, connectorPID("mysql")},
		{"controller", "resident memory, idle: controller, the largest of three", 60, controllerPIDs},
	} {
		rows = append(rows, row{
			name: "memory-" + p.name, work: p.work, unit: "MB", require: p.limit,
			prepare: func(ctx context.Context, e *env) (*sides, error) {
				f, err := idle.start(ctx, e)
				if err != nil {
					return nil, err
				}
				return &sides{reeve: func(ctx context.Context) ([]float64, error) { return largest(ctx, f, p.pids) }}, nil
			},
		})
	}
	return rows
}

// idle is the cluster that all these rows look at.
type idle struct {
	once  sync.Once
	fleet *fleet.Fleet
	err   error
}

func (i *idle) start(ctx context.Context, e *env) (*fleet.Fleet, error) {
	i.once.Do(func() {
		if i.fleet, i.err = e.startFleet(ctx, ""); i.err != nil {
			return
		}
		e.atEnd = append(e.atEnd, func() error { i.fleet.Kill(); return nil })
		if i.err = i.fleet.RegisterConnectors(ctx); i.err != nil {
			return
		}
		if _, i.err = i.fleet.AddAgent(ctx, fleet.AgentOptions{Name: "idle-1", Site: "idle"}); i.err != nil {
			return
		}
		for _, connector := range []string{"ssh", "mysql"} {
			if i.err = useConnector(ctx, i.fleet, connector); i.err != nil {
				return
			}
		}
		if !e.quick {
			i.err = wait(ctx, settle)
		}
	})
	return i.fleet, i.err
}

// settle is how long programs get to be idle.
const settle = 15 * time.Second

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// useConnector has a connector work once: it finds out that nobody listens at an address.
func useConnector(ctx context.Context, f *fleet.Fleet, connector string) error {
	leader, err := f.Leader(ctx)
	if err != nil {
		return err
	}
	api, err := f.Client(leader)
	if err != nil {
		return err
	}
	port, password := 9, "of nobody at all"
	_, err = fleet.Answer[client.Asset](api.AddAsset(ctx, &client.AddAssetParams{}, client.AssetRequest{ //nolint:bodyclose // Answer does
		Name: connector + "-nowhere", Site: "idle", Connector: connector, Address: "127.0.0.1", Port: &port,
		ManagementAccount: &client.ManagementAccountRequest{Username: "nobody", Password: &password}}))
	if err != nil {
		return err
	}
	return eventually(ctx, "connector "+connector+" runs", func() bool { _, err := connectorPID(connector)(f); return err == nil })
}

func agentPID(f *fleet.Fleet) ([]int, error) { return []int{f.Agents[0].PID()}, nil }

func controllerPIDs(f *fleet.Fleet) (pids []int, err error) {
	for _, c := range f.Controllers {
		pids = append(pids, c.PID())
	}
	return pids, nil
}

// connectorPID finds the agent's process of a connector: its executable is a memory file that bears the name.
func connectorPID(name string) func(*fleet.Fleet) ([]int, error) {
	return func(f *fleet.Fleet) ([]int, error) {
		for _, pid := range f.Agents[0].Children() {
			if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil && strings.Contains(exe, "connector-"+name) {
				return []int{pid}, nil
			}
		}
		return nil, fmt.Errorf("the agent has no process of connector %s", name)
	}
}

func largest(ctx context.Context, f *fleet.Fleet, find func(*fleet.Fleet) ([]int, error)) ([]float64, error) {
	pids, err := find(f)
	if err != nil {
		return nil, err
	}
	most := 0.0
	for _, pid := range pids {
		mb, err := resident(pid)
		if err != nil {
			return nil, err
		}
		most = max(most, mb)
	}
	return []float64{most}, wait(ctx, time.Second/2)
}

// resident is VmRSS of a process in MB, that is 10⁶ bytes.
func resident(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return float64(kib) * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}
