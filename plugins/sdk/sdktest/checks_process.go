package sdktest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// endurance is what a program held after few and after many operations.
type endurance struct {
	err                   error
	routines, descriptors [2]int // -1: cannot be seen
	children, files       []string
}

// How many rounds of operations make few and many, and what may come by chance.
const (
	fewRounds, manyRounds = 1, 6
	chance                = 4
)

// endure lets programs do rounds of operations, good ones and bad ones, and looks at
// them from outside. It does so once for all checks that ask.
func (s *suite) endure(ctx context.Context) (*endurance, error) {
	if err := s.needBinary(); err != nil {
		return nil, err
	}
	if s.endured == nil {
		s.endured = &endurance{}
		for i, rounds := range []int{fewRounds, manyRounds} {
			if err := s.live(ctx, i, rounds); err != nil {
				s.endured.err = err
				break
			}
		}
	}
	return s.endured, s.endured.err
}

func (s *suite) live(ctx context.Context, i, rounds int) error {
	p, err := s.launch()
	if err != nil {
		return err
	}
	defer p.stop()
	a, err := s.provisioned(ctx)
	if err != nil {
		return err
	}
	nobody, err := closedPort(ctx, s.cfg.Target)
	if err != nil {
		return err
	}
	for range rounds {
		if err := s.round(ctx, p, a, nobody); err != nil {
			return err
		}
	}
	time.Sleep(500 * time.Millisecond) // what ends by itself may end
	e := s.endured
	proc := filepath.Join("/proc", strconv.Itoa(p.process.Pid))
	e.descriptors[i] = -1
	if open, err := os.ReadDir(filepath.Join(proc, "fd")); err == nil {
		e.descriptors[i] = len(open)
	}
	e.children = append(e.children, childrenOf(p.process.Pid)...)
	left, err := os.ReadDir(p.dir)
	if err != nil {
		return err
	}
	for _, f := range left {
		e.files = append(e.files, f.Name())
	}
	e.routines[i] = s.routines(p)
	return nil
}

// round is operations that succeed, are refused, meet nobody and are cancelled.
func (s *suite) round(ctx context.Context, p *program, a *account, nobody sdk.Target) error {
	t := s.cfg.Target
	wrong := t
	wrong.Management = sdk.Credential{Username: t.Management.Username, Password: s.password()}
	next := s.password()
	in := s.intent(sdk.Rotate, a)
	plan, err := p.client.Plan(ctx, t, in)
	if err != nil {
		return err
	}
	if _, err := s.applyWith(ctx, p, t, sdk.Change{Intent: in, Plan: plan, Password: next}, func(sdk.Event) {}); err != nil {
		return err
	}
	a.password = next
	if s.has(sdk.PowerProbe) {
		if _, err := p.client.Probe(ctx, t); err != nil {
			return err
		}
		_, _ = p.client.Probe(ctx, wrong)
		_, _ = p.client.Probe(ctx, nobody)
		soon, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		_, _ = p.client.Probe(soon, t)
		cancel()
	}
	if s.has(sdk.PowerVerify) {
		_, _ = p.client.Verify(ctx, t, sdk.Credential{Username: a.name, Password: a.password})
		_, _ = p.client.Verify(ctx, t, sdk.Credential{Username: a.name, Password: s.password()})
	}
	if s.has(sdk.PowerInspect) {
		_, err = p.client.Inspect(ctx, t, a.name)
	}
	return err
}

// routines makes a program of Go print what its goroutines do, which ends it, and
// counts them. -1: it is no such program.
func (s *suite) routines(p *program) int {
	s.mu.Lock()
	from := s.log.Len()
	s.mu.Unlock()
	if err := p.process.Signal(syscall.SIGQUIT); err != nil {
		return -1
	}
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		s.mu.Lock()
		said := s.log.String()[from:]
		s.mu.Unlock()
		if strings.Contains(said, "\nrax ") || strings.Contains(said, "\nr0 ") || strings.Contains(said, "rax    0x") { // registers come last
			return strings.Count(said, "\ngoroutine ")
		}
	}
	return -1
}

// childrenOf lists the commands of a process's children.
func childrenOf(pid int) []string {
	var all []string
	processes, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range processes {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// pid (comm) state ppid …; comm may hold anything.
		text := string(stat)
		end := strings.LastIndexByte(text, ')')
		if end < 0 {
			continue
		}
		if f := strings.Fields(text[end+1:]); len(f) > 1 && f[1] == strconv.Itoa(pid) {
			all = append(all, text[strings.IndexByte(text, '(')+1:end])
		}
	}
	return all
}

func grown(what string, held [2]int) error {
	switch {
	case held[0] < 0 || held[1] < 0:
		return notApplicable(what + " of the program cannot be counted from outside")
	case held[1] > held[0]+chance:
		return fmt.Errorf("%d %s after %d rounds of operations, %d after %d", held[0], what, fewRounds, held[1], manyRounds)
	default:
		return nil
	}
}

func leaksRoutines(ctx context.Context, s *suite) error {
	e, err := s.endure(ctx)
	if err != nil {
		return err
	}
	return grown("goroutines", e.routines)
}

func leaksDescriptors(ctx context.Context, s *suite) error {
	e, err := s.endure(ctx)
	if err != nil {
		return err
	}
	return grown("file descriptors", e.descriptors)
}

func leaksProcesses(ctx context.Context, s *suite) error {
	e, err := s.endure(ctx)
	if err == nil && len(e.children) > 0 {
		err = fmt.Errorf("processes are left: %s", strings.Join(e.children, ", "))
	}
	return err
}

func leaksFiles(ctx context.Context, s *suite) error {
	e, err := s.endure(ctx)
	if err == nil && len(e.files) > 0 {
		err = fmt.Errorf("files are left: %s", strings.Join(e.files, ", "))
	}
	return err
}
