package logship

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Limits of the spool and of the stream.
const (
	defaultSpool = 64 << 20              // bytes of unacknowledged log, all jobs together
	window       = 256 << 10             // bytes sent and not yet acknowledged
	settle       = 50 * time.Millisecond // times the logs being written: lines that come this close together share a write
	settleMost   = 250 * time.Millisecond
	retryFlush   = 2 * time.Second // after the disk failed
	openTimeout  = 5 * time.Second // waiting for another process to let go of the spool
	linger       = time.Minute     // a stream with nothing to send is kept open
)

// Config is what a Shipper needs.
type Config struct {
	Path   string           // of the spool file
	Limit  int              // bytes of all logs in the spool; 0: 64 MiB
	Clock  func() time.Time // nil: time.Now
	Logger *slog.Logger
}

// Shipper spools the logs of job attempts and ships them. Run keeps the spool, Ship
// one stream, which Await says when to open; all are needed for anything to arrive.
type Shipper struct {
	db     *bolt.DB
	limit  int
	linger time.Duration
	now    func() time.Time
	log    *slog.Logger

	woken   chan struct{} // something is to be flushed
	changed chan struct{} // something is to be sent

	used atomic.Int64 // bytes in the spool, or promised to it; a Log's lock may be held, so no lock of ours

	mu      sync.Mutex // taken before a Log's
	entries []*entry
}

// Open opens or makes the spool. It fails with code log_spool_failed.
func Open(cfg Config) (*Shipper, error) {
	db, err := bolt.Open(cfg.Path, 0o600, &bolt.Options{Timeout: openTimeout, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, reeve.Errorf(reeve.Internal, "log_spool_failed", "the log spool %s cannot be opened", cfg.Path).
			WithFix("check that no other agent runs on this data directory").Wrap(err)
	}
	s := &Shipper{db: db, limit: cfg.Limit, linger: linger, now: cfg.Clock, log: cfg.Logger, woken: make(chan struct{}, 1), changed: make(chan struct{}, 1)}
	if s.limit == 0 {
		s.limit = defaultSpool
	}
	if s.now == nil {
		s.now = time.Now
	}
	if err := s.load(); err != nil {
		_ = db.Close()
		return nil, reeve.Errorf(reeve.Internal, "log_spool_failed", "the log spool %s cannot be read", cfg.Path).Wrap(err)
	}
	return s, nil
}

// Close closes the spool, after Run and Ship have returned.
func (s *Shipper) Close() error { return s.db.Close() }

// Begin starts the log of a job attempt. limit is in bytes; 0 means 1 MiB. The
// Redactor must know every secret of the job and stay unwiped until Close.
func (s *Shipper) Begin(a Attempt, limit uint64, r *redact.Redactor) *Log {
	if limit == 0 || limit > uint64(s.limit) { //nolint:gosec // the limit is positive
		limit = defaultLimit
	}
	tail := int(limit / tailShare)                                                //nolint:gosec // at most s.limit
	l := &Log{s: s, redac: r, now: s.now, head: int(limit) - tail, tailMax: tail} //nolint:gosec // at most s.limit
	e := newEntry(a)
	e.log = l
	s.mu.Lock()
	s.entries = append(s.entries, e)
	s.mu.Unlock()
	return l
}

// Run keeps the spool until ctx ends, and returns after a last flush.
func (s *Shipper) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			_, err := s.flush()
			return err
		case <-s.woken:
		}
		wait, err := s.flush()
		if err != nil {
			s.log.Error("log spool write failed", "error", err)
			s.wake()
			wait = retryFlush
		}
		notify(s.changed)
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			_, err := s.flush()
			return err
		case <-timer.C:
		}
	}
}

// Await returns when there is something to ship, or ctx has ended. An agent without work
// holds no stream for logs: a controller has thousands of agents, nearly all of them idle.
func (s *Shipper) Await(ctx context.Context) {
	for !s.pending() {
		select {
		case <-ctx.Done():
			return
		case <-s.changed:
		}
	}
}

// pending reports whether the controller has not acknowledged everything yet.
func (s *Shipper) pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.entries, func(e *entry) bool { return !e.refused && e.acked+1 < e.next })
}

// Ship sends what the spool holds over one stream, from what the controller has
// acknowledged on, until the stream breaks or ctx ends. Call it again with the next
// connection. It returns nil when for a minute there was nothing to ship.
func (s *Shipper) Ship(ctx context.Context, client agentv1.AgentServiceClient) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.StreamLogs(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	for _, e := range s.entries {
		e.sent = e.acked
	}
	s.mu.Unlock()

	fly := &flight{sizes: map[sent]int{}}
	received := make(chan error, 1)
	go func() { received <- s.receive(stream, fly) }()
	idle := time.NewTimer(s.linger)
	defer idle.Stop()
	for {
		c, size, err := s.nextChunk(fly)
		if err != nil {
			cancel()
			return errors.Join(err, <-received)
		}
		if c == nil {
			select {
			case err := <-received:
				return streamEnd(err)
			case <-s.changed:
				idle.Reset(s.linger)
			case <-idle.C:
				if s.pending() {
					idle.Reset(s.linger)
					continue
				}
				if err := stream.CloseSend(); err != nil {
					return err
				}
				if err := <-received; !errors.Is(err, io.EOF) {
					return err
				}
				return nil
			}
			continue
		}
		fly.add(sent{c.Job, c.Attempt, c.Sequence}, size)
		if stream.Send(&agentv1.StreamLogsRequest{Chunk: c}) != nil {
			return streamEnd(<-received) // Recv has the reason
		}
	}
}

func streamEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return reeve.Errorf(reeve.Unavailable, "log_stream_closed", "the controller closed the log stream")
	}
	return err
}

// nextChunk is the next one to send: the oldest of the first log that has one, nil if
// there is none or the window is full.
func (s *Shipper) nextChunk(fly *flight) (*agentv1.LogChunk, int, error) {
	if fly.full() {
		return nil, 0, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range s.entries {
		if e.refused || e.sent+1 >= e.next {
			continue
		}
		c, err := s.chunk(e, e.sent+1)
		if errors.Is(err, errGone) {
			e.sent = e.acked
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		e.sent++
		s.entries = append(append(s.entries[:i:i], s.entries[i+1:]...), e) // others first next time
		return c, len(c.Data), nil
	}
	return nil, 0, nil
}

func (s *Shipper) receive(stream agentv1.AgentService_StreamLogsClient, fly *flight) error {
	for {
		ack, err := stream.Recv()
		if err != nil {
			return err
		}
		s.acknowledge(ack)
		fly.acked(ack)
		s.wake()
		notify(s.changed)
	}
}

func (s *Shipper) acknowledge(ack *agentv1.StreamLogsResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if string(e.attempt.Job) != ack.Job || e.attempt.Attempt != ack.Attempt {
			continue
		}
		if ack.Refused {
			e.refused = true
		} else if ack.Sequence < e.next {
			e.acked = max(e.acked, ack.Sequence)
		}
	}
}

// reserve takes room for n bytes in the spool, if there is any.
func (s *Shipper) reserve(n int) bool {
	if s.used.Add(int64(n)) > int64(s.limit) {
		s.used.Add(-int64(n))
		return false
	}
	return true
}

func (s *Shipper) wake() { notify(s.woken) }

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sent names a chunk on the wire.
type sent struct {
	job      string
	attempt  uint32
	sequence uint64
}

// flight is what was sent on one stream and is not acknowledged yet.
type flight struct {
	mu    sync.Mutex
	bytes int
	sizes map[sent]int
}

func (f *flight) full() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes >= window
}

func (f *flight) add(c sent, size int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sizes[c] = size
	f.bytes += size
}

func (f *flight) acked(ack *agentv1.StreamLogsResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c, size := range f.sizes {
		if c.job == ack.Job && c.attempt == ack.Attempt && (ack.Refused || c.sequence <= ack.Sequence) {
			delete(f.sizes, c)
			f.bytes -= size
		}
	}
}
