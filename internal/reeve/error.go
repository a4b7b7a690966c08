package reeve

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says how a caller should react to an error. The edges (REST, gRPC, CLI)
// translate kinds; nothing matches on text.
type Kind string

// The kinds. Each maps to one HTTP status in controller/rest.
const (
	Invalid          Kind = "invalid"           // 422: the input is wrong; nothing changed
	TooLarge         Kind = "too_large"         // 413: the input is over a limit
	Unauthenticated  Kind = "unauthenticated"   // 401: nobody, or an expired or unknown credential
	Denied           Kind = "denied"            // 403: somebody, without the right
	NotFound         Kind = "not_found"         // 404
	Conflict         Kind = "conflict"          // 409: the state of the thing forbids it
	Precondition     Kind = "precondition"      // 412: something else must be done first; Fix says what
	TooMany          Kind = "too_many_requests" // 429
	Unavailable      Kind = "unavailable"       // 503: no leader, shutting down; retry is safe
	Sealed           Kind = "sealed"            // 503: the node must be unsealed first
	OutcomeUnknown   Kind = "outcome_unknown"   // 504: the write may or may not have happened
	Internal         Kind = "internal"          // 500: a defect or a broken disk
	UnsupportedMedia Kind = "unsupported_media" // 415
	Upstream         Kind = "upstream"          // 502: another system, which is needed for the answer, does not give it
)

// Error is what every package of Reeve returns for an expected failure. Message
// says what happened and to what; Fix says what to do. Neither may ever hold a
// secret. Code is stable: programs and documentation refer to it.
type Error struct {
	Kind    Kind
	Code    string // snake_case, stable for ever, e.g. "name_invalid"
	Message string
	Fix     string
	Field   string // the offending input field as a JSON pointer, if there is one
	Err     error  // the cause, for logs; never shown to API callers
}

// Errorf makes an Error with a formatted message.
func Errorf(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithFix returns a copy that says what to do.
func (e *Error) WithFix(format string, args ...any) *Error {
	c := *e
	c.Fix = fmt.Sprintf(format, args...)
	return &c
}

// WithField returns a copy that names the offending input field, as a JSON pointer.
func (e *Error) WithField(pointer string) *Error {
	c := *e
	c.Field = pointer
	return &c
}

// Wrap returns a copy that carries its cause.
func (e *Error) Wrap(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// Error implements error: code, message, fix and cause, for logs and terminals.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Code)
	b.WriteString(": ")
	b.WriteString(e.Message)
	if e.Fix != "" {
		b.WriteString(" (")
		b.WriteString(e.Fix)
		b.WriteString(")")
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf is the kind of the first *Error in err's chain, Internal for any other
// error, and "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// CodeOf is the stable code of the first *Error in err's chain, "internal" for any
// other error, and "" for nil.
func CodeOf(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return "internal"
}
