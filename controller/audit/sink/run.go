package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
	poll       = 500 * time.Millisecond // how late a record is looked for
	saveEvery  = 2 * time.Second        // how often a cursor is written at most
	backoff    = time.Second            // after the first failure; doubled with each
	maxBackoff = time.Minute
	sendLimit  = time.Minute // for one batch
	maxBatch   = 500         // records
	maxBytes   = 1 << 20     // bytes, if there is more than one record
)

// Config is what delivery needs. All fields are required.
type Config struct {
	Store *store.Store
	Node  string // name of this controller
	Dir   string // for files; made when it is needed
	Pulse *service.Pulse
	Log   *slog.Logger
}

// Delivery brings sinks the records they lack.
type Delivery struct {
	Config
}

// NewDelivery returns a Delivery; drive it with Run.
func NewDelivery(c Config) *Delivery { return &Delivery{c} }

// worker is the delivery to one sink.
type worker struct {
	made   uint64
	cancel context.CancelFunc
	done   chan struct{}
}

func (w *worker) stop() {
	w.cancel()
	<-w.done
}

// Run delivers until ctx ends. Only the leader runs it. Each sink has a goroutine of its
// own, so none waits for another, and nobody waits for any.
func (d *Delivery) Run(ctx context.Context) error {
	workers := map[string]*worker{}
	defer func() {
		for _, w := range workers {
			w.cancel()
		}
		for _, w := range workers {
			<-w.done
		}
	}()
	refusing := map[string]bool{} // because of these sinks
	t := time.NewTicker(poll)
	defer t.Stop()
	for {
		err := d.adjust(ctx, workers)
		if err == nil {
			err = d.alarm(ctx, refusing)
		}
		if ctx.Err() != nil {
			return nil
		}
		d.Pulse.Tick(service.AuditSinks, d.Store.Now(), err)
		if err != nil {
			d.Log.Error("the audit sinks cannot be read", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// adjust makes the workers those of the sinks there are.
func (d *Delivery) adjust(ctx context.Context, workers map[string]*worker) error {
	wanted := map[string]*Sink{}
	err := d.Store.View(ctx, func(tx *store.Tx) error {
		on, err := service.Enabled(tx, service.AuditSinks)
		if err != nil || !on {
			return err
		}
		for s, err := range sinks.List(tx, "") {
			if err != nil {
				return err
			}
			if !s.Paused {
				wanted[s.Name] = s
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for name, w := range workers {
		if s := wanted[name]; s == nil || s.Made != w.made {
			w.stop()
			delete(workers, name)
		}
	}
	for name, s := range wanted {
		if workers[name] != nil {
			continue
		}
		on, cancel := context.WithCancel(ctx)
		w := &worker{made: s.Made, cancel: cancel, done: make(chan struct{})}
		workers[name] = w
		go func() {
			defer close(w.done)
			d.serve(on, s)
			d.Log.Info("delivery to an audit sink ends", "sink", s.Name)
		}()
	}
	return nil
}

// alarm says in the log when a sink gets over its limit, and when it is within again.
func (d *Delivery) alarm(ctx context.Context, refusing map[string]bool) error {
	var late []behind
	if err := d.Store.View(ctx, func(tx *store.Tx) (err error) {
		late, err = overLimit(tx)
		return err
	}); err != nil {
		return err
	}
	now := map[string]bool{}
	for _, s := range late {
		now[s.Name] = true
		if !refusing[s.Name] {
			refusing[s.Name] = true
			d.Log.Error("an audit sink is over its limit: reveals and exports are refused", "sink", s.Name, "records", s.Records, "age", s.Age.Round(time.Second), "error", s.Error)
		}
	}
	for name := range refusing {
		if !now[name] {
			delete(refusing, name)
			d.Log.Info("the audit sink is within its limit again", "sink", name)
		}
	}
	return nil
}

// serve brings one sink its records until ctx ends.
func (d *Delivery) serve(ctx context.Context, s *Sink) {
	d.Log.Info("delivery to an audit sink begins", "sink", s.Name, "kind", s.Kind)
	p := &position{d: d, sink: s}
	out := d.sender(s)
	pause := time.Duration(0)
	for wait(ctx, pause) {
		pause = poll
		batch, err := p.next(ctx)
		if err == nil && len(batch) > 0 {
			sending, cancel := context.WithTimeout(ctx, sendLimit)
			err = out.send(sending, batch)
			cancel()
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.failed(ctx, err)
			pause = min(backoff<<min(p.failures-1, 10), maxBackoff)
			continue
		}
		if len(batch) > 0 {
			pause = 0
		}
		p.reached(ctx, batch)
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return ctx.Err() == nil
	}
}

// position is how far a worker is; what is written of it may be a little older.
type position struct {
	d        *Delivery
	sink     *Sink
	known    bool
	now      cursor
	savedAt  time.Time
	unsaved  bool
	failures int
}

// next reads the records the sink lacks, at most a batch of them.
func (p *position) next(ctx context.Context) (batch []*audit.Entry, err error) {
	err = p.d.Store.View(ctx, func(tx *store.Tx) (err error) {
		if !p.known {
			if p.now, err = readCursor(tx, p.sink.Name); err != nil {
				return err
			}
			p.known = true
		}
		batch, err = audit.List(tx, p.now.Sequence, maxBatch, audit.Filter{})
		return err
	})
	size := 0
	for i, e := range batch {
		line, err := auditchain.Encode(e)
		if err != nil {
			return nil, err
		}
		if size += len(line); size > maxBytes && i > 0 {
			return batch[:i], nil
		}
	}
	return batch, err
}

// reached notes that the sink has a batch, and writes that down every now and then.
func (p *position) reached(ctx context.Context, batch []*audit.Entry) {
	if len(batch) > 0 {
		p.now.Sequence, p.now.SentAt, p.unsaved = batch[len(batch)-1].Sequence, p.d.Store.Now(), true
	}
	healed := p.now.Error != ""
	if healed && len(batch) > 0 {
		p.d.Log.Info("the audit sink takes records again", "sink", p.sink.Name)
		p.now.Error, p.now.ErrorAt = "", time.Time{}
	}
	p.failures = 0
	if p.unsaved && (healed || time.Since(p.savedAt) >= saveEvery) {
		p.save(ctx)
	}
}

// failed notes why the sink did not take a batch. The same failure is written down once.
func (p *position) failed(ctx context.Context, err error) {
	p.failures++
	why := explain(err)
	if !p.known || p.now.Error == why {
		return
	}
	p.d.Log.Warn("an audit sink takes no records; trying on", "sink", p.sink.Name, "error", why)
	p.now.Error, p.now.ErrorAt = why, p.d.Store.Now()
	p.save(ctx)
}

// explain is an error in words that are the same each time it happens: not with the port
// of this end.
func explain(err error) string {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Addr != nil {
		err = fmt.Errorf("%s %s: %w", op.Op, op.Addr, op.Err)
	}
	why := printable(err.Error())
	return strings.ToValidUTF8(why[:min(len(why), 512)], "")
}

// save writes the position down, unless the sink is no longer the one it is of. It is no
// change that the trail records: each record would make another.
func (p *position) save(ctx context.Context) {
	p.savedAt = time.Now()
	err := p.d.Store.Update(ctx, func(tx *store.Tx) error {
		s, err := sinks.Get(tx, p.sink.Name)
		if err != nil || s.Made != p.sink.Made {
			return err
		}
		c := p.now
		return cursors.Put(tx, &c)
	})
	p.unsaved = err != nil
	if err != nil && ctx.Err() == nil && reeve.KindOf(err) != reeve.NotFound {
		p.d.Log.Warn("how far an audit sink is could not be saved; trying again", "sink", p.sink.Name, "error", err)
	}
}
