package main

import (
	"context"
	"database/sql"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	mssql "github.com/microsoft/go-mssqldb"
	"github.com/microsoft/go-mssqldb/msdsn"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// session is one connection, logged in. Sessions in other databases that belong to it share
// what they know of changes that were sent.
type session struct {
	target  sdk.Target
	account sdk.Credential
	db      *sql.DB
	conn    *sql.Conn
	link    *link
	sent    *bool // a statement that changes something has been sent
	server  server
	others  map[string]*session // in other databases, by name

	back   func(keep bool) // nil: it is not to be kept
	good   bool            // the operation went well
	locked bool            // it holds the lock of an account
}

// link is what lies under a connection: it is closed when its context ends, since the driver
// looks at no context before the login and waits for a server's confirmation after it.
type link struct {
	address string
	trust   sdk.Trust
	strict  bool // TLS comes first

	mu     sync.Mutex
	conn   net.Conn
	failed error // of reading or writing
	cert   error // why the server's certificate is not trusted
	stop   func() bool
	ready  bool // the login is over
}

// HostName implements mssql.HostDialer: names are resolved by DialContext.
func (l *link) HostName() string { return l.address }

// DialContext implements mssql.Dialer. It goes to the target's address, wherever a server would
// like to send us.
func (l *link) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	if l.ready { // a connection that broke is not replaced behind our back
		return nil, net.ErrClosed
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, l.address)
	if err != nil {
		l.fail(err)
		return nil, err
	}
	l.conn = conn
	l.watch(ctx)
	return watched{conn, l}, nil
}

// watch closes the connection when the context ends.
func (l *link) watch(ctx context.Context) {
	l.stop = context.AfterFunc(ctx, func() { _ = l.conn.Close() })
}

// release stops that. It reports whether the connection is still open.
func (l *link) release() bool { return l.stop() }

func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed = err
	}
}

// broken is why the connection ended, nil if it did not.
func (l *link) broken() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func (l *link) close() {
	if l.stop != nil {
		l.stop()
		_ = l.conn.Close()
	}
}

// watched keeps the first error of a connection: the driver turns it into text.
type watched struct {
	net.Conn
	link *link
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.link.fail(err)
	}
	return n, err
}

func (w watched) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if err != nil {
		w.link.fail(err)
	}
	return n, err
}

// config describes a login. It is never written as a connection string: users and passwords may
// hold any character.
func config(l *link, t sdk.Target, c sdk.Credential, database string) (msdsn.Config, error) {
	if c.Username == "" || strings.Contains(c.Username, `\`) {
		return msdsn.Config{}, sdk.Errorf(sdk.ClassInvalid, "the account must be a login of SQL Server, and not of Windows").
			WithFix("use a login with a password of its own")
	}
	cfg := msdsn.Config{
		Host: t.Address, Port: uint64(t.Port), Database: database,
		User: c.Username, Password: c.Password.Reveal(),
		Encryption: msdsn.EncryptionRequired,
		// The name that certificates are for does not follow where a server would send us.
		HostInCertificateProvided: true,
		AppName:                   "Reeve",
		Protocols:                 []string{"tcp"},
		Parameters:                map[string]string{},
		DisableRetry:              true,
		DialTimeout:               -1, // the context's
		LogFlags:                  0,  // others print statements and parameters
	}
	switch {
	case t.Options[optionLegacy] == "yes":
		cfg.Encryption = msdsn.EncryptionDisabled
		return cfg, nil
	case t.Options[optionEncrypt] == "strict":
		cfg.Encryption, l.strict = msdsn.EncryptionStrict, true
	}
	var err error
	cfg.TLSConfig, err = l.tls(t)
	return cfg, err
}

// open logs in once, into a database.
func open(ctx context.Context, t sdk.Target, c sdk.Credential, database string) (*session, error) {
	l := &link{address: net.JoinHostPort(t.Address, strconv.Itoa(t.Port)), trust: t.Trust}
	cfg, err := config(l, t, c, database)
	if err != nil {
		return nil, err
	}
	connector := mssql.NewConnectorConfig(cfg)
	connector.Dialer = l
	s := &session{target: t, account: c, db: sql.OpenDB(connector), link: l, sent: new(bool), others: map[string]*session{}}
	s.db.SetMaxOpenConns(1)
	if s.conn, err = s.db.Conn(ctx); err != nil {
		_ = s.db.Close()
		l.close()
		return nil, l.refused(ctx, err)
	}
	l.ready = true
	return s, nil
}

// manage logs in as the management account, and finds out what the server is.
func manage(ctx context.Context, t sdk.Target) (*session, error) {
	s, err := open(ctx, t, t.Management, "master")
	if err != nil {
		return nil, err
	}
	if err := s.identify(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// in gives the session in another database, over a connection of its own: USE would change the
// database under the feet of others.
func (s *session) in(ctx context.Context, database string) (*session, error) {
	if database == "" {
		return s, nil
	}
	if other := s.others[database]; other != nil {
		return other, nil
	}
	other, err := open(ctx, s.target, s.account, database)
	if err != nil {
		if *s.sent && notAnswered(err) {
			return nil, sdk.Errorf(sdk.ClassUnknownOutcome, "the connection to the database %s was lost in the middle of a change", database).
				WithFix(sdk.LookFirst).Wrap(err)
		}
		return nil, err
	}
	other.sent, other.server = s.sent, s.server
	s.others[database] = other
	return other, nil
}

// end ends the session for good.
func (s *session) end() {
	_ = s.conn.Close()
	_ = s.db.Close()
	s.link.close()
}

// change sends a statement that changes something.
func (s *session) change(ctx context.Context, what, statement string) error {
	return s.failure(ctx, what, s.try(ctx, statement))
}

// try is change for callers that look at the error number themselves. A statement goes as a batch
// of its own, never as a parameter of a procedure: servers leave the text of statements with
// passwords out of their traces, but not parameters.
func (s *session) try(ctx context.Context, statement string) error {
	*s.sent = true
	_, err := s.conn.ExecContext(ctx, statement)
	return err
}

// query reads rows; scan is called for each. A read that fails after a change was sent leaves the
// outcome of the whole unknown.
func (s *session) query(ctx context.Context, what, statement string, scan func(*sql.Rows) error, args ...any) error {
	return s.failure(ctx, what, s.read(ctx, statement, scan, args...))
}

func (s *session) read(ctx context.Context, statement string, scan func(*sql.Rows) error, args ...any) error {
	rows, err := s.conn.QueryContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() && err == nil {
		err = scan(rows)
	}
	if err == nil {
		err = rows.Err()
	}
	return err
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

// server is what a server is.
type server struct {
	version string // "16.0.4135.4"
	edition string
	zone    time.Duration // what its clock is ahead of UTC
}

// Engine editions that have no logins of the kind we know.
// learn.microsoft.com/sql/t-sql/functions/serverproperty-transact-sql
var withoutLogins = map[int]string{5: "Azure SQL Database", 6: "Azure Synapse", 11: "Azure Synapse serverless", 12: "Fabric SQL database"}

// oldest is SQL Server 2012, the first with ALTER SERVER ROLE.
const oldest = 11

func (s *session) identify(ctx context.Context) error {
	var engine, minutes int
	err := s.query(ctx, "read what the server is", `SELECT CONVERT(nvarchar(128), SERVERPROPERTY(N'ProductVersion')),
 CONVERT(nvarchar(128), SERVERPROPERTY(N'Edition')), CONVERT(int, SERVERPROPERTY(N'EngineEdition')), DATEDIFF(minute, GETUTCDATE(), GETDATE())`,
		func(r *sql.Rows) error { return r.Scan(&s.server.version, &s.server.edition, &engine, &minutes) })
	if err != nil {
		return err
	}
	s.server.zone = time.Duration(minutes) * time.Minute
	if name := withoutLogins[engine]; name != "" {
		return sdk.Errorf(sdk.ClassUnsupported, "the server is %s, which this connector does not know", name).
			WithFix("use a SQL Server or an Azure SQL Managed Instance")
	}
	major, err := majorOf(s.server.version)
	if err != nil {
		return err
	}
	if major < oldest {
		return sdk.Errorf(sdk.ClassUnsupported, "the server's version %s is older than SQL Server 2012 (11.0)", s.server.version).
			WithFix("upgrade the server")
	}
	return nil
}

// majorOf reads the first number of a version such as 16.0.4135.4.
func majorOf(version string) (int, error) {
	first, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(first)
	if err != nil || n < 1 || n > 1000 {
		return 0, sdk.Errorf(sdk.ClassUnsupported, "the server's version is not understood").
			WithFix("check that a SQL Server listens at that port")
	}
	return n, nil
}
