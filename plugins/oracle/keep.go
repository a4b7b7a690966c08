package main

import (
	"context"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// manage gives a session as the management account: a kept one, if there is any, or a new one. Close gives it back. Kept is only what
// an operation that went well left behind: after a refusal an administrator may grant a role, which only a new login has.
func (c connector) manage(ctx context.Context, t sdk.Target) (*session, error) {
	dial := func(ctx context.Context) (*session, error) { return connect(ctx, t) }
	if c.kept == nil {
		return dial(ctx)
	}
	s, back, err := c.kept.Borrow(ctx, t, "", dial, works)
	if err != nil {
		return nil, err
	}
	s.stop()
	s.watch(ctx)
	s.back, s.good, s.sent, s.lockID = back, false, false, ""
	return s, nil
}

// watch hangs up when the context ends.
func (s *session) watch(ctx context.Context) { s.stop = context.AfterFunc(ctx, s.line.hangUp) }

// works asks the server something over a session that was kept.
func works(ctx context.Context, s *session) bool {
	s.watch(ctx)
	rows, err := s.query(ctx, "ask whether the connection works", "SELECT 'x' FROM dual")
	return s.stop() && err == nil && len(rows) == 1
}

// releaseTime is how long a server may take to give up a lock.
const releaseTime = time.Second

// close ends the session, or gives it back.
func (s *session) close() {
	if s.back == nil {
		s.end()
		return
	}
	keep := s.stop() && s.good && !s.lost && !s.changed
	if keep && s.lockID != "" {
		ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
		defer cancel()
		s.watch(ctx)
		err := s.try("DECLARE r INTEGER; BEGIN r := SYS.DBMS_LOCK.RELEASE(" + s.lockID + "); END;")
		keep = s.stop() && err == nil
	}
	s.back(keep)
}
