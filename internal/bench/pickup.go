package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// pickupRows: from the moment in which a caller reads that a job was accepted to the moment in which the connector is
// at work on the target, on a cluster with nothing else to do: three controllers, an agent and its connector, all real
// processes. The floor is one update of the store with nobody else about; a pick-up needs at least one, for the lease.
func pickupRows() []row {
	return []row{{
		name: "pickup", work: "job pick-up, API accepted → connector called, idle cluster, p50", unit: "ms", require: 5,
		prepare: pickupSides,
	}}
}

// Samples per run.
const (
	pickups       = 20
	singleUpdates = 100
)

func pickupSides(ctx context.Context, e *env) (*sides, error) {
	db, err := startStores(ctx, e)
	if err != nil {
		return nil, err
	}
	p, err := startPickup(ctx, e)
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	write := db.writer()
	return &sides{
		floor: func(ctx context.Context) ([]float64, error) { return latencies(ctx, e.few(singleUpdates), write) },
		reeve: func(ctx context.Context) ([]float64, error) {
			var took []float64
			for range e.few(pickups) {
				d, err := p.once(ctx)
				if err != nil {
					p.fleet.Tails(e.stderr, 20)
					return nil, err
				}
				took = append(took, milliseconds(d))
			}
			return took, nil
		},
		note:  p.note,
		close: func() error { return errors.Join(p.close(), db.close()) },
	}, nil
}

// pickup is a cluster with an agent, and a target that notices when it is dialled.
type pickup struct {
	fleet  *fleet.Fleet
	api    *client.Client // of the leader
	target net.Listener
	called chan time.Time

	whole []float64 // ms from before the request to the call
	all   []float64
}

func startPickup(ctx context.Context, e *env) (_ *pickup, err error) {
	p := &pickup{called: make(chan time.Time, 16)}
	if p.fleet, err = e.startFleet(ctx, ""); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.fleet.Tails(e.stderr, 20)
			err = errors.Join(err, p.close())
		}
	}()
	leader, err := p.fleet.Leader(ctx)
	if err != nil {
		return nil, err
	}
	if p.api, err = p.fleet.Client(leader); err != nil {
		return nil, err
	}
	if err := registerClock(ctx, p.api, filepath.Join(p.fleet.Connectors(), "connector-clock")); err != nil {
		return nil, err
	}
	if _, err := p.fleet.AddAgent(ctx, fleet.AgentOptions{Name: "here-1", Site: "here"}); err != nil {
		return nil, err
	}
	if p.target, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	go p.accept()
	return p, p.addAsset(ctx)
}

// registerClock registers the benchmark's own connector.
func registerClock(ctx context.Context, api *client.Client, path string) error {
	desc, digest, err := pluginhost.Describe(ctx, path)
	if err != nil {
		return err
	}
	raw, err := proto.Marshal(sdk.DescriptionToProto(desc))
	if err != nil {
		return err
	}
	_, err = fleet.Answer[client.Connector](api.RegisterConnector(ctx, nil, client.ConnectorRequest{Sha256: digest, Description: raw})) //nolint:bodyclose // Answer does
	return err
}

func (p *pickup) accept() {
	for {
		conn, err := p.target.Accept()
		if err != nil {
			return // closed
		}
		p.called <- time.Now()
		_ = conn.Close()
	}
}

func (p *pickup) addAsset(ctx context.Context) error {
	port := p.target.Addr().(*net.TCPAddr).Port                                                             //nolint:forcetypeassert // it is one of TCP
	password := "known to nobody"                                                                           // of a target that asks for none
	_, err := fleet.Answer[client.Asset](p.api.AddAsset(ctx, &client.AddAssetParams{}, client.AssetRequest{ //nolint:bodyclose // Answer does
		Name: "clock", Site: "here", Connector: "clock", Address: "127.0.0.1", Port: &port,
		ManagementAccount: &client.ManagementAccountRequest{Username: "nobody", Password: &password}}))
	if err != nil {
		return err
	}
	return p.await(ctx) // the probe of a new asset: from now on the connector is warm
}

// await waits until the job that was just called is over.
func (p *pickup) await(ctx context.Context) error {
	return eventually(ctx, "the jobs end", func() bool {
		for _, state := range []client.ListJobsParamsState{"queued", "leased"} {
			page, err := fleet.Answer[client.JobPage](p.api.ListJobs(ctx, &client.ListJobsParams{State: &state})) //nolint:bodyclose // Answer does
			if err != nil || len(page.Items) > 0 {
				return false
			}
		}
		return true
	})
}

// once has a job done and returns how long it took from the answer to the call.
func (p *pickup) once(ctx context.Context) (time.Duration, error) {
	for len(p.called) > 0 {
		<-p.called
	}
	asked := time.Now()
	if _, err := fleet.Answer[client.JobRef](p.api.VerifyAsset(ctx, "clock", &client.VerifyAssetParams{})); err != nil { //nolint:bodyclose // Answer does
		return 0, err
	}
	accepted := time.Now()
	var called time.Time
	select {
	case called = <-p.called:
	case <-time.After(30 * time.Second):
		return 0, errors.New("the connector was not called within 30 s")
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	p.whole = append(p.whole, milliseconds(called.Sub(asked)))
	took := max(0, called.Sub(accepted)) // the connector may be faster than the answer
	p.all = append(p.all, milliseconds(took))
	return took, p.await(ctx)
}

func (p *pickup) note() string {
	return fmt.Sprintf("%d jobs: p50 %s ms, p90 %s ms, longest %s ms; counted from before the request, which is a store update itself: p50 %s ms",
		len(p.all), number(median(p.all)), number(quantile(p.all, 0.9)), number(quantile(p.all, 1)), number(median(p.whole)))
}

func (p *pickup) close() error {
	if p.target != nil {
		_ = p.target.Close()
	}
	p.fleet.Kill()
	return nil
}
