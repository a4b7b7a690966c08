//go:build linux

package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// The machines of the lab. A network node is named after each, and "operator" is where
// requests come from.
var (
	controllers = []string{"c1", "c2", "c3"}
	sites       = []string{"dmz", "lan"}
	hosts       = []string{"web01", "web02", "app01", "app02"}
	database    = "shop"   // MariaDB
	ledger      = "ledger" // PostgreSQL
	domain      = "corp"   // Samba AD
	siteOf      = map[string]string{"web01": "dmz", "web02": "dmz", "app01": "lan", "app02": "lan", database: "lan", ledger: "dmz", domain: "lan"}
)

// servers are the targets that are no hosts. An account is made on one of them alone: each has roles of its own.
var servers = []string{database, ledger, domain}

// machines are all targets.
func machines() []string { return slices.Concat(hosts, servers) }

func agentOf(site string) string { return "agent-" + site }

// round is what happens in one round: requests and faults, each at its moment.
type round struct {
	number int
	ops    []op
	faults []fault
}

// op is one request. Which account it is about is decided when it is made: the pick-th
// of those that can take it, in the order they were asked for.
type op struct {
	kind   string // provision, rotate, disable, enable, deprovision
	at     time.Duration
	pick   uint32
	name   string   // of the account to provision
	assets []string // to provision it on
}

// fault is something that goes wrong for a while.
type fault struct {
	kind    string
	victim  string // a machine, or "leader", "follower-1", "follower-2" as the cluster is then
	other   string // the other end of a cut
	at      time.Duration
	span    time.Duration
	percent int // of packets lost
}

func (o op) String() string {
	if o.kind == "provision" {
		return fmt.Sprintf("%4dms  %s %s on %s", o.at.Milliseconds(), o.kind, o.name, strings.Join(o.assets, ","))
	}
	return fmt.Sprintf("%4dms  %s account %d", o.at.Milliseconds(), o.kind, o.pick)
}

func (f fault) String() string {
	s := f.kind + " " + f.victim
	if f.other != "" {
		s += " " + f.other
	}
	if f.percent > 0 {
		s += fmt.Sprintf(" %d%%", f.percent)
	}
	return fmt.Sprintf("%4dms  %s for %d ms", f.at.Milliseconds(), s, f.span.Milliseconds())
}

// plan computes rounds from a seed. A round depends on the seed and its number only, so
// that a run can be repeated up to the round that failed.
func plan(seed uint64, rounds int) []round {
	out := make([]round, rounds)
	for i := range out {
		r := rand.New(rand.NewPCG(seed, uint64(i+1))) //nolint:gosec // repeatable, not secret
		out[i] = newRound(r, i+1)
	}
	return out
}

// prelude is round 0: accounts for the first rounds to work on, and no fault.
func prelude() round {
	var p round
	for i := range 3 {
		p.ops = append(p.ops, op{kind: "provision", name: fmt.Sprintf("k0x%d", i), assets: hosts},
			op{kind: "provision", name: fmt.Sprintf("k0x%d", i), assets: []string{database}})
	}
	for i := range 2 {
		p.ops = append(p.ops, op{kind: "provision", name: fmt.Sprintf("k0x%d", i), assets: []string{ledger}},
			op{kind: "provision", name: fmt.Sprintf("k0x%d", i), assets: []string{domain}})
	}
	return p
}

func newRound(r *rand.Rand, number int) round {
	p := round{number: number}
	for i := range 3 + r.IntN(4) {
		p.ops = append(p.ops, newOp(r, number, i))
	}
	for range 1 + r.IntN(3) {
		f := newFault(r)
		clash := func(g fault) bool {
			return g.kind == f.kind && g.victim == f.victim || slices.Contains(onTargets, f.kind) && g.victim == f.victim ||
				slices.Contains(onNetwork, f.kind) && slices.Contains(onNetwork, g.kind) || slices.Contains(onDisks, f.kind) && slices.Contains(onDisks, g.kind)
		}
		if !slices.ContainsFunc(p.faults, clash) {
			p.faults = append(p.faults, f)
		}
	}
	return p
}

func newOp(r *rand.Rand, number, i int) op {
	o := op{at: ms(r, 0, 800), pick: r.Uint32()}
	switch n := r.IntN(100); {
	case n < 22:
		o.kind, o.name = "provision", fmt.Sprintf("k%dx%d", number, i)
		if r.IntN(3) == 0 {
			o.assets = []string{pick(r, servers)}
			break
		}
		o.assets = slices.Clone(hosts)
		r.Shuffle(len(o.assets), func(i, j int) { o.assets[i], o.assets[j] = o.assets[j], o.assets[i] })
		o.assets = o.assets[:1+r.IntN(len(hosts))]
	case n < 50:
		o.kind = "rotate"
	case n < 62:
		o.kind = "disable"
	case n < 74:
		o.kind = "enable"
	default:
		o.kind = "deprovision"
	}
	return o
}

var (
	onProcesses = []string{"kill", "kill", "pause", "stop"}
	onTargets   = []string{"crash", "hang", "full", "readonly"}
	onNetwork   = []string{"cut", "oneway", "loss"}
	onDisks     = []string{"disk-hang", "disk-full", "disk-fail"}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func ms(r *rand.Rand, from, to int) time.Duration {
	return time.Duration(from+r.IntN(to-from)) * time.Millisecond
}

func newFault(r *rand.Rand) fault {
	f := fault{at: ms(r, 0, 900), span: ms(r, 200, 1400)}
	if r.IntN(12) == 0 {
		f.span = ms(r, 3500, 4500) // longer than a lease
	}
	switch n := r.IntN(100); {
	case n < 36:
		f.kind = pick(r, onProcesses)
		f.victim = pick(r, []string{"leader", "leader", "follower-1", "follower-2", "agent-dmz", "agent-lan", "connector-dmz", "connector-lan"})
		f.span = min(f.span, longestPause)
	case n < 66:
		f.kind, f.victim = pick(r, onTargets), pick(r, machines())
		if !takes(f.kind, f.victim) {
			f.kind = "hang"
		}
	case n < 87:
		f.kind = pick(r, onNetwork)
		cutVictims(r, &f)
	default:
		f.kind, f.victim = pick(r, onDisks), pick(r, []string{"leader", "follower-1", "follower-2"})
	}
	return f
}

// takes reports whether a target can have a fault. The disks of databases and of the domain are the lab's, and a domain
// controller is never read-only.
func takes(kind, victim string) bool {
	return slices.Contains(hosts, victim) || kind != "full" && (kind != "readonly" || victim != domain)
}

// cutVictims chooses the two ends of a cut, or the machine that loses packets.
func cutVictims(r *rand.Rand, f *fault) {
	site := pick(r, sites)
	var ends []string
	switch r.IntN(3) {
	case 0:
		ends = []string{pick(r, controllers), agentOf(site)}
	case 1:
		ends = []string{agentOf(site), pick(r, machines())}
		ends[0] = agentOf(siteOf[ends[1]])
	default:
		ends = slices.Clone(controllers)
	}
	r.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
	f.victim = ends[0]
	if f.kind == "loss" {
		f.percent = 10 + r.IntN(50)
		return
	}
	f.other = ends[1]
}

func printPlan(w io.Writer, rounds []round) {
	for _, r := range rounds {
		_, _ = fmt.Fprintf(w, "round %d\n", r.number)
		for _, o := range r.ops {
			_, _ = fmt.Fprintln(w, "  ", o)
		}
		for _, f := range r.faults {
			_, _ = fmt.Fprintln(w, "  ", f)
		}
	}
}
