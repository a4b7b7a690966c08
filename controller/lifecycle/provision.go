package lifecycle

import (
	"maps"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Request asks for one account on one or many assets.
type Request struct {
	Assets       []string // ids or names
	Prefix, Name string   // the account's name on the target is both together
	Role         string
	Params       map[string]string
	Description  string
	Owner        string
	Custodian    string
	UserIdentity string
	Tags         map[string]string
	Password     reeve.Secret // static; empty: generated for each asset
	// RotationEnabled allows Reeve to change the password later, healing included.
	RotationEnabled bool
	StartAt         time.Time // zero or past: at once
	ExpiresAt       time.Time // zero: never
	DryRun          bool      // only plan
}

// Batch is what one Request became: an account for each asset, in the order asked for.
type Batch struct {
	ID       reeve.BatchID
	Accounts []*Account
}

const (
	maxAssets = 1000
	maxTags   = 64
)

// Provision checks a request and, if nothing at all speaks against it, makes an account
// record and a job for each asset. Nothing is queued when one asset is refused; the
// error's Field then says which. With DryRun the accounts end in state Planned, hold no
// password and keep no name.
//
// The password is committed, as a candidate, by this transaction: before anything is
// sent (C1).
func (e *Engine) Provision(tx *store.Tx, by audit.Actor, r Request) (*Batch, error) {
	if err := service.Require(tx, service.Lifecycle); err != nil {
		return nil, err
	}
	if err := r.check(tx.Now()); err != nil {
		return nil, err
	}
	b := &Batch{ID: reeve.NewBatchID()}
	seen := map[reeve.AssetID]bool{}
	for i, ref := range r.Assets {
		a, err := e.provisionOne(tx, by, r, b.ID, ref, seen)
		if known, isKnown := errorOf(err); isKnown && known.Field == "" {
			return nil, known.WithField("/assets/" + strconv.Itoa(i))
		}
		if err != nil {
			return nil, err
		}
		b.Accounts = append(b.Accounts, a)
	}
	return b, nil
}

// check refuses what is wrong with a request whatever its assets are.
func (r *Request) check(now time.Time) error {
	refuse := func(code, field, format string, args ...any) *reeve.Error {
		return reeve.Errorf(reeve.Invalid, code, format, args...).WithField(field)
	}
	start := r.StartAt
	if start.Before(now) {
		start = now
	}
	switch {
	case len(r.Assets) == 0:
		return refuse("assets_missing", "/assets", "no asset was given")
	case len(r.Assets) > maxAssets:
		return refuse("assets_too_many", "/assets", "%d assets were given; at most %d are taken at once", len(r.Assets), maxAssets)
	case r.Name == "":
		return refuse("name_invalid", "/name", "no account name was given")
	case r.Role == "":
		return refuse("role_missing", "/role", "no role was given").WithFix("see what there is: reeve role list")
	case !r.ExpiresAt.IsZero() && !r.ExpiresAt.After(start):
		return refuse("expiry_past", "/expires_at", "the account would expire at %s, before it starts at %s",
			r.ExpiresAt.UTC().Format(time.RFC3339), start.UTC().Format(time.RFC3339)).WithFix("give a later expiry, or none")
	case len(r.Tags) > maxTags:
		return refuse("tags_too_many", "/tags", "%d tags were given; at most %d are kept", len(r.Tags), maxTags)
	}
	texts := map[string]string{"/description": r.Description, "/owner": r.Owner, "/custodian": r.Custodian, "/user_identity": r.UserIdentity}
	for k, v := range r.Tags {
		texts["/tags/"+k] = k + v
	}
	for field, s := range texts {
		if !utf8.ValidString(s) || utf8.RuneCountInString(s) > 1024 {
			return refuse("text_invalid", field, "the text is longer than 1024 characters or not UTF-8")
		}
	}
	return nil
}

func (e *Engine) provisionOne(tx *store.Tx, by audit.Actor, r Request, batch reeve.BatchID, ref string,
	seen map[reeve.AssetID]bool) (*Account, error) {
	asset, err := inventory.GetAsset(tx, ref)
	if err != nil {
		return nil, err
	}
	if seen[asset.ID] {
		return nil, reeve.Errorf(reeve.Invalid, "asset_twice", "asset %q was given twice", asset.Name)
	}
	seen[asset.ID] = true
	if err := e.workable(tx, asset, true); err != nil {
		return nil, err
	}
	connector, err := inventory.GetConnector(tx, asset.Connector)
	if err != nil {
		return nil, err
	}
	role, err := inventory.CurrentRole(tx, asset.Connector, r.Role)
	if err != nil {
		return nil, err
	}
	if err := role.CheckParams(r.Params); err != nil {
		return nil, err
	}
	name := r.Prefix + r.Name
	if err := connector.CheckName(name); err != nil {
		return nil, err
	}
	if err := nameFree(tx, asset, name); err != nil {
		return nil, err
	}
	policy := e.Policy.Within(connector.Description.M.GetPasswordRule())
	if !r.Password.Empty() {
		if known, isKnown := errorOf(policy.Check(r.Password)); isKnown {
			return nil, known.WithField("/password")
		}
	}

	a := &Account{ID: reeve.NewAccountID(), Name: name, Prefix: r.Prefix, AssetID: asset.ID, AssetName: asset.Name,
		SiteID: asset.SiteID, Connector: asset.Connector, Role: role.Key, RoleFrozen: role.Role, Params: maps.Clone(r.Params),
		Owner: r.Owner, Custodian: r.Custodian, UserIdentity: r.UserIdentity, Description: r.Description, Tags: maps.Clone(r.Tags),
		RequestedBy: by.Name, Batch: batch, StartAt: r.StartAt, ExpiresAt: r.ExpiresAt, RotationEnabled: r.RotationEnabled,
		PasswordMode: Generated, State: Planned, RequestedAt: tx.Now()}
	a.Comment = comment(a)
	if !r.Password.Empty() {
		a.PasswordMode = Static
	}
	if r.DryRun {
		return a, e.begin(tx, by, a, asset, opPlan, "account.plan")
	}
	value := r.Password
	if a.PasswordMode == Generated {
		if value, err = vault.Generate(policy); err != nil {
			return nil, err
		}
		defer value.Wipe()
	}
	if a.SecretID, err = e.Vault.Create(tx, vault.Password, string(a.ID)); err != nil {
		return nil, err
	}
	if _, err := e.Vault.AddCandidate(tx, a.SecretID, value); err != nil {
		return nil, err
	}
	if err := inventory.Hold(tx, string(a.ID), asset.ID, role.Key); err != nil {
		return nil, err
	}
	if a.StartAt.After(tx.Now()) {
		a.State = Scheduled
		return a, e.save(tx, by, a, "account.provision", "scheduled", map[string]string{"start_at": a.StartAt.UTC().Format(time.RFC3339)})
	}
	a.State = Provisioning
	return a, e.begin(tx, by, a, asset, opProvision, "account.provision")
}

// nameFree refuses a name that another account of the inventory has on the asset, or
// the management account: Reeve would lock itself out (C8).
func nameFree(tx *store.Tx, asset *inventory.Asset, name string) error {
	if asset.Management != nil && asset.Management.Username == name {
		return reeve.Errorf(reeve.Conflict, "name_is_management", "%q is the management account of asset %q", name, asset.Name).
			WithFix("choose another name").WithField("/name")
	}
	other, err := accounts.Find(tx, "name", string(asset.ID), name)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return reeve.Errorf(reeve.Conflict, "name_taken", "asset %q has an account %q already: %s (%s)", asset.Name, name, other.ID, other.State).
		WithFix("choose another name, or deprovision that account").WithField("/name")
}

// comment is what the target shows about the account: who it is for and where to look
// (C37), in characters every target takes.
func comment(a *Account) string {
	who := a.UserIdentity
	if who == "" {
		who = a.Owner
	}
	if who == "" {
		who = a.RequestedBy
	}
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '_', r == '-', r == '@':
			return r
		}
		return '_'
	}, who)
	return "reeve " + string(a.ID) + " for " + clean[:min(len(clean), 64)]
}

// begin begins the making of an account, or only plans it. Nobody has to approve the
// plan in between, so one job plans, keeps the plans and carries out the first.
func (e *Engine) begin(tx *store.Tx, by audit.Actor, a *Account, asset *inventory.Asset, operation, verb string) error {
	a.Doing, a.Replanned, a.LastError = opProvision, false, nil
	if _, err := e.dispatch(tx, by, a, asset, operation); err != nil {
		return err
	}
	return e.save(tx, by, a, verb, "requested", nil)
}

// start begins a scheduled account whose time has come.
func (e *Engine) start(tx *store.Tx, by audit.Actor, a *Account) error {
	asset, err := inventory.GetAsset(tx, string(a.AssetID))
	if err != nil {
		return err
	}
	if err := e.workable(tx, asset, true); err != nil {
		return err
	}
	a.State, a.RetryAt = Provisioning, time.Time{}
	return e.begin(tx, by, a, asset, opProvision, "account.provision")
}

// planned takes the answer to a plan job: the plans are frozen and the action they
// were made for goes on.
func (e *Engine) planned(tx *store.Tx, a *Account, r *report) error {
	switch r.ending {
	case again:
		a.LastError = r.failure
		return nil
	case done:
	default:
		return e.notDone(tx, a, r)
	}
	if err := a.freeze(r.res.GetPlans()); err != nil {
		r.fail(reeve.ClassProtocol, err.Error(), "update the connector")
		return e.notDone(tx, a, r)
	}
	if a.State == Planned {
		a.Doing = ""
		return nil
	}
	asset, err := inventory.GetAsset(tx, string(a.AssetID))
	if err != nil {
		return err
	}
	_, err = e.dispatch(tx, system, a, asset, a.Doing)
	return err
}

// provisioned takes what became of making the account. The plans it came with are those
// the agent kept before it touched the target; without them the next action plans first.
func (e *Engine) provisioned(tx *store.Tx, a *Account, r *report) error {
	if plans := r.res.GetPlans(); len(plans) > 0 {
		if err := a.freeze(plans); err != nil {
			a.Plans = store.Lazy[[]Plan]{}
		}
	}
	switch {
	case r.ending == again:
		r.doubt(a)
		return nil
	case r.ending == unknown, r.ending == done && !ok(r.logins, slotCandidate):
		// Nothing is proven. Logins decide; the account stays visible until they do.
		a.State = Partial
		r.doubt(a)
		a.Residue = r.res.GetResidue()
		return e.probeLater(tx, a)
	case r.ending == refused:
		return e.notDone(tx, a, r)
	}
	if err := e.adopt(tx, a, r); err != nil {
		return err
	}
	a.State, a.Identity, a.ExecutedAt, a.Residue = Active, r.res.GetFacts().GetIdentity(), tx.Now(), nil
	return nil
}

// unmade takes an account that provably could not be made: nothing of it is on the
// target, or what is left is named.
func (e *Engine) unmade(tx *store.Tx, a *Account, r *report) error {
	if a.State == Planned || a.State != Provisioning {
		return nil
	}
	if a.Residue = r.res.GetResidue(); len(a.Residue) > 0 {
		a.State = Partial
		return nil
	}
	a.State = Failed
	return inventory.Release(tx, string(a.ID))
}

// anotherPassword gives an account that is being made a new password after the target
// refused the first; false when there must not be one. The refused one is kept.
func (e *Engine) anotherPassword(tx *store.Tx, a *Account) (bool, error) {
	s, err := e.Vault.Get(tx, a.SecretID)
	if err != nil || a.PasswordMode != Generated || s.Candidate == 0 {
		return false, err
	}
	if a.Rejected++; a.Rejected >= maxCandidates {
		return false, nil
	}
	if err := e.Vault.Abandon(tx, a.SecretID, s.Candidate); err != nil {
		return false, err
	}
	_, err = e.newCandidate(tx, a)
	return err == nil, err
}

// newCandidate generates and commits a password for the account.
func (e *Engine) newCandidate(tx *store.Tx, a *Account) (uint32, error) {
	connector, err := inventory.GetConnector(tx, a.Connector)
	if err != nil {
		return 0, err
	}
	value, err := vault.Generate(e.Policy.Within(connector.Description.M.GetPasswordRule()))
	if err != nil {
		return 0, err
	}
	defer value.Wipe()
	return e.Vault.AddCandidate(tx, a.SecretID, value)
}

// redo queues the action at work again.
func (e *Engine) redo(tx *store.Tx, a *Account, operation string) error {
	asset, err := inventory.GetAsset(tx, string(a.AssetID))
	if err != nil {
		return err
	}
	_, err = e.dispatch(tx, system, a, asset, operation)
	return err
}
