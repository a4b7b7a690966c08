// Package idle keeps the connections of management accounts for the length of a burst of jobs, so that not every operation
// logs in anew. Connectors import it; what proves a password or shows rights (Verify, Probe, CheckRights) must not use it.
package idle

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// How long connections are kept.
const (
	After = 10 * time.Second // without a user
	Most  = time.Minute      // in all
	tryIn = 3 * time.Second  // a kept connection must show in this time that it still works
)

// Pool keeps connections that nobody uses at the moment. One has one user at a time, and is found again only by who has the
// same address, trust, options, user name and secret. How many there are is up to who asks: an agent does a bounded number
// of jobs at a time.
type Pool[C any] struct {
	end  func(C)
	salt []byte // so that what is kept of a secret is of no use elsewhere

	mu   sync.Mutex
	free map[key][]*kept[C] // the last one given back is the last
}

type key [sha256.Size]byte

type kept[C any] struct {
	conn  C
	began time.Time
	timer *time.Timer // ends it
}

// New makes a pool. End ends a connection; it may be called from any goroutine.
func New[C any](end func(C)) *Pool[C] {
	p := &Pool[C]{end: end, salt: make([]byte, sha256.Size), free: map[key][]*kept[C]{}}
	_, _ = rand.Read(p.salt) // never fails
	return p
}

// Borrow gives a kept connection to the target as its management account, or a new one from dial, whose errors it returns as
// they are. Of tells connections apart that the target does not, such as to several databases. Works asks the server over a
// kept connection, so that nothing of an operation is sent over one that is dead, and may bring it up to date.
//
// Back must be called once, when the connection is not used any more; keep is false if anything is wrong with it or its state.
func (p *Pool[C]) Borrow(
	ctx context.Context, t sdk.Target, of string, dial func(context.Context) (C, error), works func(context.Context, C) bool,
) (conn C, back func(keep bool), err error) {
	k := p.key(t, of)
	if c := p.take(k); c != nil {
		soon, cancel := context.WithTimeout(ctx, tryIn)
		defer cancel()
		if works(soon, c.conn) {
			return c.conn, func(keep bool) { p.back(k, c, keep) }, nil
		}
		p.end(c.conn)
		p.forget(k) // the server has ended the others as well, or the network lost them
	}
	c := &kept[C]{began: time.Now()}
	if c.conn, err = dial(ctx); err != nil {
		return conn, nil, err
	}
	return c.conn, func(keep bool) { p.back(k, c, keep) }, nil
}

func (p *Pool[C]) key(t sdk.Target, of string) (k key) {
	h := hmac.New(sha256.New, p.salt)
	for _, part := range []any{
		t.Address, t.Port, t.Trust.HostKeys, t.Trust.CAPEM, t.Trust.ServerName, t.Options,
		t.Management.Username, t.Management.Password.Bytes(), t.Management.PrivateKey.Bytes(), of,
	} {
		raw, _ := json.Marshal(part) // delimits the parts
		h.Write(raw)
		h.Write([]byte{'\n'})
		clear(raw)
	}
	h.Sum(k[:0])
	return k
}

// take takes the connection out that was given back last; nil if there is none.
func (p *Pool[C]) take(k key) *kept[C] {
	p.mu.Lock()
	defer p.mu.Unlock()
	free := p.free[k]
	if len(free) == 0 {
		return nil
	}
	c := free[len(free)-1]
	p.remove(k, c)
	return c
}

// remove takes a free connection out; false if somebody else did. p.mu is held.
func (p *Pool[C]) remove(k key, c *kept[C]) bool {
	i := slices.Index(p.free[k], c)
	if i < 0 {
		return false
	}
	c.timer.Stop()
	if p.free[k] = slices.Delete(p.free[k], i, i+1); len(p.free[k]) == 0 {
		delete(p.free, k)
	}
	return true
}

// back keeps a connection, or ends it.
func (p *Pool[C]) back(k key, c *kept[C], keep bool) {
	left := Most - time.Since(c.began)
	if !keep || left <= 0 {
		p.end(c.conn)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c.timer = time.AfterFunc(min(After, left), func() {
		p.mu.Lock()
		mine := p.remove(k, c)
		p.mu.Unlock()
		if mine {
			p.end(c.conn)
		}
	})
	p.free[k] = append(p.free[k], c)
}

// forget ends the free connections of one kind.
func (p *Pool[C]) forget(k key) {
	p.mu.Lock()
	free := p.free[k]
	delete(p.free, k)
	for _, c := range free {
		c.timer.Stop()
	}
	p.mu.Unlock()
	for _, c := range free {
		p.end(c.conn)
	}
}
