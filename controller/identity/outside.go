package identity

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity/directory"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// answerAfter is when a failed sign-in is answered if there is a directory: by then most
// have answered, so that the time does not tell whether one was asked. A variable for tests.
var answerAfter = 2 * time.Second

// outside is a directory that is to prove a password, and under which name.
type outside struct {
	directory *directory.Directory
	name      string // there
}

func passwordElsewhere(p *Principal) error {
	return reeve.Errorf(reeve.Conflict, "password_elsewhere", "the password of %s belongs to the directory %s", p.Name, p.Directory).WithFix("change it there")
}

// lookUp finds who a typed name means, and the directory that is to prove it: a user by
// their name, or NAME@DIRECTORY. p is nil for nobody; if via is not, they may be made.
func lookUp(tx *store.Tx, name string) (p *Principal, via *outside, err error) {
	p, err = findOrNil(tx, name)
	if err != nil || p != nil && p.Directory == "" {
		return p, nil, err
	}
	local, at := name, ""
	if i := strings.LastIndexByte(name, '@'); i >= 0 {
		local, at = name[:i], name[i+1:]
	}
	if p != nil {
		at = p.Directory
		local = strings.TrimSuffix(p.Name, "@"+at)
	}
	d, err := directory.Find(tx, at)
	if reeve.KindOf(err) == reeve.NotFound {
		return p, nil, nil
	}
	if err != nil || local == "" {
		return p, nil, err
	}
	if p == nil { // NAME of that directory
		other, err := findOrNil(tx, local)
		if err != nil {
			return nil, nil, err
		}
		if other != nil && other.Directory == at {
			p = other
		}
	}
	if p == nil && (!d.CreateUsers || !validName(name)) {
		return nil, nil, nil
	}
	return p, &outside{d, local}, nil
}

func findOrNil(tx *store.Tx, name string) (*Principal, error) {
	p, err := principals.Find(tx, "name", name)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, nil
	}
	return p, err
}

// failureKey is under what failures are counted; "" for a name that nobody can have.
func failureKey(p *Principal, via *outside) reeve.PrincipalID {
	switch {
	case p != nil:
		return p.ID
	case via != nil:
		return reeve.PrincipalID("directory:" + via.directory.Name + "/" + via.name)
	}
	return ""
}

func anyDirectory(tx *store.Tx) (bool, error) {
	for _, err := range directory.List(tx, "") {
		return err == nil, err
	}
	return false, nil
}

// wait returns when a failed sign-in that began then may be answered.
func wait(ctx context.Context, began time.Time) {
	t := time.NewTimer(time.Until(began.Add(answerAfter)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// ask has the directory prove the password of p, or of somebody who is yet to be made. An
// entry that is not the one p signed in with before, or is another user's, is refused.
func (o *outside) ask(ctx context.Context, st *store.Store, p *Principal, password reeve.Secret) (*directory.Answer, error) {
	a, err := directory.Ask(ctx, o.directory, o.name, password)
	if err != nil {
		return nil, err
	}
	return a, st.View(ctx, func(tx *store.Tx) error {
		strange, err := o.strange(tx, p, a.Entry)
		if err == nil && strange != "" {
			err = &directory.Refused{Reason: strange, Judged: true}
		}
		return err
	})
}

// strange says why an entry is not p's: "" if it is, or may become it.
func (o *outside) strange(tx *store.Tx, p *Principal, entry string) (string, error) {
	if p != nil && p.Entry != "" && p.Entry != entry {
		return "another_entry", nil
	}
	if entry == "" {
		return "", nil
	}
	for other, err := range principals.Scan(tx, "entry", store.Range{Prefix: []string{o.directory.Name + "/" + entry}}) {
		if err != nil {
			return "", err
		}
		if p == nil || other.ID != p.ID {
			return "another_user", nil
		}
	}
	return "", nil
}

// letIn is stillRight for somebody whose password a directory has proved. It makes them if
// they are new, and puts them into the groups of Reeve that stand for groups of the
// directory. An entry that was replaced by another one of the same name is somebody else.
func letIn(tx *store.Tx, c checked, in Attempt) (*Principal, error) {
	d, err := directory.Find(tx, c.outside.directory.Name)
	if reeve.KindOf(err) == reeve.NotFound {
		return nil, signInFailed()
	}
	if err != nil {
		return nil, err
	}
	by := audit.Actor{Kind: "directory", ID: d.Name, Name: d.Name, From: in.From.String(), Node: in.Node}
	p, err := owner(tx, by, c, d)
	if err != nil {
		return nil, err
	}
	if locked, err := throttled(tx, failureKey(p, c.outside)); err != nil || locked {
		return nil, errors.Join(err, signInFailed())
	}
	strange, err := c.outside.strange(tx, p, c.answer.Entry)
	if err != nil {
		return nil, err
	}
	if strange != "" || !p.Active() || p.Directory != d.Name {
		return nil, signInFailed()
	}
	if p.Entry != c.answer.Entry {
		p.Entry = c.answer.Entry
		if err := principals.Put(tx, p); err != nil {
			return nil, err
		}
	}
	return p, errors.Join(vouch(tx, by, p), followGroups(tx, by, p, c.answer.Groups))
}

// owner is the user of an answer.
func owner(tx *store.Tx, by audit.Actor, c checked, d *directory.Directory) (*Principal, error) {
	if c.principal != "" {
		return GetPrincipal(tx, c.principal)
	}
	p, via, err := lookUp(tx, c.outside.name+"@"+d.Name)
	switch {
	case err != nil:
		return nil, err
	case via == nil:
		return nil, signInFailed() // made a local user, or no longer to be made
	case p != nil:
		return p, nil
	}
	profile := Profile{FullName: printable(c.answer.FullName)}
	if validEmail(c.answer.Email) {
		profile.Email = c.answer.Email
	}
	if profile.check() != nil {
		profile = Profile{}
	}
	return create(tx, by, &Principal{Name: c.outside.name + "@" + d.Name, Kind: User, Profile: profile, Directory: d.Name})
}

// followGroups makes the memberships in the groups that stand for groups of the user's
// directory what the directory says.
func followGroups(tx *store.Tx, by audit.Actor, p *Principal, has []string) error {
	for g, err := range ListGroups(tx, "") {
		if err == nil && g.Directory == p.Directory {
			change := leave
			for _, name := range has {
				if directory.SameGroup(name, g.External) {
					change = join
					break
				}
			}
			err = change(tx, by, g, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// byHand fails if a directory says who is in the group: code group_mapped.
func (g *Group) byHand() error {
	if g.Directory == "" {
		return nil
	}
	return reeve.Errorf(reeve.Conflict, "group_mapped", "the directory %s says who is in %s", g.Directory, g.Name).WithFix("change it there, or use a group of Reeve's own")
}

// CreateDirectoryUser adds a user whose password a directory proves. They sign in with
// their name there: what stands before @DIRECTORY in name, or all of it. Codes as of
// [CreatePrincipal], and directory_not_found.
func CreateDirectoryUser(tx *store.Tx, by audit.Actor, name, in string, profile Profile) (*Principal, error) {
	d, err := directory.Find(tx, in)
	if err != nil {
		return nil, err
	}
	return create(tx, by, &Principal{Name: name, Kind: User, Profile: profile, Directory: d.Name})
}

// CreateMappedGroup adds a group of which a directory says who is in it, under the name
// external. Codes as of [CreateGroup], and directory_not_found, external_invalid.
func CreateMappedGroup(tx *store.Tx, by audit.Actor, name, description, in, external string) (*Group, error) {
	d, err := directory.Find(tx, in)
	if err != nil {
		return nil, err
	}
	if external == "" || len(external) > 1024 || printable(external) != external && len(external) <= maxDescription {
		return nil, reeve.Errorf(reeve.Invalid, "external_invalid", "say what the directory calls the group").WithFix("give its distinguished name, such as CN=DBA,OU=Groups,DC=example,DC=com").WithField("/external")
	}
	g, err := CreateGroup(tx, by, name, description)
	if err != nil {
		return nil, err
	}
	g.Directory, g.External = d.Name, external
	if err := groups.Put(tx, g); err != nil {
		return nil, err
	}
	return g, audit.Record(tx, audit.Event{By: by, Action: "group.map", Object: string(g.ID), After: map[string]string{"directory": d.Name, "external": external}})
}

// RemoveDirectory ends sign-in through a directory, and the sessions and tokens of its users. While
// groups stand for groups of it, it stays: code directory_in_use.
func RemoveDirectory(tx *store.Tx, by audit.Actor, name string) error {
	for g, err := range ListGroups(tx, "") {
		if err != nil {
			return err
		}
		if g.Directory == name {
			return reeve.Errorf(reeve.Conflict, "directory_in_use", "the directory %s says who is in the group %s", name, g.Name).WithFix("remove the group first: reeve group remove %s", g.Name)
		}
	}
	if err := directory.Remove(tx, by, name); err != nil {
		return err
	}
	for p, err := range principals.List(tx, "") {
		if err == nil && p.Directory == name {
			err = shutOut(tx, by, p, "directory_removed")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
