package pki

import (
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Status is what an agent may do.
type Status string

// The statuses. Only active agents are served.
const (
	Active      Status = "active"
	Banned      Status = "banned"      // by an operator
	Quarantined Status = "quarantined" // by the controller: its key or token was seen in two hands
	Replaced    Status = "replaced"    // another agent enrolled under its name; final
)

// Credential is one certificate issued to an agent, with the HPKE key that came with
// the request.
type Credential struct {
	Certificate []byte    `cbor:"1,keyasint,omitempty"` // DER
	Hash        string    `cbor:"2,keyasint,omitempty"` // SHA-256 of it, hex
	KeyHash     string    `cbor:"3,keyasint,omitempty"` // of its public key
	HPKEKey     []byte    `cbor:"4,keyasint,omitempty"` // MLKEM768-X25519 public key
	Generation  uint64    `cbor:"5,keyasint,omitempty"`
	NotAfter    time.Time `cbor:"6,keyasint,omitempty"`
}

// Agent is an agent that enrolled.
type Agent struct {
	ID       reeve.AgentID     `cbor:"1,keyasint,omitempty"`
	SiteID   reeve.SiteID      `cbor:"2,keyasint,omitempty"`
	Name     string            `cbor:"3,keyasint,omitempty"` // unique within its site
	Status   Status            `cbor:"4,keyasint,omitempty"`
	Reason   string            `cbor:"5,keyasint,omitempty"` // why it is not active
	Version  string            `cbor:"6,keyasint,omitempty"` // of its software, as it said last
	Token    reeve.JoinTokenID `cbor:"7,keyasint,omitempty"` // it enrolled with
	Enrolled time.Time         `cbor:"8,keyasint,omitempty"`
	LastSeen time.Time         `cbor:"9,keyasint,omitempty"` // to the minute

	// Renewal has two phases: Next is issued, and replaces Current when it is first
	// used. Until then both are good, so no lost message can strand the agent.
	Current Credential  `cbor:"10,keyasint,omitempty"`
	Next    *Credential `cbor:"11,keyasint,omitempty"`
	// Previous is the hash of the certificate before Current, still good for calls
	// until PreviousUntil: those already on their way when Current was first used.
	Previous      string    `cbor:"12,keyasint,omitempty"`
	PreviousUntil time.Time `cbor:"13,keyasint,omitempty"`
	Generations   uint64    `cbor:"14,keyasint,omitempty"` // certificates issued so far
}

// HPKEKey is the public key to which secrets for the agent are sealed.
func (a *Agent) HPKEKey() []byte { return a.Current.HPKEKey }

// AgentTable is the name of the registry's table, to watch for bans.
const AgentTable store.TableName = "agent"

var agents = store.NewTable(AgentTable,
	store.Key(func(a *Agent) string { return string(a.ID) }),
	store.Unique("name", func(a *Agent) []string {
		if a.Status == Replaced {
			return nil
		}
		return []string{string(a.SiteID), a.Name}
	}),
	store.Index("site", func(a *Agent) []string { return []string{string(a.SiteID)} }),
)

// GetAgent returns an agent; code agent_not_found.
func GetAgent(tx *store.Tx, id reeve.AgentID) (*Agent, error) { return agents.Get(tx, string(id)) }

// ListAgents returns at most limit agents after the id, in the order in which they
// enrolled, without replaced ones. An empty site means all sites.
func ListAgents(tx *store.Tx, site reeve.SiteID, after reeve.AgentID, limit int) ([]*Agent, error) {
	seq := agents.List(tx, string(after))
	if site != "" {
		seq = agents.Scan(tx, "site", store.Range{Prefix: []string{string(site)}})
	}
	return page(seq, limit, func(a *Agent) bool { return a.ID > after && a.Status != Replaced })
}

// BanAgent shuts an agent out until UnbanAgent. The gateway closes its streams within
// 5 s. Banning a banned agent changes nothing.
func BanAgent(tx *store.Tx, by audit.Actor, id reeve.AgentID, reason string) (*Agent, error) {
	a, err := GetAgent(tx, id)
	if err != nil || a.Status == Banned {
		return a, err
	}
	if a.Status == Replaced {
		return nil, a.refusal()
	}
	return a, a.become(tx, by, "agent.ban", Banned, reason)
}

// UnbanAgent makes a banned or quarantined agent active again, with the certificates
// it had. After a quarantine, when its key may be in two hands, enrol it anew instead.
func UnbanAgent(tx *store.Tx, by audit.Actor, id reeve.AgentID) (*Agent, error) {
	a, err := GetAgent(tx, id)
	if err != nil || a.Status == Active {
		return a, err
	}
	if a.Status == Replaced {
		return nil, a.refusal()
	}
	return a, a.become(tx, by, "agent.unban", Active, "")
}

// quarantine shuts an agent out because its identity was seen in two hands.
func (a *Agent) quarantine(tx *store.Tx, reason string) error {
	if a.Status != Active {
		return nil
	}
	return a.become(tx, audit.System("pki"), "agent.quarantine", Quarantined, reason)
}

func (a *Agent) become(tx *store.Tx, by audit.Actor, action string, s Status, reason string) error {
	before := a.Status
	a.Status, a.Reason = s, reason
	if err := agents.Put(tx, a); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: action, Object: string(a.ID),
		Before: map[string]string{"status": string(before)}, After: map[string]string{"status": string(s)},
		Details: map[string]string{"name": a.Name, "site": string(a.SiteID), "reason": reason}})
}

// refusal is the error for an agent that is not active, nil for one that is.
func (a *Agent) refusal() error {
	switch a.Status {
	case Active:
		return nil
	case Banned:
		return reeve.Errorf(reeve.Denied, "agent_banned", "agent %s is banned: %s", a.Name, a.Reason).WithFix("have an operator lift the ban")
	case Quarantined:
		return reeve.Errorf(reeve.Denied, "agent_quarantined", "agent %s is quarantined: %s", a.Name, a.Reason).
			WithFix("find out who has its key, then enrol it anew with a new join token")
	default:
		return reeve.Errorf(reeve.Denied, "agent_replaced", "another agent was enrolled as %s", a.Name).WithFix("remove this agent's state and enrol it anew")
	}
}

// holderOf is the agent that has a name in a site, nil if none has.
func holderOf(tx *store.Tx, site reeve.SiteID, name string) (*Agent, error) {
	a, err := agents.Find(tx, "name", string(site), name)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, nil //nolint:nilnil // documented: nobody has the name
	}
	return a, err
}
