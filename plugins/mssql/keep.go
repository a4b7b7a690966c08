package main

import (
	"context"
	"database/sql"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// manage gives a session in the database master as the management account: a kept one, if there is any, or a new one. Close gives it
// back. Kept is only what an operation that went well left behind: after a refusal an administrator may grant something, which a new login
// shows at once. Sessions in other databases are not kept, since nobody could drop those meanwhile.
func (c connector) manage(ctx context.Context, t sdk.Target) (*session, error) {
	dial := func(ctx context.Context) (*session, error) { return manage(ctx, t) }
	if c.kept == nil {
		return dial(ctx)
	}
	s, back, err := c.kept.Borrow(ctx, t, "", dial, works)
	if err != nil {
		return nil, err
	}
	s.link.release()
	s.link.watch(ctx)
	s.back, s.good, s.locked, s.sent = back, false, false, new(bool)
	return s, nil
}

// works asks the server something over a session that was kept.
func works(ctx context.Context, s *session) bool {
	s.link.watch(ctx)
	err := s.ask(ctx)
	return s.link.release() && err == nil
}

func (s *session) ask(ctx context.Context) error {
	return s.read(ctx, "SELECT @@SPID", func(*sql.Rows) error { return nil })
}

// resetTime is how long a server may take to bring a session into its first state.
const resetTime = time.Second

// close ends the session, or gives it back.
func (s *session) close() {
	for name, other := range s.others {
		other.end()
		delete(s.others, name)
	}
	if s.back == nil {
		s.end()
		return
	}
	keep := s.link.release() && s.good && s.link.broken() == nil
	if keep && (s.locked || *s.sent) {
		keep = s.reset() == nil
	}
	s.back(keep)
}

// reset makes the server forget what the session has set, opened and locked: the driver asks for that with the first request after its
// connection was free.
func (s *session) reset() error {
	ctx, cancel := context.WithTimeout(context.Background(), resetTime)
	defer cancel()
	s.link.watch(ctx)
	defer s.link.release()
	if err := s.conn.Close(); err != nil {
		return err
	}
	conn, err := s.db.Conn(ctx)
	if err != nil {
		return err
	}
	s.conn = conn
	return s.ask(ctx)
}
