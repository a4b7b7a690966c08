package jobs

import (
	"cmp"
	"container/heap"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// card is what the leader remembers of a job that is not final.
type card struct {
	id        reeve.JobID
	site      reeve.SiteID
	asset     reeve.AssetID
	account   reeve.AccountID
	connector string
	class     Class
	mutates   bool

	place     place
	notBefore time.Time
	deadline  time.Time
	agent     reeve.AgentID
	fence     uint64
	until     time.Time // end of the lease, by this leader's clock
	cancel    bool

	armed time.Time // of its earliest alarm; zero: none
}

// place is where a card lies on the board.
type place uint8

const (
	waiting     place = iota // in a lane
	granting                 // its grant is being committed
	atWork                   // leased
	quarantined              // keeps its account
)

func cardOf(j *Job) *card {
	c := &card{id: j.ID, site: j.SiteID, asset: j.AssetID, account: j.AccountID, connector: j.Connector,
		class: j.Class, mutates: j.Mutates, notBefore: j.NotBefore, deadline: j.Deadline, cancel: j.CancelRequested}
	switch {
	case j.State == StateLeased:
		c.place, c.agent, c.fence, c.until = atWork, j.Lease.Agent, j.Lease.Fence, j.Lease.Until
	case j.Quarantined:
		c.place = quarantined
	}
	return c
}

// waiting is the card as it was before it was picked.
func (c *card) waiting() *card {
	w := *c
	w.place, w.agent, w.armed = waiting, "", time.Time{}
	return &w
}

// due is when the board must look at the card again.
func (c *card) due(now time.Time) time.Time {
	switch {
	case c.place == atWork:
		return c.until
	case c.place == quarantined, c.notBefore.After(now):
		return c.notBefore
	default:
		return c.deadline
	}
}

// urgency is the class of the card after aging; lower is served first.
func (c *card) urgency(now time.Time) int {
	return int(c.class) - int(now.Sub(c.notBefore)/AgingStep)
}

// lane holds the waiting cards of one class in one site, oldest first.
type lane []*card

func (c *card) compare(o *card) int {
	return cmp.Or(c.notBefore.Compare(o.notBefore), cmp.Compare(c.id, o.id))
}

type lanes [ClassDiscovery + 1]lane

type alarm struct {
	at time.Time
	id reeve.JobID
}

type alarms []alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].at.Before(a[j].at) }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *alarms) Push(x any)        { *a = append(*a, x.(alarm)) } //nolint:forcetypeassert // heap.Push below is the only caller
func (a *alarms) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// holders counts who is at work on an account.
type holders struct{ readers, writers int }

// board is the leader's picture of all jobs that are not final: who waits in which
// order, what is occupied, and when something is due. It follows the store and can be
// rebuilt from it at any time; nothing is decided by it alone.
type board struct {
	cards    map[reeve.JobID]*card
	waiting  map[reeve.SiteID]*lanes
	accounts map[reeve.AccountID]holders
	assets   map[reeve.AssetID]int
	agents   map[reeve.AgentID]int
	sites    map[reeve.SiteID]int
	served   map[reeve.SiteID]uint64 // when a site was last given a turn
	turn     uint64
	alarms   alarms
}

func newBoard() *board {
	return &board{cards: map[reeve.JobID]*card{}, waiting: map[reeve.SiteID]*lanes{},
		accounts: map[reeve.AccountID]holders{}, assets: map[reeve.AssetID]int{}, agents: map[reeve.AgentID]int{},
		sites: map[reeve.SiteID]int{}, served: map[reeve.SiteID]uint64{}}
}

// set puts a card on the board, in the place of the job's earlier one.
func (b *board) set(c *card, now time.Time) {
	b.remove(c.id)
	b.cards[c.id] = c
	if c.place == waiting {
		b.enter(c)
	} else {
		b.occupy(c, +1)
	}
	b.arm(c, now)
}

func (b *board) remove(id reeve.JobID) {
	c, ok := b.cards[id]
	if !ok {
		return
	}
	delete(b.cards, id)
	if c.place == waiting {
		b.leave(c)
	} else {
		b.occupy(c, -1)
	}
}

func (b *board) enter(c *card) {
	l := b.waiting[c.site]
	if l == nil {
		l = new(lanes)
		b.waiting[c.site] = l
	}
	i, _ := slices.BinarySearchFunc(l[c.class], c, (*card).compare)
	l[c.class] = slices.Insert(l[c.class], i, c)
}

func (b *board) leave(c *card) {
	l := b.waiting[c.site]
	if i, ok := slices.BinarySearchFunc(l[c.class], c, (*card).compare); ok {
		l[c.class] = slices.Delete(l[c.class], i, i+1)
	}
}

// occupy adds or takes away (by = -1) what a card at work or in quarantine occupies.
func (b *board) occupy(c *card, by int) {
	if c.account != "" {
		h := b.accounts[c.account]
		if c.mutates {
			h.writers += by
		} else {
			h.readers += by
		}
		setOrDelete(b.accounts, c.account, h)
	}
	if c.asset != "" {
		setOrDelete(b.assets, c.asset, b.assets[c.asset]+by)
	}
	if c.place != quarantined {
		setOrDelete(b.agents, c.agent, b.agents[c.agent]+by)
		setOrDelete(b.sites, c.site, b.sites[c.site]+by)
	}
}

func setOrDelete[K, V comparable](m map[K]V, k K, v V) {
	var zero V
	if v == zero {
		delete(m, k)
		return
	}
	m[k] = v
}

// fits reports whether the card's account, asset and site have room.
func (b *board) fits(c *card) bool {
	h := b.accounts[c.account]
	return h.writers == 0 && (h.readers == 0 || !c.mutates) &&
		(c.asset == "" || b.assets[c.asset] < PerAsset) && b.sites[c.site] < PerSite
}

func (b *board) arm(c *card, now time.Time) {
	if c.place != granting {
		b.ringAt(c, c.due(now))
	}
}

// ringAt sets the card's alarm, unless it has an earlier one or has left the board.
func (b *board) ringAt(c *card, at time.Time) {
	if b.cards[c.id] != c || !c.armed.IsZero() && !at.Before(c.armed) {
		return
	}
	c.armed = at
	heap.Push(&b.alarms, alarm{at: at, id: c.id})
	if len(b.alarms) > 2*len(b.cards)+1024 { // mostly those of earlier cards
		b.alarms = slices.DeleteFunc(b.alarms, func(a alarm) bool {
			live := b.cards[a.id]
			return live == nil || !live.armed.Equal(a.at)
		})
		heap.Init(&b.alarms)
	}
}

// rings takes the cards whose time has come off the alarms. Renewed leases are armed
// again, so that a renewal costs nothing.
func (b *board) rings(now time.Time) []*card {
	var due []*card
	for len(b.alarms) > 0 && !b.alarms[0].at.After(now) {
		a := heap.Pop(&b.alarms).(alarm) //nolint:forcetypeassert // only alarms are pushed
		c, ok := b.cards[a.id]
		if !ok || !c.armed.Equal(a.at) {
			continue // of an earlier card
		}
		c.armed = time.Time{}
		if at := c.due(now); at.After(now) {
			b.arm(c, now)
			continue
		}
		if c.place != granting {
			due = append(due, c)
		}
	}
	return due
}

// next is when rings will have something, if ever.
func (b *board) next() (time.Time, bool) {
	if len(b.alarms) == 0 {
		return time.Time{}, false
	}
	return b.alarms[0].at, true
}
