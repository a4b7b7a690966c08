package reeve

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"strings"
	"sync"
	"time"
)

// Each identifier is its prefix, an underscore and 26 lower-case base32
// characters (48 bits of milliseconds, 80 random bits), so ids of one type sort by
// the time they were made and inserts into ordered storage are sequential.
type (
	// SiteID names a site, site_…
	SiteID string
	// AssetID names an asset, asset_…
	AssetID string
	// AccountID names an account, acct_…
	AccountID string
	// SecretID names a vaulted secret, sec_…
	SecretID string
	// JobID names a job, job_…
	JobID string
	// AgentID names an agent, agent_…
	AgentID string
	// NodeID names a controller, node_…
	NodeID string
	// TokenID names a bearer token, tok_…
	TokenID string
	// PrincipalID names a principal, prin_…
	PrincipalID string
	// RotationID names one rotation of a password, rot_…
	RotationID string
	// BatchID names the accounts of one request, batch_…
	BatchID string
	// JoinTokenID names a join token, join_…
	JoinTokenID string
	// RekeyID names one rekeying of the seal, rekey_…
	RekeyID string
	// GroupID names a group of principals, grp_…
	GroupID string
	// AssignmentID names an assignment of a PAM role, asgn_…
	AssignmentID string
	// SessionID names a session of somebody who signed in, sess_…
	SessionID string
	// InvitationID names a one-time link to set a password, inv_…
	InvitationID string
	// FactorID names a second factor of somebody, fact_…
	FactorID string
	// AssetGroupID names a group of assets, agrp_…
	AssetGroupID string
	// AccessPolicyID names a policy of who may see what, apol_…
	AccessPolicyID string
	// WrapID names a wrapped answer, wrap_…
	WrapID string
)

const idAlphabet = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford: no i, l, o, u

var idEncoding = base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding)

var idClock struct {
	sync.Mutex
	last uint64
}

// newID makes a fresh identifier with the prefix. Within a process identifiers are
// strictly increasing, also when the wall clock stands still or steps back.
func newID(prefix string) string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // crypto/rand.Read never fails (Go 1.24)
	ms := uint64(time.Now().UnixMilli())
	idClock.Lock()
	if ms <= idClock.last {
		ms = idClock.last + 1
	}
	idClock.last = ms
	idClock.Unlock()
	var hi [8]byte
	binary.BigEndian.PutUint64(hi[:], ms)
	copy(raw[:6], hi[2:])
	return prefix + "_" + idEncoding.EncodeToString(raw[:])
}

// NewSiteID makes a fresh SiteID.
func NewSiteID() SiteID { return SiteID(newID("site")) }

// NewAssetID makes a fresh AssetID.
func NewAssetID() AssetID { return AssetID(newID("asset")) }

// NewAccountID makes a fresh AccountID.
func NewAccountID() AccountID { return AccountID(newID("acct")) }

// NewSecretID makes a fresh SecretID.
func NewSecretID() SecretID { return SecretID(newID("sec")) }

// NewJobID makes a fresh JobID.
func NewJobID() JobID { return JobID(newID("job")) }

// NewAgentID makes a fresh AgentID.
func NewAgentID() AgentID { return AgentID(newID("agent")) }

// NewNodeID makes a fresh NodeID.
func NewNodeID() NodeID { return NodeID(newID("node")) }

// NewTokenID makes a fresh TokenID.
func NewTokenID() TokenID { return TokenID(newID("tok")) }

// NewPrincipalID makes a fresh PrincipalID.
func NewPrincipalID() PrincipalID { return PrincipalID(newID("prin")) }

// NewRotationID makes a fresh RotationID.
func NewRotationID() RotationID { return RotationID(newID("rot")) }

// NewBatchID makes a fresh BatchID.
func NewBatchID() BatchID { return BatchID(newID("batch")) }

// NewJoinTokenID makes a fresh JoinTokenID.
func NewJoinTokenID() JoinTokenID { return JoinTokenID(newID("join")) }

// NewGroupID makes a fresh GroupID.
func NewGroupID() GroupID { return GroupID(newID("grp")) }

// NewAssignmentID makes a fresh AssignmentID.
func NewAssignmentID() AssignmentID { return AssignmentID(newID("asgn")) }

// NewSessionID makes a fresh SessionID.
func NewSessionID() SessionID { return SessionID(newID("sess")) }

// NewInvitationID makes a fresh InvitationID.
func NewInvitationID() InvitationID { return InvitationID(newID("inv")) }

// NewFactorID makes a fresh FactorID.
func NewFactorID() FactorID { return FactorID(newID("fact")) }

// NewAssetGroupID makes a fresh AssetGroupID.
func NewAssetGroupID() AssetGroupID { return AssetGroupID(newID("agrp")) }

// NewAccessPolicyID makes a fresh AccessPolicyID.
func NewAccessPolicyID() AccessPolicyID { return AccessPolicyID(newID("apol")) }

// NewWrapID makes a fresh WrapID.
func NewWrapID() WrapID { return WrapID(newID("wrap")) }

// ValidID reports whether s is a well-formed identifier with the prefix, without
// saying that such a thing exists.
func ValidID(prefix, s string) bool {
	rest, ok := strings.CutPrefix(s, prefix+"_")
	if !ok || len(rest) != 26 {
		return false
	}
	for i := range len(rest) {
		if strings.IndexByte(idAlphabet, rest[i]) < 0 {
			return false
		}
	}
	return true
}

// NewRekeyID makes a fresh RekeyID.
func NewRekeyID() RekeyID { return RekeyID(newID("rekey")) }
