//go:build linux

package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// Agent is an enrolled agent, running or not. Its children are its connectors.
type Agent struct {
	*Process
	Site, Data string
}

// AgentOptions say what agent to add.
type AgentOptions struct {
	Name        string        // unique
	Site        string        // made if missing
	Node        *testlab.Node // optional: the network node it is
	Concurrency int           // jobs at a time; 0: the agent's default
}

// AddAgent makes the agent's site if there is none, enrols it, starts it, and waits until
// it is connected.
func (f *Fleet) AddAgent(ctx context.Context, o AgentOptions) (*Agent, error) {
	_, err := Call[client.Site](ctx, f, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.GetSite(ctx, o.Site)
	})
	if p, ok := errors.AsType[*ErrProblem](err); ok && p.Status == http.StatusNotFound {
		err = f.CLI(ctx, "", nil, "site", "add", o.Site)
	}
	if err != nil {
		return nil, err
	}
	var token client.JoinToken
	if err := f.CLI(ctx, "", &token, "agent", "join-token", o.Name, "--site", o.Site); err != nil {
		return nil, err
	}
	a := &Agent{Site: o.Site, Data: filepath.Join(f.opts.Dir, "agent-"+o.Name)}
	if _, err := f.run(ctx, o.Node, token.Token, "reeve-agent", "enroll", "--data", a.Data, "--token-file", "-"); err != nil {
		return nil, err
	}
	args := []string{"run", "--data", a.Data, "--connectors", f.Connectors()}
	if o.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(o.Concurrency))
	}
	a.Process = f.newProcess(o.Node, "agent-"+o.Name, f.Program("reeve-agent"), args...)
	f.Agents = append(f.Agents, a)
	if err := a.Start(); err != nil {
		return nil, err
	}
	return a, Eventually(ctx, 30*time.Second, func(ctx context.Context) error {
		return f.Connected(ctx, o.Name)
	})
}

// Connected fails unless the agent is connected to the leader.
func (f *Fleet) Connected(ctx context.Context, agent string) error {
	got, err := Call[client.Agent](ctx, f, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.GetAgent(ctx, agent)
	})
	if err == nil && (got.Connected == nil || !*got.Connected) {
		err = fmt.Errorf("agent %s is not connected", agent)
	}
	return err
}
