package identity

import (
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

const (
	// SessionIdle is how long a session may be unused.
	SessionIdle = 15 * time.Minute
	// SessionLife is how long a session lasts at most.
	SessionLife = 12 * time.Hour
	// StepUpFor is how long somebody counts as having just proved who they are.
	StepUpFor = 5 * time.Minute
	// seenGrain is how exact Session.LastSeen is, so that reading does not mean writing.
	seenGrain = time.Minute
)

// Session is what somebody has who signed in, without its secret, which is never stored.
type Session struct {
	ID        reeve.SessionID   `cbor:"1,keyasint"`
	Principal reeve.PrincipalID `cbor:"2,keyasint"`
	Hash      string            `cbor:"3,keyasint"`
	Created   time.Time         `cbor:"4,keyasint"`
	LastSeen  time.Time         `cbor:"5,keyasint"`            // to the minute
	ProvedAt  time.Time         `cbor:"6,keyasint"`            // when its owner last proved who they are
	From      string            `cbor:"7,keyasint"`            // address it was made from
	Client    string            `cbor:"8,keyasint,omitzero"`   // what the client says it is
	Methods   []string          `cbor:"9,keyasint"`            // what they have shown: password, totp, recovery_code, webauthn, oidc, mfa (to the provider), ldap
	Provider  string            `cbor:"20,keyasint,omitempty"` // the OpenID provider that said who they are
}

// Ends is when the session ends if nothing is done with it.
func (s *Session) Ends() time.Time {
	end := s.LastSeen.Add(SessionIdle)
	if last := s.Created.Add(SessionLife); last.Before(end) {
		return last
	}
	return end
}

// Fresh reports whether its owner has just proved who they are.
func (s *Session) Fresh(now time.Time) bool { return now.Before(s.ProvedAt.Add(StepUpFor)) }

var sessions = store.NewTable("session",
	store.Key(func(s *Session) string { return string(s.ID) }),
	store.Unique("hash", func(s *Session) []string { return []string{s.Hash} }),
	store.Index("principal", func(s *Session) []string { return []string{string(s.Principal)} }),
	store.Index("end", func(s *Session) []string { return []string{store.TimePart(s.Created.Add(SessionLife))} }),
)

// NewSession says what session to begin.
type NewSession struct {
	Principal reeve.PrincipalID
	From      netip.Addr
	Client    string
	Methods   []string
	Provider  string    // "": none
	ProvedAt  time.Time // when they proved who they are; zero: now
}

// BeginSession makes a session of somebody who has proved who they are; that they have is
// the caller's word. The secret is returned this once.
func BeginSession(tx *store.Tx, by audit.Actor, in NewSession) (*Session, reeve.Secret, error) {
	if err := forgetOldSessions(tx); err != nil {
		return nil, reeve.Secret{}, err
	}
	secret, hash := sessionBearer.make()
	s := &Session{ID: reeve.NewSessionID(), Principal: in.Principal, Hash: hash, Created: tx.Now(), LastSeen: tx.Now(), ProvedAt: tx.Now(),
		From: in.From.String(), Client: printable(in.Client), Methods: in.Methods, Provider: in.Provider}
	if !in.ProvedAt.IsZero() {
		s.ProvedAt = in.ProvedAt
	}
	if err := sessions.Insert(tx, s); err != nil {
		return nil, reeve.Secret{}, err
	}
	return s, secret, audit.Record(tx, audit.Event{By: by, Action: "session.begin", Object: string(s.ID), Details: map[string]string{
		"principal": string(in.Principal), "methods": joined(in.Methods), "client": s.Client}})
}

// forgetOldSessions drops a few sessions that are past their time.
func forgetOldSessions(tx *store.Tx) error {
	n := 0
	for s, err := range sessions.Scan(tx, "end", store.Range{To: store.TimePart(tx.Now())}) {
		if err == nil {
			err = sessions.Delete(tx, string(s.ID))
		}
		if err != nil {
			return err
		}
		if n++; n == 8 {
			break
		}
	}
	return nil
}

// findSession returns the session of a secret; kinds and codes as [Authenticate] says.
func findSession(tx *store.Tx, secret reeve.Secret) (*Session, error) {
	hash, err := sessionBearer.hash(secret)
	if err != nil {
		return nil, err
	}
	s, err := sessions.Find(tx, "hash", hash)
	if reeve.KindOf(err) == reeve.NotFound || err == nil && !tx.Now().Before(s.Ends()) {
		return nil, reeve.Errorf(reeve.Unauthenticated, "session_ended", "this session has ended").WithFix("sign in again: reeve login")
	}
	return s, err
}

// ListSessions yields the sessions of a principal that have not ended.
func ListSessions(tx *store.Tx, id reeve.PrincipalID) iter.Seq2[*Session, error] {
	return func(yield func(*Session, error) bool) {
		for s, err := range sessions.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
			if err == nil && !tx.Now().Before(s.Ends()) {
				continue
			}
			if !yield(s, err) || err != nil {
				return
			}
		}
	}
}

// GetSession returns a session; code session_not_found.
func GetSession(tx *store.Tx, id reeve.SessionID) (*Session, error) {
	return sessions.Get(tx, string(id))
}

// EndSession ends a session: the next call with it is refused. Code session_not_found.
func EndSession(tx *store.Tx, by audit.Actor, id reeve.SessionID) error {
	s, err := sessions.Get(tx, string(id))
	if err == nil {
		err = sessions.Delete(tx, string(id))
	}
	if err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "session.end", Object: string(id), Details: map[string]string{"principal": string(s.Principal)}})
}

// EndSessions ends all sessions of a principal.
func EndSessions(tx *store.Tx, by audit.Actor, id reeve.PrincipalID) error {
	for s, err := range sessions.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
		if err == nil {
			err = EndSession(tx, by, s.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// endOtherSessions ends all sessions of somebody but the one that calls.
func endOtherSessions(tx *store.Tx, by audit.Actor, who Caller) error {
	for s, err := range sessions.Scan(tx, "principal", store.Range{Prefix: []string{string(who.ID)}}) {
		if err == nil && (who.Session == nil || s.ID != who.Session.ID) {
			err = EndSession(tx, by, s.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// prove notes that the owner of a session has just proved who they are again.
func prove(tx *store.Tx, by audit.Actor, id reeve.SessionID, methods []string) (*Session, error) {
	s, err := sessions.Get(tx, string(id))
	if err != nil {
		return nil, err
	}
	s.ProvedAt, s.LastSeen = tx.Now(), tx.Now()
	for _, m := range methods {
		if !slices.Contains(s.Methods, m) {
			s.Methods = append(s.Methods, m)
		}
	}
	if err := sessions.Put(tx, s); err != nil {
		return nil, err
	}
	return s, audit.Record(tx, audit.Event{By: by, Action: "session.step_up", Object: string(id), Details: map[string]string{"methods": joined(methods)}})
}
