package inventory

import (
	"errors"
	"iter"
	"net/netip"
	"regexp"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// Asset is a target system.
type Asset struct {
	ID          reeve.AssetID                           `cbor:"1,keyasint"`
	Name        string                                  `cbor:"2,keyasint"`
	SiteID      reeve.SiteID                            `cbor:"3,keyasint"`
	Connector   string                                  `cbor:"4,keyasint"`
	Category    string                                  `cbor:"5,keyasint"`
	Address     string                                  `cbor:"6,keyasint"` // host name or IP
	Port        uint32                                  `cbor:"7,keyasint"`
	Description string                                  `cbor:"8,keyasint,omitempty"`
	Options     map[string]string                       `cbor:"9,keyasint,omitempty"` // defaults filled in
	Trust       Trust                                   `cbor:"10,keyasint"`
	Management  *ManagementAccount                      `cbor:"11,keyasint,omitempty"` // nil: none set
	Fingerprint store.Message[*connectorv1.Fingerprint] `cbor:"12,keyasint,omitzero"`  // of the last good probe
	ReachableAt time.Time                               `cbor:"13,keyasint,omitzero"`  // when an agent last got an answer
	Status      Status                                  `cbor:"14,keyasint"`
	CreatedAt   time.Time                               `cbor:"15,keyasint"`
	RetiredAt   time.Time                               `cbor:"16,keyasint,omitzero"`
	Tags        map[string]string                       `cbor:"17,keyasint,omitempty"` // scopes tell assets apart by them
}

// Legacy reports whether the asset's connector is allowed to reach it without TLS, or
// with a protocol that protects nothing; every list shows it.
func (a *Asset) Legacy() bool { return a.Options["legacy"] == "yes" }

// Status is whether an asset is worked on.
type Status string

// The statuses.
const (
	Active  Status = "active"
	Retired Status = "retired"
)

// ManagementAccount is the account with which Reeve works on an asset. Its secret is
// in the vault.
type ManagementAccount struct {
	Username        string         `cbor:"1,keyasint"`
	Kind            string         `cbor:"2,keyasint"` // password, ssh_key
	SecretID        reeve.SecretID `cbor:"3,keyasint"`
	Version         uint32         `cbor:"4,keyasint"`          // of the secret
	VerifiedAt      time.Time      `cbor:"5,keyasint,omitzero"` // zero: not verified, or not any more
	VerifiedByAgent reeve.AgentID  `cbor:"6,keyasint,omitempty"`
	LastError       *Failure       `cbor:"7,keyasint,omitempty"` // of the last verification; nil when it worked
	MissingRights   []string       `cbor:"8,keyasint,omitempty"` // in the target's own words
}

// Failure is what went wrong on a target, for people.
type Failure struct {
	Class   reeve.Class `cbor:"1,keyasint"`
	Message string      `cbor:"2,keyasint"`
	Fix     string      `cbor:"3,keyasint,omitempty"`
	At      time.Time   `cbor:"4,keyasint"`
}

// Verified reports whether the management account logged in when last tried.
func (m *ManagementAccount) Verified() bool { return m != nil && !m.VerifiedAt.IsZero() }

var assets = store.NewTable("asset",
	store.Key(func(a *Asset) string { return string(a.ID) }),
	store.Unique("name", func(a *Asset) []string { return unlessRetired(a.RetiredAt, a.Name) }),
	store.Index("site", func(a *Asset) []string { return unlessRetired(a.RetiredAt, string(a.SiteID)) }),
	store.Index("connector", func(a *Asset) []string { return unlessRetired(a.RetiredAt, a.Connector) }))

// NewAsset is what AddAsset is asked for. Site is an id or a name; Port 0 means the
// connector's default. HostKeys and CAPEM, when known, spare the approval at first
// contact.
type NewAsset struct {
	Name, Site, Connector, Address, Description string
	Port                                        uint32
	Options                                     map[string]string
	HostKeys                                    []string
	CAPEM, ServerName                           string
	Tags                                        map[string]string
}

// AddAsset adds an asset, without a management account.
func AddAsset(tx *store.Tx, by audit.Actor, in NewAsset) (*Asset, error) {
	if err := checkObjectName(in.Name); err != nil {
		return nil, err
	}
	if err := checkText("description", in.Description); err != nil {
		return nil, err
	}
	if err := errors.Join(checkAddress(in.Address, in.Port), checkTags(in.Tags)); err != nil {
		return nil, err
	}
	site, err := GetSite(tx, in.Site)
	if err != nil {
		return nil, err
	}
	if !site.RetiredAt.IsZero() {
		return nil, reeve.Errorf(reeve.Conflict, "site_retired", "site %q is retired", site.Name).WithField("/site")
	}
	c, err := usableConnector(tx, in.Connector)
	if err != nil {
		return nil, err
	}
	a := &Asset{ID: reeve.NewAssetID(), Name: in.Name, SiteID: site.ID, Connector: c.Name, Category: c.Description.M.GetCategory(),
		Address: in.Address, Port: in.Port, Description: in.Description, Tags: in.Tags, Status: Active, CreatedAt: tx.Now()}
	if a.Port == 0 {
		a.Port = c.Description.M.GetDefaultPort()
	}
	if a.Options, err = c.checkOptions(in.Options); err != nil {
		return nil, err
	}
	if err := a.Trust.importAll(a, in.HostKeys, in.CAPEM, in.ServerName); err != nil {
		return nil, err
	}
	if err := assets.Insert(tx, a); err != nil {
		return nil, err
	}
	return a, record(tx, by, "asset.add", string(a.ID), map[string]string{
		"name": a.Name, "site": site.Name, "connector": a.Connector, "address": a.Address})
}

// LabelAsset replaces the tags of an asset.
func LabelAsset(tx *store.Tx, by audit.Actor, id reeve.AssetID, tags map[string]string) (*Asset, error) {
	if err := checkTags(tags); err != nil {
		return nil, err
	}
	a, err := activeAsset(tx, id)
	if err != nil {
		return nil, err
	}
	before := a.Tags
	a.Tags = tags
	if err := assets.Put(tx, a); err != nil {
		return nil, err
	}
	return a, audit.Record(tx, audit.Event{By: by, Action: "asset.label", Object: string(id), Details: map[string]string{"name": a.Name}, Before: before, After: tags})
}

const maxTags = 32

// checkTags is the grammar of an asset's tags: code tags_invalid.
func checkTags(tags map[string]string) error {
	if len(tags) > maxTags {
		return reeve.Errorf(reeve.Invalid, "tags_invalid", "an asset has up to %d tags", maxTags).WithField("/tags")
	}
	for k, v := range tags {
		if checkObjectName(k) != nil || checkText("tags", v) != nil || v == "" {
			return reeve.Errorf(reeve.Invalid, "tags_invalid", "a tag is a name like that of an asset, and a value").WithField("/tags")
		}
	}
	return nil
}

func usableConnector(tx *store.Tx, name string) (*Connector, error) {
	c, err := connectors.Get(tx, name)
	if reeve.KindOf(err) == reeve.NotFound || (err == nil && !c.RetiredAt.IsZero()) {
		return nil, reeve.Errorf(reeve.Invalid, "connector_unknown", "there is no connector %q", name).
			WithFix("see what there is: reeve connector list").WithField("/connector")
	}
	return c, err
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9]([A-Za-z0-9_-]{0,62}))*\.?$`)

func checkAddress(address string, port uint32) error {
	if port > 65535 {
		return reeve.Errorf(reeve.Invalid, "port_invalid", "%d is not a port", port).WithField("/port")
	}
	if _, err := netip.ParseAddr(address); err == nil {
		return nil
	}
	if len(address) <= 253 && hostName.MatchString(address) {
		return nil
	}
	return reeve.Errorf(reeve.Invalid, "address_invalid", "%q is neither a host name nor an IP address", address).
		WithFix("give the address alone, without port, user or scheme").WithField("/address")
}

// GetAsset finds an asset by id, or by name among the active ones.
func GetAsset(tx *store.Tx, ref string) (*Asset, error) {
	if reeve.ValidID("asset", ref) {
		return assets.Get(tx, ref)
	}
	return assets.Find(tx, "name", ref)
}

// ListAssets yields the active assets with an id after the given one, oldest first.
func ListAssets(tx *store.Tx, after string) iter.Seq2[*Asset, error] {
	return inUse(assets.List(tx, after), func(a *Asset) bool { return a.RetiredAt.IsZero() })
}

// AssetChange is what UpdateAsset may change; nil leaves a field as it is.
type AssetChange struct {
	Address, Description *string
	Port                 *uint32 // 0: the connector's default
	Options              map[string]string
}

// UpdateAsset changes how an asset is reached. A new address or port is another
// machine until proven otherwise: the management account becomes unverified.
func UpdateAsset(tx *store.Tx, by audit.Actor, id reeve.AssetID, ch AssetChange) (*Asset, error) {
	a, err := activeAsset(tx, id)
	if err != nil {
		return nil, err
	}
	c, err := usableConnector(tx, a.Connector)
	if err != nil {
		return nil, err
	}
	address, port := a.Address, a.Port
	if ch.Description != nil {
		if err := checkText("description", *ch.Description); err != nil {
			return nil, err
		}
		a.Description = *ch.Description
	}
	if ch.Address != nil {
		a.Address = *ch.Address
	}
	if ch.Port != nil {
		if a.Port = *ch.Port; a.Port == 0 {
			a.Port = c.Description.M.GetDefaultPort()
		}
	}
	if err := checkAddress(a.Address, a.Port); err != nil {
		return nil, err
	}
	if ch.Options != nil {
		if a.Options, err = c.checkOptions(ch.Options); err != nil {
			return nil, err
		}
	}
	if a.Management != nil && (a.Address != address || a.Port != port) {
		a.Management.VerifiedAt = time.Time{}
	}
	if err := assets.Put(tx, a); err != nil {
		return nil, err
	}
	return a, record(tx, by, "asset.update", string(id), map[string]string{"name": a.Name, "address": a.Address})
}

// RetireAsset takes an asset out of use. While accounts live on it, it is refused
// with Conflict "asset_in_use" (C14).
func RetireAsset(tx *store.Tx, by audit.Actor, id reeve.AssetID) error {
	a, err := assets.Get(tx, string(id))
	if err != nil || a.Status == Retired {
		return err
	}
	if n, err := Holders(tx, string(id)); err != nil || n > 0 {
		return inUseError(err, "asset", a.Name, n, "account(s) live on it", "deprovision its accounts first")
	}
	a.Status, a.RetiredAt = Retired, tx.Now()
	if err := assets.Put(tx, a); err != nil {
		return err
	}
	return record(tx, by, "asset.retire", string(id), map[string]string{"name": a.Name})
}

// activeAsset loads an asset for a change: a retired one is Conflict "asset_retired".
func activeAsset(tx *store.Tx, id reeve.AssetID) (*Asset, error) {
	a, err := assets.Get(tx, string(id))
	if err == nil && a.Status != Active {
		return nil, reeve.Errorf(reeve.Conflict, "asset_retired", "asset %q is retired", a.Name)
	}
	return a, err
}
