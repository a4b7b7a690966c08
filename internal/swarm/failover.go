//go:build linux

package swarm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/internal/fleet"
)

// Report is how a crowd came back after kill -9 of the leader.
type Report struct {
	Agents  int
	Led     time.Duration // until the API had a new leader
	Half    time.Duration // until half of the agents were served again
	Back    time.Duration // until all were
	Busiest int           // attempts of all agents in the busiest second, wherever to
	Tries   int           // attempts in all
	Moves   uint64        // terms that began after the new leader's: elections that the crowd caused

	Reads []time.Duration // of the API while they came back, sorted, without those begun before there was a leader

	// Processor time from the kill until all were back.
	Leader, Follower, Crowd time.Duration
}

func (r Report) String() string {
	each := func(d time.Duration) time.Duration { return (d / time.Duration(r.Agents)).Round(10 * time.Microsecond) }
	return fmt.Sprintf("%d agents: a new leader after %s, half back after %s, all after %s; %d attempts, at most %d in a second; %d further elections; "+
		"API: %d reads, median %s, p99 %s, longest %s; processor time for each agent: leader %s, follower %s, agent %s",
		r.Agents, r.Led.Round(time.Millisecond), r.Half.Round(time.Millisecond), r.Back.Round(time.Millisecond), r.Tries, r.Busiest, r.Moves,
		len(r.Reads), r.Read(0.5).Round(10*time.Microsecond), r.Read(0.99).Round(10*time.Microsecond), r.Read(1).Round(10*time.Microsecond),
		each(r.Leader), each(r.Follower), each(r.Crowd))
}

// Read is a quantile of the time in which the API answered; 0 if it never did.
func (r Report) Read(q float64) time.Duration {
	if len(r.Reads) == 0 {
		return 0
	}
	return r.Reads[int(q*float64(len(r.Reads)-1))]
}

// Failover kills the leader of three controllers to which all agents are connected, and
// reports how they come back. It fails when ctx ends before they are. reader runs [Watch].
func (s *Swarm) Failover(ctx context.Context, f *fleet.Fleet, reader *exec.Cmd) (r Report, err error) {
	lead, err := f.Leader(ctx)
	if err != nil {
		return r, err
	}
	var left []*fleet.Controller
	for _, c := range f.Controllers {
		if c != lead {
			left = append(left, c)
		}
	}
	r.Agents = s.Size()
	w, err := startWatcher(reader, f, left)
	if err != nil {
		return r, err
	}
	before := spent(left)
	killed := time.Now()
	lead.Kill()
	err = s.awaitBack(ctx, killed)
	after := spent(left)
	seen, seenErr := w.end()
	r.Busiest, r.Tries = s.Busiest(killed), s.tries(killed)
	if err = errors.Join(err, seenErr); err != nil {
		return r, err
	}
	back := s.returns(killed)
	r.Half, r.Back = back[len(back)/2], back[len(back)-1]
	var first, last sight
	for _, one := range seen {
		if one.Term == 0 || one.Leader == lead.Name {
			continue
		}
		if first.Term == 0 {
			first, r.Led = one, one.At.Sub(killed)
		}
		last = one
		r.Reads = append(r.Reads, one.Took)
	}
	slices.Sort(r.Reads)
	r.Moves = last.Term - first.Term
	for i, c := range left {
		if c.Name == last.Leader {
			r.Leader = after[i] - before[i]
		} else {
			r.Follower = after[i] - before[i]
		}
	}
	r.Crowd = after[len(left)] - before[len(left)]
	return r, nil
}

// awaitBack waits until every agent has lost its leader and found another.
func (s *Swarm) awaitBack(ctx context.Context, since time.Time) error {
	for len(s.returns(since)) < s.Size() || s.Connected() < s.Size() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d agents are back: %w", s.Connected(), s.Size(), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// spent is the processor time of each controller, and of this process, so far. A process
// that has ended has spent none.
func spent(controllers []*fleet.Controller) (all []time.Duration) {
	for _, c := range controllers {
		d, _ := ProcessorTime(c.PID())
		all = append(all, d)
	}
	own, _ := ProcessorTime(os.Getpid())
	return append(all, own)
}

// ProcessorTime is what a process has used of the processors, in user and system mode
// (/proc/PID/stat, which counts in hundredths of a second).
func ProcessorTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // after the program's name
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("process %d has no times", pid)
	}
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, err2)
}
