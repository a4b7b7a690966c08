package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// cost is the processor time that work took, by the kind of process that spent it. A rate says how fast a machine was
// that also did other things; this says what the work needed.
type cost struct {
	pids func() map[string][]int // by kind, in the order of kinds

	mu    sync.Mutex
	spent map[string]time.Duration
	items int
}

// costKinds are the kinds of processes, as they are told.
var costKinds = []string{"controllers", "agent", "connectors", "targets", "client"}

// measure does n things and adds up what they cost.
func (c *cost) measure(n int, do func() error) error {
	before := c.read()
	if err := do(); err != nil {
		return err
	}
	after := c.read()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spent == nil {
		c.spent = map[string]time.Duration{}
	}
	c.items += n
	for kind, pids := range after {
		for pid, spent := range pids {
			c.spent[kind] += spent - before[kind][pid] // one that started meanwhile has spent all of it
		}
	}
	return nil
}

// forget begins anew, after a first run that was slower than the ones that count.
func (c *cost) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spent, c.items = nil, 0
}

func (c *cost) read() map[string]map[int]time.Duration {
	all := map[string]map[int]time.Duration{}
	for kind, pids := range c.pids() {
		all[kind] = map[int]time.Duration{}
		for _, pid := range pids {
			if spent, err := processorTime(pid); err == nil { // one that has ended costs no more
				all[kind][pid] = spent
			}
		}
	}
	return all
}

// String is what one thing cost.
func (c *cost) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var parts []string
	total := 0.0
	for _, kind := range costKinds {
		ms := c.spent[kind].Seconds() * 1e3 / float64(max(c.items, 1))
		total += ms
		if c.spent[kind] > 0 {
			parts = append(parts, kind+" "+number(ms))
		}
	}
	return fmt.Sprintf("%s ms (%s)", number(total), strings.Join(parts, ", "))
}

// tick is the unit of times in /proc/PID/stat: Linux tells user space a hundredth of a second on every machine.
const tick = 10 * time.Millisecond

// processorTime is what a process and those of its children that it has waited for have spent.
func processorTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:])) // the name may hold anything
	if len(fields) < 15 {
		return 0, fmt.Errorf("process %d has no times", pid)
	}
	var sum time.Duration
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime; proc(5)
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// costs are what an account costs Reeve and the floor.
type costs struct{ reeve, floor *cost }

// costsOf are the costs of work on servers with these process ids. The floor is this program and the servers.
func (w *targets) costsOf(servers func() []int) *costs {
	own := []int{os.Getpid()}
	return &costs{
		floor: &cost{pids: func() map[string][]int { return map[string][]int{"targets": servers(), "client": own} }},
		reeve: &cost{pids: func() map[string][]int {
			var controllers, agents, connectors []int
			for _, c := range w.fleet.Controllers {
				controllers = append(controllers, c.PID())
			}
			for _, a := range w.fleet.Agents {
				agents = append(agents, a.PID())
				connectors = append(connectors, a.Children()...)
			}
			return map[string][]int{"controllers": controllers, "agent": agents, "connectors": connectors,
				"targets": slices.Clone(servers()), "client": own}
		}},
	}
}

func (c *costs) String() string {
	return "processor time of an account: " + c.reeve.String() + "; of the floor: " + c.floor.String()
}
