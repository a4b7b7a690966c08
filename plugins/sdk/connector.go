// Package sdk is what a connector author imports. A connector is its own
// executable: its main calls Serve with a value that implements Connector and
// whichever of the optional interfaces the target can support. The agent starts it,
// hands it one target at a time and reads what it answers.
//
// The rules every connector keeps, and plugins/sdk/sdktest checks:
//
//   - Operations are idempotent. "Already there" and "already gone" are success,
//     proven by reading the target back; an exit status alone proves nothing.
//   - A passed context is obeyed within two seconds, also in the middle of a read.
//   - Passwords never appear in plans, arguments, environment, logs or errors. They
//     travel by standard input, bound parameter, verifier or attribute.
//   - Errors are *Error with a Class; when a connection breaks after a change was
//     sent, the class is ClassUnknownOutcome and never a guess.
package sdk

import (
	"context"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Secret is a value that prints, logs and marshals as redacted.
type Secret = reeve.Secret

// NewSecret takes ownership of b.
func NewSecret(b []byte) Secret { return reeve.NewSecret(b) }

// Class is the class of a failure; it decides what Reeve does next.
type Class = reeve.Class

// The classes a connector may answer with.
const (
	ClassUnreachable    = reeve.ClassUnreachable
	ClassHostKeyChanged = reeve.ClassHostKeyChanged
	ClassHostKeyUnknown = reeve.ClassHostKeyUnknown
	ClassAuthFailed     = reeve.ClassAuthFailed
	ClassLocked         = reeve.ClassLocked
	ClassExpired        = reeve.ClassExpired
	ClassDisabled       = reeve.ClassDisabled
	ClassMustChange     = reeve.ClassMustChange
	ClassNotPermitted   = reeve.ClassNotPermitted
	ClassExists         = reeve.ClassExists
	ClassNotFound       = reeve.ClassNotFound
	ClassPolicyRejected = reeve.ClassPolicyRejected
	ClassBusy           = reeve.ClassBusy
	ClassUnsupported    = reeve.ClassUnsupported
	ClassProtocol       = reeve.ClassProtocol
	ClassUnknownOutcome = reeve.ClassUnknownOutcome
	ClassInvalid        = reeve.ClassInvalid
	ClassPlanChanged    = reeve.ClassPlanChanged
	ClassInternal       = reeve.ClassInternal
	ClassCancelled      = reeve.ClassCancelled
)

// Connector is what every connector implements. Describe must not touch a target.
type Connector interface {
	Describe() Description
}

// Prober says what a target is, and whether the management account can work on it.
type Prober interface {
	// Probe logs in with the management account. Target.Trust without a pinned
	// identity fails with ClassHostKeyUnknown (or a TLS equivalent), and the
	// Details "host_key" and "fingerprint" hold what an operator may approve.
	Probe(ctx context.Context, t Target) (Fingerprint, error)
}

// Provisioner changes accounts.
type Provisioner interface {
	// Plan says what Apply would do for the intent. It changes nothing, and depends
	// only on the intent and on what the target is, not on what state an account is
	// in: its steps are of the form "make sure that …".
	Plan(ctx context.Context, t Target, in Intent) (Plan, error)
	// Apply makes c.Intent true by doing the steps of c.Plan and nothing else, then
	// reads back. It may be called again after any crash. A provisioning that fails
	// undoes what it began, where the target still answers; what it could not undo
	// stands in the error's Details as "residue", one thing a line.
	Apply(ctx context.Context, t Target, c Change, p Progress) (Result, error)
}

// Verifier proves a credential by one fresh login. It never retries: a wrong
// password may count against a lockout.
type Verifier interface {
	// Verify returns an error only when it could not try at all. Target.Management, when
	// it is there, serves to find out why a login was refused and nothing else: it is not
	// used before the login, nor when that worked, and what goes wrong with it leaves the
	// verdict as it would be without it.
	Verify(ctx context.Context, t Target, c Credential) (Verdict, error)
}

// Inspector reads the facts of one account. An account that is not there is
// Facts{Exists: false}, not an error.
type Inspector interface {
	Inspect(ctx context.Context, t Target, account string) (Facts, error)
}

// Discoverer lists accounts. It stops when yield returns false.
type Discoverer interface {
	Discover(ctx context.Context, t Target, yield func(Facts) bool) error
}

// Runner runs one command as the management account.
type Runner interface {
	Run(ctx context.Context, t Target, command string, out Output) (exitStatus int, err error)
}

// RightsChecker says what the management account must be allowed to do for a role.
type RightsChecker interface {
	// CheckRights lists every right that giving an account the role, and taking it away
	// again, needs on this target. It logs in with the management account and changes
	// nothing.
	CheckRights(ctx context.Context, t Target, r Role, params map[string]string) ([]Right, error)
}

// Right is something the management account must be allowed to do.
type Right struct {
	Name   string // in the target's own words
	Reason string // what it is needed for
	Held   bool
	// Grant is what an administrator of the target runs, as it stands, to give a right
	// that is not held.
	Grant string
}

// Output receives what a command prints, as it prints it.
type Output interface {
	Stdout(p []byte)
	Stderr(p []byte)
}

// Category is the kind of asset a connector serves.
type Category string

// The categories.
const (
	OperatingSystem Category = "operating_system"
	Database        Category = "database"
	ActiveDirectory Category = "active_directory"
)

// Description is what a connector is. It is registered once, by an administrator.
type Description struct {
	Name         string // lower case, e.g. "ssh"
	Title        string
	Version      string // semantic version
	Category     Category
	DefaultPort  int
	Options      []Option
	Roles        []Role
	NameRule     NameRule
	PasswordRule PasswordRule
	Powers       []Power // set by the SDK from the interfaces implemented
	Protocol     int     // set by the SDK: the newest version the connector speaks
	// Dialect is the language of role commands, the name of one in package template. "" is a
	// language of the connector's own: placeholders stand for whole words in it.
	Dialect string
	// Phases are those whose commands the connector runs; nil: all but verify and facts.
	Phases []Phase
	// CommandRule is what role commands must look like, so that a wrong one is refused when
	// it is saved; zero: anything in the dialect.
	CommandRule CommandRule
	// PhaseRules are for phases in which not every command makes sense, in place of CommandRule.
	PhaseRules map[Phase]CommandRule
}

// CommandRule is the grammar of role commands, as they are written, with placeholders.
type CommandRule struct {
	Pattern string // RE2, anchored with ^ and $
	Help    string // in words
}

// Power is an operation a connector can do.
type Power string

// The powers. PowerProvision means Plan and Apply.
const (
	PowerProbe     Power = "probe"
	PowerProvision Power = "provision"
	PowerVerify    Power = "verify"
	PowerInspect   Power = "inspect"
	PowerDiscover  Power = "discover"
	PowerRun       Power = "run"
	PowerRights    Power = "rights"
)

// Option is a setting of a target.
type Option struct {
	Name, Help, Default string
	Required            bool
	Allowed             []string // empty: any text
}

// NameRule is the grammar of account names, stricter than the target's own.
type NameRule struct {
	Pattern  string // RE2, anchored with ^ and $
	MaxBytes int
	Help     string // in words, e.g. "1 to 32 of a-z, 0-9, _ and -; not starting with a digit"
}

// PasswordRule is what passwords for this kind of target may be. Control characters
// are never allowed.
type PasswordRule struct {
	MinLength, MaxLength int    // characters
	Excluded             string // characters that must not occur
	ASCIIOnly            bool   // no characters beyond ASCII
}

// Role is an entry of the role catalogue: what an account gets on a target.
type Role struct {
	Name, Title, Description string
	Version                  int
	HighRisk                 bool // shown with a warning
	Params                   []RoleParam
	Phases                   map[Phase][]string // commands, in the connector's own language
}

// Phase is a point in an account's life at which a role has commands.
type Phase string

// The phases. Commands of verify and facts change nothing, and are run by the management
// account at the end of a change that leaves a usable account: one of verify that fails
// fails the change; what one of facts prints becomes the attribute facts-1, facts-2, … of
// the account's facts.
const (
	PhaseCreate  Phase = "create"
	PhaseGrant   Phase = "grant"
	PhaseRotate  Phase = "rotate"
	PhaseEnable  Phase = "enable"
	PhaseDisable Phase = "disable"
	PhaseRevoke  Phase = "revoke"
	PhaseRemove  Phase = "remove"
	PhaseVerify  Phase = "verify"
	PhaseFacts   Phase = "facts"
)

// RoleParam is a value asked for when a role is used; commands refer to it as %Name%.
type RoleParam struct {
	Name, Help, Pattern string // Pattern is RE2, anchored
	Required            bool
}

// Target is where to work and as whom. Verify may come without Management, see there.
type Target struct {
	Address     string // host name or IP
	Port        int    // 0: the default port
	Options     map[string]string
	Trust       Trust
	Management  Credential
	Fingerprint Fingerprint // of the last probe; may be zero
}

// Trust is what the target's identity is checked against. There is no way to say
// "do not check".
type Trust struct {
	HostKeys   []string // SSH: "ssh-ed25519 AAAA…"
	CAPEM      string   // TLS: certificates that may have signed the server's
	ServerName string   // TLS: name to expect, if not the address
}

// Credential is a way to log in: a password or a private key.
type Credential struct {
	Username   string
	Password   Secret
	PrivateKey Secret // PEM, unencrypted
}

// Fingerprint is what a probe learned.
type Fingerprint struct {
	Product, Version string
	Attributes       map[string]string
	MissingRights    []string // in the target's own words; empty when nothing lacks
}

// Action is what shall become of an account.
type Action string

// The actions.
const (
	Provision   Action = "provision"
	Rotate      Action = "rotate"
	Disable     Action = "disable"
	Enable      Action = "enable"
	Deprovision Action = "deprovision"
)

// Intent is what shall become true of one account.
type Intent struct {
	Action    Action
	Account   string    // effective name on the target
	AccountID string    // acct_…, for marks on the target
	Comment   string    // traceable to a person or a ticket; no ':' or control characters
	ExpiresAt time.Time // zero: never
	Role      Role
	Params    map[string]string
	Identity  string // when set, an account with another identity must not be touched
}

// Plan is what Apply will do, with secrets masked.
type Plan struct {
	Action  Action `json:"action"`
	Account string `json:"account"`
	Steps   []Step `json:"steps"`
}

// Step is one thing done on the target. All of it is covered by the plan's hash.
type Step struct {
	ID           string `json:"id"`      // stable within the plan
	Title        string `json:"title"`   // for people
	Command      string `json:"command"` // what is sent, secrets masked
	Compensation string `json:"compensation,omitempty"`
	Changes      bool   `json:"changes"`
}

// Change is what Apply is asked for.
type Change struct {
	Intent   Intent
	Plan     Plan
	Password Secret // the new password, for Provision and Rotate
}

// Result is what Apply achieved, proven by reading back.
type Result struct {
	Facts   Facts
	Residue []string // what could not be cleaned up
	Changed bool     // false: everything was already so
}

// Progress receives one event per step and may be called from one goroutine at a time.
type Progress func(Event)

// Event is one line of the live log.
type Event struct {
	Step    string // Step.ID
	State   StepState
	Message string
}

// StepState is how far a step is.
type StepState string

// The step states.
const (
	StepStarted StepState = "started"
	StepDone    StepState = "done"
	StepSkipped StepState = "skipped" // it was already so
	StepFailed  StepState = "failed"
	StepInfo    StepState = "info"
)

// Verdict is what one fresh login showed. Only VerdictOK and VerdictBadCredential
// decide anything; all others mean "ask again later".
type Verdict struct {
	Kind     VerdictKind
	Message  string
	Fix      string // what to do, unless the login worked
	Identity string // who the target says we are
}

// VerdictKind is one of eight distinct answers.
type VerdictKind string

// The verdicts.
const (
	VerdictOK            VerdictKind = "ok"
	VerdictBadCredential VerdictKind = "bad_credential" //nolint:gosec // a word, not a credential
	VerdictLocked        VerdictKind = "locked"         // after wrong passwords, or by an administrator where the target has no other word
	VerdictExpired       VerdictKind = "expired"        // the account's expiry date has passed
	VerdictDisabled      VerdictKind = "disabled"       // somebody disabled the account
	VerdictMustChange    VerdictKind = "must_change"    // the password has expired, or must be changed first
	VerdictUnreachable   VerdictKind = "unreachable"
	VerdictUnknown       VerdictKind = "unknown"
)

// Facts is what a target says about one account.
type Facts struct {
	Exists            bool
	Account           string
	Identity          string // uid, SID, …
	Locked            bool   // somebody shut it: locked or disabled
	HasPassword       bool
	ExpiresAt         time.Time
	PasswordChangedAt time.Time
	Groups            []string // sorted
	Grants            []string // sorted
	Sessions          int
	Attributes        map[string]string
	ReadAt            time.Time
}
