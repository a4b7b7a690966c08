//go:build linux

package swarm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
)

// readEvery is how long a watcher rests between two reads of the API.
const readEvery = 20 * time.Millisecond

// sight is one read of the API.
type sight struct {
	At     time.Time // when it was answered
	Took   time.Duration
	Leader string // by name
	Term   uint64 // the leader's; 0 if it was not to be had
}

// watched is what a watcher must know of a fleet.
type watched struct {
	Dir         string
	Controllers []struct{ Name, API string }
}

// Watch reads from the API of a fleet over and over, as a person at the console does, until
// in ends, and writes what it saw to out. It is the work of a process of its own: within the
// crowd's it would wait for the crowd. Which fleet, it is told on in.
func Watch(in io.Reader, out io.Writer) error {
	var what watched
	d := json.NewDecoder(in)
	if err := d.Decode(&what); err != nil {
		return err
	}
	f, err := fleet.New(fleet.Options{Dir: what.Dir})
	if err != nil {
		return err
	}
	for _, c := range what.Controllers {
		f.Controllers = append(f.Controllers, &fleet.Controller{Process: &fleet.Process{Name: c.Name}, API: c.API})
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	to := json.NewEncoder(out)
	for ctx.Err() == nil {
		if one, ok := look(ctx, f); ok {
			if err := to.Encode(one); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(readEvery):
		}
	}
	return nil
}

func look(ctx context.Context, f *fleet.Fleet) (one sight, ok bool) {
	began := time.Now()
	m, err := fleet.Call[client.Cluster](ctx, f, func(ctx context.Context, api *client.Client) (*http.Response, error) {
		return api.GetCluster(ctx)
	})
	if err != nil {
		return one, false
	}
	one.At, one.Took = time.Now(), time.Since(began)
	for _, member := range m.Members {
		if !member.Leader {
			continue
		}
		one.Leader = member.Name
		for _, c := range f.Controllers {
			if c.Name == member.Name {
				one.Term, _ = f.Term(ctx, c)
			}
		}
	}
	return one, true
}

// watcher is a process that runs Watch.
type watcher struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   bytes.Buffer
}

func startWatcher(cmd *exec.Cmd, f *fleet.Fleet, controllers []*fleet.Controller) (*watcher, error) {
	w := &watcher{cmd: cmd}
	cmd.Stdout, cmd.Stderr = &w.out, os.Stderr
	var err error
	if w.stdin, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	what := watched{Dir: f.Dir()}
	for _, c := range controllers {
		what.Controllers = append(what.Controllers, struct{ Name, API string }{c.Name, c.API})
	}
	if err := json.NewEncoder(w.stdin).Encode(what); err != nil {
		return nil, errors.Join(err, w.stdin.Close(), cmd.Wait())
	}
	return w, nil
}

// end ends the process and returns what it has seen.
func (w *watcher) end() (seen []sight, err error) {
	if err := errors.Join(w.stdin.Close(), w.cmd.Wait()); err != nil {
		return nil, fmt.Errorf("the watcher failed: %w", err)
	}
	d := json.NewDecoder(&w.out)
	for {
		var one sight
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return seen, nil
		} else if err != nil {
			return nil, err
		}
		seen = append(seen, one)
	}
}
