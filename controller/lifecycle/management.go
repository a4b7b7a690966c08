package lifecycle

import (
	"golang.org/x/crypto/ssh"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/vault"
	"github.com/reeve-pam/reeve/internal/reeve"
	agentv1 "github.com/reeve-pam/reeve/proto/reeve/agent/v1"
)

// Management is the account Reeve shall work with on an asset. Exactly one of Password
// and PrivateKey (PEM, unencrypted) is given.
type Management struct {
	Username   string
	Password   reeve.Secret
	PrivateKey reeve.Secret
}

func (m Management) check() (vault.Kind, reeve.Secret, error) {
	invalid := func(code, field, message, fix string) (vault.Kind, reeve.Secret, error) {
		return "", reeve.Secret{}, reeve.Errorf(reeve.Invalid, code, "%s", message).WithFix("%s", fix).WithField(field)
	}
	if m.Username == "" || len(m.Username) > 256 || hasControl([]byte(m.Username)) {
		return invalid("username_invalid", "/username", "the user name is empty, too long or holds a control character",
			"give the name as the target knows it")
	}
	switch {
	case m.Password.Empty() == m.PrivateKey.Empty():
		return invalid("management_secret", "", "exactly one of password and private key must be given", "give one of them")
	case !m.Password.Empty():
		if hasControl(m.Password.Bytes()) || m.Password.Len() > 1024 {
			return invalid("password_policy", "/password", "the password holds a control character or is too long",
				"check for a line break at its end")
		}
		return vault.Password, m.Password, nil
	}
	if _, err := ssh.ParseRawPrivateKey(m.PrivateKey.Bytes()); err != nil {
		return invalid("private_key_invalid", "/private_key", "the private key does not parse",
			"give an unencrypted key in PEM, such as ssh-keygen makes with an empty passphrase")
	}
	return vault.SSHKey, m.PrivateKey, nil
}

func hasControl(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c == 0x7f {
			return true
		}
	}
	return false
}

// SetManagement gives an asset its management account. The asset is unverified until a
// probe has logged in with it; the probe is queued at once if that is possible, else
// the job is nil and VerifyManagement says why not.
func (e *Engine) SetManagement(tx *store.Tx, by audit.Actor, id reeve.AssetID, m Management) (*inventory.Asset, *jobs.Job, error) {
	kind, value, err := m.check()
	if err != nil {
		return nil, nil, err
	}
	if err := notManaged(tx, id, m.Username); err != nil {
		return nil, nil, err
	}
	secret, err := e.Vault.Create(tx, kind, string(id))
	if err != nil {
		return nil, nil, err
	}
	version, err := e.Vault.AddCandidate(tx, secret, value)
	if err != nil {
		return nil, nil, err
	}
	asset, err := inventory.SetManagement(tx, by, id, m.Username, string(kind), secret, version)
	if err != nil {
		return nil, nil, err
	}
	j, err := e.probeIfPossible(tx, by, asset)
	return asset, j, err
}

// notManaged refuses a name that an account of the inventory has on the asset: what
// happens to that account would happen to what Reeve works with (C8).
func notManaged(tx *store.Tx, id reeve.AssetID, username string) error {
	a, err := accounts.Find(tx, "name", string(id), username)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return reeve.Errorf(reeve.Conflict, "name_is_managed", "%q on asset %q is an account that Reeve manages: %s", username, a.AssetName, a.ID).
		WithFix("give Reeve an account of its own to work with").WithField("/username")
}

// VerifyManagement queues a probe: log in with the management account and check its
// rights.
func (e *Engine) VerifyManagement(tx *store.Tx, by audit.Actor, id reeve.AssetID) (*jobs.Job, error) {
	asset, err := inventory.GetAsset(tx, string(id))
	if err != nil {
		return nil, err
	}
	if asset.Status != inventory.Active {
		return nil, reeve.Errorf(reeve.Conflict, "asset_retired", "asset %q is retired", asset.Name)
	}
	if asset.Management == nil {
		return nil, asset.Ready()
	}
	// An untrusted host key is what a probe of the asset is to find out about.
	readable := *asset
	readable.Trust.Pending, readable.Trust.Changed = nil, nil
	if err := e.workable(tx, &readable, false); err != nil {
		return nil, err
	}
	work := &agentv1.Work{Operation: opProbe, Target: target(asset)}
	return jobs.Enqueue(tx, by, jobs.Spec{SiteID: asset.SiteID, AssetID: asset.ID, Connector: asset.Connector, Class: classes[opProbe],
		Work: work, Secrets: []jobs.SecretRef{managementRef(asset)}, Handler: handlerAsset})
}

// ApproveHostKey trusts the key an asset showed (inventory.ApproveHostKey) and probes
// it again.
func (e *Engine) ApproveHostKey(tx *store.Tx, by audit.Actor, id reeve.AssetID, fingerprint string) (*inventory.Asset, *jobs.Job, error) {
	asset, err := inventory.ApproveHostKey(tx, by, id, fingerprint)
	if err != nil {
		return nil, nil, err
	}
	j, err := e.probeIfPossible(tx, by, asset)
	return asset, j, err
}

// ImportTrust replaces what is trusted of an asset (inventory.ImportTrust) and probes
// it again.
func (e *Engine) ImportTrust(tx *store.Tx, by audit.Actor, id reeve.AssetID, ch inventory.TrustChange) (*inventory.Asset,
	*jobs.Job, error) {
	asset, err := inventory.ImportTrust(tx, by, id, ch)
	if err != nil {
		return nil, nil, err
	}
	j, err := e.probeIfPossible(tx, by, asset)
	return asset, j, err
}

// probeIfPossible is for changes that are worth making also where no agent is yet.
func (e *Engine) probeIfPossible(tx *store.Tx, by audit.Actor, asset *inventory.Asset) (*jobs.Job, error) {
	j, err := e.VerifyManagement(tx, by, asset.ID)
	switch reeve.KindOf(err) {
	case reeve.Precondition, reeve.Conflict:
		return nil, nil
	}
	return j, err
}

// assetResult takes the results of probes. A probe that is done has logged in with the
// management secret, which proves it.
func (e *Engine) assetResult(tx *store.Tx, j *jobs.Job, res *agentv1.Result) error {
	r := newReport(j, res, tx.Now())
	var used jobs.SecretRef
	for _, s := range j.Secrets {
		if s.Slot == slotManagement {
			used = s
		}
	}
	p := inventory.Probe{Agent: j.Lease.Agent, Secret: used.Secret, Version: used.Version, Failure: r.failure,
		HostKey: res.GetDetails()["host_key"]}
	if r.ending == done {
		if p.Fingerprint = res.GetFingerprint(); p.Fingerprint == nil {
			r.fail(reeve.ClassProtocol, "the probe did not say what the target is", "update the connector")
			p.Failure = r.failure
		}
	}
	if p.Failure == nil {
		proof, err := vault.NewProof(j.ID, j.Lease.Fence, &agentv1.LoginAttempt{Slot: slotManagement, Secret: string(used.Secret),
			Version: used.Version, Verdict: verdictOK})
		if err != nil {
			return err
		}
		// Another probe that was leased later brings its own proof.
		if err := e.Vault.Promote(tx, proof); err != nil && reeve.CodeOf(err) != "proof_stale" {
			return err
		}
	}
	_, err := inventory.RecordProbe(tx, r.actor(), j.AssetID, p)
	return err
}
