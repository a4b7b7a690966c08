package inventory

import (
	"strconv"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// SetManagement replaces the management account of an asset; it is unverified until
// RecordProbe says otherwise. controller/lifecycle puts the secret into the vault
// before and probes after.
func SetManagement(tx *store.Tx, by audit.Actor, id reeve.AssetID, username, kind string, secret reeve.SecretID,
	version uint32) (*Asset, error) {
	a, err := activeAsset(tx, id)
	if err != nil {
		return nil, err
	}
	before := a.Management.audited()
	a.Management = &ManagementAccount{Username: username, Kind: kind, SecretID: secret, Version: version}
	if err := assets.Put(tx, a); err != nil {
		return nil, err
	}
	return a, audit.Record(tx, audit.Event{By: by, Action: "asset.set_management", Object: string(id), Details: map[string]string{"name": a.Name},
		Before: before, After: a.Management.audited()})
}

// audited is what the trail says of a management account.
func (m *ManagementAccount) audited() map[string]string {
	if m == nil {
		return nil
	}
	return map[string]string{"username": m.Username, "kind": m.Kind, "version": strconv.FormatUint(uint64(m.Version), 10)}
}

// Probe is what an agent found out about an asset.
type Probe struct {
	Agent       reeve.AgentID
	Secret      reeve.SecretID           // the one the probe logged in with,
	Version     uint32                   // and its version
	Fingerprint *connectorv1.Fingerprint // when it worked
	Failure     *Failure                 // when it did not
	HostKey     string                   // with host_key_unknown and host_key_changed: what the target showed
}

// RecordProbe notes what a probe found. A probe made with another secret than the
// asset has by now changes nothing. The asset then is verified or says why not, and a
// key it showed waits for approval.
func RecordProbe(tx *store.Tx, by audit.Actor, id reeve.AssetID, p Probe) (*Asset, error) {
	a, err := assets.Get(tx, string(id))
	if err != nil {
		return nil, err
	}
	m := a.Management
	if m == nil || m.SecretID != p.Secret || m.Version != p.Version {
		return a, nil
	}
	outcome, details := audit.OK, map[string]string{"name": a.Name, "username": m.Username}
	if p.Failure == nil {
		m.VerifiedAt, m.VerifiedByAgent, m.LastError = tx.Now(), p.Agent, nil
		m.MissingRights = p.Fingerprint.GetMissingRights()
		a.Fingerprint, a.ReachableAt, a.Trust.Pending, a.Trust.Changed = store.Wrap(p.Fingerprint), tx.Now(), nil, nil
		details["product"] = p.Fingerprint.GetProduct() + " " + p.Fingerprint.GetVersion()
	} else {
		outcome, details["class"] = audit.Failed, string(p.Failure.Class)
		noteFailure(tx, a, p.Failure, p.HostKey)
	}
	if err := assets.Put(tx, a); err != nil {
		return nil, err
	}
	return a, audit.Record(tx, audit.Event{By: by, Action: "asset.verify", Object: string(id), Outcome: outcome, Details: details})
}

// noteFailure keeps what a failure says about the asset as a whole. An unreachable or
// busy target does not make a proven management account unproven.
func noteFailure(tx *store.Tx, a *Asset, f *Failure, hostKey string) {
	a.Management.LastError = f
	switch f.Class {
	case reeve.ClassUnreachable, reeve.ClassBusy, reeve.ClassUnknownOutcome, reeve.ClassInternal, reeve.ClassCancelled:
		return
	case reeve.ClassHostKeyUnknown, reeve.ClassHostKeyChanged:
		key, err := parseShownKey(hostKey)
		if err != nil {
			break // the connector showed nothing that could be approved
		}
		key.SeenAt = tx.Now()
		if f.Class == reeve.ClassHostKeyUnknown {
			a.Trust.Pending = key
		} else {
			a.Trust.Changed = key
		}
	}
	if f.Class == reeve.ClassHostKeyChanged && a.Trust.Changed == nil {
		a.Trust.Changed = &ShownKey{SeenAt: tx.Now()}
	}
	a.Management.VerifiedAt = time.Time{}
}

// RecordAlarm notes a failure that a job other than a probe met and that stops all
// work on the asset: a changed or unknown host key, or a management account that
// cannot log in any more.
func RecordAlarm(tx *store.Tx, by audit.Actor, id reeve.AssetID, f *Failure, hostKey string) error {
	a, err := assets.Get(tx, string(id))
	if err != nil || a.Management == nil {
		return err
	}
	noteFailure(tx, a, f, hostKey)
	if err := assets.Put(tx, a); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "asset.alarm", Object: string(id), Outcome: audit.Failed,
		Details: map[string]string{"name": a.Name, "class": string(f.Class)}})
}

// Alert is what stops work on the asset until a person acts, in words; empty if
// nothing does.
func (a *Asset) Alert() string {
	switch {
	case a.Trust.Changed != nil:
		return "the host key changed; it now is " + orUnknown(a.Trust.Changed.Fingerprint)
	case a.Trust.Pending != nil:
		return "first contact: approve the host key " + a.Trust.Pending.Fingerprint
	case a.Management == nil:
		return "no management account is set"
	case !a.Management.Verified() && a.Management.LastError != nil:
		return "the management account is not verified: " + a.Management.LastError.Message
	case len(a.Management.MissingRights) > 0:
		return "the management account lacks rights"
	}
	return ""
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// Ready says whether jobs that need the management account may be queued for the
// asset: nil, or a Precondition with what to do first. Nothing is asked of a target.
func (a *Asset) Ready() error {
	refuse := func(code, fix, format string, args ...any) error {
		return reeve.Errorf(reeve.Precondition, code, format, args...).WithFix("%s", fix)
	}
	verify := "run: reeve asset verify " + a.Name
	switch m := a.Management; {
	case a.Status != Active:
		return reeve.Errorf(reeve.Conflict, "asset_retired", "asset %q is retired", a.Name)
	case a.Trust.Changed != nil && a.Trust.Changed.Fingerprint == "":
		return refuse("host_key_changed", "find out why; to see the key it shows now, "+verify,
			"the host key of asset %q is not the trusted one", a.Name)
	case a.Trust.Changed != nil:
		return refuse("host_key_changed",
			"find out why; if it is right, run: reeve asset trust "+a.Name+" --fingerprint "+a.Trust.Changed.Fingerprint,
			"the host key of asset %q is not the trusted one", a.Name)
	case a.Trust.Pending != nil:
		return refuse("host_key_unknown",
			"compare it with the target's, then run: reeve asset trust "+a.Name+" --fingerprint "+a.Trust.Pending.Fingerprint,
			"the host key of asset %q waits for approval", a.Name)
	case m == nil:
		return refuse("management_missing", "run: reeve asset set-management "+a.Name, "asset %q has no management account", a.Name)
	case !m.Verified() && m.LastError != nil:
		fix := m.LastError.Fix
		if fix == "" {
			fix = "correct it, then " + verify
		}
		return refuse("management_unverified", fix, "the management account of asset %q failed verification: %s", a.Name, m.LastError.Message)
	case !m.Verified():
		return refuse("management_unverified", verify, "the management account of asset %q is not verified", a.Name)
	case len(m.MissingRights) > 0:
		return refuse("management_rights", "grant what is missing, then "+verify,
			"the management account %q of asset %q lacks rights: %q", m.Username, a.Name, m.MissingRights)
	}
	return nil
}
