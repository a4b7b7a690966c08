package identity

import "github.com/reeve-pam/reeve/internal/reeve"

// Authorize decides whether a principal may do an action (noun.verb, as audit names
// it) to an object. Today every authenticated principal may do everything; privileges
// and their scopes will be looked up here, and nowhere else. It denies with kind Denied.
func Authorize(p Principal, action, _ string) error {
	switch p.Kind {
	case Root, User, Service:
		return nil
	default:
		return reeve.Errorf(reeve.Denied, "not_permitted", "this principal may not do %s", action)
	}
}
