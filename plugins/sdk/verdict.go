package sdk

import "errors"

// VerdictOf is what the error of a login says about the account that tried to log in, with the error's message and fix. An error that says
// nothing about it, as of a target that is not the trusted one, comes back as it is.
func VerdictOf(err error) (Verdict, error) {
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return Verdict{}, err
	}
	v := Verdict{Message: e.Message, Fix: e.Fix}
	switch e.Class {
	case ClassAuthFailed:
		v.Kind = VerdictBadCredential
	case ClassLocked:
		v.Kind = VerdictLocked
	case ClassExpired:
		v.Kind = VerdictExpired
	case ClassDisabled:
		v.Kind = VerdictDisabled
	case ClassMustChange:
		v.Kind = VerdictMustChange
	case ClassUnreachable:
		v.Kind = VerdictUnreachable
	case ClassBusy, ClassProtocol, ClassNotPermitted:
		v.Kind = VerdictUnknown
	default:
		return Verdict{}, err
	}
	return v, nil
}
