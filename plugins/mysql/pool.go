package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// How long connections of a management account are kept, and how many.
const (
	keepIdle = 10 * time.Second
	keepMost = time.Minute
	keepOpen = 16 // connections to one server with one account; more work waits
)

// pool keeps the connections of management accounts for the length of a burst. One is
// found again only by who has the same address, trust, user name and password.
type pool struct {
	salt []byte // so that what is kept of a password is of no use elsewhere

	mu   sync.Mutex
	open map[[sha256.Size]byte]*burst
}

// burst is the connections of one management account. Its fields but db are guarded by
// pool.mu.
type burst struct {
	db      *sql.DB
	began   time.Time
	users   int
	retired bool        // closed by the last user
	idle    *time.Timer // retires it

	version string // as the server gives it; empty until the first connection
	server  server
}

func newPool() *pool {
	p := &pool{salt: make([]byte, sha256.Size), open: map[[sha256.Size]byte]*burst{}}
	_, _ = rand.Read(p.salt) // never fails
	return p
}

func (p *pool) key(t sdk.Target, c sdk.Credential) (k [sha256.Size]byte) {
	h := hmac.New(sha256.New, p.salt)
	for _, part := range []any{t.Address, t.Port, t.Trust.CAPEM, t.Trust.ServerName, c.Username, c.Password.Bytes()} {
		raw, _ := json.Marshal(part) // delimits the parts
		h.Write(append(raw, '\n'))
		clear(raw)
	}
	h.Sum(k[:0])
	return k
}

// connect gives a session over a kept connection, or over a new one. Errors are those
// of connect.
func (p *pool) connect(ctx context.Context, t sdk.Target, c sdk.Credential) (*session, error) {
	cfg, err := config(t, c)
	if err != nil {
		return nil, err
	}
	b, err := p.join(p.key(t, c), cfg)
	if err != nil {
		return nil, err
	}
	s := &session{db: b.db, leave: func() { p.leave(b) }}
	if s.conn, err = b.db.Conn(ctx); err != nil {
		s.leave()
		return nil, refused(ctx, cfg.Addr, t.Trust, err)
	}
	p.mu.Lock()
	s.version, s.server = b.version, b.server
	p.mu.Unlock()
	if s.version != "" {
		return s, nil
	}
	if err := s.identify(ctx); err != nil {
		s.close()
		return nil, err
	}
	p.mu.Lock()
	b.version, b.server = s.version, s.server
	p.mu.Unlock()
	return s, nil
}

// join finds or begins a burst.
func (p *pool) join(k [sha256.Size]byte, cfg *mysql.Config) (*burst, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.open[k]
	if b != nil && time.Since(b.began) >= keepMost {
		p.retire(k, b)
		b = nil
	}
	if b == nil {
		connector, err := mysql.NewConnector(cfg)
		if err != nil {
			return nil, badSettings(err)
		}
		b = &burst{db: sql.OpenDB(connector), began: time.Now()}
		b.db.SetMaxOpenConns(keepOpen)
		b.db.SetMaxIdleConns(keepOpen)
		b.db.SetConnMaxIdleTime(keepIdle)
		b.db.SetConnMaxLifetime(keepMost)
		b.idle = time.AfterFunc(keepMost, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			if b.users == 0 {
				p.retire(k, b)
			}
		})
		p.open[k] = b
	}
	b.users++
	return b, nil
}

// retire takes a burst out of use. p.mu is held.
func (p *pool) retire(k [sha256.Size]byte, b *burst) {
	if p.open[k] == b {
		delete(p.open, k)
	}
	b.idle.Stop()
	b.retired = true
	if b.users == 0 {
		_ = b.db.Close()
	}
}

func (p *pool) leave(b *burst) {
	p.mu.Lock()
	defer p.mu.Unlock()
	b.users--
	switch {
	case b.users > 0:
	case b.retired:
		_ = b.db.Close()
	default:
		b.idle.Reset(keepIdle)
	}
}

// discard ends the connection of a session instead of keeping it.
func discard(c *sql.Conn) {
	_ = c.Raw(func(any) error { return driver.ErrBadConn })
}
