package jobs

import (
	"cmp"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// taker is an agent that is connected and wants work.
type taker struct {
	id         reeve.AgentID
	site       reeve.SiteID
	connectors map[string]bool
	credits    int
}

// pick chooses at most limit waiting cards and an agent for each, and moves them to
// granting. Sites take turns, the one served longest ago first; within a site the most
// urgent card after aging goes first, then the one that waited longest; among the
// agents that have its connector and credits, the one with the fewest leases takes it.
func (b *board) pick(now time.Time, takers []*taker, limit int) []*card {
	bySite := map[reeve.SiteID][]*taker{}
	var turns []reeve.SiteID
	for _, t := range takers {
		if t.credits <= 0 || b.waiting[t.site] == nil {
			continue
		}
		if bySite[t.site] == nil {
			turns = append(turns, t.site)
		}
		bySite[t.site] = append(bySite[t.site], t)
	}
	slices.SortFunc(turns, func(x, y reeve.SiteID) int {
		return cmp.Or(cmp.Compare(b.served[x], b.served[y]), cmp.Compare(x, y))
	})
	var picked []*card
	positions := map[reeve.SiteID]*[ClassDiscovery + 1]int{}
	for _, s := range turns {
		positions[s] = new([ClassDiscovery + 1]int)
	}
	for len(turns) > 0 && len(picked) < limit {
		turns = slices.DeleteFunc(turns, func(s reeve.SiteID) bool {
			if len(picked) == limit {
				return false
			}
			c := b.pickIn(b.waiting[s], positions[s], bySite[s], now)
			if c == nil {
				return true
			}
			b.turn++
			b.served[s] = b.turn
			picked = append(picked, c)
			return false
		})
	}
	return picked
}

// pickIn goes on through one site's lanes from pos, which says how many cards of each
// lane have been looked at in this pass.
func (b *board) pickIn(l *lanes, pos *[ClassDiscovery + 1]int, takers []*taker, now time.Time) *card {
	for {
		var best *card
		for class, at := range pos {
			if at == len(l[class]) || l[class][at].notBefore.After(now) {
				continue
			}
			if c := l[class][at]; best == nil || less(c, best, now) {
				best = c
			}
		}
		if best == nil {
			return nil
		}
		if !best.cancel && now.Before(best.deadline) && b.fits(best) {
			if t := b.agentFor(best, takers); t != nil {
				b.leave(best)
				t.credits--
				best.place, best.agent = granting, t.id
				b.occupy(best, +1)
				return best
			}
		}
		pos[best.class]++
	}
}

func less(x, y *card, now time.Time) bool {
	return cmp.Or(cmp.Compare(x.urgency(now), y.urgency(now)), x.notBefore.Compare(y.notBefore), cmp.Compare(x.id, y.id)) < 0
}

func (b *board) agentFor(c *card, takers []*taker) *taker {
	var best *taker
	for _, t := range takers {
		if t.credits <= 0 || b.agents[t.id] >= PerAgent || !t.connectors[c.connector] {
			continue
		}
		if best == nil || b.agents[t.id] < b.agents[best.id] {
			best = t
		}
	}
	return best
}
