//go:build linux

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func text(rounds []round) string {
	var b strings.Builder
	printPlan(&b, rounds)
	return b.String()
}

func TestSameSeedSamePlan(t *testing.T) {
	t.Parallel()
	long := plan(7, 50)
	if diff := cmp.Diff(text(long), text(plan(7, 50))); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(text(long[:20]), text(plan(7, 20))); diff != "" {
		t.Errorf("a shorter run is not the beginning of a longer one:\n%s", diff)
	}
	if text(long) == text(plan(8, 50)) {
		t.Error("another seed gives the same plan")
	}
}

// A plan has what the issue asks for, and nothing that would make a check unsound.
func TestAPlanHasEveryFaultAndKeepsItsLimits(t *testing.T) {
	t.Parallel()
	met := map[string]bool{}
	for _, r := range plan(1, 500) {
		network, disks := 0, 0
		if len(r.ops) < 3 || len(r.faults) < 1 || len(r.faults) > 3 {
			t.Errorf("round %d has %d requests and %d faults", r.number, len(r.ops), len(r.faults))
		}
		for _, o := range r.ops {
			met[o.kind] = true
			if (o.kind == "provision") != (len(o.assets) > 0) || slices.ContainsFunc(o.assets, func(a string) bool { return slices.Contains(servers, a) }) && len(o.assets) > 1 {
				t.Errorf("round %d: %v", r.number, o)
			}
		}
		for _, f := range r.faults {
			victim := strings.TrimRight(f.victim, "-12")
			for _, kind := range []string{"connector", "agent"} {
				if strings.HasPrefix(f.victim, kind) {
					victim = kind
				}
			}
			met[f.kind], met[f.kind+" "+victim] = true, true
			if slices.Contains(onTargets, f.kind) && !takes(f.kind, f.victim) {
				t.Errorf("round %d: %v", r.number, f)
			}
			if f.span > longestPause || f.span <= 0 || f.at >= time.Second {
				t.Errorf("round %d: %v", r.number, f)
			}
			if slices.Contains(onNetwork, f.kind) {
				network++
			}
			if slices.Contains(onDisks, f.kind) {
				disks++
			}
		}
		if network > 1 || disks > 1 { // undoing one would undo the other
			t.Errorf("round %d has %d network and %d disk faults", r.number, network, disks)
		}
	}
	for _, want := range []string{"provision", "rotate", "disable", "enable", "deprovision",
		"kill leader", "kill follower", "kill agent", "kill connector", "pause leader", "pause follower", "pause agent", "pause connector", "stop leader", "stop follower", "stop agent",
		"crash", "hang", "full", "readonly", "crash shop", "hang shop", "readonly shop", "crash ledger", "hang ledger", "readonly ledger", "crash corp", "hang corp", "cut", "oneway", "loss", "disk-hang", "disk-full", "disk-fail"} {
		if !met[want] {
			t.Errorf("500 rounds have no %q", want)
		}
	}
}
