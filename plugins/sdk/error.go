package sdk

import (
	"errors"
	"fmt"
)

// Error is a failure with a class. Message and Details must not hold a secret.
type Error struct {
	Class   Class
	Message string // what happened, to what
	Fix     string // what to do
	Details map[string]string
	Err     error // cause; stays inside the connector's process
}

// Errorf makes an Error with a formatted message.
func Errorf(class Class, format string, args ...any) *Error {
	return &Error{Class: class, Message: fmt.Sprintf(format, args...)}
}

// WithFix returns a copy that says what to do.
func (e *Error) WithFix(format string, args ...any) *Error {
	c := *e
	c.Fix = fmt.Sprintf(format, args...)
	return &c
}

// LookFirst is the fix of most errors with ClassUnknownOutcome, for people. Reeve itself looks
// at the account before every further attempt.
const LookFirst = "look what became of the account, then try again"

// Wrap returns a copy that carries its cause.
func (e *Error) Wrap(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// Error implements error. The cause is left out: it may quote what was sent.
func (e *Error) Error() string { return string(e.Class) + ": " + e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf is the class of the first *Error in err's chain, ClassInternal for any
// other error, and "" for nil.
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Class
	}
	return ClassInternal
}

// ErrorText is what may be told to people about err: the message of the first *Error in
// its chain, and nothing of any other error.
func ErrorText(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Message
	}
	return "an unforeseen failure"
}
