package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Security keys and passkeys (WebAuthn Level 3), as second factors after a password.
const (
	keyKind = "webauthn"
	// maxAnswer bounds what a browser says for a key, in bytes.
	maxAnswer = 16 << 10
	// maxCredentialID is in bytes (WebAuthn Level 3 §5.8.3).
	maxCredentialID = 1023
	relyingName     = "Reeve"
)

// keyAlgorithms are those that keys in use have: ES256 all, EdDSA some, RS256 those of
// Windows.
var keyAlgorithms = []protocol.CredentialParameter{
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgES256},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgEdDSA},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgRS256},
}

// Challenge is for a browser to pass on to a security key.
type Challenge struct {
	Options []byte // JSON, for PublicKeyCredential.parseCreationOptionsFromJSON or parseRequestOptionsFromJSON
	Address string // origin at which a browser can do it
	Expires time.Time
}

// credential is what is kept, sealed, of a security key.
type credential struct {
	ID         []byte   `cbor:"1,keyasint"`
	PublicKey  []byte   `cbor:"2,keyasint"` // COSE
	Syncs      bool     `cbor:"3,keyasint"` // may be copied to other devices of its owner (backup eligible); never changes
	Transports []string `cbor:"4,keyasint,omitempty"`
}

// credentialHash is what the credential is found by: no key is the factor of two.
func credentialHash(id []byte) string {
	sum := sha256.Sum256(append([]byte("reeve/v1/webauthn-credential:"), id...))
	return hex.EncodeToString(sum[:])
}

func (f *Factor) openCredential(keys store.Cipher) (credential, error) {
	var c credential
	raw, err := keys.Open(f.binding(), f.Key)
	if err == nil {
		err = cbor.Unmarshal(raw, &c)
	}
	return c, err
}

// keyOwner is somebody and their security keys, as package webauthn asks for them.
type keyOwner struct {
	principal *Principal
	factors   []*Factor // same order
	keys      []webauthn.Credential
}

func (o *keyOwner) WebAuthnID() []byte                         { return []byte(o.principal.ID) }
func (o *keyOwner) WebAuthnName() string                       { return o.principal.Name }
func (o *keyOwner) WebAuthnDisplayName() string                { return o.principal.Name }
func (o *keyOwner) WebAuthnCredentials() []webauthn.Credential { return o.keys }

// ownerOf opens the confirmed security keys of somebody.
func ownerOf(tx *store.Tx, keys store.Cipher, p *Principal) (*keyOwner, error) {
	all, err := confirmed(tx, p.ID)
	if err != nil {
		return nil, err
	}
	o := &keyOwner{principal: p}
	for _, f := range all {
		if f.Kind != keyKind {
			continue
		}
		c, err := f.openCredential(keys)
		if err != nil {
			return nil, err
		}
		kept := webauthn.Credential{ID: c.ID, PublicKey: c.PublicKey, Flags: webauthn.CredentialFlags{BackupEligible: c.Syncs}}
		for _, t := range c.Transports {
			kept.Transport = append(kept.Transport, protocol.AuthenticatorTransport(t))
		}
		o.factors, o.keys = append(o.factors, f), append(o.keys, kept)
	}
	return o, nil
}

func (o *keyOwner) descriptors() []protocol.CredentialDescriptor {
	return webauthn.Credentials(o.keys).CredentialDescriptors()
}

// verification is what a key has to do so that its holder is its owner.
func (r *RelyingParty) verification() protocol.UserVerificationRequirement {
	if r.VerifyUser {
		return protocol.VerificationRequired
	}
	return protocol.VerificationDiscouraged
}

// library is package webauthn, set up for the party. It knows no other time than this
// host's, so times are not for it to check.
func (r *RelyingParty) library() (*webauthn.WebAuthn, error) {
	limit := webauthn.TimeoutConfig{Timeout: CeremonyLife, TimeoutUVD: CeremonyLife}
	return webauthn.New(&webauthn.Config{
		RPID: r.Domain, RPDisplayName: relyingName, RPOrigins: r.Addresses, AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{ResidentKey: protocol.ResidentKeyRequirementDiscouraged, UserVerification: r.verification()},
		Timeouts:               webauthn.TimeoutsConfig{Login: limit, Registration: limit},
		// Browsers add outputs that nobody asked for, and nothing is done with any.
		ExtensionsUnsolicitedOutputPolicy: protocol.UnsolicitedOutputPolicyIgnore,
	})
}

// challenge stores a challenge and shows it.
func (r *RelyingParty) challenge(tx *store.Tx, c *ceremony, options any) (*Challenge, error) {
	raw, err := json.Marshal(options)
	if err == nil {
		err = c.begin(tx)
	}
	if err != nil {
		return nil, err
	}
	return &Challenge{Options: raw, Address: r.Addresses[0], Expires: c.Began.Add(CeremonyLife)}, nil
}

// AddKey begins the enrolment of a security key for the caller; a second factor that was
// begun and not confirmed ends. Codes security_keys_off, factors_too_many, factor_by_token.
func AddKey(tx *store.Tx, by audit.Actor, who Caller, keys store.Cipher, name string) (*Factor, *Challenge, error) {
	f, err := newFactor(tx, who, keyKind, name, "security key")
	if err != nil {
		return nil, nil, err
	}
	party, err := GetRelyingParty(tx)
	if err != nil {
		return nil, nil, err
	}
	owner, err := ownerOf(tx, keys, &who.Principal)
	if err != nil {
		return nil, nil, err
	}
	lib, err := party.library()
	if err != nil {
		return nil, nil, err
	}
	made, session, err := lib.BeginRegistration(owner, webauthn.WithExclusions(owner.descriptors()), webauthn.WithCredentialParameters(keyAlgorithms))
	if err != nil {
		return nil, nil, err
	}
	if err := factors.Insert(tx, f); err != nil {
		return nil, nil, err
	}
	c := &ceremony{Challenge: session.Challenge, Principal: who.ID, Purpose: forEnrolment, Session: who.Session.ID, Factor: f.ID}
	shown, err := party.challenge(tx, c, made.Response)
	if err != nil {
		return nil, nil, err
	}
	return f, shown, audit.Record(tx, audit.Event{By: by, Action: "factor.add", Object: string(f.ID), Details: map[string]string{"kind": f.Kind, "name": f.Name}})
}

// ConfirmKey makes a security key count, with what it answered to the challenge of [AddKey],
// as [ConfirmTOTP] does. After code answer_wrong the challenge is used up: commit.
// Codes factor_not_found, factor_confirmed, factor_kind.
func ConfirmKey(tx *store.Tx, by audit.Actor, who Caller, keys store.Cipher, id reeve.FactorID, answer string) (recovery []reeve.Secret, err error) {
	f, err := pendingFactor(tx, who, id, keyKind)
	if err != nil {
		return nil, err
	}
	party, err := GetRelyingParty(tx)
	if err != nil {
		return nil, err
	}
	lib, err := party.library()
	if err != nil {
		return nil, err
	}
	wrong := reeve.Errorf(reeve.Invalid, "answer_wrong", "this is no answer of a security key to this challenge, at an address of this cluster, or it came too late").
		WithFix("add the key again: reeve factor add-key").WithField("/answer")
	parsed, err := readEnrolment(answer)
	if err != nil {
		return nil, wrong
	}
	c := ceremony{Challenge: parsed.Response.CollectedClientData.Challenge, Principal: who.ID, Purpose: forEnrolment, Session: who.Session.ID, Factor: id}
	if fits, err := c.take(tx); err != nil || !fits {
		return nil, cmp.Or[error](err, wrong)
	}
	made, err := lib.CreateCredential(&keyOwner{principal: &who.Principal}, webauthn.SessionData{Challenge: c.Challenge, RelyingPartyID: party.Domain,
		UserID: []byte(who.ID), UserVerification: party.verification(), CredParams: keyAlgorithms}, parsed)
	if err != nil {
		return nil, wrong
	}
	f.Credential, f.Step = credentialHash(made.ID), int64(made.Authenticator.SignCount)
	switch _, err := factors.Find(tx, "credential", f.Credential); {
	case err == nil:
		return nil, reeve.Errorf(reeve.Conflict, "security_key_taken", "this security key is a second factor already").WithFix("take another key")
	case reeve.KindOf(err) != reeve.NotFound:
		return nil, err
	}
	kept := credential{ID: made.ID, PublicKey: made.PublicKey, Syncs: made.Flags.BackupEligible}
	for _, t := range made.Transport {
		if word := string(t); len(kept.Transports) < 8 && slices.Contains(transports, t) {
			kept.Transports = append(kept.Transports, word)
		}
	}
	raw, err := cbor.Marshal(kept)
	if err != nil {
		return nil, err
	}
	if f.Key, err = keys.Seal(f.binding(), raw); err != nil {
		return nil, err
	}
	return f.confirm(tx, by, who)
}

// transports are the ways to a key that a browser may be reminded of.
var transports = []protocol.AuthenticatorTransport{protocol.USB, protocol.NFC, protocol.BLE, protocol.SmartCard, protocol.Hybrid, protocol.Internal}

// readEnrolment reads what a browser says for a new key. Who made the key is not asked for,
// so what vouches for that is refused: it is much to read, from anybody.
func readEnrolment(answer string) (*protocol.ParsedCredentialCreationData, error) {
	if len(answer) > maxAnswer {
		return nil, protocol.ErrBadRequest
	}
	p, err := protocol.ParseCredentialCreationResponseBytes([]byte(answer))
	if err != nil {
		return nil, err
	}
	made := p.Response.AttestationObject
	_, chain := made.AttStatement["x5c"]
	self := made.Format == string(protocol.AttestationFormatPacked) && !chain
	if made.Format != string(protocol.AttestationFormatNone) && !self || len(p.RawID) > maxCredentialID {
		return nil, protocol.ErrAttestationFormat
	}
	return p, nil
}

// readAnswer reads what a browser says for a key that it knows.
func readAnswer(answer string) (*protocol.ParsedCredentialAssertionData, error) {
	if len(answer) > maxAnswer {
		return nil, protocol.ErrBadRequest
	}
	return protocol.ParseCredentialRequestResponseBytes([]byte(answer))
}

// BeginSignIn gives somebody who knows the password a challenge for their security keys,
// which [SignIn] takes the answer to. It fails as SignIn does for who does not know it, and
// takes as long. Codes security_key_missing, ceremonies_too_many.
func BeginSignIn(ctx context.Context, st *store.Store, in Attempt) (*Challenge, error) {
	return beginAnswer(ctx, st, in, forSignIn)
}

// BeginStepUp is BeginSignIn for [StepUp].
func BeginStepUp(ctx context.Context, st *store.Store, who Caller, in Attempt) (*Challenge, error) {
	in.Name, in.session = who.Name, who.Session.ID
	return beginAnswer(ctx, st, in, forStepUp)
}

func beginAnswer(ctx context.Context, st *store.Store, in Attempt, purpose string) (out *Challenge, err error) {
	id, err := check(ctx, st, in)
	if err != nil {
		return nil, err
	}
	err = st.Update(ctx, func(tx *store.Tx) error {
		p, err := stillRight(tx, id, in)
		if err != nil {
			return err
		}
		party, err := GetRelyingParty(tx)
		if err != nil {
			return err
		}
		owner, err := ownerOf(tx, in.Keys, p)
		if err != nil {
			return err
		}
		if len(owner.keys) == 0 {
			return reeve.Errorf(reeve.Conflict, "security_key_missing", "%s has no security key", p.Name).WithFix("sign in otherwise, then: reeve factor add-key")
		}
		lib, err := party.library()
		if err != nil {
			return err
		}
		made, session, err := lib.BeginLogin(owner)
		if err != nil {
			return err
		}
		c := &ceremony{Challenge: session.Challenge, Principal: p.ID, Purpose: purpose, Session: in.session}
		if purpose == forSignIn {
			c.Network = Network(in.From)
		}
		out, err = party.challenge(tx, c, made.Response)
		return err
	})
	return out, err
}

// useKey takes what a security key answered. Codes second_factor_wrong and
// security_key_copied, after which the challenge is used up: commit.
func useKey(tx *store.Tx, p *Principal, in Attempt) error {
	wrong := reeve.Errorf(reeve.Unauthenticated, "second_factor_wrong", "this is no answer of a security key of yours to this challenge, or it came too late").
		WithFix("ask for a new challenge, or use a recovery code")
	parsed, err := readAnswer(in.Answer)
	if err != nil {
		return wrong
	}
	c := ceremony{Challenge: parsed.Response.CollectedClientData.Challenge, Principal: p.ID, Purpose: forSignIn, Session: in.session}
	if in.session != "" {
		c.Purpose = forStepUp
	}
	if fits, err := c.take(tx); err != nil || !fits {
		return cmp.Or[error](err, wrong)
	}
	party, err := GetRelyingParty(tx)
	if err != nil {
		return err
	}
	owner, err := ownerOf(tx, in.Keys, p)
	if err != nil {
		return err
	}
	lib, err := party.library()
	if err != nil {
		return err
	}
	if _, err := lib.ValidateLogin(owner, webauthn.SessionData{Challenge: c.Challenge, RelyingPartyID: party.Domain, UserID: owner.WebAuthnID(),
		UserVerification: party.verification()}, parsed); err != nil {
		return wrong
	}
	for i, key := range owner.keys {
		if slices.Equal(key.ID, parsed.RawID) {
			return owner.factors[i].count(tx, p.Actor(in.From.String(), in.Node), parsed.Response.AuthenticatorData.Counter)
		}
	}
	return wrong
}

// count takes the counter of a key, which grows with each use; keys without one say 0
// (WebAuthn Level 3 §6.1.1). One that does not grow is in two hands, or was copied back,
// and it cannot be told which of the two is its owner's: neither gets in.
func (f *Factor) count(tx *store.Tx, by audit.Actor, counter uint32) error {
	if now := int64(counter); now > f.Step || now == 0 && f.Step == 0 {
		f.Step, f.LastUsed = now, tx.Now()
		return factors.Put(tx, f)
	}
	if err := audit.Record(tx, audit.Event{By: by, Action: "factor.clone_warning", Object: string(f.ID), Outcome: audit.Denied, Details: map[string]string{
		"principal": string(f.Principal), "name": f.Name, "counter": strconv.FormatUint(uint64(counter), 10), "last": strconv.FormatInt(f.Step, 10)}}); err != nil {
		return err
	}
	return reeve.Errorf(reeve.Unauthenticated, "security_key_copied", "the counter of the security key went back: there may be a copy of it").
		WithFix("sign in with a recovery code, remove the key, and tell an administrator")
}
