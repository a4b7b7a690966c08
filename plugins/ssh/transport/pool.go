package transport

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// How long connections are kept, and how many. Of sshd's defaults, MaxSessions is 10,
// and MaxStartups begins to drop connections when 10 have not logged in yet.
const (
	keepIdle   = 10 * time.Second
	keepMost   = time.Minute
	maxUsers   = 8               // operations over one connection, each with one session at a time
	maxLogins  = 6               // logins under way at one address
	openWithin = 3 * time.Second // a kept connection that opens no session in this time is given up
)

// Pool keeps connections for the length of a burst. One is found again only by who has
// the same address, trusted keys, user name and secret. The zero value keeps none.
type Pool struct {
	mu    sync.Mutex
	salt  []byte // so that what is kept of a secret is of no use elsewhere
	lines map[[sha256.Size]byte][]*line
	going map[[sha256.Size]byte]chan struct{} // closed when the connection being made is there, or is not to be had
	doors map[string]chan struct{}            // by address: a token for each login under way
}

// NewPool makes a Pool.
func NewPool() *Pool {
	p := &Pool{salt: make([]byte, sha256.Size), lines: map[[sha256.Size]byte][]*line{},
		going: map[[sha256.Size]byte]chan struct{}{}, doors: map[string]chan struct{}{}}
	_, _ = rand.Read(p.salt) // never fails
	return p
}

// line is a connection, logged in. Its fields below mu are guarded by Pool.mu.
type line struct {
	pool   *Pool // nil: not kept
	key    [sha256.Size]byte
	client *ssh.Client
	conn   net.Conn
	gone   chan struct{} // closed when the connection has ended

	become sync.Mutex
	asked  bool // root is known
	root   bool // the login itself is root

	users   int
	began   time.Time
	retired bool        // takes no more operations
	idle    *time.Timer // ends it
}

func (p *Pool) key(t sdk.Target, c sdk.Credential) (k [sha256.Size]byte) {
	h := hmac.New(sha256.New, p.salt)
	for _, part := range []any{t.Address, t.Port, t.Trust.HostKeys, c.Username, c.Password.Bytes(), c.PrivateKey.Bytes()} {
		raw, _ := json.Marshal(part) // delimits the parts
		h.Write(append(raw, '\n'))
		clear(raw)
	}
	h.Sum(k[:0])
	return k
}

// Dial is as the function Dial, but takes a kept connection if there is one with room,
// and keeps the new one otherwise. That a kept one still works is tried before it is used.
func (p *Pool) Dial(ctx context.Context, t sdk.Target, c sdk.Credential) (*Host, error) {
	if p == nil || p.lines == nil {
		return Dial(ctx, t, c)
	}
	k := p.key(t, c)
	for {
		l, wait, made := p.join(k)
		switch {
		case made != nil:
			defer made()
			h, err := p.Fresh(ctx, t, c)
			if err != nil {
				return nil, err
			}
			p.keep(k, h.line)
			return h, nil
		case wait != nil:
			select {
			case <-wait:
				continue
			case <-ctx.Done():
				return nil, unreachable(ctx, net.JoinHostPort(t.Address, strconv.Itoa(t.Port)), ctx.Err())
			}
		}
		h := newHost(l, t, c)
		if h.open(ctx) == nil {
			return h, nil
		}
		p.retire(l)
		h.Close()
		if ctx.Err() != nil {
			return nil, unreachable(ctx, h.address, ctx.Err())
		}
	}
}

// Fresh is the function Dial for logins that prove something: it takes no kept connection and
// keeps none. Too many logins at one address at a time wait for each other.
func (p *Pool) Fresh(ctx context.Context, t sdk.Target, c sdk.Credential) (*Host, error) {
	if p == nil || p.doors == nil {
		return Dial(ctx, t, c)
	}
	address := net.JoinHostPort(t.Address, strconv.Itoa(t.Port))
	p.mu.Lock()
	door := p.doors[address]
	if door == nil {
		door = make(chan struct{}, maxLogins)
		p.doors[address] = door
	}
	p.mu.Unlock()
	select {
	case door <- struct{}{}:
	case <-ctx.Done():
		return nil, unreachable(ctx, address, ctx.Err())
	}
	defer func() { <-door }()
	return Dial(ctx, t, c)
}

// join takes a place on a kept connection. Where there is none it says what to wait for,
// if one is being made, or else that the caller is to make one and what to call then.
func (p *Pool) join(k [sha256.Size]byte) (l *line, wait <-chan struct{}, made func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.lines[k] {
		if time.Since(l.began) < keepMost && l.users < maxUsers {
			l.users++
			return l, nil, nil
		}
	}
	if wait := p.going[k]; wait != nil {
		return nil, wait, nil
	}
	over := make(chan struct{})
	p.going[k] = over
	return nil, nil, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.going, k)
		close(over)
	}
}

// keep keeps a new connection, which has one user.
func (p *Pool) keep(k [sha256.Size]byte, l *line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.pool, l.key, l.began, l.users = p, k, time.Now(), 1
	l.idle = time.AfterFunc(keepMost, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if l.users == 0 {
			p.drop(l)
		}
	})
	p.lines[k] = append(p.lines[k], l)
	go func() { // ends with the connection
		<-l.gone
		p.retire(l)
	}()
}

// retire lets no more operations onto a connection; the last one ends it.
func (p *Pool) retire(l *line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(l)
}

// drop takes a connection out of the pool. p.mu is held.
func (p *Pool) drop(l *line) {
	l.retired = true
	l.idle.Stop()
	rest := p.lines[l.key][:0]
	for _, o := range p.lines[l.key] {
		if o != l {
			rest = append(rest, o)
		}
	}
	clear(p.lines[l.key][len(rest):])
	if p.lines[l.key] = rest; len(rest) == 0 {
		delete(p.lines, l.key)
	}
	if l.users == 0 {
		l.hangUp()
	}
}

// leave gives up a place on a connection.
func (p *Pool) leave(l *line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.users--
	switch {
	case l.users > 0:
	case l.retired:
		l.hangUp()
	case time.Since(l.began) >= keepMost:
		p.drop(l)
	default:
		l.idle.Reset(keepIdle)
	}
}

func (l *line) hangUp() {
	// Beside the caller: the other side may not take the farewell.
	go func() { _ = l.client.Close() }()
	_ = l.conn.Close()
}

// Close ends all connections that nobody uses, and the others with their last user.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, lines := range p.lines {
		for _, l := range append([]*line(nil), lines...) {
			p.drop(l)
		}
	}
}
