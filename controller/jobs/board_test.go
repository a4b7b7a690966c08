package jobs

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/reeve"
)

func waitingCard(id string, site reeve.SiteID, class Class, since time.Duration) *card {
	return &card{id: reeve.JobID(id), site: site, class: class, connector: "ssh", notBefore: epoch.Add(since), deadline: epoch.Add(24 * time.Hour)}
}

func takerIn(site reeve.SiteID, credits int) *taker {
	return &taker{id: "agent_" + reeve.AgentID(site), site: site, connectors: map[string]bool{"ssh": true}, credits: credits}
}

func ids(cards []*card) []string {
	var out []string
	for _, c := range cards {
		out = append(out, string(c.id))
	}
	return out
}

func TestUrgentWorkGoesFirstUntilTheOtherHasAged(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		waited time.Duration
		want   []string
	}{
		{0, []string{"revoke", "checkout", "rotation", "discovery"}},
		{4*AgingStep - time.Second, []string{"revoke", "discovery", "checkout", "rotation"}},
		{4 * AgingStep, []string{"discovery", "revoke", "checkout", "rotation"}},
	} {
		b := newBoard()
		now := epoch.Add(24*time.Hour - time.Minute)
		at := now.Sub(epoch)
		b.set(waitingCard("discovery", "s", ClassDiscovery, at-c.waited), now)
		b.set(waitingCard("rotation", "s", ClassRotation, at), now)
		b.set(waitingCard("checkout", "s", ClassCheckout, at), now)
		b.set(waitingCard("revoke", "s", ClassRevoke, at), now)
		if diff := cmp.Diff(c.want, ids(b.pick(now, []*taker{takerIn("s", 9)}, 9))); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", c.waited, diff)
		}
	}
}

func TestSitesTakeTurns(t *testing.T) {
	t.Parallel()
	b := newBoard()
	for n := range 1000 {
		b.set(waitingCard(fmt.Sprintf("a%04d", n), "a", ClassRevoke, 0), epoch)
	}
	b.set(waitingCard("b1", "b", ClassDiscovery, 0), epoch)
	b.set(waitingCard("b2", "b", ClassDiscovery, 0), epoch)
	takers := []*taker{takerIn("a", 32), takerIn("b", 32)}
	if diff := cmp.Diff([]string{"a0000", "b1", "a0001"}, ids(b.pick(epoch, takers, 3))); diff != "" {
		t.Errorf("first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b2", "a0002"}, ids(b.pick(epoch, takers, 2))); diff != "" {
		t.Errorf("then the site served longer ago (-want +got):\n%s", diff)
	}
}

func TestBlockedJobsDoNotBlockThoseBehind(t *testing.T) {
	t.Parallel()
	b := newBoard()
	for n := range PerAsset + 2 {
		c := waitingCard(fmt.Sprintf("asset%02d", n), "s", ClassRevoke, 0)
		c.asset = "asset_1"
		b.set(c, epoch)
	}
	for n := range 2 {
		c := waitingCard(fmt.Sprintf("change%d", n), "s", ClassApproved, 0)
		c.account, c.mutates = "acct_1", true
		b.set(c, epoch)
	}
	b.set(waitingCard("later", "s", ClassRevoke, time.Hour), epoch)
	b.set(waitingCard("free", "s", ClassDiscovery, 0), epoch)
	got := ids(b.pick(epoch, []*taker{takerIn("s", 32)}, 64))
	var want []string
	for n := range PerAsset {
		want = append(want, fmt.Sprintf("asset%02d", n))
	}
	if diff := cmp.Diff(append(want, "change0", "free"), got); diff != "" {
		t.Fatalf("picked (-want +got):\n%s", diff)
	}
	b.remove("asset02")
	b.remove("change0")
	got = ids(b.pick(epoch.Add(time.Hour), []*taker{takerIn("s", 32)}, 64))
	if diff := cmp.Diff([]string{fmt.Sprintf("asset%02d", PerAsset), "change1", "later"}, got); diff != "" {
		t.Fatalf("after room was made (-want +got):\n%s", diff)
	}
}

func TestLeastLoadedAgentTakesTheJob(t *testing.T) {
	t.Parallel()
	b := newBoard()
	for n := range 4 {
		b.set(waitingCard(fmt.Sprintf("j%d", n), "s", ClassRevoke, 0), epoch)
	}
	one, two, other := takerIn("s", 9), takerIn("s", 9), takerIn("s", 9)
	two.id, other.id, other.connectors = "agent_2", "agent_3", map[string]bool{"mysql": true}
	got := map[reeve.AgentID]int{}
	for _, c := range b.pick(epoch, []*taker{one, two, other}, 9) {
		got[c.agent]++
	}
	if diff := cmp.Diff(map[reeve.AgentID]int{"agent_s": 2, "agent_2": 2}, got); diff != "" {
		t.Fatalf("leases per agent (-want +got):\n%s", diff)
	}
}

func TestBoardForgetsWhatIsGone(t *testing.T) {
	t.Parallel()
	b := newBoard()
	for n := range 5000 { // as of jobs that come and go for an hour
		c := waitingCard(fmt.Sprintf("j%d", n), "s", ClassRevoke, 0)
		c.account, c.asset, c.mutates = "acct_1", "asset_1", true
		b.set(c, epoch)
		b.pick(epoch, []*taker{takerIn("s", 1)}, 1)
		b.remove(c.id)
	}
	if len(b.cards)+len(b.accounts)+len(b.assets)+len(b.agents)+len(b.sites) != 0 {
		t.Fatalf("left behind: %+v", b)
	}
	if len(b.alarms) > 2048 {
		t.Fatalf("%d alarms for no card", len(b.alarms))
	}
}

// A site that floods the queue neither delays another's job nor makes a pass slow: the
// other's job is in the very next batch.
func TestFloodInOneSiteDoesNotDelayAnother(t *testing.T) {
	t.Parallel()
	b := newBoard()
	for n := range 100_000 {
		c := waitingCard(fmt.Sprintf("f%06d", n), "flood", ClassRevoke, 0)
		c.asset = "asset_1" // all but PerAsset are blocked
		b.set(c, epoch)
	}
	b.set(waitingCard("other", "calm", ClassDiscovery, time.Second), epoch)
	got := ids(b.pick(epoch.Add(time.Minute), []*taker{takerIn("flood", 32), takerIn("calm", 1)}, maxBatch))
	want := []string{"other"}
	for n := range PerAsset {
		want = append(want, fmt.Sprintf("f%06d", n))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("picked (-want +got):\n%s", diff)
	}
}
