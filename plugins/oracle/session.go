package main

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"

	goora "github.com/sijms/go-ora/v2"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/cert"
)

// session is one connection, logged in. It is used by one goroutine at a time: when the context of the operation that uses it
// ends, it is hung up.
type session struct {
	conn   *goora.Connection
	line   *line
	stop   func() bool // of hanging up with the context
	server server
	sent   bool // a statement that changes something has been sent
	lost   bool // no answer can be expected any more

	back    func(keep bool) // nil: it is not to be kept
	good    bool            // the operation went well
	changed bool            // a role's command may have changed the session itself
	lockID  string          // of the lock it holds
}

// errPanic is a crash of the driver, on bytes it did not expect.
type errPanic struct{ kind string }

func (e errPanic) Error() string { return "the driver crashed with a " + e.kind }

// guard calls the driver. What a panic says may quote what was sent.
func guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errPanic{fmt.Sprintf("%T", v)}
		}
	}()
	return f()
}

// connect logs in as the management account.
func connect(ctx context.Context, t sdk.Target) (*session, error) {
	user, err := managementName(t.Management.Username)
	if err != nil {
		return nil, err
	}
	return login(ctx, t, user, t.Management.Password, "")
}

var plainName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_$#]*$`)

// managementName is a login name as people write it: in upper case unless it is in double quotes.
func managementName(username string) (string, error) {
	switch inner := strings.TrimSuffix(strings.TrimPrefix(username, `"`), `"`); {
	case plainName.MatchString(username):
		return strings.ToUpper(username), nil
	case inner != "" && !strings.Contains(inner, `"`):
		return `"` + inner + `"`, nil
	default:
		return "", sdk.Errorf(sdk.ClassInvalid, "the name of the management account is empty or holds a double quote").
			WithFix("use an account whose name has none")
	}
}

// exactName is the login name of an account as the server spells it.
func exactName(account string) (string, error) {
	if plainName.MatchString(account) && account == strings.ToUpper(account) {
		return account, nil
	}
	return name(account)
}

// login logs in once, with an administrative privilege if one is named.
func login(ctx context.Context, t sdk.Target, user string, password sdk.Secret, as string) (*session, error) {
	config, err := trusting(t)
	if err != nil {
		return nil, err
	}
	l := &line{ctx: ctx, address: net.JoinHostPort(t.Address, strconv.Itoa(t.Port)), config: config}
	c, err := driverOf(t, user, password, as)
	if err != nil {
		return nil, err
	}
	c.Dialer(l)
	s := &session{line: l}
	s.watch(ctx)
	err = guard(func() error {
		// The context of the operation is not given to the driver: it would send a break and wait for an answer.
		conn, err := c.Connect(context.WithoutCancel(ctx))
		if err != nil {
			return err
		}
		s.conn = conn.(*goora.Connection)
		s.server, err = serverOf(s.conn.SessionProperties["AUTH_VERSION_NO"])
		return err
	})
	if _, ours := errors.AsType[*sdk.Error](err); ours {
		s.end()
		return nil, err
	}
	if err != nil {
		s.stop()
		l.hangUp() // the driver leaves failed connections open
		return nil, refused(ctx, t, err)
	}
	return s, nil
}

// driverOf sets the driver up. Names and passwords go through the driver's own writer of addresses.
func driverOf(t sdk.Target, user string, password sdk.Secret, as string) (*goora.OracleConnector, error) {
	service, sid := t.Options[optionService], t.Options[optionSID]
	switch {
	case (service == "") == (sid == ""):
		return nil, sdk.Errorf(sdk.ClassInvalid, "either the option %s or the option %s is needed", optionService, optionSID).
			WithFix("set %s to the service of the database; lsnrctl status lists them", optionService)
	case !servicePattern.MatchString(service + sid):
		return nil, sdk.Errorf(sdk.ClassInvalid, "the option %s or %s has characters that do not belong there", optionService, optionSID).
			WithFix("use the name as lsnrctl status lists it")
	case user == "" || password.Empty():
		return nil, sdk.Errorf(sdk.ClassInvalid, "a login needs a name and a password").WithFix("give both")
	}
	options := map[string]string{
		"TIMEOUT": patience, "PREFETCH_ROWS": "500", "PROGRAM": "reeve", "LANGUAGE": "AMERICAN", "TERRITORY": "AMERICA",
	}
	if sid != "" {
		options["SID"] = sid
	}
	if as != "" {
		options["DBA PRIVILEGE"] = as
	}
	c, ok := goora.NewConnector(goora.BuildUrl(t.Address, t.Port, service, user, password.Reveal(), options)).(*goora.OracleConnector)
	if !ok {
		return nil, sdk.Errorf(sdk.ClassInternal, "the driver is not the one this connector was made for")
	}
	return c, nil
}

// trusting is how the server's certificate is checked; nil for a target that is marked legacy.
func trusting(t sdk.Target) (*tls.Config, error) {
	if t.Options[optionLegacy] == yes {
		return nil, nil //nolint:nilnil // no TLS
	}
	return cert.Config(t)
}

// patience is how many seconds the driver may wait for one answer: longer than any operation lasts, which is ended by hanging up.
const patience = "3600"

// farewell is how long a server may take to answer a logoff.
const farewell = time.Second

// end ends the session for good.
func (s *session) end() {
	defer s.stop()
	defer s.line.hangUp()
	if s.lost || s.conn == nil {
		return
	}
	timer := time.AfterFunc(farewell, s.line.hangUp)
	defer timer.Stop()
	_ = guard(s.conn.Close)
}

// change sends a statement that changes something.
func (s *session) change(ctx context.Context, what, statement string) error {
	return failure(ctx, what, s.try(statement), true)
}

// try is change for callers that look at the error number themselves.
func (s *session) try(statement string) error {
	s.sent = true
	err := guard(func() error {
		_, err := s.conn.ExecContext(context.Background(), statement, nil)
		return err
	})
	s.lost = s.lost || broken(err)
	return err
}

// query reads rows of texts; NULL is "". A read that fails after a change was sent leaves the outcome of the whole unknown.
func (s *session) query(ctx context.Context, what, statement string, args ...string) (all [][]string, err error) {
	err = s.rows(statement, args, func(row []driver.Value) error {
		texts := make([]string, len(row))
		for i, v := range row {
			if v != nil {
				texts[i] = fmt.Sprint(v)
			}
		}
		all = append(all, texts)
		return nil
	})
	return all, failure(ctx, what, err, s.sent)
}

// rows calls each for every row of an answer.
func (s *session) rows(statement string, args []string, each func([]driver.Value) error) error {
	values := make([]driver.NamedValue, len(args))
	for i, a := range args {
		values[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	err := guard(func() error {
		rows, err := s.conn.QueryContext(context.Background(), statement, values)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		row := make([]driver.Value, len(rows.Columns()))
		for {
			err := rows.Next(row)
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err == nil {
				err = each(row)
			}
			if err != nil {
				return err
			}
		}
	})
	s.lost = s.lost || broken(err)
	return err
}
