package reeve

// Outcome is what became of work on a target. There is no fourth answer and no
// guess: when the connection broke after a change was sent, the outcome is
// OutcomeUncertain, and a probe must decide.
type Outcome string

// The outcomes.
const (
	Done             Outcome = "done"     // the target was read back and is as intended
	NotDone          Outcome = "not_done" // proven to have had no effect, with a Class
	OutcomeUncertain Outcome = "unknown"  // may have had, or may still have, an effect
)

// Class is the class of a failure on a target. It decides what happens next; its
// text is stable and shown to users.
type Class string

// The classes of architecture §8.
const (
	ClassUnreachable    Class = "unreachable"          // no connection; nothing was sent
	ClassHostKeyChanged Class = "host_key_changed"     // the host key or certificate is not the trusted one
	ClassHostKeyUnknown Class = "host_key_unknown"     // first contact; an operator must approve the key
	ClassAuthFailed     Class = "auth_failed"          // the credential is wrong
	ClassLocked         Class = "locked"               // the account is locked, after wrong passwords or by an administrator
	ClassExpired        Class = "expired"              // the account's expiry date has passed
	ClassDisabled       Class = "disabled"             // somebody disabled the account
	ClassMustChange     Class = "must_change_password" // the password has expired, or must be changed first
	ClassNotPermitted   Class = "not_permitted"        // the management account lacks rights
	ClassExists         Class = "exists"               // somebody else's account has this name
	ClassNotFound       Class = "not_found"            // the account is not on the target
	ClassPolicyRejected Class = "policy_rejected"      // the target refused the password or name
	ClassBusy           Class = "busy"                 // the target asks to come back later
	ClassUnsupported    Class = "unsupported"          // this target cannot do it
	ClassProtocol       Class = "protocol"             // the target spoke nonsense
	ClassUnknownOutcome Class = "unknown_outcome"      // the connection broke after a change was sent
	ClassInvalid        Class = "invalid"              // the request itself is wrong; never retried
	ClassPlanChanged    Class = "plan_changed"         // the plan is not the approved one; nothing was done
	ClassInternal       Class = "internal"             // a defect or a crash of the connector
	ClassPluginChanged  Class = "plugin_changed"       // the connector's bytes are not the registered ones
	ClassCancelled      Class = "cancelled"            // cancelled before it had an effect
)

// Retryable reports whether trying the same again later may succeed without
// anybody changing anything.
func (c Class) Retryable() bool {
	switch c {
	case ClassUnreachable, ClassBusy, ClassProtocol, ClassUnknownOutcome, ClassInternal:
		return true
	default:
		return false
	}
}
