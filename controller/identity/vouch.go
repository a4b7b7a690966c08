package identity

import (
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// TokensUnvouched is how long the tokens of somebody are good whom others vouch for, a
// directory or an OpenID provider, and who has no password of Reeve's own, after that was
// last done: a provider does not say when somebody has left, and a directory may be silent.
const TokensUnvouched = 30 * 24 * time.Hour

// vouchGrain is how exact Principal.Vouched is where a directory is asked every few
// minutes, so that asking does not mean writing.
const vouchGrain = 24 * time.Hour

// stillVouched fails with kind Unauthenticated if those who vouch for a principal do not, as
// far as is known: codes principal_shut_out, and for its tokens token_owner_absent.
func stillVouched(tx *store.Tx, p *Principal, t *Token) error {
	if !p.ShutOut.IsZero() {
		return reeve.Errorf(reeve.Unauthenticated, "principal_shut_out", "%s is shut out by the directory %s", p.Name, p.Directory).
			WithFix("have that changed there, and sign in again")
	}
	if t == nil || p.Vouched.IsZero() || tx.Now().Before(p.Vouched.Add(TokensUnvouched)) {
		return nil
	}
	switch _, err := passwords.Get(tx, string(p.ID)); {
	case err == nil:
		return nil // Reeve itself vouches for them
	case reeve.KindOf(err) != reeve.NotFound:
		return err
	}
	return reeve.Errorf(reeve.Unauthenticated, "token_owner_absent", "nobody has vouched for %s, whose token this is, for %d days", p.Name, int(TokensUnvouched.Hours()/24)).
		WithFix("let them sign in; for a program, better make a service account")
}

// vouch notes that somebody's directory lets them in.
func vouch(tx *store.Tx, by audit.Actor, p *Principal) error {
	back := !p.ShutOut.IsZero()
	if !back && tx.Now().Before(p.Vouched.Add(vouchGrain)) {
		return nil
	}
	p.ShutOut, p.Vouched = time.Time{}, tx.Now()
	if err := principals.Put(tx, p); err != nil || !back {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "principal.let_in", Object: string(p.ID), Details: map[string]string{"principal": p.Name, "directory": p.Directory}})
}

// shutOut ends the sessions of somebody whom their directory lets in no more, and their
// tokens until it does again.
func shutOut(tx *store.Tx, by audit.Actor, p *Principal, reason string) error {
	if err := EndSessions(tx, by, p.ID); err != nil || !p.ShutOut.IsZero() {
		return err
	}
	p.ShutOut = tx.Now()
	if err := principals.Put(tx, p); err != nil {
		return err
	}
	return audit.Record(tx, audit.Event{By: by, Action: "principal.shut_out", Object: string(p.ID), Details: map[string]string{"principal": p.Name, "directory": p.Directory, "reason": reason}})
}
