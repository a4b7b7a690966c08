package sdk

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// statusOf makes the gRPC status of err. Only what an *Error declares leaves the
// process: the text of other errors may quote what was sent to the target.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		e = Errorf(ClassInternal, "the connector failed with an unclassified error (%T)", err).
			WithFix("report this to the author of the connector")
	}
	failure := &connectorv1.Failure{
		Class:   string(e.Class),
		Message: valid(e.Message),
		Fix:     valid(e.Fix),
	}
	for k, v := range e.Details {
		if failure.Details == nil {
			failure.Details = make(map[string]string, len(e.Details))
		}
		failure.Details[valid(k)] = valid(v)
	}
	s, detailErr := status.New(codeOf(e.Class), failure.Message).WithDetails(failure)
	if detailErr != nil { // only for code OK, which codeOf never gives
		return status.Error(codes.Internal, "the failure could not be encoded")
	}
	return s.Err()
}

// valid makes s fit for a protobuf string.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// codeOf picks the gRPC code nearest to the class. The class in the Failure decides;
// the code is for generic tools only.
func codeOf(c Class) codes.Code {
	switch c {
	case ClassUnsupported:
		return codes.Unimplemented
	case ClassInvalid:
		return codes.InvalidArgument
	case ClassCancelled:
		return codes.Canceled
	case ClassUnreachable, ClassBusy:
		return codes.Unavailable
	case ClassNotFound:
		return codes.NotFound
	case ClassExists:
		return codes.AlreadyExists
	case ClassNotPermitted:
		return codes.PermissionDenied
	case ClassInternal:
		return codes.Internal
	default:
		return codes.FailedPrecondition
	}
}

// ErrorFromStatus returns the *Error that a connector's answer holds, and nil for
// nil. An error without a Failure did not come from a connector: the call was
// cancelled or timed out (ClassCancelled, ClassUnreachable), the connector is too old
// for the call (ClassUnsupported), or its process is gone (ClassInternal). Client
// reports those of Apply as ClassUnknownOutcome.
func ErrorFromStatus(err error) error {
	e, _ := errorFromStatus(err)
	if e == nil {
		return nil
	}
	return e
}

// Answered reports whether err, of a Client, is nil or was given by the connector
// itself, as opposed to one that stands for an answer that never came.
func Answered(err error) bool { return !errors.Is(err, errNoAnswer) }

// errNoAnswer is in the errors of calls whose connector gave no answer.
var errNoAnswer = errors.New("no answer from the connector")

// errorFromStatus also says whether the connector itself gave the answer.
func errorFromStatus(err error) (e *Error, answered bool) {
	if err == nil {
		return nil, false
	}
	s, ok := status.FromError(err)
	if !ok {
		s = status.FromContextError(err)
	}
	for _, detail := range s.Details() {
		if f, ok := detail.(*connectorv1.Failure); ok {
			return failureToError(f), true
		}
	}
	switch s.Code() {
	case codes.Canceled:
		return Errorf(ClassCancelled, "cancelled").Wrap(errors.Join(errNoAnswer, context.Canceled)), false
	case codes.DeadlineExceeded:
		return Errorf(ClassUnreachable, "no answer within the time allowed").Wrap(errors.Join(errNoAnswer, context.DeadlineExceeded)), false
	case codes.Unimplemented:
		return Errorf(ClassUnsupported, "the connector does not know this operation").Wrap(err), false
	default:
		return Errorf(ClassInternal, "the connector's process gave no answer").Wrap(errors.Join(errNoAnswer, err)).
			WithFix("see the agent's log for why the connector stopped"), false
	}
}

// failureToError trusts nothing but the shape: a class this version does not know
// stays as it is and is not retryable.
func failureToError(f *connectorv1.Failure) *Error {
	class := Class(f.GetClass())
	if class == "" {
		class = ClassInternal
	}
	return &Error{Class: class, Message: f.GetMessage(), Fix: f.GetFix(), Details: f.GetDetails()}
}

// classify turns what a connector's method returned into an *Error. Errors of an
// ended context get the class that says so: for a change that is "unknown", because
// only the connector can know that nothing was sent, and then it says so itself.
func classify(ctx context.Context, operation string, changes bool, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	cause := ctx.Err()
	if cause == nil || !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	switch {
	case changes:
		return Errorf(ClassUnknownOutcome, "%s was interrupted (%s) and may have had an effect", operation, cause).Wrap(err).
			WithFix("read the target back before anything else is tried")
	case errors.Is(cause, context.DeadlineExceeded):
		return Errorf(ClassUnreachable, "%s: no answer within the time allowed", operation).Wrap(err).
			WithFix("check that the target works and can be reached, or allow more time")
	default:
		return Errorf(ClassCancelled, "%s was cancelled", operation).Wrap(err)
	}
}

// recovered is the error of a panic. The value may quote a secret, so only its type is
// told.
func recovered(operation string, v any) *Error {
	return Errorf(ClassInternal, "the connector crashed during %s (panic of type %T)", operation, v).
		WithFix("report this to the author of the connector; its log has the stack").
		Wrap(fmt.Errorf("panic of type %T", v))
}
