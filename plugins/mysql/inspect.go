package main

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Inspect implements sdk.Inspector. The account is the entry whose host part is the
// target's option account_host; other entries of the name are in the attributes.
func (c connector) Inspect(ctx context.Context, t sdk.Target, name string) (sdk.Facts, error) {
	s, err := c.manage(ctx, t)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer s.close()
	host, err := accountHost(t)
	if err != nil {
		return sdk.Facts{}, err
	}
	return s.facts(ctx, name, host)
}

// Discover implements sdk.Discoverer. Roles are left out.
func (c connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	s, err := c.manage(ctx, t)
	if err != nil {
		return err
	}
	defer s.close()
	all, err := s.accounts(ctx)
	if err != nil {
		return err
	}
	for _, a := range all {
		f, err := s.factsOf(ctx, a, all)
		if err != nil {
			return err
		}
		if !yield(f) {
			return nil
		}
	}
	return nil
}

// facts reads one account.
func (s *session) facts(ctx context.Context, user, host string) (sdk.Facts, error) {
	all, err := s.namesakes(ctx, user)
	if err != nil {
		return sdk.Facts{}, err
	}
	return s.factsAmong(ctx, user, host, all)
}

// factsAmong is facts of an account that was read with its namesakes.
func (s *session) factsAmong(ctx context.Context, user, host string, all []*account) (sdk.Facts, error) {
	var others []string
	for _, a := range all {
		if a.user != user {
			continue
		}
		if a.host == host {
			return s.factsOf(ctx, a, all)
		}
		others = append(others, a.host)
	}
	f := sdk.Facts{Account: user, ReadAt: time.Now().UTC()}
	if len(others) > 0 {
		f.Attributes = map[string]string{"other_hosts": strings.Join(others, " ")}
	}
	return f, nil
}

func (s *session) factsOf(ctx context.Context, a *account, all []*account) (sdk.Facts, error) {
	f := sdk.Facts{
		Exists:            true,
		Account:           a.user,
		Identity:          a.identity(),
		Locked:            a.locked,
		HasPassword:       a.hash != "" && a.hash != "invalid",
		PasswordChangedAt: a.changed,
		Attributes:        map[string]string{"host": a.host, "plugin": a.plugin},
		ReadAt:            time.Now().UTC(),
	}
	if a.expired {
		f.Attributes["password_expired"] = "yes"
	}
	if a.comment != "" {
		f.Attributes["comment"] = a.comment
	}
	if first := shadows(a, all); len(first) > 0 {
		f.Attributes["shadowed_by"] = strings.Join(first, " ")
	}
	var others []string
	for _, b := range all {
		if b.user == a.user && b.host != a.host {
			others = append(others, b.host)
		}
	}
	if len(others) > 0 {
		f.Attributes["other_hosts"] = strings.Join(others, " ")
	}
	var err error
	if f.Grants, err = s.grants(ctx, a.user, a.host); err != nil {
		return sdk.Facts{}, err
	}
	if f.Groups, err = s.roles(ctx, a.user, a.host); err != nil {
		return sdk.Facts{}, err
	}
	ids, err := s.sessions(ctx, a.user)
	f.Sessions = len(ids)
	return f, err
}

// grants reads what an account may do, sorted and without password hashes. An account
// that has just gone has none.
func (s *session) grants(ctx context.Context, user, host string) ([]string, error) {
	who, err := pair(user, host)
	if err != nil {
		return nil, err
	}
	lines, err := s.strings(ctx, "read the rights of "+who, "SHOW GRANTS FOR "+who)
	if number(err) == errNoSuchGrant {
		return nil, nil
	}
	for i, line := range lines {
		lines[i] = withoutHash(line)
	}
	slices.Sort(lines)
	return lines, err
}

// withoutHash cuts the authentication out of a line of SHOW GRANTS. All that can stand
// behind it is how one must connect, limits, and the right to pass rights on.
func withoutHash(line string) string {
	head, tail, found := strings.Cut(line, " IDENTIFIED ")
	if found && strings.HasSuffix(tail, " GRANT OPTION") || strings.Contains(tail, " GRANT OPTION ") {
		return head + " WITH GRANT OPTION"
	}
	return head
}

// roles reads the roles that were granted to an account.
func (s *session) roles(ctx context.Context, user, host string) ([]string, error) {
	statement := "SELECT Role FROM mysql.roles_mapping WHERE User = ? AND Host = ? ORDER BY Role"
	if s.server.product == mySQL {
		if s.server.version[0] < 8 {
			return nil, nil
		}
		statement = "SELECT FROM_USER FROM mysql.role_edges WHERE TO_USER = ? AND TO_HOST = ? ORDER BY FROM_USER"
	}
	return s.strings(ctx, "read the roles of the account", statement, user, host)
}

// sessions lists the connections that are logged in under a user name, but not ours.
func (s *session) sessions(ctx context.Context, user string) ([]int64, error) {
	var ids []int64
	err := s.query(ctx, "read the sessions",
		"SELECT ID, USER FROM information_schema.PROCESSLIST WHERE USER = ? AND ID <> CONNECTION_ID()",
		func(r *sql.Rows) error {
			var id int64
			var name string
			err := r.Scan(&id, &name)
			if name == user { // the table compares without regard to case, the server does not
				ids = append(ids, id)
			}
			return err
		}, user)
	return ids, err
}

// pairs reads two columns.
func (s *session) pairs(ctx context.Context, what, statement string) (map[string]string, error) {
	all := map[string]string{}
	err := s.query(ctx, what, statement, func(r *sql.Rows) error {
		var k, v string
		err := r.Scan(&k, &v)
		all[k] = v
		return err
	})
	return all, err
}

// definers counts the objects that run with the rights of an account and that the
// management account can see.
func (s *session) definers(ctx context.Context, user, host string) ([]string, error) {
	counts := map[string]int{}
	for _, kind := range []string{"VIEWS", "ROUTINES", "TRIGGERS", "EVENTS"} {
		definers, err := s.strings(ctx, "look for objects of the account",
			"SELECT DEFINER FROM information_schema."+kind+" WHERE DEFINER = ?", user+"@"+host)
		if err != nil {
			return nil, err
		}
		for _, d := range definers {
			if d == user+"@"+host {
				counts[strings.ToLower(kind)]++
			}
		}
	}
	var residue []string
	for kind, n := range counts {
		residue = append(residue, strconv.Itoa(n)+" "+kind+" still name "+user+"@"+host+" as DEFINER")
	}
	slices.Sort(residue)
	return residue, nil
}
