package identity

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity/directory"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// RecheckDirectories asks the directories about those of their users who have a session or a token.
// Of who is gone, replaced, disabled or expired there it ends the sessions, the memberships
// in mapped groups, and the tokens until the directory lets them in again; the memberships
// of everybody else it makes what the directory says. A directory that does not answer
// changes nothing. It returns how many are shut out, and beside them which directories did
// not answer.
func RecheckDirectories(ctx context.Context, st *store.Store) (shut int, err error) {
	var ask []*Principal
	known := map[string]*directory.Directory{}
	err = st.View(ctx, func(tx *store.Tx) error {
		for d, err := range directory.List(tx, "") {
			if err != nil {
				return err
			}
			known[d.Name] = d
		}
		if len(known) == 0 {
			return nil
		}
		for p, err := range principals.List(tx, "") {
			if err != nil {
				return err
			}
			if p.Active() && known[p.Directory] != nil {
				in, err := present(tx, p.ID)
				if err != nil {
					return err
				}
				if in {
					ask = append(ask, p)
				}
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	var silent error
	for _, p := range ask {
		d := known[p.Directory]
		if d == nil {
			continue
		}
		a, err := directory.See(ctx, d, strings.TrimSuffix(p.Name, "@"+d.Name))
		refused, no := errors.AsType[*directory.Refused](err)
		switch {
		case err != nil && (!no || !refused.Judged): // the others of it would wait as long
			known[p.Directory] = nil
			if no {
				err = errors.New(refused.Reason)
			}
			silent = errors.Join(silent, fmt.Errorf("directory %s did not say: %w", d.Name, err))
			continue
		case err == nil && a.Shut != "":
			refused = &directory.Refused{Reason: a.Shut}
		case err == nil && p.Entry != "" && p.Entry != a.Entry:
			refused = &directory.Refused{Reason: "another_entry"}
		}
		if refused != nil {
			shut++
		}
		if err := st.Update(ctx, func(tx *store.Tx) error { return follow(tx, p.ID, d.Name, a, refused) }); err != nil {
			return shut, err
		}
	}
	return shut, silent
}

// present reports whether somebody has a session, a token or a wrap that can be opened.
func present(tx *store.Tx, id reeve.PrincipalID) (bool, error) {
	for _, err := range ListSessions(tx, id) {
		return err == nil, err
	}
	for _, err := range tokens.Scan(tx, "principal", store.Range{Prefix: []string{string(id)}}) {
		return err == nil, err
	}
	n, err := openWraps(tx, id) // they outlive a session that nobody uses
	return n > 0, err
}

// follow does to a user what their directory says.
func follow(tx *store.Tx, id reeve.PrincipalID, name string, a *directory.Answer, refused *directory.Refused) error {
	p, err := GetPrincipal(tx, id)
	if err != nil || p.Directory != name || !p.Active() {
		return err
	}
	by := audit.Actor{Kind: "directory", ID: name, Name: name}
	if refused == nil {
		return errors.Join(vouch(tx, by, p), followGroups(tx, by, p, a.Groups))
	}
	return errors.Join(shutOut(tx, by, p, refused.Reason), followGroups(tx, by, p, nil))
}
