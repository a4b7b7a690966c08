// Package sdktest is the conformance kit for connectors: checks that any connector,
// ours or a stranger's, is run against, on a real target. Tests import it, and the command
// line, which runs it as a black box.
//
//	func TestConformance(t *testing.T) {
//		sdktest.Run(t, sdktest.Config{Binary: "./connector-x", Target: …, Exists: …, …})
//	}
//
// The kit talks to the connector as an agent does, over gRPC, and looks at the target
// through the hooks of Config, never through the connector. Between connector and
// target it puts a proxy of its own wherever a network has to fail.
package sdktest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// checkTimeout bounds one check.
const checkTimeout = 90 * time.Second

// Config says what is checked, and how to see what became of the target. All fields are
// required unless they say otherwise.
type Config struct {
	// Connector is served inside the test process; Binary is the path of a plugin
	// program, started as an agent starts it. Exactly one is set.
	Connector sdk.Connector
	Binary    string

	// Target has a pinned identity and a management credential that may do everything.
	// It is reached by TCP at Address and Port.
	Target sdk.Target
	// WrongTrust is well-formed and not the target's.
	WrongTrust sdk.Trust
	// NoIdentity says that the protocol has no identity of a target that could be
	// trusted, as Telnet. WrongTrust is not needed then.
	NoIdentity bool

	// Role is what accounts are provisioned with. Optional: the first role that needs no
	// parameters.
	Role   sdk.Role
	Params map[string]string

	// NewAccountName returns a name never returned before that fits the connector's rule.
	NewAccountName func() string
	// Exists reports whether the target has the account, by looking at the target itself.
	Exists func(ctx context.Context, name string) (bool, error)
	// LoginWorks makes a login with a plain client. A refused login is false, nil.
	LoginWorks func(ctx context.Context, name, password string) (bool, error)
	// CreateForeign makes an account that Reeve knows nothing of.
	CreateForeign func(ctx context.Context, name, password string) error
	// Snapshot returns all of the target that a connector could change, in any form.
	Snapshot func(ctx context.Context) (string, error)

	// Settle makes the target give up at once what it keeps for clients that are gone, and would give up by itself
	// later, such as shells. It is called after each check. Optional.
	Settle func(ctx context.Context) error
	// Session makes a login that lasts until end is called. Optional: without it nothing
	// is known about sessions.
	Session func(ctx context.Context, name, password string) (end func(), err error)
	// Commands are commands of the target, for connectors that run commands. Optional.
	Commands *Commands

	// States are how accounts get into states in which they refuse the right password. Optional:
	// nothing is known about a state that is not there.
	States map[State]StateHook
	// FailedLogins returns how many failed logins the target counts for an account. Optional.
	FailedLogins func(ctx context.Context, name string) (int, error)
	// RefusedRole has a grant that the target refuses, after the account was made. Optional.
	RefusedRole   sdk.Role
	RefusedParams map[string]string
	// InTheClear says why the protocol encrypts nothing, as Telnet. Optional: without it no
	// password may be seen on the wire.
	InTheClear string

	// Report is a file the report is written to as JSON. Optional.
	Report string
	// Each is told by Examine of every outcome as it comes. Optional.
	Each func(Outcome)

	wrap func(connectorv1.ConnectorServer) connectorv1.ConnectorServer // for the kit's own tests
}

// Commands are commands of the kind of target, for the checks of Run.
type Commands struct {
	// Speak prints Stdout and Stderr, and ends with Status. White space around them does
	// not count. An empty Stderr says that the target has no second stream.
	Speak          string
	Stdout, Stderr string
	Status         int
	// Pause prints a line, and ends half a minute later.
	Pause string
	// Large prints 200,000 bytes or more in lines; LargeEnd is the end of what it prints.
	Large, LargeEnd string
}

// Check is one thing a connector must do.
type Check struct {
	ID    string // SDK01, SDK02, …; never reused for another check
	Title string
	run   func(ctx context.Context, s *suite) error
	needs []sdk.Power
}

// Checks is the catalogue, in the order in which the checks are done.
func Checks() []Check { return slices.Clone(checks) }

// Status is what became of a check.
type Status string

// The statuses.
const (
	Passed        Status = "passed"
	Failed        Status = "failed"
	NotApplicable Status = "not applicable" // the connector lacks the power, or the target what is asked about
)

// notApplicable is what a check returns that cannot be done, and why.
type notApplicable string

func (n notApplicable) Error() string { return string(n) }

const noIdentity = notApplicable("the protocol gives the target no identity")

// Outcome is the result of one check.
type Outcome struct {
	ID      string        `json:"id"`
	Title   string        `json:"title"`
	Status  Status        `json:"status"`
	Message string        `json:"message,omitempty"` // why
	Took    time.Duration `json:"took_ns"`
}

// Report is the result of all checks.
type Report struct {
	Connector string    `json:"connector"`
	Version   string    `json:"version"`
	Outcomes  []Outcome `json:"outcomes"`
}

// Passed reports whether checks were done and none failed.
func (r Report) Passed() bool { return r.Count(Passed) > 0 && r.Count(Failed) == 0 }

// Count returns how many checks have a status.
func (r Report) Count(s Status) int {
	n := 0
	for _, o := range r.Outcomes {
		if o.Status == s {
			n++
		}
	}
	return n
}

// Outcome returns the result of the check with the id.
func (r Report) Outcome(id string) (Outcome, bool) {
	for _, o := range r.Outcomes {
		if o.ID == id {
			return o, true
		}
	}
	return Outcome{}, false
}

// String is the report for people: one line per check.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "conformance of connector %s %s\n", r.Connector, r.Version)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, o := range r.Outcomes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", o.ID, o.Status, o.Took.Round(time.Millisecond), o.Title, o.Message)
	}
	_ = w.Flush()
	fmt.Fprintf(&b, "%d passed, %d failed, %d not applicable\n", r.Count(Passed), r.Count(Failed), r.Count(NotApplicable))
	return b.String()
}

// Run does the checks with the given ids, or all of them, each as a subtest named by its
// ID, logs the report and returns it. A connector conforms when all were done.
func Run(t *testing.T, cfg Config, ids ...string) Report {
	t.Helper()
	s, err := open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	report := s.report()
	for _, c := range wanted(ids) {
		t.Run(c.ID, func(t *testing.T) {
			o := s.do(t.Context(), c)
			report.Outcomes = append(report.Outcomes, o)
			switch o.Status {
			case Failed:
				t.Errorf("%s: %s", o.Title, o.Message)
			case NotApplicable:
				t.Logf("not applicable: %s", o.Message)
			}
		})
	}
	t.Log("\n" + report.String())
	if err := report.write(cfg.Report); err != nil {
		t.Errorf("report: %v", err)
	}
	return report
}

// Examine does the checks with the given ids, or all of them, without a testing.T.
func Examine(ctx context.Context, cfg Config, ids ...string) (Report, error) {
	s, err := open(ctx, cfg)
	if err != nil {
		return Report{}, err
	}
	defer s.close()
	report := s.report()
	for _, c := range wanted(ids) {
		if ctx.Err() != nil {
			return report, ctx.Err()
		}
		o := s.do(ctx, c)
		report.Outcomes = append(report.Outcomes, o)
		if cfg.Each != nil {
			cfg.Each(o)
		}
	}
	return report, report.write(cfg.Report)
}

// write writes the report as JSON, if path is not empty. Under REEVE_CONFORMANCE, a
// directory, it is written too, for whoever counts the checks of all connectors.
func (r Report) write(path string) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if path != "" {
		err = os.WriteFile(path, data, 0o600)
	}
	if dir := os.Getenv(ReportDir); dir != "" && err == nil {
		var f *os.File
		if f, err = os.CreateTemp(dir, r.Connector+"-*.json"); err == nil {
			_, err = f.Write(data)
			err = errors.Join(err, f.Close())
		}
	}
	return err
}

// ReportDir is the environment variable with a directory for the reports of all runs.
const ReportDir = "REEVE_CONFORMANCE"

func wanted(ids []string) []Check {
	if len(ids) == 0 {
		return checks
	}
	return slices.DeleteFunc(slices.Clone(checks), func(c Check) bool { return !slices.Contains(ids, c.ID) })
}

func (s *suite) report() Report {
	return Report{Connector: s.description.Name, Version: s.description.Version}
}

// do runs one check. Whatever the check looked for, a secret that showed up where none
// may be fails it too.
func (s *suite) do(ctx context.Context, c Check) Outcome {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	began := time.Now()
	o := Outcome{ID: c.ID, Title: c.Title, Status: Passed}
	err := s.lacks(c.needs)
	if err == nil {
		err = c.run(ctx, s)
	}
	if leaked := s.leaked(); leaked != nil {
		err = errors.Join(err, leaked)
	}
	o.Took = time.Since(began)
	s.tidy()
	why, other := err.(notApplicable) //nolint:errorlint // one that is wrapped or joined is a failure
	switch {
	case err == nil:
	case other:
		o.Status, o.Message = NotApplicable, string(why)
	default:
		o.Status, o.Message = Failed, strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return o
}

// lacks is notApplicable if the connector lacks a power.
func (s *suite) lacks(powers []sdk.Power) error {
	for _, p := range powers {
		if !s.has(p) {
			return notApplicable("the connector has no power to " + string(p))
		}
	}
	return nil
}

func (c Config) validate() error {
	missing := func(name string) error { return fmt.Errorf("sdktest: Config.%s is required", name) }
	switch {
	case (c.Connector == nil) == (c.Binary == ""):
		return errors.New("sdktest: set exactly one of Config.Connector and Config.Binary")
	case c.Target.Address == "" || c.Target.Port == 0:
		return missing("Target with Address and Port")
	case !c.NoIdentity && len(c.WrongTrust.HostKeys) == 0 && c.WrongTrust.CAPEM == "":
		return missing("WrongTrust")
	case c.NewAccountName == nil:
		return missing("NewAccountName")
	case c.Exists == nil:
		return missing("Exists")
	case c.LoginWorks == nil:
		return missing("LoginWorks")
	case c.CreateForeign == nil:
		return missing("CreateForeign")
	case c.Snapshot == nil:
		return missing("Snapshot")
	}
	for state, hook := range c.States {
		if _, known := answers[state]; !known {
			return fmt.Errorf("sdktest: there is no state %q", state)
		}
		if (hook.Set == nil) == (hook.None == "") {
			return fmt.Errorf("sdktest: set exactly one of Set and None for the state %q", state)
		}
	}
	return nil
}
