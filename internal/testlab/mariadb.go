//go:build linux

package testlab

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/go-sql-driver/mysql"
)

// MariaDBOptions says what a server is like.
type MariaDBOptions struct {
	// Grants are what the management account holds, each the text between GRANT and
	// TO … WITH GRANT OPTION; nil means DefaultGrants.
	Grants []string
	Config []string // further options of mariadbd, e.g. "--skip-networking=0"
	Node   *Node    // the network node the server is; nil: a loopback address of this machine
}

// DefaultGrants let the management account make accounts, end their sessions, read
// everything and pass on any right on the database "app".
func DefaultGrants() []string {
	return []string{
		"CREATE USER, CONNECTION ADMIN, PROCESS, SELECT, SHOW VIEW ON *.*",
		"ALL PRIVILEGES ON `app`.*",
	}
}

// Management is the name of a server's management account, which must use TLS.
const Management = "reeve"

// Database is a running MariaDB server. It has a database "app" with a table "item".
type Database struct {
	Addr               string // IP address
	Port               int    // always 3306
	CAPEM              string // the certificate authority of its TLS certificate
	ManagementPassword string

	srv  *server
	opts MariaDBOptions
	dir  string
	root *sql.DB // by its socket, whatever happens to the network
}

// MariaDB starts a server and returns once it answers.
func (l *Lab) MariaDB(opts MariaDBOptions) (*Database, error) {
	if opts.Grants == nil {
		opts.Grants = DefaultGrants()
	}
	d := &Database{Port: 3306, opts: opts, ManagementPassword: newPassword()}
	var err error
	if opts.Node != nil {
		d.Addr = opts.Node.Addr
	} else if d.Addr, err = l.address(); err != nil {
		return nil, err
	}
	tmpl, err := template("mariadb", strings.Join(installDB, " "), func(dir string) error {
		cmd := exec.CommandContext(l.ctx, installDB[0], append(installDB[1:], "--datadir="+dir+"/data")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if d.dir, err = l.mkdir("mariadb"); err != nil {
		return nil, err
	}
	//nolint:gosec // own paths
	if out, err := exec.CommandContext(l.ctx, "cp", "-a", tmpl+"/data", d.dir+"/data").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the template: %w: %s", err, out)
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	if err := ca.issue(d.dir, d.Addr); err != nil {
		return nil, err
	}
	d.CAPEM = string(ca.pem)
	rootPassword := newPassword()
	if err := os.WriteFile(d.dir+"/init.sql", []byte(d.firstStatements(rootPassword)), 0o600); err != nil {
		return nil, err
	}
	d.root, err = open(&mysql.Config{User: "root", Passwd: rootPassword, Net: "unix", Addr: d.dir + "/socket"})
	if err != nil {
		return nil, err
	}

	d.srv = newServer(l, "mariadb "+d.Addr, d.dir, opts.Node)
	if err := d.start("--init-file=" + d.dir + "/init.sql"); err != nil {
		return nil, err
	}
	return d, l.onClose(d.stop)
}

// installDB makes an empty data directory, in which root has no password yet.
var installDB = []string{"mariadb-install-db", "--no-defaults", "--user=root",
	"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", "--innodb-log-file-size=4M"}

// firstStatements run before the server opens its port. One statement is one line.
func (d *Database) firstStatements(rootPassword string) string {
	lines := []string{
		"DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> 'localhost')",
		"FLUSH PRIVILEGES",
		"ALTER USER 'root'@'localhost' IDENTIFIED BY '" + rootPassword + "'",
		"CREATE USER '" + Management + "'@'%' IDENTIFIED BY '" + d.ManagementPassword + "' REQUIRE SSL",
		"CREATE DATABASE app",
		"CREATE TABLE app.item (id INT PRIMARY KEY, name TEXT)",
		"INSERT INTO app.item VALUES (1, 'first')",
	}
	for _, g := range d.opts.Grants {
		lines = append(lines, "GRANT "+g+" TO '"+Management+"'@'%' WITH GRANT OPTION")
	}
	return strings.Join(lines, ";\n") + ";\n"
}

// newPassword has a character of each kind, for servers that ask for them.
func newPassword() string { return "Lab-1" + rand.Text() }

func (d *Database) start(more ...string) error {
	args := append([]string{"--no-defaults", "--user=root", "--datadir=" + d.dir + "/data",
		"--socket=" + d.dir + "/socket", "--pid-file=" + d.dir + "/pid",
		"--tmpdir=" + d.dir, // its temporary files are named after the pid, which is 1 for all servers
		"--bind-address=" + d.Addr, "--port=" + strconv.Itoa(d.Port), "--skip-name-resolve",
		"--ssl-ca=" + d.dir + "/ca.pem", "--ssl-cert=" + d.dir + "/server.pem", "--ssl-key=" + d.dir + "/server.key",
		"--general-log", "--general-log-file=" + d.dir + "/general.log",
		"--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M", "--performance-schema=0",
		"--key-buffer-size=1M", "--aria-pagecache-buffer-size=1M", "--max-connections=100"}, d.opts.Config...)
	cmd := exec.CommandContext(d.srv.ctx, "mariadbd", append(args, more...)...) //nolint:gosec // own paths
	cmd.Env, cmd.Dir = []string{path, "LC_ALL=C.UTF-8", "TZ=UTC"}, d.dir
	return d.srv.start(cmd, syscall.CLONE_NEWPID|syscall.CLONE_NEWIPC|syscall.CLONE_NEWNS, d.root.PingContext)
}

func (d *Database) stop() {
	d.srv.kill()
	_ = d.root.Close()
}

func open(cfg *mysql.Config) (*sql.DB, error) {
	base := mysql.NewConfig()
	base.User, base.Passwd, base.Net, base.Addr, base.TLS = cfg.User, cfg.Passwd, cfg.Net, cfg.Addr, cfg.TLS
	base.DialFunc, base.Logger = cfg.DialFunc, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(base)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// Root is a root session's handle, by the server's own socket. It belongs to the
// Database: callers do not close it.
func (d *Database) Root() *sql.DB { return d.root }

// As opens a handle that logs in over TLS with the bare driver. The caller closes it.
func (d *Database) As(user, password string) (*sql.DB, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(d.CAPEM))
	cfg := &mysql.Config{
		User: user, Passwd: password, Net: "tcp", Addr: net.JoinHostPort(d.Addr, strconv.Itoa(d.Port)),
		TLS: &tls.Config{RootCAs: roots, ServerName: d.Addr, MinVersion: tls.VersionTLS12},
	}
	if d.opts.Node != nil {
		cfg.DialFunc = d.opts.Node.Dial
	}
	return open(cfg)
}

// Login tries one login over TLS and runs a statement in it. A refusal is ErrRefused.
func (d *Database) Login(ctx context.Context, user, password string) error {
	db, err := d.As(user, password)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	var matched string
	err = db.QueryRowContext(ctx, "SELECT CURRENT_USER()").Scan(&matched)
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return fmt.Errorf("%w: %s: error %d", ErrRefused, user, e.Number)
	}
	if err == nil && !strings.HasPrefix(matched, user+"@") {
		return fmt.Errorf("logged in as %s, not as %s", matched, user)
	}
	return err
}

// GlobalPriv reads what the server stores about an account: mysql.global_priv. ok is
// false if it is not there.
func (d *Database) GlobalPriv(ctx context.Context, user, host string) (priv map[string]any, ok bool, err error) {
	var text []byte
	err = d.root.QueryRowContext(ctx, "SELECT Priv FROM mysql.global_priv WHERE User = ? AND Host = ?", user, host).
		Scan(&text)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return priv, true, json.Unmarshal(text, &priv)
}

// Exec runs one statement as root, behind the product's back.
func (d *Database) Exec(ctx context.Context, statement string) error {
	_, err := d.root.ExecContext(ctx, statement)
	return err
}

// Logs is all the server has logged: its error log and every statement it was sent.
func (d *Database) Logs() (string, error) {
	errorLog, err := os.ReadFile(d.srv.log)
	general, err2 := os.ReadFile(filepath.Join(d.dir, "general.log"))
	return string(errorLog) + string(general), errors.Join(err, err2)
}

// PID is the process id of the server, as seen from outside.
func (d *Database) PID() int { return d.srv.pid() }

// Hang stops the server: connections open and nobody answers.
func (d *Database) Hang() error { return d.srv.stop() }

// Resume undoes Hang.
func (d *Database) Resume() error { return d.srv.signal(syscall.SIGCONT) }

// Crash kills the server. Its data stay for Restart.
func (d *Database) Crash() { d.srv.kill() }

// Restart starts a crashed server again on the same data, at the same address.
func (d *Database) Restart() error { return d.start() }

// ReadOnly makes the server refuse changes by everybody but root (error 1290).
func (d *Database) ReadOnly(ctx context.Context) error {
	return d.Exec(ctx, "SET GLOBAL read_only = ON")
}

// ReadWrite undoes ReadOnly.
func (d *Database) ReadWrite(ctx context.Context) error {
	return d.Exec(ctx, "SET GLOBAL read_only = OFF")
}
