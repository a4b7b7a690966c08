package inventory

import (
	"encoding/hex"
	"iter"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// Connector is a registered kind of plugin. Agents run only binaries whose digest is
// in Digests and not revoked.
type Connector struct {
	Name         string                                  `cbor:"1,keyasint"`
	Description  store.Message[*connectorv1.Description] `cbor:"2,keyasint"` // of the build registered last
	Digests      []Digest                                `cbor:"3,keyasint,omitempty"`
	RegisteredAt time.Time                               `cbor:"4,keyasint"`
	RetiredAt    time.Time                               `cbor:"5,keyasint,omitzero"`
}

// Digest is one build of a connector.
type Digest struct {
	SHA256       string    `cbor:"1,keyasint"` // hex
	Version      string    `cbor:"2,keyasint"`
	RegisteredAt time.Time `cbor:"3,keyasint"`
	RevokedAt    time.Time `cbor:"4,keyasint,omitzero"`
}

var connectors = store.NewTable("connector", store.Key(func(c *Connector) string { return c.Name }))

// categories are what an asset can be (architecture §8).
var categories = []string{"operating_system", "database", "active_directory"}

// RegisterConnector registers a build of a connector: its digest, what it says it is,
// and the roles it brings. Registering the same build again changes nothing. Roles
// that this version no longer has are retired; those it changed get their new version.
func RegisterConnector(tx *store.Tx, by audit.Actor, d *connectorv1.Description, sha256 string) (*Connector, error) {
	if err := checkDescription(d); err != nil {
		return nil, err
	}
	if raw, err := hex.DecodeString(sha256); err != nil || len(raw) != 32 || hex.EncodeToString(raw) != sha256 {
		return nil, reeve.Errorf(reeve.Invalid, "digest_invalid", "%q is not a SHA-256 in lower-case hex", sha256).WithField("/sha256")
	}
	c, err := connectors.Get(tx, d.GetName())
	switch {
	case reeve.KindOf(err) == reeve.NotFound:
		c = &Connector{Name: d.GetName(), RegisteredAt: tx.Now()}
	case err != nil:
		return nil, err
	}
	known := slices.IndexFunc(c.Digests, func(x Digest) bool { return x.SHA256 == sha256 })
	switch {
	case known < 0:
		c.Digests = append(c.Digests, Digest{SHA256: sha256, Version: d.GetVersion(), RegisteredAt: tx.Now()})
	case !c.Digests[known].RevokedAt.IsZero():
		return nil, reeve.Errorf(reeve.Conflict, "digest_revoked", "this build of %s was revoked and cannot be registered again", c.Name).
			WithFix("register another build")
	case c.Digests[known].Version == d.GetVersion() && c.RetiredAt.IsZero():
		return c, nil
	}
	c.Description, c.RetiredAt = store.Wrap(d), time.Time{}
	if err := connectors.Put(tx, c); err != nil {
		return nil, err
	}
	if err := registerRoles(tx, d); err != nil {
		return nil, err
	}
	return c, record(tx, by, "connector.register", c.Name, map[string]string{"version": d.GetVersion(), "sha256": sha256})
}

func checkDescription(d *connectorv1.Description) error {
	wrong := func(format string, args ...any) error {
		return reeve.Errorf(reeve.Invalid, "connector_invalid", format, args...).WithFix("repair the connector; sdktest finds such faults")
	}
	if err := checkObjectName(d.GetName()); err != nil {
		return err
	}
	switch rule := d.GetNameRule(); {
	case d.GetVersion() == "":
		return wrong("connector %s has no version", d.GetName())
	case !slices.Contains(categories, d.GetCategory()):
		return wrong("connector %s has the unknown category %q", d.GetName(), d.GetCategory())
	case d.GetDefaultPort() > 65535:
		return wrong("connector %s has the impossible port %d", d.GetName(), d.GetDefaultPort())
	case rule.GetPattern() == "" || rule.GetMaxBytes() == 0:
		return wrong("connector %s has no grammar for account names", d.GetName())
	}
	if _, err := anchored(d.GetNameRule().GetPattern()); err != nil {
		return wrong("the name pattern of connector %s is not RE2", d.GetName())
	}
	for _, r := range d.GetRoles() {
		if err := checkRole(d, r); err != nil {
			return wrong("role %q of connector %s: %s", r.GetName(), d.GetName(), err)
		}
	}
	return nil
}

// compiled keeps the patterns in use: compiling one costs more than all else that is
// checked of a request. There are few; so many that it matters are forgotten.
var compiled struct {
	mu  sync.Mutex
	all map[string]*regexp.Regexp
}

const maxCompiled = 1000

// anchored compiles a pattern so that it must match all of a text.
func anchored(pattern string) (*regexp.Regexp, error) {
	compiled.mu.Lock()
	defer compiled.mu.Unlock()
	if re := compiled.all[pattern]; re != nil {
		return re, nil
	}
	re, err := regexp.Compile(`\A(?:` + pattern + `)\z`)
	if err != nil {
		return nil, err
	}
	if compiled.all == nil || len(compiled.all) >= maxCompiled {
		compiled.all = map[string]*regexp.Regexp{}
	}
	compiled.all[pattern] = re
	return re, nil
}

// Phases are those whose role commands the connector runs.
func (c *Connector) Phases() []string { return phasesOf(c.Description.M) }

// GetConnector finds a connector by name, also a retired one.
func GetConnector(tx *store.Tx, name string) (*Connector, error) { return connectors.Get(tx, name) }

// ListConnectors yields the connectors in use, by name, after the given one.
func ListConnectors(tx *store.Tx, after string) iter.Seq2[*Connector, error] {
	return inUse(connectors.List(tx, after), func(c *Connector) bool { return c.RetiredAt.IsZero() })
}

// ConnectorDigests returns the SHA-256 digests, in hex, of the builds an agent may
// run. None is an error: Precondition "connector_unregistered".
func ConnectorDigests(tx *store.Tx, name string) ([]string, error) {
	c, err := connectors.Get(tx, name)
	if err != nil && reeve.KindOf(err) != reeve.NotFound {
		return nil, err
	}
	var out []string
	if c != nil {
		for _, d := range c.Digests {
			if d.RevokedAt.IsZero() {
				out = append(out, d.SHA256)
			}
		}
	}
	if len(out) == 0 {
		return nil, reeve.Errorf(reeve.Precondition, "connector_unregistered", "no build of connector %q may be run", name).
			WithFix("register one: reeve connector register")
	}
	return out, nil
}

// RevokeDigest forbids one build of a connector, for ever.
func RevokeDigest(tx *store.Tx, by audit.Actor, name, sha256 string) error {
	c, err := connectors.Get(tx, name)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(c.Digests, func(d Digest) bool { return d.SHA256 == sha256 })
	if i < 0 {
		return reeve.Errorf(reeve.NotFound, "digest_not_found", "connector %s has no build with this digest", name)
	}
	if !c.Digests[i].RevokedAt.IsZero() {
		return nil
	}
	c.Digests[i].RevokedAt = tx.Now()
	if err := connectors.Put(tx, c); err != nil {
		return err
	}
	return record(tx, by, "connector.revoke", name, map[string]string{"sha256": sha256})
}

// RetireConnector takes a connector out of use. While assets are reached with it, it
// is refused with Conflict "connector_in_use".
func RetireConnector(tx *store.Tx, by audit.Actor, name string) error {
	c, err := connectors.Get(tx, name)
	if err != nil || !c.RetiredAt.IsZero() {
		return err
	}
	if n, err := count(assets.Scan(tx, "connector", store.Range{Prefix: []string{name}})); err != nil || n > 0 {
		return inUseError(err, "connector", name, n, "asset(s) are reached with it", "retire those assets first")
	}
	c.RetiredAt = tx.Now()
	if err := connectors.Put(tx, c); err != nil {
		return err
	}
	return record(tx, by, "connector.retire", name, nil)
}

// CheckName says whether an account may have this name, by the connector's own
// grammar: nil, or Invalid "name_invalid" with the rule in words (C36, C38).
func (c *Connector) CheckName(name string) error {
	rule := c.Description.M.GetNameRule()
	invalid := reeve.Errorf(reeve.Invalid, "name_invalid", "%q is not an account name that connector %s allows", name, c.Name).
		WithFix("%s", rule.GetHelp()).WithField("/name")
	if len(name) > int(rule.GetMaxBytes()) {
		invalid.Message += ": it has " + strconv.Itoa(len(name)) + " bytes of at most " + strconv.Itoa(int(rule.GetMaxBytes()))
		return invalid
	}
	re, err := anchored(rule.GetPattern())
	if err != nil {
		return reeve.Errorf(reeve.Internal, "connector_invalid", "the name pattern of connector %s does not compile", c.Name).Wrap(err)
	}
	if name == "" || !re.MatchString(name) {
		return invalid
	}
	return nil
}

// checkOptions fills in defaults and refuses options the connector does not know,
// lacks, or does not allow the value of.
func (c *Connector) checkOptions(in map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for _, o := range c.Description.M.GetOptions() {
		value, given := in[o.GetName()]
		if !given {
			value = o.GetDefaultValue()
		}
		field := "/options/" + o.GetName()
		switch {
		case value == "" && o.GetRequired():
			return nil, reeve.Errorf(reeve.Invalid, "option_missing", "connector %s needs the option %q", c.Name, o.GetName()).
				WithFix("%s", o.GetHelp()).WithField(field)
		case value != "" && len(o.GetAllowed()) > 0 && !slices.Contains(o.GetAllowed(), value):
			return nil, reeve.Errorf(reeve.Invalid, "option_invalid", "%q is not a value of option %q", value, o.GetName()).
				WithFix("use one of %q", o.GetAllowed()).WithField(field)
		case value != "":
			out[o.GetName()] = value
		}
	}
	for name := range in {
		if !slices.ContainsFunc(c.Description.M.GetOptions(), func(o *connectorv1.Option) bool { return o.GetName() == name }) {
			return nil, reeve.Errorf(reeve.Invalid, "option_unknown", "connector %s has no option %q", c.Name, name).
				WithField("/options/" + name)
		}
	}
	return out, nil
}
