package main

import (
	"context"
	"io"
	"maps"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// session is one connection, logged in.
type session struct {
	conn     *pgx.Conn
	wire     *wire
	database string

	major  int    // version
	number string // version, in full
	super  bool   // it is a superuser's

	open    bool     // a transaction is
	sent    bool     // a COMMIT was sent: something may be otherwise now
	notices []string // SQLSTATEs of warnings since they were last cleared

	back func() // gives it back; nil: it is not kept
}

// largestMessage bounds what is held of one answer: a row, an error.
const largestMessage = 64 << 20

// pinned are the settings our own statements count on, and limits that keep a lost agent
// from holding locks. Functions and tables are the server's own, whoever makes others of
// the same name.
var pinned = map[string]string{
	"application_name":                    "reeve",
	"client_encoding":                     "UTF8",
	"standard_conforming_strings":         "on",
	"search_path":                         "pg_catalog",
	"client_min_messages":                 "warning",
	"TimeZone":                            "UTC",
	"DateStyle":                           "ISO",
	"lock_timeout":                        "10000", // ms
	"idle_in_transaction_session_timeout": "60000", // ms
}

// plain are the settings of sessions that run somebody else's statements, or none.
var plain = map[string]string{"application_name": "reeve", "client_encoding": "UTF8"}

// connect logs in once as the management account.
func connect(ctx context.Context, t sdk.Target, database string) (*session, error) {
	s, err := login(ctx, t, t.Management, database, pinned)
	if err != nil {
		return nil, err
	}
	s.major, s.number, err = versionOf(s.conn.PgConn().ParameterStatus("server_version"))
	if err != nil {
		s.close()
		return nil, err
	}
	s.super = s.conn.PgConn().ParameterStatus("is_superuser") == "on"
	return s, nil
}

// login logs in once and sends nothing more.
func login(ctx context.Context, t sdk.Target, c sdk.Credential, database string, settings map[string]string) (*session, error) {
	w := &wire{}
	s := &session{wire: w, database: database}
	cfg, err := config(t, c, w)
	if err != nil {
		return nil, err
	}
	cfg.Database, cfg.RuntimeParams = database, maps.Clone(settings)
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { s.notices = append(s.notices, n.Code) }
	if s.conn, err = pgx.ConnectConfig(ctx, cfg); err != nil {
		w.close()
		return nil, refused(ctx, t, w, err)
	}
	return s, nil
}

// config describes a login. It is never written as a URL: users and passwords may hold any
// character. What the driver would read from the environment or from files is not used.
func config(t sdk.Target, c sdk.Credential, w *wire) (*pgx.ConnConfig, error) {
	trusted, err := cert.Config(t)
	if err != nil {
		return nil, err
	}
	cfg, err := pgx.ParseConfig("host=target user=reeve sslmode=disable passfile=/dev/null")
	if err != nil {
		return nil, sdk.Errorf(sdk.ClassInternal, "the driver does not take the connection's settings").Wrap(err)
	}
	cfg.Host, cfg.Port = t.Address, uint16(t.Port) //nolint:gosec // the SDK has checked it
	cfg.User, cfg.Password = c.Username, c.Password.Reveal()
	cfg.TLSConfig = trusted
	cfg.Fallbacks, cfg.ConnectTimeout, cfg.ValidateConnect = nil, 0, nil
	cfg.SSLNegotiation, cfg.SSLCertMode, cfg.ChannelBinding = "postgres", "disable", "prefer"
	cfg.RequireAuth = loginSCRAM // none is no proof of a password
	if t.Options[optionLogin] == loginPassword {
		cfg.RequireAuth = "scram-sha-256,md5,password"
	}
	cfg.MaxProtocolMessageBodyLen = largestMessage
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec // one round trip, nothing kept on the server
	cfg.DialFunc = w.dial
	cfg.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, c net.Conn) (net.Conn, error) {
		w.encrypted = true
		return c, nil
	}
	cfg.BuildFrontend = func(r io.Reader, to io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(io.TeeReader(r, &w.greeting), to)
	}
	return cfg, nil
}

// closeTime is how long an orderly end of a connection may take; then it is cut.
const closeTime = time.Second

// close ends the use of the session, and the session if it is not kept. The server rolls back what was not committed.
func (s *session) close() {
	if s.back == nil {
		s.end()
		return
	}
	s.back()
}

// clean makes the session as good as new: nothing set or locked. It reports whether it is: within a transaction the server refuses.
func (s *session) clean() bool {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_, err := s.exec(ctx, "DISCARD ALL")
	s.open, s.sent, s.notices = false, false, nil
	return err == nil
}

// works reports whether the session can be used again: the server answers, and would still let the account in.
func (s *session) works(ctx context.Context) bool {
	found := false
	err := s.query(ctx, "look who we are", `SELECT rolsuper FROM pg_roles
 WHERE rolname = session_user AND rolcanlogin AND (rolvaliduntil IS NULL OR rolvaliduntil > now())`,
		func(r pgx.Rows) error { found = true; return r.Scan(&s.super) })
	return err == nil && found
}

// end ends the session.
func (s *session) end() {
	ctx, cancel := context.WithTimeout(context.Background(), closeTime)
	defer cancel()
	_ = s.conn.Close(ctx)
	select {
	case <-s.conn.PgConn().CleanupDone(): // the driver may still be asking the server to stop a statement
	case <-ctx.Done():
	}
	s.wire.close()
}

// exec sends one statement, by the protocol that takes no more than one.
func (s *session) exec(ctx context.Context, statement string) (pgconn.CommandTag, error) {
	r := s.conn.PgConn().ExecParams(ctx, statement, nil, nil, nil, nil).Read()
	return r.CommandTag, r.Err
}

// begin begins a transaction if none is open.
func (s *session) begin(ctx context.Context) error {
	if s.open {
		return nil
	}
	if _, err := s.exec(ctx, "BEGIN ISOLATION LEVEL READ COMMITTED"); err != nil {
		return s.failure(ctx, "begin a transaction", err)
	}
	s.open = true
	return nil
}

// try sends a statement of the open transaction, for callers that look at the error
// themselves. Whatever it says, nothing is changed before a commit.
func (s *session) try(ctx context.Context, statement string) error {
	if err := s.begin(ctx); err != nil {
		return err
	}
	s.notices = nil
	_, err := s.exec(ctx, statement)
	return err
}

// change is try for others.
func (s *session) change(ctx context.Context, what, statement string) error {
	return s.failure(ctx, what, s.try(ctx, statement))
}

// commit makes the open transaction true.
func (s *session) commit(ctx context.Context) error {
	const what = "commit"
	before := s.sent
	s.sent, s.open = true, false
	tag, err := s.exec(ctx, "COMMIT")
	switch {
	case err == nil && tag.String() == "COMMIT":
		return nil
	case err == nil: // the transaction had failed before
		s.sent = before
		return sdk.Errorf(sdk.ClassProtocol, "%s: the server rolled back instead", what)
	case code(err) != "" && !ended(err):
		s.sent = before
	}
	return s.failure(ctx, what, err)
}

// query reads rows; scan is called for each.
func (s *session) query(ctx context.Context, what, statement string, scan func(pgx.Rows) error, args ...any) error {
	rows, err := s.conn.Query(ctx, statement, args...)
	if err != nil {
		return s.failure(ctx, what, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return s.failure(ctx, what, err)
		}
	}
	return s.failure(ctx, what, rows.Err())
}

// strings reads one column.
func (s *session) strings(ctx context.Context, what, statement string, args ...any) ([]string, error) {
	var all []string
	err := s.query(ctx, what, statement, func(r pgx.Rows) error {
		var v string
		err := r.Scan(&v)
		all = append(all, v)
		return err
	}, args...)
	return all, err
}

// wire is what a session has opened: its connection, and those by which the driver asks the
// server to stop a statement.
type wire struct {
	encrypted bool     // the server agreed to TLS, whether or not it is trusted
	greeting  greeting // the beginning of what it said within TLS

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		_ = c.Close()
		return nil, net.ErrClosed
	}
	w.conns = append(w.conns, c)
	return c, nil
}

// close cuts every connection, so that nothing of the session stays behind.
func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, c := range w.conns {
		_ = c.Close()
	}
}

// greeting keeps the first bytes of a server: the message by which it asks for a login.
type greeting []byte

const greetingLength = 9 // 'R', a length and the kind, four bytes each

func (g *greeting) Write(p []byte) (int, error) {
	if n := greetingLength - len(*g); n > 0 {
		*g = append(*g, p[:min(n, len(p))]...)
	}
	return len(p), nil
}

// asks is the kind of login the server asked for; ok is false if it asked for none of them.
// https://www.postgresql.org/docs/current/protocol-message-formats.html
func (g *greeting) asks() (kind string, ok bool) {
	if len(*g) < greetingLength || (*g)[0] != 'R' {
		return "", false
	}
	kinds := map[byte]string{0: "no password", 3: "the password itself", 5: "an MD5 hash", 7: "Kerberos", 9: "SSPI", 10: "SCRAM"}
	kind, ok = kinds[(*g)[greetingLength-1]]
	if !ok {
		kind = "authentication method " + strconv.Itoa(int((*g)[greetingLength-1]))
	}
	return kind, kind != "SCRAM"
}
