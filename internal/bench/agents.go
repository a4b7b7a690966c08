package main

import (
	"context"
	"fmt"
	"time"

	"github.com/reeve-pam/reeve/internal/swarm"
)

// idleAgents is how many agents are connected, and idle.
const idleAgents = 2000

// agentRows: how much the leader's own memory (RssAnon of /proc/PID/status: heap and stacks) grows for each agent that
// is connected and has nothing to do. The floor is a bare gRPC server with mutual TLS and one stream for each client;
// an agent without work has one too, that for jobs. The row takes some six minutes.
func agentRows() []row {
	return []row{{
		name: "memory-per-agent", work: fmt.Sprintf("controller memory for each idle connected agent, %d agents", idleAgents),
		unit: "KB", require: 1.5, prepare: prepareAgents,
	}}
}

func prepareAgents(ctx context.Context, e *env) (_ *sides, err error) {
	n, settle := idleAgents, swarm.Settle
	if e.quick {
		n, settle = 100, time.Second
	}
	f, err := e.startFleet(ctx, "")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Kill()
		}
	}()
	dir, err := e.tempDir("swarm")
	if err != nil {
		return nil, err
	}
	s, err := swarm.Enroll(ctx, f, dir, "crowd", n)
	if err != nil {
		return nil, err
	}
	bare, err := swarm.StartBare(ctx, dir)
	if err != nil {
		return nil, err
	}
	kilobytes := func(bytes float64, err error) ([]float64, error) { return []float64{bytes / 1e3}, err }
	return &sides{
		floor: func(ctx context.Context) ([]float64, error) { return kilobytes(bare.Footprint(ctx, n, settle)) },
		reeve: func(ctx context.Context) ([]float64, error) { return kilobytes(s.Footprint(ctx, f, settle)) },
		close: func() error { f.Kill(); return bare.Stop() },
	}, nil
}
