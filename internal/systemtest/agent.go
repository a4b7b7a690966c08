package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/agent"
	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/agent/worker"
	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// AgentOptions say what agent to run.
type AgentOptions struct {
	Crash       func(point string) bool // see agent/worker.Config
	Concurrency int                     // jobs at a time; 0: the agent's default
	Connectors  []string                // besides ssh and mysql
}

// Agent is an agent in this process, enrolled in a site.
type Agent struct {
	ID, Name, Data string

	c    *Cluster
	opts AgentOptions

	mu   sync.Mutex
	stop context.CancelFunc // nil: not running
	done chan struct{}
	err  error // of the run that ended
}

// AddSite makes a site.
func (c *Cluster) AddSite(name string) client.Site {
	c.t.Helper()
	return Call[client.Site](c, func(api *client.Client) (*http.Response, error) {
		return api.AddSite(c.t.Context(), &client.AddSiteParams{IdempotencyKey: key("site-" + name)}, client.SiteRequest{Name: name})
	})
}

// RegisterConnectors registers the connectors ssh and mysql, and others that are asked for.
// Agent does it too.
func (c *Cluster) RegisterConnectors(others ...string) {
	c.t.Helper()
	c.registering.Lock()
	defer c.registering.Unlock()
	dir, err := Connectors(others...)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, name := range slices.Concat(always, others) {
		if c.registered[name] {
			continue
		}
		desc, digest, err := pluginhost.Describe(c.t.Context(), filepath.Join(dir, "connector-"+name))
		if err != nil {
			c.t.Fatal(err)
		}
		raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(sdk.DescriptionToProto(desc))
		if err != nil {
			c.t.Fatal(err)
		}
		Call[client.Connector](c, func(api *client.Client) (*http.Response, error) {
			return api.RegisterConnector(c.t.Context(), &client.RegisterConnectorParams{IdempotencyKey: key("connector-" + name)},
				client.ConnectorRequest{Sha256: digest, Description: raw})
		})
		c.registered[name] = true
	}
}

// Agent enrols an agent in a site, makes the site if there is none, registers the
// connectors, and runs the agent until the test ends.
func (c *Cluster) Agent(site string, opts AgentOptions) *Agent {
	c.t.Helper()
	c.RegisterConnectors(opts.Connectors...)
	if _, err := Try[client.Site](c, func(api *client.Client) (*http.Response, error) { return api.GetSite(c.t.Context(), site) }); err != nil {
		c.AddSite(site)
	}
	c.mu.Lock()
	c.agents++
	n := c.agents
	c.mu.Unlock()
	a := &Agent{Name: fmt.Sprintf("%s-%d", site, n), c: c, opts: opts}
	a.Data = filepath.Join(c.Dir, "agent-"+a.Name)
	token := Call[client.JoinToken](c, func(api *client.Client) (*http.Response, error) {
		return api.CreateAgentJoinToken(c.t.Context(), client.AgentJoinTokenRequest{Name: a.Name, Site: site})
	})
	id, err := agent.Enroll(c.t.Context(), a.Data, reeve.SecretString(token.Token), c.Log.logger("agent", a.Name))
	if err != nil {
		c.t.Fatal(err)
	}
	a.ID = string(id.Agent)
	c.t.Cleanup(func() { a.Stop() })
	a.Start()
	return a
}

// Start runs an agent that is not running.
func (a *Agent) Start() {
	a.c.t.Helper()
	dir, err := Connectors()
	if err != nil {
		a.c.t.Fatal(err)
	}
	var ag *agent.Agent
	a.c.Eventually("the start of "+a.Name, func() (bool, string) {
		ag, err = agent.New(agent.Config{Data: a.Data, Connectors: dir, Concurrency: a.opts.Concurrency,
			Logger: a.c.Log.logger("agent", a.Name), Crash: a.opts.Crash})
		if reeve.CodeOf(err) == "data_in_use" { // a connector that another agent of this process is starting holds the lock until it execs
			return false, err.Error()
		}
		return true, ""
	})
	if err != nil {
		a.c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	a.mu.Lock()
	a.stop, a.done, a.err = cancel, done, nil
	a.mu.Unlock()
	go func() {
		defer close(done)
		err := ag.Run(ctx)
		a.mu.Lock()
		a.err = err
		a.mu.Unlock()
	}()
}

// Restart starts the agent again, with another Crash, after Stop or Crashed.
func (a *Agent) Restart(crash func(point string) bool) {
	a.c.t.Helper()
	a.opts.Crash = crash
	a.Start()
}

// Stop stops the agent in order and waits for it.
func (a *Agent) Stop() {
	a.mu.Lock()
	stop, done := a.stop, a.done
	a.stop = nil
	a.mu.Unlock()
	if stop != nil {
		stop()
		<-done
	}
}

// Gone waits until the controllers know that the agent, stopped, is not connected: until
// then they may give it a job, whose lease must run out before another gets it.
func (a *Agent) Gone() {
	a.c.t.Helper()
	a.c.Eventually("agent "+a.Name+" is gone", func() (bool, string) {
		now := Call[client.Agent](a.c, func(api *client.Client) (*http.Response, error) { return api.GetAgent(a.c.t.Context(), a.ID) })
		return now.Connected == nil || !*now.Connected, "it is connected"
	})
}

// Crashed waits until the agent has ended by itself, as its Crash asked.
func (a *Agent) Crashed() {
	a.c.t.Helper()
	select {
	case <-a.done:
	case <-time.After(Patience):
		a.c.t.Fatalf("agent %s did not crash within %s", a.Name, Patience)
	}
	a.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !errors.Is(a.err, worker.ErrCrashed) {
		a.c.t.Errorf("agent %s ended, not by its Crash: %v", a.Name, a.err)
	}
}

// CrashAt makes the agent crash the first time it comes to the point.
func CrashAt(point string) func(string) bool {
	var mu sync.Mutex
	crashed := false
	return func(p string) bool {
		mu.Lock()
		defer mu.Unlock()
		if p != point || crashed {
			return false
		}
		crashed = true
		return true
	}
}

// Scan names the files below Dir, and the log, in which any of the canaries stands.
func (c *Cluster) Scan(canaries ...[]byte) (found []string) {
	c.t.Helper()
	look := func(name string, data []byte) {
		for i, canary := range canaries {
			if bytes.Contains(data, canary) {
				found = append(found, fmt.Sprintf("%s (form %d)", name, i))
			}
		}
	}
	look("the log", c.Log.Bytes())
	err := filepath.WalkDir(c.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path) //nolint:gosec // our own
		look(path, data)
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return found
}

// key is an idempotency key that says what it is for.
func key(what string) *string { s := "systemtest-" + what; return &s }
