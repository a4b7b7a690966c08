package identity

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity/directory"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/internal/testlab"
)

// corp makes an OpenLDAP server with somebody called ada the directory corp.
func corp(t *testing.T, st *store.Store, create bool) (s *testlab.OpenLDAP, ada string) {
	t.Helper()
	s = testlab.Slapd(t)
	ada, err := s.AddPerson(t.Context(), "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	update(t, st, func(tx *store.Tx) error {
		_, err := directory.Add(tx, by, directory.Directory{Name: "corp", Address: s.Addr, CA: s.CAPEM, BindDN: testlab.SlapdSearcher, UserBase: testlab.SlapdPeople,
			UserFilter: "(uid=%Name%)", CreateUsers: create}, reeve.SecretString(s.SearcherPassword))
		return err
	})
	return s, ada
}

func directoryUser(t *testing.T, st *store.Store, name string) (p *Principal) {
	t.Helper()
	update(t, st, func(tx *store.Tx) (err error) {
		p, err = CreateDirectoryUser(tx, by, name, "corp", Profile{})
		return err
	})
	return p
}

// refusals are the details of the sign-ins that were refused.
func refusals(t *testing.T, st *store.Store) (out []map[string]string) {
	t.Helper()
	update(t, st, func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 0, audit.Filter{Action: "session.refuse"})
		for _, e := range all {
			out = append(out, e.Details)
		}
		return err
	})
	return out
}

func TestAUserOfADirectorySignsInByBothNames(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	s, dn := corp(t, st, false)
	ada := directoryUser(t, st, "ada")
	for _, name := range []string{"ada", "ADA@corp", "ada@CORP "} {
		session, _, err := try(st, name, good)
		if err != nil || session.Principal != ada.ID || !slices.Equal(session.Methods, []string{"ldap"}) {
			t.Fatalf("%q: %+v %v %v", name, session, err, refusals(t, st))
		}
	}
	if _, err := s.AddPerson(t.Context(), "bob", good); err != nil {
		t.Fatal(err)
	}
	want := signInFailed().Error()
	for name, password := range map[string]string{"ada": "wrong", "ada@corp": "", "bob@corp": good, "bob": good, "ada@elsewhere": good, "@corp": good, "*@corp": good, "ada)(uid=*@corp": good, "ada\x00@corp": good} {
		if _, _, err := try(st, name, password); err == nil || err.Error() != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	_, secret, err := try(st, "ada", good)
	if err != nil {
		t.Fatal(err)
	}
	who, err := authenticate(st, secret)
	if err != nil {
		t.Fatal(err)
	}
	if session, err := StepUp(t.Context(), st, who, Attempt{Password: reeve.SecretString(good), From: here}); err != nil || session.ID != who.Session.ID {
		t.Errorf("step up: %+v %v", session, err)
	}
	if err := ChangePassword(t.Context(), st, who, Attempt{Password: reeve.SecretString(good), From: here}, reeve.SecretString(good)); reeve.CodeOf(err) != "password_elsewhere" {
		t.Errorf("change the password: %v", err)
	}
	err = st.Update(t.Context(), func(tx *store.Tx) error { _, _, err := Invite(tx, by, root, ada.ID); return err })
	if reeve.CodeOf(err) != "password_elsewhere" {
		t.Errorf("invite: %v", err)
	}

	// The same name, but another entry: somebody else.
	if err := s.Delete(t.Context(), dn); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddPerson(t.Context(), "ada", good); err != nil {
		t.Fatal(err)
	}
	if _, _, err := try(st, "ada", good); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("another entry of the same name: %v", err)
	}
	if all := refusals(t, st); all[len(all)-1]["reason"] != "another_entry" {
		t.Errorf("%v", all[len(all)-1])
	}
	update(t, st, func(tx *store.Tx) error { return RemoveDirectory(tx, by, "corp") })
	if _, err := authenticate(st, secret); reeve.CodeOf(err) != "session_ended" {
		t.Errorf("a session of a directory that was removed: %v", err)
	}
	if _, _, err := try(st, "ada", good); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("after the directory was removed: %v", err)
	}
}

func TestWhoeverTheDirectoryKnowsBecomesAUserIfItMay(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	_, _ = corp(t, st, true)
	if _, _, err := try(st, "ada@corp", "wrong"); reeve.CodeOf(err) != "sign_in_failed" {
		t.Fatal(err)
	}
	if _, _, err := try(st, "ada", good); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("without the directory's name: %v", err)
	}
	update(t, st, func(tx *store.Tx) error {
		if _, err := FindPrincipal(tx, "ada@corp"); reeve.KindOf(err) != reeve.NotFound {
			t.Errorf("a wrong password made a user: %v", err)
		}
		return nil
	})
	first, _, err := try(st, "Ada@corp", good)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := try(st, "ada@corp", good)
	if err != nil || second.Principal != first.Principal {
		t.Fatalf("%+v %v", second, err)
	}
	update(t, st, func(tx *store.Tx) error {
		p, err := FindPrincipal(tx, "ada@corp")
		if err != nil || p.ID != first.Principal || p.Profile.FullName != "The ada" || p.Profile.Email != "someone@lab.test" || p.Directory != "corp" || p.Entry == "" {
			t.Errorf("%+v %v", p, err)
		}
		_, err = RemovePrincipal(tx, by, root, p.ID)
		return err
	})
	if _, _, err := try(st, "ada@corp", good); reeve.CodeOf(err) != "sign_in_failed" {
		t.Errorf("a user that was removed: %v", err)
	}
	// Guesses at somebody who is not a user yet count as well
	for range freeFailures {
		_, _, _ = try(st, "someone@corp", "wrong")
	}
	_, _, _ = try(st, "someone@corp", "wrong")
	if all := refusals(t, st); all[len(all)-1]["locked"] != "true" {
		t.Errorf("after %d guesses: %v", freeFailures, all[len(all)-1])
	}
}

func TestMappedGroupsFollowTheDirectory(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	s, dn := corp(t, st, false)
	ada := directoryUser(t, st, "ada")
	group := "cn=dba," + testlab.SlapdGroups
	if err := s.Add(t.Context(), group, map[string][]string{"objectClass": {"groupOfNames"}, "member": {dn, testlab.SlapdSearcher}}); err != nil {
		t.Fatal(err)
	}
	var mapped, own *Group
	update(t, st, func(tx *store.Tx) (err error) {
		if mapped, err = CreateMappedGroup(tx, by, "dba", "", "corp", "CN=DBA, "+testlab.SlapdGroups); err != nil {
			return err
		}
		if _, err = CreateMappedGroup(tx, by, "others", "", "corp", "cn=others,"+testlab.SlapdGroups); err != nil {
			return err
		}
		if own, err = CreateGroup(tx, by, "own", ""); err != nil {
			return err
		}
		return AddMember(tx, by, root, own.ID, ada.ID)
	})
	in := func() (names []string) {
		t.Helper()
		if _, _, err := try(st, "ada", good); err != nil {
			t.Fatal(err)
		}
		update(t, st, func(tx *store.Tx) error {
			groups, err := GroupsOf(tx, ada.ID)
			for _, g := range groups {
				names = append(names, g.Name)
			}
			return err
		})
		return slices.Sorted(slices.Values(names))
	}
	if got := in(); !slices.Equal(got, []string{"dba", "own"}) {
		t.Errorf("in %v", got)
	}
	for what, change := range map[string]func(*store.Tx) error{
		"put into":  func(tx *store.Tx) error { return AddMember(tx, by, root, mapped.ID, ada.ID) },
		"taken out": func(tx *store.Tx) error { return RemoveMember(tx, by, root, mapped.ID, ada.ID) },
	} {
		if err := st.Update(t.Context(), change); reeve.CodeOf(err) != "group_mapped" {
			t.Errorf("%s by hand: %v", what, err)
		}
	}
	if err := s.Replace(t.Context(), group, map[string][]string{"member": {testlab.SlapdSearcher}}); err != nil {
		t.Fatal(err)
	}
	if got := in(); !slices.Equal(got, []string{"own"}) {
		t.Errorf("taken out by the directory, in %v", got)
	}
	changes := map[string]int{}
	update(t, st, func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 0, audit.Filter{Actor: "corp"})
		if err != nil {
			return err
		}
		for _, e := range all {
			changes[e.Action]++
		}
		return RemoveGroup(tx, by, root, own.ID)
	})
	if want := map[string]int{"group.add_member": 1, "group.remove_member": 1}; !maps.Equal(changes, want) {
		t.Errorf("recorded %v", changes)
	}
	err := st.Update(t.Context(), func(tx *store.Tx) error { return RemoveDirectory(tx, by, "corp") })
	if reeve.CodeOf(err) != "directory_in_use" {
		t.Errorf("remove the directory: %v", err)
	}
}

// A directory that is down harms only its own users, and locks nobody out.
func TestADirectoryThatHangsHarmsNobodyElse(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	s, _ := corp(t, st, false)
	ada := directoryUser(t, st, "ada")
	withPassword(t, st, "local")
	if err := s.Hang(); err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 20)
	for i := range cap(waiting) {
		elsewhere := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}) // one network has only so many in hand
		go func() {
			_, _, err := SignIn(context.Background(), st, Attempt{Name: "ada", Password: reeve.SecretString(good), From: elsewhere})
			waiting <- err
		}()
	}
	for range 3 {
		began := time.Now()
		if _, _, err := try(st, "local", good); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > directory.Patience/2 {
			t.Errorf("a local user waited %s", took)
		}
	}
	for range cap(waiting) {
		if err := <-waiting; reeve.CodeOf(err) != "sign_in_failed" {
			t.Error(err)
		}
	}
	all := refusals(t, st)
	if last := all[len(all)-1]; last["reason"] != "unreachable" || last["principal"] != string(ada.ID) {
		t.Errorf("%v", last)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := try(st, "ada", good); err != nil {
		t.Errorf("when it is back: %v", err)
	}
}

func TestWhoIsGoneFromTheirDirectoryIsShutOut(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	s, dn := corp(t, st, false)
	ada := directoryUser(t, st, "ada")
	bob := directoryUser(t, st, "bob")
	robert, err := s.AddPerson(t.Context(), "bob", good)
	if err == nil {
		err = s.Add(t.Context(), "cn=dba,"+testlab.SlapdGroups, map[string][]string{"objectClass": {"groupOfNames"}, "member": {dn, robert}})
	}
	if err != nil {
		t.Fatal(err)
	}
	update(t, st, func(tx *store.Tx) error {
		_, err := CreateMappedGroup(tx, by, "dba", "", "corp", "cn=dba,"+testlab.SlapdGroups)
		return err
	})
	var sessions []reeve.Secret
	for _, name := range []string{"ada", "bob"} {
		_, secret, err := try(st, name, good)
		if err != nil {
			t.Fatal(err)
		}
		sessions = append(sessions, secret)
	}
	tokens := []reeve.Secret{issue(t, st, ada), issue(t, st, bob)}
	in := func(p *Principal) (n int) {
		update(t, st, func(tx *store.Tx) error {
			groups, err := GroupsOf(tx, p.ID)
			n = len(groups)
			return err
		})
		return n
	}
	recheck := func(want int) {
		t.Helper()
		if shut, err := RecheckDirectories(t.Context(), st); err != nil || shut != want {
			t.Errorf("%d are shut out, %v", shut, err)
		}
	}
	recheck(0)
	if in(ada) != 1 || in(bob) != 1 {
		t.Error("not in their group")
	}
	if err := s.Delete(t.Context(), dn); err != nil {
		t.Fatal(err)
	}
	recheck(1)
	if _, err := authenticate(st, sessions[0]); reeve.CodeOf(err) != "session_ended" || in(ada) != 0 {
		t.Errorf("who is gone: %v, in %d groups", err, in(ada))
	}
	if _, err := authenticate(st, tokens[0]); reeve.CodeOf(err) != "principal_shut_out" {
		t.Errorf("the token of who is gone: %v", err)
	}
	update(t, st, func(tx *store.Tx) error {
		p, err := GetPrincipal(tx, ada.ID)
		if p.Status() != "shut_out" {
			t.Errorf("who is gone is %s", p.Status())
		}
		if _, _, err := BeginFederatedSession(tx, Federated{Principal: p.ID, Provider: "corp", From: here}); reeve.CodeOf(err) != "sign_in_failed" {
			t.Errorf("who is gone comes by an OpenID provider: %v", err)
		}
		return err
	})
	if _, err := authenticate(st, sessions[1]); err != nil || in(bob) != 1 {
		t.Errorf("who is there: %v, in %d groups", err, in(bob))
	}
	if err := s.Hang(); err != nil {
		t.Fatal(err)
	}
	if shut, err := RecheckDirectories(t.Context(), st); err == nil || !strings.Contains(err.Error(), "directory corp did not say: unreachable") || shut != 0 {
		t.Errorf("while the directory hangs: %d are shut out, %v", shut, err)
	}
	if _, err := authenticate(st, sessions[1]); err != nil || in(bob) != 1 {
		t.Errorf("while the directory hangs: %v, in %d groups", err, in(bob))
	}
	if _, err := authenticate(st, tokens[1]); err != nil {
		t.Errorf("a token while the directory hangs: %v", err)
	}
	update(t, st, func(tx *store.Tx) error {
		g, err := FindGroup(tx, "dba")
		if err != nil {
			return err
		}
		return errors.Join(RemoveGroup(tx, by, root, g.ID), RemoveDirectory(tx, by, "corp"))
	})
	if _, err := authenticate(st, tokens[1]); reeve.CodeOf(err) != "principal_shut_out" {
		t.Errorf("a token of a directory that was removed: %v", err)
	}
}

// issue makes a token of somebody.
func issue(t *testing.T, st *store.Store, p *Principal) (secret reeve.Secret) {
	t.Helper()
	update(t, st, func(tx *store.Tx) (err error) {
		_, secret, err = CreateToken(tx, by, NewToken{Principal: p.ID})
		return err
	})
	return secret
}

// Nobody can say for how long a directory that is silent would still vouch for somebody, or
// a provider, which is never asked: their tokens stop in the end, unless Reeve itself knows
// them by a password.
func TestTokensStopWhenNobodyVouchesForTheirOwner(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Now())
	st := storetest.New(t, storetest.WithClock(clock.Now))
	s, _ := corp(t, st, false)
	ada := directoryUser(t, st, "ada")
	local := withPassword(t, st, "local")
	for _, p := range []*Principal{ada, local} { // both have come by others; local can also come without them
		update(t, st, func(tx *store.Tx) error {
			_, _, err := BeginFederatedSession(tx, Federated{Principal: p.ID, Provider: "corp", From: here})
			return err
		})
	}
	token, own := issue(t, st, ada), issue(t, st, local)
	works := func(what, want string) {
		t.Helper()
		if _, err := authenticate(st, token); reeve.CodeOf(err) != want {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
		if _, err := authenticate(st, own); err != nil {
			t.Errorf("%s: who has a password: %v", what, err)
		}
	}
	clock.Advance(TokensUnvouched - time.Second)
	works("just before", "")
	clock.Advance(time.Second)
	works("just after", "token_owner_absent")
	if _, err := RecheckDirectories(t.Context(), st); err != nil {
		t.Fatal(err)
	}
	works("the directory has vouched", "")
	if err := s.Hang(); err != nil {
		t.Fatal(err)
	}
	clock.Advance(TokensUnvouched)
	if _, err := RecheckDirectories(t.Context(), st); err == nil {
		t.Error("nobody is told that a directory is silent")
	}
	works("the directory is silent", "token_owner_absent")
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := try(st, "ada", good); err != nil {
		t.Fatal(err)
	}
	works("ada has signed in", "")
}

// Why Active Directory refuses somebody stands in the audit trail alone.
func TestWhoAsksLearnsNotWhyADirectoryRefuses(t *testing.T) {
	t.Parallel()
	st := storetest.New(t)
	dc := testlab.SambaAD(t, testlab.SambaOptions{})
	if err := dc.AddAccount(t.Context(), "off", good); err != nil {
		t.Fatal(err)
	}
	update(t, st, func(tx *store.Tx) error {
		_, err := directory.Add(tx, by, directory.Directory{Name: "corp", Address: dc.Addr, CA: dc.CAPEM, BindDN: "CN=" + testlab.Management + ",CN=Users," + testlab.DomainDN,
			UserBase: testlab.DomainDN}, reeve.SecretString(dc.ManagementPassword))
		return err
	})
	off := directoryUser(t, st, "off")
	_, secret, err := try(st, "off", good)
	if err != nil {
		t.Fatal(err)
	}
	token := issue(t, st, off)
	if err := dc.Replace(t.Context(), "CN=off,"+testlab.AccountsOU, map[string][]string{"userAccountControl": {"514"}}); err != nil {
		t.Fatal(err)
	}
	if shut, err := RecheckDirectories(t.Context(), st); err != nil || shut != 1 {
		t.Errorf("%d are shut out, %v", shut, err)
	}
	if _, err := authenticate(st, secret); reeve.CodeOf(err) != "session_ended" {
		t.Errorf("the session of who is disabled: %v", err)
	}
	if _, err := authenticate(st, token); reeve.CodeOf(err) != "principal_shut_out" {
		t.Errorf("the token of who is disabled: %v", err)
	}
	began := time.Now()
	_, _, err = try(st, "off@corp", good)
	if err == nil || err.Error() != signInFailed().Error() {
		t.Error(err)
	}
	if took := time.Since(began); took < answerAfter {
		t.Errorf("answered after %s, which tells that a directory was asked", took)
	}
	began = time.Now()
	_, _, _ = try(st, "nobody", good)
	if took := time.Since(began); took < answerAfter {
		t.Errorf("nobody is answered after %s", took)
	}
	all := refusals(t, st)
	if d := all[0]; d["reason"] != "disabled" || d["directory"] != "corp" || d["principal"] != string(off.ID) {
		t.Errorf("%v", d)
	}
	if err := dc.Replace(t.Context(), "CN=off,"+testlab.AccountsOU, map[string][]string{"userAccountControl": {"512"}}); err != nil {
		t.Fatal(err)
	}
	if shut, err := RecheckDirectories(t.Context(), st); err != nil || shut != 0 {
		t.Errorf("%d are shut out, %v", shut, err)
	}
	if _, err := authenticate(st, token); err != nil {
		t.Errorf("the token of who is let in again: %v", err)
	}
}

// K1: the password of a user of a directory is kept nowhere, that of the bind account only
// sealed.
func TestPasswordsOfADirectoryAreNotStored_K1(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/state.db"
	node := storetest.Start(t, storetest.WithPath(path))
	s, _ := corp(t, node.Store, true)
	if _, _, err := try(node.Store, "ada@corp", good); err != nil {
		t.Fatal(err)
	}
	_, _, _ = try(node.Store, "ada@corp", "Canary-wrong-password")
	update(t, node.Store, func(tx *store.Tx) error {
		all, err := audit.List(tx, 0, 0, audit.Filter{})
		for _, r := range all {
			for _, v := range slices.Concat(slices.Collect(maps.Values(r.Details)), slices.Collect(maps.Values(r.After))) {
				if strings.Contains(v, "Canary") || strings.Contains(v, s.SearcherPassword) {
					t.Errorf("%s records a password", r.Action)
				}
			}
		}
		return err
	})
	node.Stop()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{good, "Canary", s.SearcherPassword} {
		if strings.Contains(string(raw), secret) {
			t.Errorf("%q is stored in clear", secret)
		}
	}
	if strings.Contains(s.Logs(), "Canary") {
		t.Error("the directory's log shows a password")
	}
}
