// Package sdktest is the conformance kit for connectors: checks that any connector,
// ours or a stranger's, is run against, on a real target. Only tests import it.
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
	// NoIdentity says that the protocol gives the target no identity that could be proven, as with Telnet. WrongTrust
	// is not needed then, and checks of trust are not applicable.
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

	// Report is a file the report is written to as JSON. Optional.
	Report string
}

// Check is one thing a connector must do.
type Check struct {
	ID    string // SDK01, SDK02, …; never reused for another check
	Title string
	run   func(ctx context.Context, s *suite) error
}

// Status is what became of a check.
type Status string

// The statuses.
const (
	Passed        Status = "passed"
	Failed        Status = "failed"
	NotApplicable Status = "not applicable"
)

// notApplicable is what a check returns that makes no sense for a connector or target, with the reason.
type notApplicable string

func (n notApplicable) Error() string { return string(n) }

const noIdentity = notApplicable("the protocol gives the target no identity")

// Outcome is the result of one check.
type Outcome struct {
	ID      string        `json:"id"`
	Title   string        `json:"title"`
	Status  Status        `json:"status"`
	Message string        `json:"message,omitempty"`
	Took    time.Duration `json:"took_ns"`
}

// Report is the result of all checks.
type Report struct {
	Connector string    `json:"connector"`
	Version   string    `json:"version"`
	Outcomes  []Outcome `json:"outcomes"`
}

// Passed reports whether every check that is applicable passed.
func (r Report) Passed() bool {
	for _, o := range r.Outcomes {
		if o.Status != Passed && o.Status != NotApplicable {
			return false
		}
	}
	return len(r.Outcomes) > 0
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
			if o.Status == Failed {
				t.Errorf("%s: %s", o.Title, o.Message)
			}
		})
	}
	t.Log("\n" + report.String())
	if cfg.Report != "" {
		data, err := json.MarshalIndent(report, "", "  ")
		if err == nil {
			err = os.WriteFile(cfg.Report, append(data, '\n'), 0o600)
		}
		if err != nil {
			t.Errorf("report: %v", err)
		}
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
		report.Outcomes = append(report.Outcomes, s.do(ctx, c))
	}
	return report, nil
}

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
	done := c.run(ctx, s)
	o := Outcome{ID: c.ID, Title: c.Title, Status: Passed, Took: time.Since(began)}
	if why, ok := errors.AsType[notApplicable](done); ok {
		o.Status, o.Message, done = NotApplicable, string(why), nil
	}
	if err := errors.Join(done, s.leaked()); err != nil {
		o.Status, o.Message = Failed, strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return o
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
	default:
		return nil
	}
}
