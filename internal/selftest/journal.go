// Package selftest is the life of a throw-away account on a real target, written down
// without secrets, so that whoever maintains a connector sees how a target differs from
// those it was proven on. The command line lives that life, with a connector by hand or
// through a cluster; tests of connectors record the life that is expected.
package selftest

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Format is the version of the transcript's format.
const Format = 1

// Header is the first line of a transcript.
type Header struct {
	Transcript       int               `json:"transcript"` // Format
	Connector        string            `json:"connector"`
	ConnectorVersion string            `json:"connector_version"`
	Reeve            string            `json:"reeve"`
	Through          string            `json:"through"` // ByHand or Cluster
	Account          string            `json:"account"`
	Role             string            `json:"role,omitempty"`
	Params           map[string]string `json:"params,omitempty"`
	Began            time.Time         `json:"began"`
}

// How a life was lived.
const (
	ByHand  = "connector"
	Cluster = "cluster"
)

// Entry is every other line: one step, with what was planned, done and answered.
type Entry struct {
	Step    string          `json:"step"`
	Want    string          `json:"want"`
	Got     string          `json:"got"`
	OK      bool            `json:"ok"`
	Began   time.Time       `json:"began"`
	TookMS  int64           `json:"took_ms"`
	Plan    []sdk.Step      `json:"plan,omitempty"`
	Events  []Event         `json:"events,omitempty"`
	Verdict string          `json:"verdict,omitempty"`
	Says    string          `json:"says,omitempty"`  // the target, of the login
	Probe   json.RawMessage `json:"probe,omitempty"` // connector.v1.Fingerprint
	Facts   json.RawMessage `json:"facts,omitempty"` // connector.v1.Facts
	Residue []string        `json:"residue,omitempty"`
	Job     string          `json:"job,omitempty"`
	Attempt int             `json:"attempt,omitempty"`
	Error   *Failure        `json:"error,omitempty"`
}

// Event is how far a step of the plan was.
type Event struct {
	Step    string `json:"step"`
	State   string `json:"state"`
	Message string `json:"message,omitempty"`
}

// Failure is why something was not done.
type Failure struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

// The steps of a life. Not every life has all of them.
const (
	stepFree        = "look whether the name is free"
	StepProbe       = "probe"
	StepPlan        = "plan"
	StepInspect     = "inspect"
	StepLogin       = "login with the password"
	stepWrong       = "login with another password"
	StepNew         = "login with the new password"
	StepOld         = "login with the old password"
	StepDisabled    = "login to the disabled account"
	StepEnabled     = "login to the enabled account"
	StepGone        = "inspect after the removal"
	stepLoginGone   = "login after the removal"
	StepRemoveAgain = "remove what is left"
)

// What a step comes to, beside verdicts and "error CLASS".
const (
	Changed   = "changed"
	WasSo     = "was so"
	Planned   = "planned"
	NoneLacks = "no right is missing"
	Exists    = "it exists"
	Absent    = "it does not exist"
	NotOK     = "not ok" // any verdict but ok
)

// ExistsWord is what a look at the account comes to.
func ExistsWord(exists bool) string {
	if exists {
		return Exists
	}
	return Absent
}

// RightsWord is what a probe comes to.
func RightsWord(missing []string) string {
	if len(missing) == 0 {
		return NoneLacks
	}
	return "missing: " + strings.Join(missing, "; ")
}

// ChangedWord is what a change comes to.
func ChangedWord(changed bool) string {
	if changed {
		return Changed
	}
	return WasSo
}

// Expiry is when an account that nobody removed ends by itself.
func Expiry() time.Time { return time.Now().UTC().Add(24 * time.Hour).Truncate(time.Second) }

// Person is whom the account is for, as its comment on the target says.
const Person = "selftest"

// Name is a name nobody has, in upper case where lower case is not allowed.
func Name(prefix string, allowed func(string) error) string {
	name := prefix + strings.ToLower(rand.Text()[:4])
	if upper := strings.ToUpper(name); allowed(name) != nil && allowed(upper) == nil {
		return upper
	}
	return name
}

// Journal keeps the transcript. Redactor may be nil where no secret is known.
type Journal struct {
	Header   Header
	To       io.Writer // nil: nowhere
	Redactor *redact.Redactor
	Said     func(Entry) // after every entry, redacted; nil: nobody

	Entries []Entry
	Differ  int // entries that are not as they should be
}

// Begin writes the header.
func (j *Journal) Begin() error {
	j.Header.Transcript, j.Header.Reeve, j.Header.Began = Format, reeve.Version, time.Now().UTC().Truncate(time.Millisecond)
	return j.line(j.Header)
}

// Note ends a step that began at e.Began, and writes it down redacted as a whole.
func (j *Journal) Note(e Entry) error {
	e.OK = e.Got == e.Want
	if e.Began.IsZero() {
		e.Began = time.Now()
	}
	e.TookMS = time.Since(e.Began).Milliseconds()
	e.Began = e.Began.UTC().Truncate(time.Millisecond)
	clean, err := j.clean(e)
	if err != nil {
		return err
	}
	if !clean.OK {
		j.Differ++
	}
	j.Entries = append(j.Entries, clean)
	if j.Said != nil {
		j.Said(clean)
	}
	return j.line(clean)
}

// clean takes the secrets out of an entry.
func (j *Journal) clean(e Entry) (out Entry, err error) {
	if j.Redactor == nil {
		return e, nil
	}
	raw, err := json.Marshal(e)
	if err == nil {
		err = json.Unmarshal([]byte(j.Redactor.Redact(string(raw))), &out)
	}
	return out, err
}

func (j *Journal) line(v any) error {
	if j.To == nil {
		return nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := j.To.Write(b.Bytes())
	return err
}

// Transcript is the journal as it stands.
func (j *Journal) Transcript() *Transcript { return &Transcript{j.Header, j.Entries} }

// Transcript is a transcript as it was read.
type Transcript struct {
	Header  Header
	Entries []Entry
}

// Read reads a transcript. One of another format is refused.
func Read(r io.Reader) (*Transcript, error) {
	t := &Transcript{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		if t.Header.Transcript == 0 {
			if err := json.Unmarshal(lines.Bytes(), &t.Header); err != nil || t.Header.Transcript != Format {
				return nil, fmt.Errorf("line %d does not say that this is a transcript of format %d", n, Format)
			}
			continue
		}
		var e Entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Step == "" {
			return nil, fmt.Errorf("line %d is not a step of a transcript", n)
		}
		t.Entries = append(t.Entries, e)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if t.Header.Transcript == 0 {
		return nil, fmt.Errorf("it is empty")
	}
	return t, nil
}

// DefaultRole is the role of the account where nobody names one: of those that need no
// parameter and carry no warning, the first by name. "" if there is none.
func DefaultRole(roles []sdk.Role) (best string) {
	for _, r := range roles {
		needs := r.HighRisk
		for _, p := range r.Params {
			needs = needs || p.Required
		}
		if !needs && (best == "" || r.Name < best) {
			best = r.Name
		}
	}
	return best
}

var accountID = regexp.MustCompile(`acct_[0-9a-z]{26}`)
