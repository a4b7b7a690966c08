package sink

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// probeLimit is how long a sink may take for a test record.
const probeLimit = 20 * time.Second

// RecordTest records that somebody tests a sink, and returns it: NotFound
// "audit_sink_not_found". Probe it when that has been committed.
func RecordTest(tx *store.Tx, by audit.Actor, name string) (*Sink, error) {
	s, err := sinks.Get(tx, name)
	if err != nil {
		return nil, err
	}
	return s, audit.Record(tx, audit.Event{By: by, Action: "audit_sink.test", Object: name, Details: map[string]string{"to": s.To()}})
}

// Probe sends a sink, also one that is paused, a record that is not of the trail: it has the
// sequence number 0. A file sink gets it in a file beside its own, which then goes away.
// Upstream "audit_sink_failed" says why the sink did not take it. It must not be called in
// a transaction.
func (d *Delivery) Probe(ctx context.Context, s *Sink, by audit.Actor) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	hash := make([]byte, 32) // no hash: nobody takes one test for another
	_, _ = rand.Read(hash)
	e := &audit.Entry{Time: d.Store.Now().UTC(), Actor: by, Action: "audit_sink.test", Object: s.Name, Outcome: "test", Hash: hex.EncodeToString(hash)}
	out := d.sender(s)
	if f, ok := out.(*fileSender); ok {
		out = &probeSender{f}
	}
	if err := out.send(ctx, []*audit.Entry{e}); err != nil {
		return reeve.Errorf(reeve.Upstream, "audit_sink_failed", "audit sink %q (%s) did not take a test record: %s", s.Name, s.To(), explain(err)).
			WithFix("repair the receiver, or change the sink: reeve audit sink edit")
	}
	return nil
}

// probeSender writes beside the file of a sink, with a name that no sink can have.
type probeSender struct{ of *fileSender }

func (p *probeSender) send(ctx context.Context, batch []*audit.Entry) error {
	f, err := p.of.open() // which is also tested
	if err != nil {
		return err
	}
	_ = f.Close()
	beside := &fileSender{dir: p.of.dir, name: ".test-" + p.of.name}
	return errors.Join(beside.send(ctx, batch), os.Remove(filepath.Join(beside.dir, beside.name)))
}
