package main

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/recipe"
)

// work is one Apply under way.
type work struct {
	*shell
	in       sdk.Intent
	password sdk.Secret
	note     func(string) // a line for the live log

	me       string   // SID of the management account
	account  *account // as it was found or made; nil: it is not there
	half     *account // what an attempt left that died while it made the account
	found    bool     // it was there when the work began
	created  bool     // it was made by this very call
	granting bool     // commands of its role have been begun
	residue  []string
}

// Apply implements sdk.Provisioner.
func (connector) Apply(ctx context.Context, t sdk.Target, ch sdk.Change, progress sdk.Progress) (sdk.Result, error) {
	steps, err := steps(t, ch.Intent)
	if err != nil {
		return sdk.Result{}, err
	}
	if sdk.PlanHash(recipe.Plan(ch.Intent, steps)) != sdk.PlanHash(ch.Plan) {
		return sdk.Result{}, sdk.Errorf(sdk.ClassPlanChanged, "the plan is not what this connector would do; nothing was done").
			WithFix("plan again and have that plan approved")
	}
	if err := checkPassword(ch.Password); err != nil {
		return sdk.Result{}, err
	}
	s, err := open(ctx, t, t.Management)
	if err != nil {
		return sdk.Result{}, err
	}
	defer s.close()
	w := &work{shell: s, in: ch.Intent, password: ch.Password}
	if err := w.find(ctx); err != nil {
		return sdk.Result{}, err
	}
	w.found = w.account != nil
	changed, err := recipe.Follow(ctx, steps, w, progress, func(s sdk.Step, note func(string)) {
		w.note = note
		w.granting = w.granting || strings.HasPrefix(s.ID, string(sdk.PhaseGrant)+"-")
	})
	if err != nil {
		return sdk.Result{}, w.undo(ctx, err)
	}
	f, err := w.readBack(ctx)
	if err != nil {
		return sdk.Result{}, err
	}
	return sdk.Result{Facts: f, Residue: w.residue, Changed: changed}, nil
}

// find reads the account and refuses to go on with somebody else's. From then on it is worked on by its SID.
func (w *work) find(ctx context.Context) error {
	more := map[string]any{"lock": lockOf(w.in.Account)}
	if w.in.AccountID != "" {
		more["temporary"] = temporary(w.in.AccountID)
	}
	h, err := w.read(ctx, w.in.Account, more)
	if err != nil {
		return err
	}
	w.account, w.half, w.me = nil, nil, h.Me
	if w.in.AccountID != "" {
		w.half = h.named(temporary(w.in.AccountID))
	}
	a := h.named(w.in.Account)
	if a == nil {
		if w.in.Action != sdk.Provision && w.in.Action != sdk.Deprovision {
			return sdk.Errorf(sdk.ClassNotFound, "there is no account %s", w.in.Account).WithFix("provision it again")
		}
		return nil
	}
	switch {
	case w.in.Identity != "" && a.SID != w.in.Identity:
		return sdk.Errorf(sdk.ClassExists, "the account %s is %s and not %s: it is another account", a.Name, a.SID, w.in.Identity).
			WithFix("find out who made it anew, then adopt or remove it")
	case w.in.Identity == "" && (w.in.AccountID == "" || a.Description != mark(w.in.AccountID)):
		return sdk.Errorf(sdk.ClassExists, "the account %s exists and does not bear our mark", a.Name).
			WithFix("choose another name, or adopt the account")
	case w.in.Action != sdk.Rotate && a.SID == h.Me:
		return sdk.Errorf(sdk.ClassInvalid, "%s is the management account; without it nothing more can be done", a.Name).
			WithFix("give the asset another management account first")
	case w.in.Action != sdk.Rotate && a.builtIn():
		return sdk.Errorf(sdk.ClassInvalid, "%s is an account of Windows itself (%s), of which only the password may be changed", a.Name, a.SID).
			WithFix("choose another account")
	}
	w.account = a
	return nil
}

// readBack reads the facts and checks that the intent is true.
func (w *work) readBack(ctx context.Context) (sdk.Facts, error) {
	err := w.find(ctx)
	ok := err == nil
	if err != nil && sdk.ClassOf(err) != sdk.ClassNotFound && sdk.ClassOf(err) != sdk.ClassExists {
		return sdk.Facts{}, err
	}
	a := w.account
	switch w.in.Action {
	case sdk.Provision, sdk.Enable:
		ok = ok && a != nil && a.Enabled && a.Expires == seconds(w.in.ExpiresAt)
	case sdk.Rotate:
		ok = ok && a != nil
	case sdk.Disable:
		ok = ok && a != nil && !a.Enabled
	case sdk.Deprovision:
		ok = ok && a == nil && w.half == nil
	}
	if !ok || !w.memberships() {
		return sdk.Facts{}, sdk.Errorf(sdk.ClassUnknownOutcome,
			"the host did every step of %s, but reading %s back shows otherwise", w.in.Action, w.in.Account).
			WithFix("look for somebody else who changes the account, or a group policy that does")
	}
	return facts(w.in.Account, a), nil
}

// memberships reports whether the account is in the groups that its role's commands add it to.
func (w *work) memberships() bool {
	if w.in.Action != sdk.Provision {
		return true
	}
	for _, text := range w.in.Role.Phases[sdk.PhaseGrant] {
		sid, ok := strings.CutPrefix(text, addTo)
		if !ok {
			continue
		}
		if sid, ok = strings.CutSuffix(sid, member); ok && !slices.ContainsFunc(w.account.Groups, func(g group) bool { return g.SID == sid }) {
			return false
		}
	}
	return true
}

// change runs a script on the account, by its SID.
func (w *work) change(ctx context.Context, what string, sc script, args map[string]any, secret sdk.Secret, result any) error {
	failed, err := w.try(ctx, what, sc, args, secret, result)
	switch {
	case err != nil || failed == nil:
		return err
	case w.in.Action == sdk.Deprovision && failed.identifier() == "UserNotFound": // somebody was faster; reading back decides
		w.account = nil
		return nil
	}
	return failed.explain(what)
}

func (w *work) try(ctx context.Context, what string, sc script, args map[string]any, secret sdk.Secret, result any) (*scriptError, error) {
	all := map[string]any{"lock": lockOf(w.in.Account)}
	maps.Copy(all, args)
	if w.account != nil {
		all["sid"] = w.account.SID
	}
	return w.call(ctx, what, sc, all, secret, result)
}

func (w *work) create(ctx context.Context, _ sdk.Step, args map[string]any) (bool, error) {
	if w.account != nil {
		return false, nil
	}
	if err := w.clear(ctx); err != nil {
		return false, err
	}
	var made struct {
		SID string `json:"sid"`
	}
	const what = "create the account"
	failed, err := w.try(ctx, what, scriptCreate, args, w.password, &made)
	switch {
	case err != nil:
		return false, err
	case failed != nil && failed.identifier() == "UserExists": // somebody was faster: another agent of ours, or a stranger
		if err := w.find(ctx); err != nil {
			return false, err
		}
		if w.account != nil {
			return false, nil
		}
		return false, failed.explain(what)
	case failed != nil:
		return false, failed.explain(what)
	}
	if !strings.HasPrefix(made.SID, "S-1-") {
		return false, strange(what, true, "the answer names no SID")
	}
	w.account = &account{Name: w.in.Account, SID: made.SID}
	w.created = true
	return true, nil
}

// clear removes what an attempt left that died while it made the account.
func (w *work) clear(ctx context.Context) error {
	if w.half == nil {
		return nil
	}
	args := map[string]any{"sid": w.half.SID, "lock": lockOf(w.in.Account)}
	const what = "remove what an earlier attempt left"
	failed, err := w.call(ctx, what, scriptRemove, args, sdk.Secret{}, &struct{}{})
	if err == nil && failed != nil && failed.identifier() != "UserNotFound" {
		err = failed.explain(what)
	}
	return err
}

func (w *work) setPassword(ctx context.Context, _ sdk.Step, args map[string]any) (bool, error) {
	if w.created {
		return false, nil
	}
	var r struct {
		Changed bool `json:"changed"`
	}
	own := w.account.SID == w.me
	if own {
		w.next = w.password
	}
	if err := w.change(ctx, "set the password", scriptPassword, args, w.password, &r); err != nil {
		return false, err
	}
	if own { // from now on we log in with the new one
		w.link.password, w.login.Password = w.password, w.password
	}
	return r.Changed, nil
}

func (w *work) enable(ctx context.Context, _ sdk.Step, args map[string]any) (bool, error) {
	if a := w.account; a.Enabled && !a.LockedOut && a.Expires == seconds(w.in.ExpiresAt) {
		return false, nil
	}
	return true, w.change(ctx, "enable the account", scriptEnable, args, sdk.Secret{}, &struct{}{})
}

func (w *work) disable(ctx context.Context, _ sdk.Step, args map[string]any) (bool, error) {
	if w.account == nil || !w.account.Enabled {
		return false, nil
	}
	return true, w.change(ctx, "disable the account", scriptDisable, args, sdk.Secret{}, &struct{}{})
}

func (w *work) endSessions(ctx context.Context, _ sdk.Step, args map[string]any) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	var r struct{ Ended, Left int }
	if err := w.change(ctx, "end the account's sessions", scriptSessions, args, sdk.Secret{}, &r); err != nil {
		return false, err
	}
	w.note("sessions ended: " + strconv.Itoa(r.Ended))
	if r.Left > 0 {
		w.residue = append(w.residue, strconv.Itoa(r.Left)+" processes of "+w.in.Account+" were told to end and have not")
	}
	return r.Ended > 0, nil
}

// dependents refuses to remove an account without which services or tasks would not start.
func (w *work) dependents(ctx context.Context, _ sdk.Step, args map[string]any) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	var r struct {
		Dependents []string `json:"dependents"`
	}
	if err := w.change(ctx, "look for services and tasks", scriptDependents, args, sdk.Secret{}, &r); err != nil {
		return false, err
	}
	if len(r.Dependents) > 0 {
		return false, sdk.Errorf(sdk.ClassNotPermitted, "%s is still used by %s", w.in.Account, strings.Join(r.Dependents, ", ")).
			WithFix("let them run as another account first")
	}
	return false, nil
}

func (w *work) remove(ctx context.Context, _ sdk.Step, args map[string]any) (bool, error) {
	if err := w.clear(ctx); err != nil {
		return false, err
	}
	if w.account == nil {
		return w.half != nil, nil
	}
	var r struct {
		ProfileLeft bool `json:"profileleft"`
	}
	if err := w.change(ctx, "remove the account", scriptRemove, args, sdk.Secret{}, &r); err != nil || w.account == nil {
		return false, err
	}
	if r.ProfileLeft {
		w.residue = append(w.residue, "the profile of "+w.in.Account+" ("+w.account.SID+") could not be removed")
	}
	return true, nil
}

// absent are identifiers that mean, when something is taken away, that it is not there.
var absent = []string{"MemberNotFound", "PrincipalNotFound", "UserNotFound", "GroupNotFound", "ObjectNotFound"}

// roleCommand runs a command of a role. What a grant adds may be there already, and what a revocation takes may be gone.
func roleCommand(phase sdk.Phase) doing {
	return func(w *work, ctx context.Context, s sdk.Step, args map[string]any) (bool, error) {
		taking := phase == sdk.PhaseRevoke || phase == sdk.PhaseRemove
		if taking && !w.found && !w.created {
			return false, nil
		}
		failed, err := w.try(ctx, s.ID, scriptRole, args, sdk.Secret{}, &struct{}{})
		switch {
		case err != nil:
			return false, err
		case failed == nil:
			return true, nil
		case taking && slices.Contains(absent, failed.identifier()), !taking && failed.identifier() == "MemberExists":
			return false, nil
		}
		return false, failed.explain(s.ID)
	}
}

// errNothing is what Windows says when a right that is taken away was not there (ERROR_FILE_NOT_FOUND).
const errNothing = 2

// right gives or takes an account right. Giving what is there is no failure to Windows, so it counts as done only for a new account.
func (w *work) right(ctx context.Context, s sdk.Step, args map[string]any) (bool, error) {
	if w.account == nil {
		return false, nil
	}
	failed, err := w.try(ctx, s.ID, scriptRight, args, sdk.Secret{}, &struct{}{})
	switch {
	case err != nil:
		return false, err
	case failed == nil:
		return w.created || args["add"] == false, nil
	case args["add"] == false && failed.number() == errNothing:
		return false, nil
	}
	return false, failed.explain(s.ID)
}
