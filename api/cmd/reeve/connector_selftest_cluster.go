package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/selftest"
	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// clusterLife is the life of an account that a cluster makes on one of its assets. The
// command line never has a password in it.
type clusterLife struct {
	*selftestFlags
	j       *selftest.Journal
	api     *api
	asset   client.Asset
	account client.Account // as last read; without an id before it is asked for
	factsAt time.Time      // when the facts were read that were last written down
}

func (f *selftestFlags) throughCluster(ctx context.Context, j *selftest.Journal) error {
	c, err := f.connect()
	if err != nil {
		return err
	}
	l := &clusterLife{selftestFlags: f, j: j, api: c}
	if l.asset, err = call[client.Asset](c.GetAsset(ctx, f.asset)); err != nil {
		return err
	}
	connector, err := call[client.Connector](c.GetConnector(ctx, l.asset.Connector))
	if err != nil {
		return err
	}
	if err := l.pickRole(ctx); err != nil {
		return err
	}
	j.Header = selftest.Header{Connector: connector.Name, ConnectorVersion: connector.Version, Through: selftest.Cluster,
		Account: selftest.Name(f.prefix, allowedBy(str(connector.NamePattern))), Role: f.role, Params: f.params}
	if err := j.Begin(); err != nil {
		return err
	}
	return errors.Join(l.steps(ctx), l.remove(context.WithoutCancel(ctx)))
}

// allowedBy tells the names a pattern of a connector allows; all if there is none.
func allowedBy(pattern string) func(string) error {
	return func(name string) error {
		re, err := regexp.Compile("^(?:" + pattern + ")$")
		if pattern != "" && err == nil && !re.MatchString(name) {
			return errors.New("it does not match")
		}
		return nil
	}
}

// pickRole takes the role that needs nothing where none was named.
func (l *clusterLife) pickRole(ctx context.Context) error {
	if l.role != "" {
		return nil
	}
	var roles []sdk.Role
	var names []string
	err := pages(func(cur *string) (*string, error) {
		page, err := call[client.RolePage](l.api.ListRoles(ctx, &client.ListRolesParams{Connector: &l.asset.Connector, Cursor: cur}))
		for _, r := range page.Items {
			names = append(names, r.Name)
			if !r.Predefined { // a life that can be compared is one with a role everybody has
				continue
			}
			role := sdk.Role{Name: r.Name, HighRisk: r.HighRisk}
			for _, p := range r.Params {
				role.Params = append(role.Params, sdk.RoleParam{Name: p.Name, Required: p.Required})
			}
			roles = append(roles, role)
		}
		return page.Next, err
	})
	if err != nil {
		return err
	}
	if l.role = selftest.DefaultRole(roles); l.role == "" {
		return usagef("every role of connector %s needs a parameter or carries a warning; choose one: --role ROLE --param NAME=VALUE\n"+
			"  roles: %s (see reeve role show ROLE)", l.asset.Connector, strings.Join(names, ", "))
	}
	return nil
}

func (l *clusterLife) steps(ctx context.Context) error {
	for _, first := range []func(context.Context) (bool, error){l.probe, l.plan, l.provision} {
		if goesOn, err := first(ctx); err != nil || !goesOn {
			return err
		}
	}
	for _, step := range []func() error{
		func() error { return l.inspect(ctx) },
		func() error { return l.login(ctx, selftest.StepLogin, "ok", nil) },
		func() error { return l.rotate(ctx) },
		func() error { return l.disable(ctx) },
		func() error { return l.change(ctx, "enable", "active", nil) },
		func() error { return l.login(ctx, selftest.StepEnabled, "ok", nil) },
		func() error { return l.change(ctx, "deprovision", "removed", nil) },
		func() error { return l.gone() },
	} {
		if err := step(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// work asks for a job, follows it and those that follow from it, and notes what became
// of it. An error means that the cluster cannot be asked any more.
func (l *clusterLife) work(ctx context.Context, e *selftest.Entry, ask func(context.Context) (string, error)) (j client.Job, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	e.Began = time.Now()
	job, err := ask(ctx)
	if refused, ok := errors.AsType[*refusal](err); ok && refused.code != "" {
		e.Got = "refused " + refused.code
		e.Error = &selftest.Failure{Class: refused.code, Message: refused.detail, Fix: refused.fix}
		return j, l.reload(ctx)
	}
	if err != nil {
		return j, err
	}
	if e.Job = job; job == "" {
		return j, l.reload(ctx)
	}
	print := l.progress("")
	note := func(raw []byte) {
		var line logLine
		if json.Unmarshal(raw, &line) == nil && line.Step != "" {
			l.printing.Lock()
			e.Events = append(e.Events, selftest.Event{Step: line.Step, State: line.State, Message: line.Message})
			l.printing.Unlock()
		}
		print(raw)
	}
	if err := l.settle(ctx, job, note); err != nil && ctx.Err() == nil {
		return j, err
	}
	after, done := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer done()
	if err := l.reload(after); err != nil {
		return j, err
	}
	if j, err = call[client.Job](l.api.GetJob(after, job)); err != nil {
		return j, err
	}
	e.Attempt = j.Attempt
	switch {
	case j.State == client.JobStateDone:
	case j.Error != nil:
		e.Got = "error " + j.Error.Class
		e.Error = &selftest.Failure{Class: j.Error.Class, Message: j.Error.Message, Fix: str(j.Error.Fix)}
	default:
		e.Got = "job is " + string(j.State)
		e.Error = &selftest.Failure{Class: string(j.State), Message: fmt.Sprintf("job %s is %s after %s", j.Id, j.State, time.Since(e.Began).Round(time.Second)),
			Fix: "look at it with: reeve job show " + j.Id}
	}
	l.facts(e)
	return j, nil
}

// settle follows a job, and what the account does because of it, to the end.
func (l *clusterLife) settle(ctx context.Context, job string, note func([]byte)) error {
	for {
		_ = l.followJob(ctx, l.api, job, note, note) // how it ended stands in the job
		if ctx.Err() != nil || l.account.Id == "" {
			return ctx.Err()
		}
		if err := l.reload(ctx); err != nil {
			return err
		}
		if next := str(l.account.Job); next == "" || next == job {
			return nil
		} else {
			job = next
		}
	}
}

// reload reads the account, if it was asked for.
func (l *clusterLife) reload(ctx context.Context) error {
	if l.account.Id == "" {
		return nil
	}
	acc, err := call[client.Account](l.api.GetAccount(ctx, l.account.Id))
	if err == nil {
		l.account = acc
	}
	return err
}

// facts adds what was read back since the last time.
func (l *clusterLife) facts(e *selftest.Entry) {
	f := l.account.Facts
	if f == nil || !f.ReadAt.After(l.factsAt) {
		return
	}
	l.factsAt = f.ReadAt
	out := &connectorv1.Facts{Account: l.account.Name, Exists: f.Exists, Identity: str(f.Identity), Locked: f.Locked != nil && *f.Locked,
		HasPassword: f.HasPassword != nil && *f.HasPassword, ReadAt: timestamppb.New(f.ReadAt)}
	if f.ExpiresAt != nil {
		out.ExpiresAt = timestamppb.New(*f.ExpiresAt)
	}
	if f.PasswordChangedAt != nil {
		out.PasswordChangedAt = timestamppb.New(*f.PasswordChangedAt)
	}
	if f.Groups != nil {
		out.Groups = *f.Groups
	}
	if f.Grants != nil {
		out.Grants = *f.Grants
	}
	if f.Attributes != nil {
		out.Attributes = *f.Attributes
	}
	e.Facts = selftest.JSON(out)
}

// planned is the frozen plan for an action.
func (l *clusterLife) planned(action string) (steps []sdk.Step) {
	if l.account.Plans == nil {
		return nil
	}
	for _, p := range *l.account.Plans {
		if p.Action != action {
			continue
		}
		for _, s := range p.Steps {
			steps = append(steps, sdk.Step{ID: s.Id, Title: s.Title, Command: s.Command, Changes: s.Changes})
		}
	}
	return steps
}

// changed reports whether a step of the plan was done that changes the target.
func changed(e *selftest.Entry) bool {
	return slices.ContainsFunc(e.Events, func(ev selftest.Event) bool {
		return ev.State == string(sdk.StepDone) && slices.ContainsFunc(e.Plan, func(s sdk.Step) bool { return s.ID == ev.Step && s.Changes })
	})
}

// probe verifies the management account; without it nothing goes on.
func (l *clusterLife) probe(ctx context.Context) (bool, error) {
	e := selftest.Entry{Step: selftest.StepProbe, Want: selftest.NoneLacks}
	_, err := l.work(ctx, &e, func(ctx context.Context) (string, error) {
		ref, err := call[client.JobRef](l.api.VerifyAsset(ctx, l.asset.Id, &client.VerifyAssetParams{IdempotencyKey: newKey()}))
		return ref.Job, err
	})
	if err != nil {
		return false, err
	}
	if l.asset, err = call[client.Asset](l.api.GetAsset(context.WithoutCancel(ctx), l.asset.Id)); err != nil {
		return false, err
	}
	if e.Got == "" {
		fp := &connectorv1.Fingerprint{Product: str(l.asset.Product), Version: str(l.asset.ProductVersion)}
		if m := l.asset.ManagementAccount; m != nil && m.MissingRights != nil {
			fp.MissingRights = *m.MissingRights
		}
		e.Probe, e.Got = selftest.JSON(fp), selftest.RightsWord(fp.GetMissingRights())
	}
	return e.Got == e.Want, l.j.Note(e)
}

func (l *clusterLife) request(dryRun bool) client.ProvisionRequest {
	expires, why, who := selftest.Expiry(), "self-test of Reeve", selftest.Person
	r := client.ProvisionRequest{Assets: []string{l.asset.Id}, Name: l.j.Header.Account, Role: l.role, Description: &why, UserIdentity: &who, ExpiresAt: &expires, DryRun: &dryRun}
	if len(l.params) > 0 {
		r.Params = &l.params
	}
	return r
}

// ask asks for the account, or only for its plan. The request is not cut short: then
// nobody would know what was asked for.
func (l *clusterLife) ask(dryRun bool) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		b, err := call[client.Batch](l.api.ProvisionAccounts(ctx, &client.ProvisionAccountsParams{IdempotencyKey: newKey()}, l.request(dryRun)))
		if err != nil {
			return "", err
		}
		l.account = b.Accounts[0]
		return str(l.account.Job), nil
	}
}

// plan shows what would be done, and touches nothing.
func (l *clusterLife) plan(ctx context.Context) (bool, error) {
	e := selftest.Entry{Step: selftest.StepPlan, Want: selftest.Planned}
	if _, err := l.work(ctx, &e, l.ask(true)); err != nil {
		return false, err
	}
	e.Plan = l.planned("provision")
	if e.Got == "" && len(e.Plan) > 0 {
		e.Got = selftest.Planned
	}
	if l.output == "table" && l.account.Plans != nil {
		for _, p := range *l.account.Plans {
			for i, s := range p.Steps {
				l.say("        %s %d: %s", p.Action, i+1, s.Title)
			}
		}
	}
	return e.Got == e.Want, l.j.Note(e)
}

// provision makes the account. Without one nothing goes on.
func (l *clusterLife) provision(ctx context.Context) (bool, error) {
	l.account = client.Account{}
	err := l.change(ctx, "provision", "active", l.ask(false))
	return l.account.State == "active" && ctx.Err() == nil, errors.Join(err, ctx.Err())
}

// act asks for an action on the account.
func (l *clusterLife) act(action string, version *int64) func(context.Context) (string, error) {
	return func(ctx context.Context) (string, error) {
		ref, err := call[client.JobRef](l.api.ActOnAccount(ctx, l.account.Id, action,
			&client.ActOnAccountParams{IdempotencyKey: newKey(), PasswordVersion: version}))
		return ref.Job, err
	}
}

// change does an action that changes the target, after which the account is in a state.
func (l *clusterLife) change(ctx context.Context, action, state string, ask func(context.Context) (string, error)) error {
	_, err := l.changeAs(ctx, action, action, state, ask)
	return err
}

func (l *clusterLife) changeAs(ctx context.Context, step, action, state string, ask func(context.Context) (string, error)) (client.Job, error) {
	e := selftest.Entry{Step: step, Want: selftest.Changed}
	if ask == nil {
		ask = l.act(action, nil)
	}
	j, err := l.work(ctx, &e, ask)
	if err != nil {
		return j, err
	}
	e.Plan = l.planned(action)
	if l.account.Residue != nil {
		e.Residue = *l.account.Residue
	}
	if e.Got == "" {
		e.Got = selftest.ChangedWord(changed(&e))
		if l.account.State != state {
			e.Got = "the account is " + condition(l.account)
			if f := l.account.LastError; f != nil {
				e.Error = &selftest.Failure{Class: f.Class, Message: f.Message, Fix: str(f.Fix)}
			}
		}
	}
	if step == selftest.StepRemoveAgain && l.account.State == state {
		e.Want = e.Got // there may have been nothing to remove
	}
	return j, l.j.Note(e)
}

func (l *clusterLife) inspect(ctx context.Context) error {
	e := selftest.Entry{Step: selftest.StepInspect, Want: selftest.Exists}
	_, err := l.work(ctx, &e, l.act("inspect", nil))
	if err != nil {
		return err
	}
	if e.Got == "" {
		e.Got = selftest.ExistsWord(l.account.Facts != nil && l.account.Facts.Exists)
	}
	return l.j.Note(e)
}

// login logs in with the current password, or with a version of it that was replaced.
func (l *clusterLife) login(ctx context.Context, step, want string, version *int64) error {
	e := selftest.Entry{Step: step, Want: want}
	j, err := l.work(ctx, &e, l.act("verify", version))
	if err != nil {
		return err
	}
	return l.noteLogin(e, j)
}

// noteLogin takes what the last login of a job showed.
func (l *clusterLife) noteLogin(e selftest.Entry, j client.Job) error {
	if j.Logins != nil {
		e.Verdict = (*j.Logins)[len(*j.Logins)-1].Verdict
		e.Got, e.Error = selftest.VerdictWord(e.Want, e.Verdict), nil
	}
	if e.Got == "" {
		e.Got = "no login was tried"
	}
	return l.j.Note(e)
}

// rotate changes the password, and sees that the new one works and the old one does not.
func (l *clusterLife) rotate(ctx context.Context) error {
	before := l.account.PasswordVersion
	if err := l.change(ctx, "rotate", "active", nil); err != nil || ctx.Err() != nil {
		return err
	}
	if err := l.login(ctx, selftest.StepNew, "ok", nil); err != nil || ctx.Err() != nil || before == nil {
		return err
	}
	old := int64(*before)
	return l.login(ctx, selftest.StepOld, string(sdk.VerdictBadCredential), &old)
}

// disable locks the account. Its job logs in afterwards, with the right password.
func (l *clusterLife) disable(ctx context.Context) error {
	j, err := l.changeAs(ctx, "disable", "disable", "disabled", nil)
	if err != nil || ctx.Err() != nil {
		return err
	}
	return l.noteLogin(selftest.Entry{Step: selftest.StepDisabled, Want: selftest.NotOK, Job: j.Id}, j)
}

// gone notes what was read back at the removal.
func (l *clusterLife) gone() error {
	f := l.account.Facts
	return l.j.Note(selftest.Entry{Step: selftest.StepGone, Want: selftest.Absent, Got: selftest.ExistsWord(f == nil || f.Exists), Job: str(l.account.Job)})
}

// ended are the states of an account of which nothing is on its target.
var ended = map[string]bool{"": true, "planned": true, "removed": true, "failed": true}

// remove removes the account if it may still be on its target, or says what is left.
func (l *clusterLife) remove(ctx context.Context) error {
	if ended[l.account.State] {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*l.timeout) // nothing else interrupts it
	defer cancel()
	l.say("removing %s@%s, which takes %s at most", l.account.Name, l.account.Asset, 2*l.timeout)
	err := l.stop(ctx)
	if err == nil && !ended[l.account.State] {
		_, err = l.changeAs(ctx, selftest.StepRemoveAgain, "deprovision", "removed", nil)
	}
	if ended[l.account.State] {
		return err
	}
	l.sayLeft(ctx, err)
	return errors.Join(err, fmt.Errorf("the account %s may still be on %s", l.account.Name, l.account.Asset))
}

// stop cancels the job at work on the account and waits for its end.
func (l *clusterLife) stop(ctx context.Context) error {
	if err := l.reload(ctx); err != nil || str(l.account.Job) == "" {
		return err
	}
	j, err := call[client.Job](l.api.GetJob(ctx, *l.account.Job))
	if err != nil || j.State != client.JobStateQueued && j.State != client.JobStateLeased {
		return err
	}
	_, err = call[client.Job](l.api.CancelJob(ctx, j.Id, &client.CancelJobParams{IdempotencyKey: newKey()}))
	if refused, ok := errors.AsType[*refusal](err); err != nil && (!ok || refused.status != http.StatusConflict) { // it has ended meanwhile
		return err
	}
	return l.settle(ctx, j.Id, l.progress(""))
}

// sayLeft says what is left on the target and how to remove it.
func (l *clusterLife) sayLeft(ctx context.Context, err error) {
	acc := l.account
	l.say("%s@%s (%s) is %s and may still be on its target", acc.Name, acc.Asset, acc.Id, acc.State)
	if err == nil && acc.LastError != nil {
		l.say("  why: %s [%s]", acc.LastError.Message, acc.LastError.Class)
	}
	if acc.Residue != nil {
		for _, left := range *acc.Residue {
			l.say("  left behind: %s", left)
		}
	}
	if acc.ExpiresAt != nil {
		l.say("  Reeve disables it at %s", when(acc.ExpiresAt))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	j, asked := call[client.Job](l.api.GetJob(ctx, str(acc.Job)))
	if asked == nil && (j.State == client.JobStateQueued || j.State == client.JobStateLeased) {
		l.say("  Reeve goes on trying; follow it with: reeve job logs -f %s", j.Id)
		l.say("  if that fails, remove it with: reeve account deprovision %s --watch", acc.Id)
	} else {
		l.say("  remove it with: reeve account deprovision %s --watch", acc.Id)
	}
	for i, s := range l.planned("deprovision") {
		if i == 0 {
			l.say("  or do by hand on %s what the plan says:", acc.Asset)
		}
		l.say("    %s", strings.ReplaceAll(s.Command, "\n", "\n    "))
	}
}
