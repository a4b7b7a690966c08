//go:build linux

package testlab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresBin is where Debian puts the server's programs.
const postgresBin = "/usr/lib/postgresql/15/bin/"

// PostgresOptions says what a server is like.
type PostgresOptions struct {
	// Grants are statements that give the management account its rights; nil means
	// DefaultPostgresGrants. They run as the superuser in the database "app".
	Grants []string
	Config []string // further settings of the server, e.g. "max_connections=5"
	Access []string // lines of pg_hba.conf before the one that asks for TLS and SCRAM
	Plain  bool     // no TLS is offered
	Node   *Node    // the network node the server is; nil: a loopback address of this machine
}

// DefaultPostgresGrants let the management account make roles, end their sessions and
// pass on any right of the owner of the database "app".
func DefaultPostgresGrants() []string {
	return []string{
		"ALTER ROLE " + Management + " CREATEROLE",
		"GRANT pg_signal_backend TO " + Management,
		"GRANT app_owner TO " + Management,
	}
}

// PostgresServer is a running PostgreSQL. It has a database "app" that belongs to the
// role "app_owner", with a table "item", and its statements are all logged.
type PostgresServer struct {
	Addr               string // IP address
	Port               int    // always 5432
	CAPEM              string // the certificate authority of its TLS certificate
	ManagementPassword string

	srv  *server
	opts PostgresOptions
	dir  string
	root *sql.DB // by its socket, in the database postgres
	app  *sql.DB // by its socket, in the database app
}

// Postgres starts a server and returns once it answers.
func (l *Lab) Postgres(opts PostgresOptions) (*PostgresServer, error) {
	if opts.Grants == nil {
		opts.Grants = DefaultPostgresGrants()
	}
	p := &PostgresServer{Port: 5432, opts: opts, ManagementPassword: newPassword()}
	var err error
	network := "127.0.0.0/8"
	if opts.Node != nil {
		p.Addr, network = opts.Node.Addr, "0.0.0.0/0"
	} else if p.Addr, err = l.address(); err != nil {
		return nil, err
	}
	owner, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	tmpl, err := template("postgres", strings.Join(initDB, " ")+firstDatabase, func(dir string) error {
		return l.initDB(dir, owner)
	})
	if err != nil {
		return nil, err
	}
	if p.dir, err = l.mkdir("postgres"); err != nil {
		return nil, err
	}
	//nolint:gosec // own paths
	if out, err := exec.CommandContext(l.ctx, "cp", "-a", tmpl+"/data", p.dir+"/data").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the template: %w: %s", err, out)
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	if err := ca.issue(p.dir, p.Addr); err != nil {
		return nil, err
	}
	p.CAPEM = string(ca.pem)
	lines := append([]string{"local all all trust"}, opts.Access...) // the socket is for root alone
	lines = append(lines, "hostssl all all "+network+" scram-sha-256", "")
	if err := os.WriteFile(p.dir+"/pg_hba.conf", []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		return nil, err
	}
	if err := own(p.dir, owner, "", "ca.pem", "server.pem", "server.key", "pg_hba.conf"); err != nil {
		return nil, err
	}
	if p.root, err = p.local("postgres"); err != nil {
		return nil, err
	}
	if p.app, err = p.local("app"); err != nil {
		return nil, err
	}
	p.srv = newServer(l, "postgres "+p.Addr, p.dir, opts.Node)
	if err := p.start(); err != nil {
		return nil, err
	}
	if err := l.onClose(p.stop); err != nil {
		return nil, err
	}
	return p, p.manage(l.ctx)
}

// initDB makes an empty data directory, as the user postgres.
var initDB = []string{
	postgresBin + "initdb", "-U", "postgres", "-A", "scram-sha-256", "--no-sync", "--no-instructions", "-E", "UTF8", "--locale=C.UTF-8",
}

// firstDatabase is given to a server in single-user mode, for which a line is a statement.
const firstDatabase = "CREATE ROLE app_owner NOLOGIN\nCREATE DATABASE app OWNER app_owner\n"

// firstTable is given to the database app.
const firstTable = "SET ROLE app_owner\nCREATE TABLE item (id int PRIMARY KEY, name text)\nINSERT INTO item VALUES (1, 'first')\n"

// initDB works in a directory of the lab, which the user postgres can reach, and leaves
// the result in dir, which it may not.
func (l *Lab) initDB(dir string, owner *user.User) error {
	work, err := l.mkdir("initdb")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := os.WriteFile(work+"/password", []byte(newPassword()), 0o600); err != nil {
		return err
	}
	if err := own(work, owner, "", "password"); err != nil {
		return err
	}
	single := []string{postgresBin + "postgres", "--single", "-F", "-D", work + "/data", "-c", "dynamic_shared_memory_type=mmap"}
	for _, step := range []struct {
		argv  []string
		stdin string
	}{
		{slices.Concat(initDB, []string{"-D", work + "/data", "--pwfile=" + work + "/password"}), ""},
		{slices.Concat(single, []string{"postgres"}), firstDatabase},
		{slices.Concat(single, []string{"app"}), firstTable},
		{[]string{"rm", work + "/data/pg_hba.conf"}, ""},
	} {
		cmd := exec.CommandContext(l.ctx, "setpriv", asPostgres(step.argv)...) //nolint:gosec // own paths
		cmd.Env, cmd.Dir, cmd.Stdin = []string{path, "LC_ALL=C.UTF-8", "TZ=UTC"}, work, strings.NewReader(step.stdin)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "ERROR:") {
			return fmt.Errorf("%s: %w: %s", step.argv[0], err, out)
		}
	}
	//nolint:gosec // own paths
	if out, err := exec.CommandContext(l.ctx, "cp", "-a", work+"/data", dir+"/data").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// asPostgres are setpriv's arguments that run a program as the user postgres, which dies
// with its parent all the same.
func asPostgres(argv []string) []string {
	return append([]string{"--reuid=postgres", "--regid=postgres", "--clear-groups", "--pdeathsig=KILL", "--"}, argv...)
}

// own gives files in dir to a user.
func own(dir string, to *user.User, names ...string) error {
	uid, err := strconv.Atoi(to.Uid)
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(to.Gid)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.Chown(filepath.Join(dir, name), uid, gid); err != nil {
			return err
		}
	}
	return nil
}

func (p *PostgresServer) start() error {
	settings := append([]string{
		"hba_file=" + p.dir + "/pg_hba.conf", "listen_addresses=" + p.Addr, "port=" + strconv.Itoa(p.Port),
		"unix_socket_directories=" + p.dir, "unix_socket_permissions=0700",
		"ssl_ca_file=" + p.dir + "/ca.pem", "ssl_cert_file=" + p.dir + "/server.pem", "ssl_key_file=" + p.dir + "/server.key",
		"dynamic_shared_memory_type=sysv", // of its own namespace: nothing is left when it is killed
		"fsync=off", "full_page_writes=off", "shared_buffers=16MB",
		"log_statement=all", "log_connections=on", "log_destination=stderr", "logging_collector=off",
		"ssl=" + map[bool]string{false: "on", true: "off"}[p.opts.Plain], "max_connections=60",
	}, p.opts.Config...)
	argv := []string{postgresBin + "postgres", "-D", p.dir + "/data"}
	for _, s := range settings {
		argv = append(argv, "-c", s)
	}
	cmd := exec.CommandContext(p.srv.ctx, "setpriv", asPostgres(argv)...) //nolint:gosec // own paths
	cmd.Env, cmd.Dir = []string{path, "LC_ALL=C.UTF-8", "TZ=UTC"}, p.dir
	return p.srv.start(cmd, syscall.CLONE_NEWPID|syscall.CLONE_NEWIPC|syscall.CLONE_NEWNS, p.root.PingContext)
}

func (p *PostgresServer) stop() {
	p.srv.kill()
	_ = p.root.Close()
	_ = p.app.Close()
}

// manage makes the management account, whose password stays out of the log.
func (p *PostgresServer) manage(ctx context.Context) error {
	conn, err := p.root.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for _, s := range []string{
		"SET log_statement = 'none'",
		"CREATE ROLE " + Management + " LOGIN PASSWORD '" + p.ManagementPassword + "'",
		"RESET log_statement",
	} {
		if _, err := conn.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	for _, g := range p.opts.Grants {
		if err := p.ExecIn(ctx, "app", g); err != nil {
			return fmt.Errorf("%s: %w", g, err)
		}
	}
	return nil
}

// local opens a handle of the superuser by the server's socket.
func (p *PostgresServer) local(database string) (*sql.DB, error) {
	cfg, err := pgx.ParseConfig("host=" + p.dir + " user=postgres sslmode=disable")
	if err != nil {
		return nil, err
	}
	cfg.Port, cfg.Database = 5432, database
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	return stdlib.OpenDB(*cfg), nil
}

// Root is a superuser's handle in the database "postgres", by the server's own socket.
// It belongs to the server: callers do not close it.
func (p *PostgresServer) Root() *sql.DB { return p.root }

// App is Root in the database "app".
func (p *PostgresServer) App() *sql.DB { return p.app }

// As logs in over TLS with the bare driver. The caller closes the connection.
func (p *PostgresServer) As(ctx context.Context, user, password, database string) (*pgx.Conn, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(p.CAPEM))
	cfg, err := pgx.ParseConfig("host=" + p.Addr + " user=postgres sslmode=disable")
	if err != nil {
		return nil, err
	}
	cfg.Port, cfg.User, cfg.Password, cfg.Database = uint16(p.Port), user, password, database //nolint:gosec // 5432
	cfg.TLSConfig = &tls.Config{RootCAs: roots, ServerName: p.Addr, MinVersion: tls.VersionTLS12}
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	if p.opts.Node != nil {
		cfg.DialFunc = p.opts.Node.Dial
	}
	return pgx.ConnectConfig(ctx, cfg)
}

// Login tries one login over TLS to the database "postgres" and runs a statement in it.
// A refusal is ErrRefused.
func (p *PostgresServer) Login(ctx context.Context, user, password string) error {
	conn, err := p.As(ctx, user, password, "postgres")
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return fmt.Errorf("%w: %s: SQLSTATE %s", ErrRefused, user, e.Code)
	}
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var matched string
	if err := conn.QueryRow(ctx, "SELECT session_user").Scan(&matched); err != nil {
		return err
	}
	if matched != user {
		return fmt.Errorf("logged in as %s, not as %s", matched, user)
	}
	return nil
}

// PostgresRole is what the server stores about a role.
type PostgresRole struct {
	OID, Verifier, Comment string
	CanLogin, Superuser    bool
	ConnectionLimit        int
	ValidUntil             sql.NullString // as the server writes it, in UTC
}

// Role reads a role from pg_authid. ok is false if it is not there.
func (p *PostgresServer) Role(ctx context.Context, name string) (r PostgresRole, ok bool, err error) {
	err = p.root.QueryRowContext(ctx, `SELECT oid::text, COALESCE(rolpassword, ''),
 COALESCE(shobj_description(oid, 'pg_authid'), ''), rolcanlogin, rolsuper, rolconnlimit, (rolvaliduntil AT TIME ZONE 'UTC')::text
 FROM pg_authid WHERE rolname = $1`, name).
		Scan(&r.OID, &r.Verifier, &r.Comment, &r.CanLogin, &r.Superuser, &r.ConnectionLimit, &r.ValidUntil)
	if errors.Is(err, sql.ErrNoRows) {
		return r, false, nil
	}
	return r, err == nil, err
}

// Exec runs one statement as the superuser, behind the product's back.
func (p *PostgresServer) Exec(ctx context.Context, statement string) error {
	return p.ExecIn(ctx, "postgres", statement)
}

// ExecIn is Exec in another database, over a connection of its own, so that nothing
// keeps the database in use.
func (p *PostgresServer) ExecIn(ctx context.Context, database, statement string) error {
	db, err := p.local(database)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	_, err = db.ExecContext(ctx, statement)
	return err
}

// Logs is all the server has logged, every statement it was sent included.
func (p *PostgresServer) Logs() (string, error) {
	log, err := os.ReadFile(p.srv.log)
	return string(log), err
}

// Hang stops the server with all its processes: connections open and nobody answers.
func (p *PostgresServer) Hang() error {
	if err := p.srv.stop(); err != nil { // so that it makes no more of them
		return err
	}
	children, err := p.children()
	if err != nil {
		return err
	}
	for _, pid := range children {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	for _, pid := range children {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			still, err := stopped(pid)
			if err != nil {
				return err
			}
			if still {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: a process does not stop", p.srv.name)
			}
		}
	}
	return nil
}

// Resume undoes Hang.
func (p *PostgresServer) Resume() error {
	children, err := p.children()
	if err != nil {
		return err
	}
	for _, pid := range children {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return p.srv.signal(syscall.SIGCONT)
}

// children are the server's processes, one for each session and some of its own.
func (p *PostgresServer) children() ([]int, error) {
	pid := p.srv.pid()
	list, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(list)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		pids = append(pids, child)
	}
	return pids, nil
}

// Crash kills the server. Its data stay for Restart.
func (p *PostgresServer) Crash() { p.srv.kill() }

// Restart starts a crashed server again on the same data, at the same address.
func (p *PostgresServer) Restart() error { return p.start() }

// ReadOnly makes new sessions refuse changes (SQLSTATE 25006), as a standby does.
func (p *PostgresServer) ReadOnly(ctx context.Context) error { return p.readOnly(ctx, "on") }

// ReadWrite undoes ReadOnly.
func (p *PostgresServer) ReadWrite(ctx context.Context) error { return p.readOnly(ctx, "off") }

// readOnly waits until the server has read its settings again: it does so when it likes.
func (p *PostgresServer) readOnly(ctx context.Context, value string) error {
	if err := p.Exec(ctx, "ALTER SYSTEM SET default_transaction_read_only = "+value); err != nil {
		return err
	}
	if err := p.Exec(ctx, "SELECT pg_reload_conf()"); err != nil {
		return err
	}
	return p.srv.await(func(ctx context.Context) error {
		db, err := p.local("postgres")
		if err != nil {
			return err
		}
		defer func() { _ = db.Close() }()
		var now string
		if err := db.QueryRowContext(ctx, "SHOW default_transaction_read_only").Scan(&now); err != nil {
			return err
		}
		if now != value {
			return errors.New("the setting has not arrived")
		}
		return nil
	})
}
