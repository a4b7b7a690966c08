package main

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// An account of Reeve's has a revision beside its mark, a value that every change of password or state replaces in the same
// request. Removing the value that was read is what makes it fail if another attempt was there meanwhile. The kinds:
const (
	unfinished = "reeve-new:"  // the attempt that made the account, or took it over, has not ended
	finished   = "reeve-rev:"  // the account was provisioned
	givenUp    = "reeve-undo:" // the attempt that made the account is removing it
)

// revisionText is what plans say of it.
const revisionText = "; " + attributeMark + ": a new revision"

func newRevision(kind string) string { return kind + rand.Text() }

// revisionsOf are the revisions among the values of an account's attribute. Only first changes of an adopted account at the
// same time leave more than one.
func revisionsOf(values []string) []string {
	var out []string
	for _, v := range values {
		if strings.HasPrefix(v, unfinished) || strings.HasPrefix(v, finished) || strings.HasPrefix(v, givenUp) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// kind is the kind of an account's revision. Accounts without are adopted ones, or of before there were revisions.
func (a *account) kind() string {
	for _, kind := range []string{givenUp, unfinished} {
		for _, r := range a.revisions {
			if strings.HasPrefix(r, kind) {
				return kind
			}
		}
	}
	return finished
}

// guarded changes the account, unless another attempt has changed it since we read it. edit must not delete values.
func (w *work) guarded(ctx context.Context, what, kind string, edit func(*ldap.ModifyRequest)) error {
	if len(w.account.revisions) == 0 { // nothing to compare with: of two that see this, at most one sees itself alone afterwards
		first := newRevision(kind)
		err := w.change(ctx, "mark the change", w.account.address(), func(r *ldap.ModifyRequest) { r.Add(attributeMark, []string{first}) })
		if err != nil {
			return err
		}
		w.account.revisions = []string{first}
		if err := w.refresh(ctx); err != nil {
			return err
		}
	}
	next := newRevision(kind)
	err := w.try(w.account.address(), func(r *ldap.ModifyRequest) {
		r.Delete(attributeMark, w.account.revisions)
		r.Add(attributeMark, []string{next})
		edit(r)
	})
	switch {
	case is(err, ldap.LDAPResultNoSuchAttribute):
		return w.overtaken()
	case is(err, ldap.LDAPResultNoSuchObject):
		return w.gone()
	case err != nil:
		return failure(ctx, what, err, true)
	}
	w.account.revisions = []string{next}
	return nil
}

func (w *work) overtaken() error {
	return sdk.Errorf(sdk.ClassUnknownOutcome, "another attempt has changed the account %s meanwhile; this one stopped", w.in.Account).
		WithFix("see what the other one did; if there was none, look for somebody else who changes the values of %s", attributeMark)
}

func (w *work) gone() error {
	return sdk.Errorf(sdk.ClassUnknownOutcome, "the account %s has gone in the middle of the change", w.in.Account).
		WithFix("look for somebody else who changes the account")
}

// takeOver makes an account that another attempt made and did not finish ours: that one can neither go on nor remove it.
func (w *work) takeOver(ctx context.Context) error {
	if w.account.kind() != unfinished {
		return nil
	}
	return w.guarded(ctx, "take over the unfinished account", unfinished, func(*ldap.ModifyRequest) {})
}
