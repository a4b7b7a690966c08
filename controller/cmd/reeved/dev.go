package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/agent"
	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller"
	"github.com/reeve-pam/reeve/controller/seal"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// dev is a controller and an agent in one process, for trying out.
type dev struct {
	dir, connectors, host string
	port                  int
	log                   *slog.Logger
	out                   func(format string, args ...any)
}

func devCmd() *cobra.Command {
	d := &dev{}
	cmd := &cobra.Command{
		Use: "dev", Short: "Run an unsealed controller and an agent in one process, for trying out",
		Long: `Makes a cluster of one with a site "dev", an agent in it and every connector found, and runs it. It unseals itself
with a key file that lies beside its data: whoever reads the directory reads the vault. Not for real secrets.

Run again with the same --data it goes on where it was.`,
		Example: "  reeved dev\n  reeved dev --data /tmp/reeve --port 8443 --connectors bin/connectors",
		Args:    cobra.NoArgs,
	}
	level := logFlag(cmd, "error")
	self, _ := os.Executable()
	cmd.Flags().StringVar(&d.dir, "data", "reeve-dev", "where it keeps its data")
	cmd.Flags().StringVar(&d.connectors, "connectors", filepath.Join(filepath.Dir(self), "connectors"), "directory of the connectors")
	cmd.Flags().StringVar(&d.host, "host", "127.0.0.1", "address to listen on")
	cmd.Flags().IntVar(&d.port, "port", 8443, "port of the API; the next two serve agents and Raft")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		if d.log, err = newLogger(cmd.ErrOrStderr(), *level); err != nil {
			return err
		}
		if d.dir, err = filepath.Abs(d.dir); err != nil {
			return err
		}
		d.out = func(format string, args ...any) { _, _ = fmt.Fprintf(cmd.OutOrStdout(), format+"\n", args...) }
		return untilStopped(cmd.Context(), d.run(cmd.Context()))
	}
	return cmd
}

func (d *dev) path(name string) string { return filepath.Join(d.dir, name) }

func (d *dev) config() controller.Config {
	at := func(offset int) controller.Listener {
		return controller.Listener{Bind: fmt.Sprintf("%s:%d", d.host, d.port+offset)}
	}
	return controller.Config{Name: "dev", DataDir: d.path("controller"), API: at(0), Agents: at(1), Raft: at(2),
		KeyFile: d.path("seal.key"), Timing: "lan", Logger: d.log}
}

func (d *dev) run(ctx context.Context) error {
	cfg := d.config()
	if _, err := os.Stat(d.path("admin.yaml")); err != nil {
		if err := d.bootstrap(ctx, cfg); err != nil {
			return err
		}
	}
	c, err := controller.New(cfg)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.Run(ctx) })
	g.Go(func() error {
		if err := d.setUp(ctx); err != nil {
			return err
		}
		a, err := agent.New(agent.Config{Data: d.path("agent"), Connectors: d.connectors, Logger: d.log})
		if err != nil {
			return err
		}
		d.out("Reeve serves at https://%s\n\n  export REEVE_CONTEXT=%s\n  reeve asset add web01 --site dev --connector ssh --address 192.0.2.10 --username root --password-file - --watch\n\nCtrl-C ends it.",
			cfg.API.Address(), d.path("admin.yaml"))
		return a.Run(ctx)
	})
	return g.Wait()
}

func (d *dev) bootstrap(ctx context.Context, cfg controller.Config) error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	if err := seal.CreateKeyFile(cfg.KeyFile); err != nil {
		return err
	}
	cfg.Logger = slog.New(slog.DiscardHandler) // a cluster that starts and stops at once; what matters is the error
	made, err := controller.Bootstrap(ctx, cfg, controller.BootstrapOptions{})
	if err != nil {
		return errors.Join(err, os.Remove(cfg.KeyFile))
	}
	return writeContext(d.path("admin.yaml"), []string{cfg.API.Address()}, made.CA, made.RootToken)
}

// setUp waits for the controller and makes site, connectors and agent through its API,
// as an administrator would. What is there already stays.
func (d *dev) setUp(ctx context.Context) error {
	c, err := d.client()
	if err != nil {
		return err
	}
	for {
		_, err := answer[client.Principal](c.Whoami(ctx))
		if err == nil {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	if _, err := answer[client.Site](c.GetSite(ctx, "dev")); err != nil {
		if _, err := answer[client.Site](c.AddSite(ctx, nil, client.SiteRequest{Name: "dev"})); err != nil {
			return err
		}
	}
	if err := d.registerConnectors(ctx, c); err != nil {
		return err
	}
	if _, err := os.Stat(d.path("agent")); err == nil {
		return nil
	}
	token, err := answer[client.JoinToken](c.CreateAgentJoinToken(ctx, client.AgentJoinTokenRequest{Name: "dev", Site: "dev"}))
	if err != nil {
		return err
	}
	_, err = agent.Enroll(ctx, d.path("agent"), reeve.SecretString(token.Token), d.log)
	return err
}

func (d *dev) registerConnectors(ctx context.Context, c *client.Client) error {
	found, err := filepath.Glob(filepath.Join(d.connectors, "connector-*"))
	if err != nil || len(found) == 0 {
		return reeve.Errorf(reeve.Precondition, "connectors_missing", "there are no connectors in %s", d.connectors).
			WithFix("build them with `make build`, or give --connectors").Wrap(err)
	}
	for _, path := range found {
		desc, digest, err := pluginhost.Describe(ctx, path)
		if err != nil {
			return err
		}
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(sdk.DescriptionToProto(desc))
		if err != nil {
			return err
		}
		if _, err := answer[client.Connector](c.RegisterConnector(ctx, nil, client.ConnectorRequest{Sha256: digest, Description: raw})); err != nil {
			return err
		}
	}
	return nil
}

// client is a client of this very controller, from the context file.
func (d *dev) client() (*client.Client, error) {
	ctx, err := readContext(d.path("admin.yaml"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(ctx.CA))
	token := reeve.SecretString(strings.TrimSpace(ctx.Token))
	return client.NewClient("https://"+ctx.Addresses[0],
		client.WithHTTPClient(&http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}}),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			r.Header.Set("Authorization", "Bearer "+token.Reveal())
			return nil
		}))
}

// answer reads an answer of the API.
func answer[T any](resp *http.Response, err error) (T, error) {
	var out T
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		var p client.Problem
		if json.NewDecoder(resp.Body).Decode(&p) != nil {
			return out, fmt.Errorf("the controller answered %s", resp.Status)
		}
		return out, fmt.Errorf("%s [%s]", p.Detail, p.Code)
	}
	return out, json.NewDecoder(resp.Body).Decode(&out)
}
