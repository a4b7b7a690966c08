package sdktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// printed is what a command printed.
type printed struct {
	mu       sync.Mutex
	out, err strings.Builder
	first    func() // called when something was printed
}

func (p *printed) Stdout(b []byte) { p.add(&p.out, b) }
func (p *printed) Stderr(b []byte) { p.add(&p.err, b) }

func (p *printed) add(to *strings.Builder, b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	to.Write(b)
	if p.first != nil && len(b) > 0 {
		p.first()
		p.first = nil
	}
}

func (s *suite) needCommands() error {
	if s.cfg.Commands == nil {
		return notApplicable("Config.Commands is not set")
	}
	return nil
}

func (s *suite) runs(ctx context.Context, command string, out *printed) (int, error) {
	status, err := s.client.Run(ctx, s.cfg.Target, command, out)
	s.tell("what a command printed", out.out.String()+out.err.String())
	s.tellError("an error of Run", err)
	return status, err
}

func runSpeaks(ctx context.Context, s *suite) error {
	if err := s.needCommands(); err != nil {
		return err
	}
	var p printed
	c := s.cfg.Commands
	status, err := s.runs(ctx, c.Speak, &p)
	if err != nil {
		return err
	}
	out, errOut := strings.TrimSpace(p.out.String()), strings.TrimSpace(p.err.String())
	if status != c.Status || out != c.Stdout || errOut != c.Stderr {
		return fmt.Errorf("it ended with %d, printed %q and %q; want %d, %q and %q", status, out, errOut, c.Status, c.Stdout, c.Stderr)
	}
	return nil
}

// runStreams sees output before a command has ended, and ends it.
func runStreams(ctx context.Context, s *suite) error {
	if err := s.needCommands(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var seen time.Time
	p := printed{first: func() { seen = time.Now(); cancel() }}
	began := time.Now()
	_, err := s.runs(ctx, s.cfg.Commands.Pause, &p)
	switch {
	case seen.IsZero():
		return errors.Join(errors.New("the command printed nothing"), err)
	case seen.Sub(began) > 10*time.Second:
		return fmt.Errorf("what the command printed first came after %s", seen.Sub(began))
	case time.Since(seen) > obeyWithin:
		return fmt.Errorf("run did not end within %s of its cancellation", obeyWithin)
	default:
		return wantClass("run that was cancelled", err, sdk.ClassUnknownOutcome, sdk.ClassCancelled)
	}
}

func runLarge(ctx context.Context, s *suite) error {
	if err := s.needCommands(); err != nil {
		return err
	}
	var p printed
	status, err := s.runs(ctx, s.cfg.Commands.Large, &p)
	if err != nil {
		return err
	}
	out := strings.TrimSpace(p.out.String())
	if status != 0 || len(out) < 200_000 || !strings.HasSuffix(out, s.cfg.Commands.LargeEnd) {
		return fmt.Errorf("it ended with %d and printed %d bytes, ending in %q", status, len(out), out[max(0, len(out)-20):])
	}
	return nil
}

// runCut loses the connection of a command at work.
func runCut(ctx context.Context, s *suite) error {
	if err := s.needCommands(); err != nil {
		return err
	}
	p, there, err := newProxy(ctx, s.cfg.Target, whole, 0)
	if err != nil {
		return err
	}
	defer p.close()
	out := printed{first: func() { go p.close() }}
	_, err = s.client.Run(ctx, there, s.cfg.Commands.Pause, &out)
	s.tellError("an error of Run", err)
	return wantClass("run over a connection that is cut", err, sdk.ClassUnknownOutcome)
}
