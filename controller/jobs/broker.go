package jobs

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/envelope"
	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// BrokerConfig is what a Broker works with. All fields but Seal, Redactor, Rand and Terms are needed.
type BrokerConfig struct {
	Store   *store.Store
	Vault   *vault.Vault
	Cluster string // name secrets are bound to, as in internal/envelope
	// Handlers take the results of jobs.
	Handlers Handlers
	// ConnectorDigests gives the SHA-256 digests (hex) under which a connector may run.
	ConnectorDigests func(tx *store.Tx, connector string) ([]string, error)
	// AgentKey gives the current HPKE public key of an agent of the site; an error when
	// it is not active there.
	AgentKey func(tx *store.Tx, site reeve.SiteID, agent reeve.AgentID) ([]byte, error)
	Pulse    *service.Pulse // nil: nobody asks
	Logger   *slog.Logger
	Registry prometheus.Registerer // nil: no metrics
	// Seal seals one secret to an agent's key. Nil: envelope.Seal.
	Seal func(key []byte, b envelope.Binding, r envelope.Ref, s reeve.Secret) (enc, ciphertext []byte, err error)
	// Redactor makes what takes a job's secrets out of a log that an agent has redacted
	// already. Nil: redact.New.
	Redactor func(secrets ...reeve.Secret) *redact.Redactor
	// Rand gives the jitter of backoff, in [0,1); default math/rand.
	Rand func() float64
	// Terms are for tests of whole clusters; the zero value stands for the limits of the
	// queue, which are right for everything else.
	Terms Terms
}

// Broker hands out jobs, keeps leases, and takes outcomes and logs. One Broker serves
// a node for its whole life; it hands out jobs only while Run runs, on the leader.
type Broker struct {
	store    *store.Store
	vault    *vault.Vault
	handlers Handlers
	cfg      BrokerConfig
	log      *slog.Logger

	metrics *metrics

	wake chan struct{} // buffered: something changed for the loop

	revision uint64 // what the board is up to date with; for Round alone

	mu    sync.Mutex
	board *board // nil unless leading
	pulls map[reeve.AgentID]*Pull
	// unsent are granted jobs whose stream ended before it took them.
	unsent []grant
}

// New makes a Broker.
func New(cfg BrokerConfig) *Broker {
	if cfg.Rand == nil {
		cfg.Rand = rand.Float64
	}
	if cfg.Seal == nil {
		cfg.Seal = sealTo
	}
	if cfg.Redactor == nil {
		cfg.Redactor = redact.New
	}
	if cfg.Terms == (Terms{}) {
		cfg.Terms = defaultTerms
	}
	b := &Broker{store: cfg.Store, vault: cfg.Vault, handlers: cfg.Handlers, cfg: cfg, log: cfg.Logger,
		wake: make(chan struct{}, 1), pulls: map[reeve.AgentID]*Pull{}}
	b.metrics = newMetrics(cfg.Registry, b)
	return b
}

var errNotLeader = reeve.Errorf(reeve.Unavailable, "not_leader", "this controller is not the leader").
	WithFix("call the leader")

// pruneEvery is how often finished jobs beyond Retention are looked for.
const pruneEvery = time.Hour

// maxBatch is how many grants share one transaction: enough to spread the cost of a
// commit, few enough to keep the store's lock short.
const maxBatch = 64

// Run is the leader's loop. It begins with giving every lease a full term, however old
// it is: the agents could not renew while nobody led. While the node is sealed it waits.
// It returns nil when ctx ends, after closing all pulls; it may then be run again.
func (b *Broker) Run(ctx context.Context) error {
	changed, stop := b.store.Watch("job")
	defer stop()
	defer b.StepDown()
	prune := time.NewTicker(pruneEvery)
	defer prune.Stop()
	again := time.NewTimer(0)
	defer again.Stop()
	failing := false
	for {
		next, err := b.Round(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // told to stop
		}
		b.cfg.Pulse.Tick(service.Jobs, b.store.Now(), err)
		switch {
		case err == nil:
			again.Reset(min(next, showAlive))
		case !failing:
			// Sealed, or a commit in doubt: nothing was handed out, and the store is right.
			b.log.Warn("job broker waits", "error", err)
			fallthrough
		default:
			again.Reset(retryAfter)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-b.wake:
		case <-again.C:
		case <-prune.C:
			if err := b.prune(ctx); err != nil {
				b.cfg.Pulse.Tick(service.Jobs, b.store.Now(), err)
				b.log.Warn("finished jobs were not pruned", "error", err)
			}
		}
	}
}

// showAlive is how long the loop sleeps at most, so that its last tick is never old.
const showAlive = 10 * time.Second

// retryAfter is how long the loop waits after a failure.
const retryAfter = time.Second

// Round brings the board up to date, the first time from nothing, and does what can be
// done. It returns when there will be more to do if nothing changes meanwhile. It is what
// Run calls, and internal/simulation in its place.
func (b *Broker) Round(ctx context.Context) (next time.Duration, err error) {
	if err := b.round(ctx); err != nil {
		return retryAfter, err
	}
	return b.untilNext(), nil
}

func (b *Broker) round(ctx context.Context) (err error) {
	b.mu.Lock()
	leading := b.board != nil
	b.mu.Unlock()
	if !leading {
		board, upTo, err := b.load(ctx)
		if err != nil {
			return err
		}
		b.revision = upTo
		b.mu.Lock()
		b.board = board
		b.mu.Unlock()
	}
	if b.revision, err = b.follow(ctx, b.revision); err != nil {
		return err
	}
	return b.work(ctx)
}

// load builds the board from the store. Leases get a full term from now.
func (b *Broker) load(ctx context.Context) (*board, uint64, error) {
	board, now, revision := newBoard(), b.store.Now(), uint64(0)
	err := b.store.View(ctx, func(tx *store.Tx) error {
		revision = tx.Revision()
		for _, state := range []State{StateQueued, StateLeased} {
			for j, err := range table.Scan(tx, "state", store.Range{Prefix: []string{string(state)}}) {
				if err != nil {
					return err
				}
				c := cardOf(j)
				if c.place == atWork {
					c.until = earlier(now.Add(b.cfg.Terms.Lease), c.deadline)
				}
				board.set(c, now)
			}
		}
		return nil
	})
	return board, revision, err
}

// follow brings the board up to date with what was committed after revision.
func (b *Broker) follow(ctx context.Context, revision uint64) (uint64, error) {
	var changed []*Job
	upTo := revision
	err := b.store.View(ctx, func(tx *store.Tx) error {
		upTo = tx.Revision()
		for j, err := range table.Scan(tx, "changed", store.Range{From: revisionPart(revision + 1)}) {
			if err != nil {
				return err
			}
			changed = append(changed, j)
		}
		return nil
	})
	if err != nil {
		return revision, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.store.Now()
	for _, j := range changed {
		b.put(j, now)
	}
	return upTo, nil
}

// put shows a job on the board as the store has it. b.mu is held.
func (b *Broker) put(j *Job, now time.Time) {
	if j.State.Final() {
		b.board.remove(j.ID)
		return
	}
	c := cardOf(j)
	if old := b.board.cards[c.id]; c.place == atWork {
		if old != nil && old.place == atWork && old.fence == c.fence {
			c.until = old.until
		}
		if c.cancel && (old == nil || !old.cancel) {
			if p := b.pulls[c.agent]; p != nil {
				p.cancel(c.id, c.fence)
			}
		}
	}
	b.board.set(c, now)
}

// work does all that can be done now.
func (b *Broker) work(ctx context.Context) error {
	for {
		b.mu.Lock()
		now := b.store.Now()
		due := b.board.rings(now)
		unsent := b.unsent
		b.unsent = nil
		takers := make([]*taker, 0, len(b.pulls))
		for _, p := range b.pulls {
			takers = append(takers, p.taker())
		}
		b.shuffle(takers)
		picked := b.board.pick(now, takers, maxBatch)
		b.mu.Unlock()

		if err := b.giveBack(ctx, unsent); err != nil {
			b.undo(picked, due)
			return err
		}
		if err := b.expire(ctx, due); err != nil {
			b.undo(picked, due)
			return err
		}
		if err := b.grant(ctx, picked); err != nil {
			b.undo(picked, nil)
			return err
		}
		if len(picked) < maxBatch {
			return nil
		}
	}
}

// shuffle puts agents that are equally free into an order that depends on Rand alone.
func (b *Broker) shuffle(takers []*taker) {
	slices.SortFunc(takers, func(x, y *taker) int { return cmp.Compare(x.id, y.id) })
	for i := len(takers) - 1; i > 0; i-- {
		j := int(b.cfg.Rand() * float64(i+1))
		takers[i], takers[j] = takers[j], takers[i]
	}
}

// undo puts cards back whose transaction failed: picked ones wait again, due ones ring
// again.
func (b *Broker) undo(picked, due []*card) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.store.Now()
	for _, c := range picked {
		b.replace(c, now)
	}
	for _, c := range due {
		b.board.ringAt(c, now.Add(lookAgain))
	}
}

// replace puts a card that was picked back among the waiting ones. b.mu is held.
func (b *Broker) replace(c *card, now time.Time) {
	if b.board.cards[c.id] != c || c.place != granting {
		return
	}
	b.board.remove(c.id)
	b.board.set(c.waiting(), now)
}

// lookAgain is when a card is looked at again about which the store did not agree with
// the board: one of them is a moment behind, or its agent is being banned.
const lookAgain = 50 * time.Millisecond

func (b *Broker) untilNext() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.unsent) > 0 {
		return 0 // given to it since work looked
	}
	if at, ok := b.board.next(); ok {
		return max(0, at.Sub(b.store.Now()))
	}
	return pruneEvery
}

func (b *Broker) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// StepDown is the end of leading: all pulls are closed. Run calls it when it ends.
func (b *Broker) StepDown() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.board, b.unsent = nil, nil
	for _, p := range b.pulls {
		p.closeWith(errNotLeader)
	}
	clear(b.pulls)
}
