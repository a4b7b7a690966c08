package oracle

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// What every server here is called.
const (
	Service = "ORCLPDB1"
	SID     = "ORCL"
)

// The management account that Start makes, unless Options say otherwise.
const (
	Management         = "REEVE"
	ManagementPassword = "Emulated-Pass-0rd" //nolint:gosec // of an emulator
)

// ManagementRights is the least that Reeve's management account needs, without what roles grant.
func ManagementRights() []string {
	return []string{
		"CREATE SESSION TO REEVE WITH ADMIN OPTION", "CREATE USER TO REEVE", "ALTER USER TO REEVE", "DROP USER TO REEVE",
		"CREATE SYNONYM TO REEVE", "ALTER SYSTEM TO REEVE", "SELECT_CATALOG_ROLE TO REEVE", "EXECUTE ON SYS.DBMS_LOCK TO REEVE",
	}
}

// Options are what a server is like.
type Options struct {
	Major  int      // version; 0: 19, 12: 12.1
	Plain  bool     // TCP without TLS
	Root   bool     // the root of a container database: user names begin with C##
	RDS    bool     // ALTER SYSTEM is not allowed; rdsadmin.rdsadmin_util.kill is there
	Rights []string // grants of the management account, as in GRANT …; nil: ManagementRights
	// NoMarkers leaves out the break and reset markers that a real server sends before errors.
	NoMarkers bool
	Faults    Faults
}

// number is the version as servers give it at login. 12 is 12.1.
func (o Options) number() int {
	if o.Major == 12 {
		return 12<<24 | 1<<20
	}
	return o.Major << 24
}

// Faults are what goes wrong. Statements are named by how they begin; "" is none.
type Faults struct {
	Redirect        string // the listener sends clients to this address, e.g. "(ADDRESS=(PROTOCOL=tcp)(HOST=…)(PORT=…))"
	HangAfterAccept bool
	HangAtLogin     bool // after the password was sent
	HangIn          string
	HangInAnswer    string         // of a statement: half of the answer is sent
	DropBefore      string         // hang up before the statement is done
	DropAfter       string         // hang up after it is done, before the answer
	Oversize        string         // the answer's packet says it is 2 GB long
	Garbage         string         // the answer is no TTC message
	Fail            map[string]int // statements that fail with an error number
	FailLogin       map[string]int // users whose login fails
	IgnoreBreak     bool           // break markers are not answered
	Rogue           bool           // logins succeed with any password, without a proof of the server
	KillDoesNothing bool           // sessions told to end go on
}

// Server is a running emulator.
type Server struct {
	Addr  string
	Port  int
	CAPEM string // what signed its certificate; "" without TLS
	DB    *DB

	tb       testing.TB
	options  Options
	tls      *tls.Config
	listener net.Listener
	wg       sync.WaitGroup

	mu     sync.Mutex
	faults Faults
	open   map[net.Conn]bool
	closed bool
}

// Start runs a server until the test ends.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	if o.Major == 0 {
		o.Major = 19
	}
	var config net.ListenConfig
	listener, err := config.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	s := &Server{
		Addr: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port,
		tb: tb, options: o, listener: listener, faults: o.Faults, open: map[net.Conn]bool{},
	}
	if !o.Plain {
		if s.CAPEM, s.tls, err = newCertificate(); err != nil {
			tb.Fatal(err)
		}
	}
	s.DB = newDB(o, s.faultsNow)
	rights := o.Rights
	if rights == nil {
		rights = ManagementRights()
	}
	s.Exec(`CREATE USER ` + Management + ` IDENTIFIED BY "` + ManagementPassword + `"`)
	for _, r := range rights {
		s.Exec("GRANT " + r)
	}
	s.DB.forgetLog()
	s.wg.Go(s.accept)
	tb.Cleanup(s.Close)
	return s
}

// Exec runs statements as SYS, without the network. A statement that fails ends the test.
func (s *Server) Exec(statements ...string) {
	s.tb.Helper()
	for _, text := range statements {
		if err := s.DB.exec(s.DB.sys, text, nil); err != nil {
			s.tb.Fatalf("%s: %v", text, err)
		}
	}
}

// SetFaults changes what goes wrong from now on.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

func (s *Server) faultsNow() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// Close ends the server and all its connections.
func (s *Server) Close() {
	_ = s.listener.Close()
	s.mu.Lock()
	s.closed = true
	for c := range s.open {
		_ = c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// unknown fails the test: the client sent something that is not emulated.
func (s *Server) unknown(format string, args ...any) {
	s.tb.Errorf("oracle emulator: "+format, args...)
}

func (s *Server) accept() {
	for {
		raw, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.open[raw] = true
		if s.closed {
			_ = raw.Close()
		}
		s.mu.Unlock()
		s.wg.Go(func() {
			s.serve(raw)
			_ = raw.Close()
			s.mu.Lock()
			delete(s.open, raw)
			s.mu.Unlock()
		})
	}
}

// serve speaks with one client until it or a fault ends it. What a cut or hostile connection sends is no failure of
// the test; what is well formed and not emulated is.
func (s *Server) serve(raw net.Conn) {
	conn := raw
	if s.tls != nil {
		conn = tls.Server(raw, s.tls)
	}
	l := &link{conn: conn}
	err := s.handshake(l)
	if err == nil {
		session := &session{server: s, link: l, field: fieldVersion, cursors: map[uint64]*cursor{}}
		err = session.loop()
		s.DB.logoff(session.entry)
	}
	if e, ok := errors.AsType[notEmulated](err); ok {
		s.unknown("%s", e)
	}
}

// notEmulated is what a client sent that no code here understands.
type notEmulated string

func (e notEmulated) Error() string { return string(e) }

// errHangUp ends a connection by a fault.
var errHangUp = errors.New("hang up")

// stall keeps the connection open and says nothing until the client hangs up.
func (l *link) stall() error {
	_, _ = io.Copy(io.Discard, l.conn)
	return errHangUp
}

// begins reports whether a statement begins with words that a fault names.
func begins(statement, prefix string) bool {
	return prefix != "" && strings.HasPrefix(strings.ToUpper(statement), strings.ToUpper(prefix))
}
