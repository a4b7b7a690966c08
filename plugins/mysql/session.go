package main

import (
	"context"
	"database/sql"
	"net"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// session is one connection, logged in.
type session struct {
	db      *sql.DB
	conn    *sql.Conn
	server  server
	version string // as the server gives it
	sent    bool   // a statement that changes something has been sent
	held    string // user-level lock it holds
	spoiled bool   // the session must not be kept

	back func() // gives it back; nil: it is not kept
}

// config describes a login. It is never written as a DSN: users and passwords may hold
// any character.
func config(t sdk.Target, c sdk.Credential) (*mysql.Config, error) {
	trusted, err := cert.Config(t)
	if err != nil {
		return nil, err
	}
	cfg := mysql.NewConfig()
	cfg.User = c.Username
	cfg.Passwd = c.Password.Reveal()
	cfg.Net = "tcp"
	cfg.Addr = net.JoinHostPort(t.Address, strconv.Itoa(t.Port))
	cfg.TLS = trusted
	cfg.Logger = &mysql.NopLogger{} // errors are returned as well
	// Arguments are written into the statement by the driver, which follows the server
	// about NO_BACKSLASH_ESCAPES: one round trip instead of three.
	cfg.InterpolateParams = true
	// How quote.MyLit and quote.MyGrantDB want a session to be, and locks that do not
	// outlast a job.
	cfg.Params = map[string]string{
		"sql_mode":          "'NO_BACKSLASH_ESCAPES,STRICT_TRANS_TABLES'",
		"lock_wait_timeout": "20",
	}
	return cfg, nil
}

// connect logs in once, over a connection of its own.
func connect(ctx context.Context, t sdk.Target, c sdk.Credential) (*session, error) {
	s, err := login(ctx, t, c, true)
	if err != nil {
		return nil, err
	}
	if err := s.identify(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// login logs in once and sends nothing more, but to pin the session's settings if asked.
func login(ctx context.Context, t sdk.Target, c sdk.Credential, pinned bool) (*session, error) {
	cfg, err := config(t, c)
	if err != nil {
		return nil, err
	}
	if !pinned {
		cfg.Params = nil
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, sdk.Errorf(sdk.ClassInternal, "the driver does not take the connection's settings").Wrap(err)
	}
	s := &session{db: sql.OpenDB(connector)}
	if s.conn, err = s.db.Conn(ctx); err != nil {
		_ = s.db.Close()
		return nil, refused(ctx, cfg.Addr, t.Trust, err)
	}
	return s, nil
}

// identify finds out what the server is.
func (s *session) identify(ctx context.Context) (err error) {
	if err = s.conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&s.version); err != nil {
		return failure(ctx, "read the server's version", err, false)
	}
	s.server, err = serverOf(s.version)
	return err
}

// unlockTime is how long it may take to give up a lock; then the connection is.
const unlockTime = 2 * time.Second

// close ends the use of the session, and the session if it is not kept.
func (s *session) close() {
	if s.back == nil {
		s.end()
		return
	}
	s.back()
}

// clean gives up what the session holds. It reports whether it is as good as new.
func (s *session) clean() bool {
	if s.held != "" && !s.spoiled {
		ctx, cancel := context.WithTimeout(context.Background(), unlockTime)
		_, err := s.conn.ExecContext(ctx, "DO RELEASE_LOCK(?)", s.held)
		cancel()
		s.spoiled = err != nil
	}
	s.sent, s.held = false, ""
	return !s.spoiled
}

// end ends the session.
func (s *session) end() {
	_ = s.conn.Close()
	_ = s.db.Close()
}

// change sends a statement that changes something.
func (s *session) change(ctx context.Context, what, statement string) error {
	err := s.try(ctx, statement)
	return failure(ctx, what, err, true)
}

// try is change for callers that look at the error number themselves.
func (s *session) try(ctx context.Context, statement string) error {
	s.sent = true
	_, err := s.conn.ExecContext(ctx, statement)
	s.spoiled = s.spoiled || err != nil && number(err) == 0
	return err
}

// query reads rows; scan is called for each. A read that fails after a change was sent
// leaves the outcome of the whole unknown.
func (s *session) query(ctx context.Context, what, statement string, scan func(*sql.Rows) error, args ...any) (err error) {
	rows, err := s.conn.QueryContext(ctx, statement, args...)
	if err == nil {
		defer func() { _ = rows.Close() }()
		for rows.Next() && err == nil {
			err = scan(rows)
		}
		if err == nil {
			err = rows.Err()
		}
	}
	s.spoiled = s.spoiled || err != nil && number(err) == 0
	return failure(ctx, what, err, s.sent)
}

// strings reads one column.
func (s *session) strings(ctx context.Context, what, statement string, args ...any) ([]string, error) {
	var all []string
	err := s.query(ctx, what, statement, func(r *sql.Rows) error {
		var v string
		err := r.Scan(&v)
		all = append(all, v)
		return err
	}, args...)
	return all, err
}
