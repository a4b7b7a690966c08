package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"

	"github.com/reeve-pam/reeve/agent"
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// whole is a controller and an agent in this process, for profiles of both; connectors are processes as ever. There is
// one asset for each job that may run at a time, and nothing behind them but a port that answers.
type whole struct {
	api    *client.Client
	target net.Listener
	assets int

	stop context.CancelFunc
	wg   sync.WaitGroup
	mu   sync.Mutex
	err  error
}

// jobsAtOnce is how many jobs the storm keeps going.
const jobsAtOnce = 16

func startWhole(ctx context.Context, e *env) (_ *whole, err error) {
	bin, err := e.programs(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := e.tempDir("whole")
	if err != nil {
		return nil, err
	}
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	w := &whole{stop: stop, assets: jobsAtOnce}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.target, err = (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	w.wg.Go(w.answer)
	if err := w.lead(ctx, runCtx, e, dir); err != nil {
		return nil, err
	}
	site := client.SiteRequest{Name: "here"}
	if _, err := fleet.Answer[client.Site](w.api.AddSite(ctx, nil, site)); err != nil { //nolint:bodyclose // Answer does
		return nil, err
	}
	if err := registerClock(ctx, w.api, filepath.Join(bin, "connectors", "connector-clock")); err != nil {
		return nil, err
	}
	if err := w.employ(ctx, runCtx, e, filepath.Join(dir, "agent"), filepath.Join(bin, "connectors")); err != nil {
		return nil, err
	}
	return w, w.addAssets(ctx)
}

func (w *whole) answer() {
	for {
		conn, err := w.target.Accept()
		if err != nil {
			return // closed
		}
		_ = conn.Close()
	}
}

// lead makes a cluster of one, runs it, and waits until it leads.
func (w *whole) lead(ctx, runCtx context.Context, e *env, dir string) error {
	keyFile := filepath.Join(dir, "seal.key")
	if err := seal.CreateKeyFile(keyFile); err != nil {
		return err
	}
	var at [3]controller.Listener
	for i := range at {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		at[i] = controller.Listener{Bind: l.Addr().String()}
		if err := l.Close(); err != nil {
			return err
		}
	}
	cfg := controller.Config{Name: "c1", DataDir: filepath.Join(dir, "c1"), KeyFile: keyFile, Logger: e.log, API: at[0], Agents: at[1], Raft: at[2]}
	made, err := controller.Bootstrap(ctx, cfg, controller.BootstrapOptions{})
	if err != nil {
		return err
	}
	c, err := controller.New(cfg)
	if err != nil {
		return err
	}
	w.wg.Go(func() { w.keep(c.Run(runCtx)) })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(made.CA)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}, ForceAttemptHTTP2: true}
	w.api, err = client.NewClient("https://"+at[0].Bind, client.WithHTTPClient(&http.Client{Transport: transport}),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+made.RootToken.Reveal())
			return nil
		}))
	if err != nil {
		return err
	}
	return eventually(ctx, "the controller leads", func() bool {
		st, err := fleet.Answer[client.Status](w.api.GetStatus(ctx)) //nolint:bodyclose // Answer does
		return err == nil && st.Leader && !st.Sealed
	})
}

// employ enrols an agent and runs it.
func (w *whole) employ(ctx, runCtx context.Context, e *env, data, connectors string) error {
	token, err := fleet.Answer[client.JoinToken](w.api.CreateAgentJoinToken(ctx, client.AgentJoinTokenRequest{Name: "here-1", Site: "here"})) //nolint:bodyclose // Answer does
	if err != nil {
		return err
	}
	if _, err := agent.Enroll(ctx, data, reeve.SecretString(token.Token), e.log); err != nil {
		return err
	}
	a, err := agent.New(agent.Config{Data: data, Connectors: connectors, Concurrency: jobsAtOnce, Logger: e.log})
	if err != nil {
		return err
	}
	w.wg.Go(func() { w.keep(a.Run(runCtx)) })
	return nil
}

func (w *whole) addAssets(ctx context.Context) error {
	port := w.target.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it is one of TCP
	password := "known to nobody"               // of a target that asks for none
	for i := range w.assets {
		_, err := fleet.Answer[client.Asset](w.api.AddAsset(ctx, nil, client.AssetRequest{ //nolint:bodyclose // Answer does
			Name: w.asset(i), Site: "here", Connector: "clock", Address: "127.0.0.1", Port: &port,
			ManagementAccount: &client.ManagementAccountRequest{Username: "nobody", Password: &password}}))
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *whole) asset(i int) string { return fmt.Sprintf("clock-%d", i) }

func (w *whole) keep(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = errors.Join(w.err, err)
}

func (w *whole) close() error {
	w.stop()
	if w.target != nil {
		_ = w.target.Close()
	}
	w.wg.Wait()
	return w.err
}

// job has a job done from beginning to end.
func (w *whole) job(ctx context.Context, asset string) error {
	ref, err := fleet.Answer[client.JobRef](w.api.VerifyAsset(ctx, asset, nil)) //nolint:bodyclose // Answer does
	if err != nil {
		return err
	}
	return eventually(ctx, "a job ends", func() bool {
		j, err := fleet.Answer[client.Job](w.api.GetJob(ctx, ref.Job)) //nolint:bodyclose // Answer does
		return err == nil && j.FinishedAt != nil
	})
}

// read lists assets, as a console does.
func (w *whole) read(ctx context.Context) error {
	page, err := fleet.Answer[client.AssetPage](w.api.ListAssets(ctx, nil)) //nolint:bodyclose // Answer does
	if err == nil && len(page.Items) != w.assets {
		err = fmt.Errorf("%d assets instead of %d", len(page.Items), w.assets)
	}
	return err
}
