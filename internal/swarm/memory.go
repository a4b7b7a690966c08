//go:build linux

package swarm

import (
	"context"
	"time"

	"github.com/reeve-pam/reeve/internal/fleet"
)

// Settle is how long a server gets after the last connection: buffers of handshakes are
// collected, the first heartbeats are through.
const Settle = 15 * time.Second

// baseline is the memory of a server before the first client ever came: what a server
// needs for clients it keeps for the next ones.
type baseline struct{ pid, bytes int }

// Footprint connects all agents and returns by how much they have grown the memory of the
// controller that leads, in bytes for each agent, after settle. It disconnects them.
func (s *Swarm) Footprint(ctx context.Context, f *fleet.Fleet, settle time.Duration) (float64, error) {
	lead, err := f.Leader(ctx)
	if err != nil {
		return 0, err
	}
	return s.before.growth(ctx, lead.PID(), s.Size(), settle, func() error {
		s.Start(ctx)
		return s.AwaitConnected(ctx)
	}, s.Disconnect)
}

// Footprint is the floor: the same of the bare server, with n clients.
func (b *Bare) Footprint(ctx context.Context, n int, settle time.Duration) (float64, error) {
	return b.before.growth(ctx, b.PID(), n, settle, func() error { return b.Connect(ctx, n) }, b.Disconnect)
}

func (b *baseline) growth(ctx context.Context, pid, n int, settle time.Duration, connect func() error, disconnect func()) (float64, error) {
	if b.pid != pid {
		bytes, err := Anonymous(pid)
		if err != nil {
			return 0, err
		}
		*b = baseline{pid, bytes}
	}
	defer disconnect()
	if err := connect(); err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(settle):
	}
	after, err := Anonymous(pid)
	return float64(after-b.bytes) / float64(n), err
}
