package sdk

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// The functions below turn the types of this package into messages of the public
// contract and back. Hosts need them, connector authors do not. A nil message
// becomes the zero value, and a zero value becomes a message without content, so a
// round trip changes nothing.

// TargetToProto includes the management credential: its result must not be stored.
func TargetToProto(t Target) *connectorv1.Target {
	return &connectorv1.Target{
		Address:     t.Address,
		Port:        uint32(t.Port), //nolint:gosec // checked to be a port on the other side
		Options:     t.Options,
		Trust:       TrustToProto(t.Trust),
		Management:  CredentialToProto(t.Management),
		Fingerprint: FingerprintToProto(t.Fingerprint),
	}
}

// TargetFromProto is the inverse of TargetToProto.
func TargetFromProto(m *connectorv1.Target) Target {
	return Target{
		Address:     m.GetAddress(),
		Port:        int(m.GetPort()),
		Options:     m.GetOptions(),
		Trust:       TrustFromProto(m.GetTrust()),
		Management:  CredentialFromProto(m.GetManagement()),
		Fingerprint: FingerprintFromProto(m.GetFingerprint()),
	}
}

// TrustToProto returns the message for t.
func TrustToProto(t Trust) *connectorv1.Trust {
	return &connectorv1.Trust{HostKeys: t.HostKeys, CaPem: t.CAPEM, ServerName: t.ServerName}
}

// TrustFromProto is the inverse of TrustToProto.
func TrustFromProto(m *connectorv1.Trust) Trust {
	return Trust{HostKeys: m.GetHostKeys(), CAPEM: m.GetCaPem(), ServerName: m.GetServerName()}
}

// CredentialToProto holds the secret itself: its result must not be stored. The zero
// Credential becomes nil.
func CredentialToProto(c Credential) *connectorv1.Credential {
	if c.Username == "" && c.Password.Empty() && c.PrivateKey.Empty() {
		return nil
	}
	return &connectorv1.Credential{
		Username:   c.Username,
		Password:   c.Password.Bytes(),
		PrivateKey: c.PrivateKey.Bytes(),
	}
}

// CredentialFromProto is the inverse of CredentialToProto. The Secrets share the
// message's bytes.
func CredentialFromProto(m *connectorv1.Credential) Credential {
	return Credential{
		Username:   m.GetUsername(),
		Password:   NewSecret(m.GetPassword()),
		PrivateKey: NewSecret(m.GetPrivateKey()),
	}
}

// FingerprintToProto returns the message for f.
func FingerprintToProto(f Fingerprint) *connectorv1.Fingerprint {
	return &connectorv1.Fingerprint{
		Product: f.Product, Version: f.Version, Attributes: f.Attributes, MissingRights: f.MissingRights,
	}
}

// FingerprintFromProto is the inverse of FingerprintToProto.
func FingerprintFromProto(m *connectorv1.Fingerprint) Fingerprint {
	return Fingerprint{
		Product: m.GetProduct(), Version: m.GetVersion(), Attributes: m.GetAttributes(), MissingRights: m.GetMissingRights(),
	}
}

// IntentToProto returns the message for in.
func IntentToProto(in Intent) *connectorv1.Intent {
	return &connectorv1.Intent{
		Action:    string(in.Action),
		Account:   in.Account,
		AccountId: in.AccountID,
		Comment:   in.Comment,
		ExpiresAt: timeToProto(in.ExpiresAt),
		Role:      RoleToProto(in.Role),
		Params:    in.Params,
		Identity:  in.Identity,
	}
}

// IntentFromProto is the inverse of IntentToProto.
func IntentFromProto(m *connectorv1.Intent) Intent {
	return Intent{
		Action:    Action(m.GetAction()),
		Account:   m.GetAccount(),
		AccountID: m.GetAccountId(),
		Comment:   m.GetComment(),
		ExpiresAt: timeFromProto(m.GetExpiresAt()),
		Role:      RoleFromProto(m.GetRole()),
		Params:    m.GetParams(),
		Identity:  m.GetIdentity(),
	}
}

// RoleToProto returns the message for r, its phases in the order of an account's life.
func RoleToProto(r Role) *connectorv1.Role {
	m := &connectorv1.Role{
		Name: r.Name, Title: r.Title, Description: r.Description,
		Version: uint32(r.Version), HighRisk: r.HighRisk, //nolint:gosec // validated to be positive
	}
	for _, p := range r.Params {
		m.Params = append(m.Params, &connectorv1.RoleParam{
			Name: p.Name, Help: p.Help, Pattern: p.Pattern, Required: p.Required,
		})
	}
	for _, phase := range phases {
		if commands, ok := r.Phases[phase]; ok {
			m.Phases = append(m.Phases, &connectorv1.RolePhase{Phase: string(phase), Commands: commands})
		}
	}
	return m
}

// RoleFromProto is the inverse of RoleToProto.
func RoleFromProto(m *connectorv1.Role) Role {
	r := Role{
		Name: m.GetName(), Title: m.GetTitle(), Description: m.GetDescription(),
		Version: int(m.GetVersion()), HighRisk: m.GetHighRisk(),
	}
	for _, p := range m.GetParams() {
		r.Params = append(r.Params, RoleParam{
			Name: p.GetName(), Help: p.GetHelp(), Pattern: p.GetPattern(), Required: p.GetRequired(),
		})
	}
	for _, p := range m.GetPhases() {
		if r.Phases == nil {
			r.Phases = make(map[Phase][]string)
		}
		r.Phases[Phase(p.GetPhase())] = p.GetCommands()
	}
	return r
}

// PlanToProto returns the message for p.
func PlanToProto(p Plan) *connectorv1.Plan {
	m := &connectorv1.Plan{Action: string(p.Action), Account: p.Account}
	for _, s := range p.Steps {
		m.Steps = append(m.Steps, &connectorv1.Step{
			Id: s.ID, Title: s.Title, Command: s.Command, Compensation: s.Compensation, Changes: s.Changes,
		})
	}
	return m
}

// PlanFromProto is the inverse of PlanToProto.
func PlanFromProto(m *connectorv1.Plan) Plan {
	p := Plan{Action: Action(m.GetAction()), Account: m.GetAccount()}
	for _, s := range m.GetSteps() {
		p.Steps = append(p.Steps, Step{
			ID: s.GetId(), Title: s.GetTitle(), Command: s.GetCommand(),
			Compensation: s.GetCompensation(), Changes: s.GetChanges(),
		})
	}
	return p
}

// FactsToProto returns the message for f. Groups and Grants are sorted.
func FactsToProto(f Facts) *connectorv1.Facts {
	return &connectorv1.Facts{
		Exists:            f.Exists,
		Account:           f.Account,
		Identity:          f.Identity,
		Locked:            f.Locked,
		HasPassword:       f.HasPassword,
		ExpiresAt:         timeToProto(f.ExpiresAt),
		PasswordChangedAt: timeToProto(f.PasswordChangedAt),
		Groups:            slices.Sorted(slices.Values(f.Groups)),
		Grants:            slices.Sorted(slices.Values(f.Grants)),
		Sessions:          uint32(max(f.Sessions, 0)), //nolint:gosec // a count
		Attributes:        f.Attributes,
		ReadAt:            timeToProto(f.ReadAt),
	}
}

// FactsFromProto is the inverse of FactsToProto.
func FactsFromProto(m *connectorv1.Facts) Facts {
	return Facts{
		Exists:            m.GetExists(),
		Account:           m.GetAccount(),
		Identity:          m.GetIdentity(),
		Locked:            m.GetLocked(),
		HasPassword:       m.GetHasPassword(),
		ExpiresAt:         timeFromProto(m.GetExpiresAt()),
		PasswordChangedAt: timeFromProto(m.GetPasswordChangedAt()),
		Groups:            m.GetGroups(),
		Grants:            m.GetGrants(),
		Sessions:          int(m.GetSessions()),
		Attributes:        m.GetAttributes(),
		ReadAt:            timeFromProto(m.GetReadAt()),
	}
}

// DescriptionToProto returns the message for d.
func DescriptionToProto(d Description) *connectorv1.Description {
	m := &connectorv1.Description{
		Name: d.Name, Title: d.Title, Version: d.Version, Category: string(d.Category),
		DefaultPort: uint32(d.DefaultPort), //nolint:gosec // validated to be a port
		NameRule: &connectorv1.NameRule{
			Pattern: d.NameRule.Pattern, MaxBytes: uint32(d.NameRule.MaxBytes), Help: d.NameRule.Help, //nolint:gosec // validated
		},
		PasswordRule: &connectorv1.PasswordRule{
			MinLength: uint32(d.PasswordRule.MinLength), MaxLength: uint32(d.PasswordRule.MaxLength), //nolint:gosec // validated
			Excluded: d.PasswordRule.Excluded, AsciiOnly: d.PasswordRule.ASCIIOnly,
		},
		Protocol: uint32(agreed(d.Protocol)), //nolint:gosec // small
		Dialect:  d.Dialect,
	}
	for _, p := range d.Phases {
		m.Phases = append(m.Phases, string(p))
	}
	if d.CommandRule != (CommandRule{}) {
		m.CommandRule = ruleToProto(d.CommandRule)
	}
	for _, p := range slices.Sorted(maps.Keys(d.PhaseRules)) {
		m.PhaseRules = append(m.PhaseRules, &connectorv1.PhaseRule{Phase: string(p), Rule: ruleToProto(d.PhaseRules[p])})
	}
	for _, o := range d.Options {
		m.Options = append(m.Options, &connectorv1.Option{
			Name: o.Name, Help: o.Help, DefaultValue: o.Default, Required: o.Required, Allowed: o.Allowed,
		})
	}
	for _, r := range d.Roles {
		m.Roles = append(m.Roles, RoleToProto(r))
	}
	for _, p := range d.Powers {
		m.Powers = append(m.Powers, string(p))
	}
	return m
}

// DescriptionFromProto is the inverse of DescriptionToProto.
func DescriptionFromProto(m *connectorv1.Description) Description {
	d := Description{
		Name: m.GetName(), Title: m.GetTitle(), Version: m.GetVersion(), Category: Category(m.GetCategory()),
		DefaultPort: int(m.GetDefaultPort()),
		NameRule: NameRule{
			Pattern: m.GetNameRule().GetPattern(), MaxBytes: int(m.GetNameRule().GetMaxBytes()), Help: m.GetNameRule().GetHelp(),
		},
		PasswordRule: PasswordRule{
			MinLength: int(m.GetPasswordRule().GetMinLength()), MaxLength: int(m.GetPasswordRule().GetMaxLength()),
			Excluded: m.GetPasswordRule().GetExcluded(), ASCIIOnly: m.GetPasswordRule().GetAsciiOnly(),
		},
		Protocol: int(m.GetProtocol()), Dialect: m.GetDialect(),
		CommandRule: ruleFromProto(m.GetCommandRule()),
	}
	for _, r := range m.GetPhaseRules() {
		if d.PhaseRules == nil {
			d.PhaseRules = map[Phase]CommandRule{}
		}
		d.PhaseRules[Phase(r.GetPhase())] = ruleFromProto(r.GetRule())
	}
	for _, p := range m.GetPhases() {
		d.Phases = append(d.Phases, Phase(p))
	}
	for _, o := range m.GetOptions() {
		d.Options = append(d.Options, Option{
			Name: o.GetName(), Help: o.GetHelp(), Default: o.GetDefaultValue(), Required: o.GetRequired(), Allowed: o.GetAllowed(),
		})
	}
	for _, r := range m.GetRoles() {
		d.Roles = append(d.Roles, RoleFromProto(r))
	}
	for _, p := range m.GetPowers() {
		d.Powers = append(d.Powers, Power(p))
	}
	return d
}

// RightsToProto returns the messages for rs.
func RightsToProto(rs []Right) []*connectorv1.Right {
	var ms []*connectorv1.Right
	for _, r := range rs {
		ms = append(ms, &connectorv1.Right{Name: valid(r.Name), Reason: valid(r.Reason), Held: r.Held, Grant: valid(r.Grant)})
	}
	return ms
}

// RightsFromProto is the inverse of RightsToProto.
func RightsFromProto(ms []*connectorv1.Right) []Right {
	var rs []Right
	for _, m := range ms {
		rs = append(rs, Right{Name: m.GetName(), Reason: m.GetReason(), Held: m.GetHeld(), Grant: m.GetGrant()})
	}
	return rs
}

func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func timeFromProto(m *timestamppb.Timestamp) time.Time {
	if m == nil {
		return time.Time{}
	}
	return m.AsTime()
}

// DurationToProto returns the message for d, and nil unless d is positive.
func DurationToProto(d time.Duration) *durationpb.Duration {
	if d <= 0 {
		return nil
	}
	return durationpb.New(d)
}

func ruleToProto(r CommandRule) *connectorv1.CommandRule {
	return &connectorv1.CommandRule{Pattern: r.Pattern, Help: r.Help}
}

func ruleFromProto(m *connectorv1.CommandRule) CommandRule {
	return CommandRule{Pattern: m.GetPattern(), Help: m.GetHelp()}
}
