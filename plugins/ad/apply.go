package main

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"

	"github.com/go-ldap/ldap/v3"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// work is one Apply under way.
type work struct {
	*session
	target   sdk.Target
	in       sdk.Intent
	password sdk.Secret
	note     func(string) // a line for the live log

	account *account // nil: it is not there
	created bool     // the account was made by this very call
	residue []string
}

// Apply implements sdk.Provisioner.
func (c connector) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (r sdk.Result, err error) {
	steps, err := steps(t, ch.Intent)
	if err != nil {
		return sdk.Result{}, err
	}
	if sdk.PlanHash(recipe.Plan(ch.Intent, steps)) != sdk.PlanHash(ch.Plan) {
		return sdk.Result{}, sdk.Errorf(sdk.ClassPlanChanged, "the plan is not what would be done; nothing was done").WithFix("plan again")
	}
	s, err := c.borrow(ctx, t)
	if err != nil {
		return sdk.Result{}, err
	}
	defer func() { s.done(err) }()
	w := &work{session: s, target: t, in: ch.Intent, password: ch.Password}
	if err := w.find(ctx); err != nil {
		return sdk.Result{}, err
	}
	changed, err := recipe.Follow(ctx, steps, w, progress, func(_ sdk.Step, note func(string)) { w.note = note })
	if err != nil {
		return sdk.Result{}, w.undo(ctx, err)
	}
	facts, err := w.readBack(ctx)
	if err != nil {
		return sdk.Result{}, err
	}
	return sdk.Result{Facts: facts, Residue: w.residue, Changed: changed}, nil
}

// find reads the account and refuses to go on with somebody else's.
func (w *work) find(ctx context.Context) error {
	a, err := w.session.account(ctx, w.in.Account)
	if err != nil {
		return err
	}
	w.account = a
	switch {
	case a == nil && (w.in.Action == sdk.Provision || w.in.Action == sdk.Deprovision):
		return nil
	case a == nil:
		return sdk.Errorf(sdk.ClassNotFound, "there is no account %s", w.in.Account).WithFix("provision it again")
	case w.in.Identity != "" && w.in.Identity != a.guid:
		return sdk.Errorf(sdk.ClassExists, "the account %s is %s and not %s: it is another account", a.name, a.guid, w.in.Identity).
			WithFix("find out who made it anew, then adopt or remove it")
	case w.in.Identity == "" && (w.in.AccountID == "" || !slices.Contains(a.marks, mark(w.in.AccountID))):
		return sdk.Errorf(sdk.ClassExists, "the account %s exists and does not bear our mark", a.name).
			WithFix("choose another name, or adopt the account")
	}
	if w.in.Action == sdk.Disable || w.in.Action == sdk.Deprovision {
		return w.notItself(ctx)
	}
	return nil
}

// notItself refuses to take away the account that this session is logged in as, by whatever name that was given.
func (w *work) notItself(ctx context.Context) error {
	sids, err := w.token(ctx)
	if err == nil && slices.Contains(sids, w.account.sid) {
		return itself(w.in.Account)
	}
	return err
}

// token lists the SIDs of the account that is logged in, and of its groups.
func (s *session) token(ctx context.Context) ([]string, error) {
	all, err := s.search(ctx, "ask who we are", "", ldap.ScopeBaseObject, "(objectClass=*)", []string{"tokenGroups"})
	if err != nil || len(all) == 0 {
		return nil, err
	}
	var sids []string
	for _, raw := range all[0].GetRawAttributeValues("tokenGroups") {
		sid, err := sidString(raw)
		if err != nil {
			return nil, err
		}
		sids = append(sids, sid)
	}
	return sids, nil
}

// refresh reads the account again, and refuses to go on if another attempt has changed it.
func (w *work) refresh(ctx context.Context) error {
	a, err := w.again(ctx, w.account)
	switch {
	case err != nil:
		return err
	case a == nil:
		return w.gone()
	case !slices.Equal(a.revisions, w.account.revisions):
		return w.overtaken()
	}
	w.account = a
	return nil
}

// undo removes an account that this call made and could not finish. Anything else, and anything whose outcome is not
// known, stays for the next try.
func (w *work) undo(ctx context.Context, cause error) error {
	if !w.created || sdk.ClassOf(cause) == sdk.ClassUnknownOutcome || ctx.Err() != nil {
		return cause
	}
	err := w.guarded(ctx, "give the unfinished account up", givenUp, func(*ldap.ModifyRequest) {})
	if err == nil {
		err = failure(ctx, "remove the unfinished account", w.conn.Del(ldap.NewDelRequest(w.account.address(), nil)), true)
	}
	if err != nil {
		e := sdk.Errorf(sdk.ClassUnknownOutcome, "%v; and the unfinished account could not be removed: %v", cause, err).
			WithFix(sdk.LookFirst)
		e.Details = map[string]string{"residue": "the account " + w.in.Account}
		return e
	}
	return cause
}

// readBack reads the facts and checks that the intent is true.
func (w *work) readBack(ctx context.Context) (sdk.Facts, error) {
	a, err := w.session.account(ctx, w.in.Account)
	if err != nil {
		return sdk.Facts{}, err
	}
	ok := a != nil && w.account != nil && w.account.guid == a.guid && slices.Equal(w.account.revisions, a.revisions)
	switch w.in.Action {
	case sdk.Provision, sdk.Enable:
		ok = ok && !a.disabled() && !a.lockedOut()
	case sdk.Disable:
		ok = ok && a.disabled()
	case sdk.Deprovision:
		ok = a == nil
	}
	if !ok {
		return sdk.Facts{}, sdk.Errorf(sdk.ClassUnknownOutcome,
			"the server accepted every change of %s, but reading %s back shows otherwise", w.in.Action, w.in.Account).
			WithFix("look for somebody else who changes the account")
	}
	return w.facts(ctx, w.in.Account, a)
}

func (w *work) create(ctx context.Context) (bool, error) {
	if w.account != nil && w.account.kind() == givenUp { // by an attempt that ended before it was done with that
		if _, err := w.remove(ctx); err != nil {
			return false, err
		}
	}
	if w.account == nil {
		if made, err := w.add(ctx); err != nil || made {
			return made, err
		}
	}
	return false, w.takeOver(ctx)
}

// add makes the account. It is false if there is one of ours now that somebody else made.
func (w *work) add(ctx context.Context) (bool, error) {
	cn, err := rdn(w.in.Account)
	if err != nil {
		return false, err
	}
	add := ldap.NewAddRequest(cn+","+w.place.ou, nil)
	add.Attribute("objectClass", []string{"top", "person", "organizationalPerson", "user"})
	add.Attribute("sAMAccountName", []string{w.in.Account})
	add.Attribute("userPrincipalName", []string{w.in.Account + "@" + w.place.suffix})
	add.Attribute("userAccountControl", []string{strconv.Itoa(bitNormal | bitDisabled)})
	add.Attribute("accountExpires", []string{strconv.FormatInt(ticksOf(w.in.ExpiresAt), 10)})
	if w.in.Comment != "" {
		add.Attribute("description", []string{w.in.Comment})
	}
	revision := newRevision(unfinished)
	marks := []string{revision}
	if w.in.AccountID != "" {
		marks = append(marks, mark(w.in.AccountID))
	}
	add.Attribute(attributeMark, marks)
	w.sent = true
	err = w.conn.Add(add)
	if is(err, ldap.LDAPResultNoSuchObject) {
		return false, sdk.Errorf(sdk.ClassInvalid, "make the account: the unit that the option %s names is not there", optionOU).
			WithFix("make %s, or correct the option", w.place.ou).Wrap(err)
	}
	err = failure(ctx, "make the account", err, true)
	if sdk.ClassOf(err) == sdk.ClassExists { // somebody was faster, or has one of the names
		exists := err
		if err := w.find(ctx); err != nil {
			return false, err
		}
		if w.account == nil {
			return false, exists
		}
		return false, nil
	}
	if err != nil {
		return false, err
	}
	made, err := w.session.account(ctx, w.in.Account)
	if err == nil && made == nil {
		err = sdk.Errorf(sdk.ClassUnknownOutcome, "the server made the account %s and does not show it", w.in.Account).
			WithFix("let the management account read the unit of the option %s", optionOU)
	}
	if err != nil {
		return false, err
	}
	w.account, w.created = made, true
	w.account.revisions = []string{revision} // whatever it is now
	return true, nil
}

func (w *work) settings(ctx context.Context) (bool, error) {
	expires := timeOf(ticksOf(w.in.ExpiresAt))
	if w.account.expires.Equal(expires) && (w.in.Comment == "" || w.account.comment == w.in.Comment) {
		return false, nil
	}
	return true, w.change(ctx, "set expiry and description", w.account.address(), func(r *ldap.ModifyRequest) {
		r.Replace("accountExpires", []string{strconv.FormatInt(ticksOf(w.in.ExpiresAt), 10)})
		if w.in.Comment != "" {
			r.Replace("description", []string{w.in.Comment})
		}
	})
}

func (w *work) setPassword(ctx context.Context) (bool, error) {
	if w.in.Action == sdk.Provision && !w.created && w.account.passwordTicks > 0 && !w.account.lockedOut() {
		if set, err := w.accepts(ctx, w.password); err != nil || set {
			return false, err
		}
	}
	return true, w.reset(ctx, w.password)
}

func (w *work) unlock(ctx context.Context) (bool, error) {
	if !w.account.lockedOut() && w.account.lockout == 0 {
		return false, nil
	}
	return true, w.change(ctx, "lift the lockout", w.account.address(), func(r *ldap.ModifyRequest) {
		r.Replace("lockoutTime", []string{"0"})
	})
}

func (w *work) enable(ctx context.Context) (bool, error) {
	unlocked, err := w.unlock(ctx)
	if err != nil {
		return false, err
	}
	flagged, err := w.flag(ctx, "enable the account", bitDisabled, false)
	return unlocked || flagged, err
}

func (w *work) disable(ctx context.Context) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	return w.flag(ctx, "disable the account", bitDisabled, true)
}

// flag sets or clears a bit of userAccountControl and keeps the others, which are read anew just before.
func (w *work) flag(ctx context.Context, what string, bit int64, on bool) (bool, error) {
	if err := w.refresh(ctx); err != nil {
		return false, err
	}
	control := w.account.control &^ bit
	if on {
		control |= bit
	}
	kind := w.account.kind()
	// Disabling or enabling an unfinished account keeps whoever made it from going on, even if it is so already.
	if control == w.account.control && (bit != bitDisabled || kind != unfinished) {
		return false, nil
	}
	if bit == bitDisabled && !on {
		kind = finished
	}
	err := w.guarded(ctx, what, kind, func(r *ldap.ModifyRequest) {
		r.Replace("userAccountControl", []string{strconv.FormatInt(control, 10)})
	})
	if err != nil {
		return false, err
	}
	return true, w.refresh(ctx)
}

func (w *work) remove(ctx context.Context) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	w.sent = true
	err := w.conn.Del(ldap.NewDelRequest(w.account.address(), nil))
	if is(err, ldap.LDAPResultNoSuchObject) {
		w.account = nil
		return false, nil
	}
	if err := failure(ctx, "delete the account", err, true); err != nil {
		return false, err
	}
	w.account = nil
	return true, nil
}

// scramble makes what anybody knows of the account's password worthless.
func (w *work) scramble(ctx context.Context) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	return true, w.reset(ctx, sdk.NewSecret([]byte("Aa1."+rand.Text())))
}

// quarantine moves the account first and renames it then: as long as it has its name it is found again after a crash.
func (w *work) quarantine(ctx context.Context) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	if !within(w.account.dn, w.place.quarantine) {
		cn, err := rdn(w.account.name + " " + w.account.guid)
		if err != nil {
			return false, err
		}
		w.sent = true
		err = w.conn.ModifyDN(ldap.NewModifyDNRequest(w.account.address(), cn, true, w.place.quarantine))
		if is(err, ldap.LDAPResultNoSuchObject) {
			return false, sdk.Errorf(sdk.ClassInvalid, "move the account: the unit that the option %s names is not there", optionQuarantine).
				WithFix("make %s, or correct the option", w.place.quarantine).Wrap(err)
		}
		if err := failure(ctx, "move the account", err, true); err != nil {
			return false, err
		}
	}
	err := w.change(ctx, "free the account's names", w.account.address(), func(r *ldap.ModifyRequest) {
		r.Replace("sAMAccountName", []string{"q-" + w.account.guid[:8] + w.account.guid[9:13] + w.account.guid[14:18]})
		if w.account.upn != "" {
			r.Delete("userPrincipalName", nil)
		}
	})
	if err == nil {
		w.note("moved below " + w.place.quarantine)
	}
	return err == nil, err
}
