package main

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Inspect implements sdk.Inspector.
func (c connector) Inspect(ctx context.Context, t sdk.Target, name string) (sdk.Facts, error) {
	s, err := c.manage(ctx, t)
	if err != nil {
		return sdk.Facts{}, err
	}
	defer s.close()
	a, err := s.account(ctx, name)
	if err != nil {
		return sdk.Facts{}, err
	}
	f, err := s.factsOf(ctx, name, a)
	s.good = err == nil
	return f, err
}

// Discover implements sdk.Discoverer. Accounts that came with the database are left out.
func (c connector) Discover(ctx context.Context, t sdk.Target, yield func(sdk.Facts) bool) error {
	s, err := c.manage(ctx, t)
	if err != nil {
		return err
	}
	defer s.close()
	all, err := s.accounts(ctx, "oracle_maintained = 'N'")
	if err != nil {
		return err
	}
	for _, a := range all {
		f, err := s.factsOf(ctx, a.name, a)
		if err != nil {
			return err
		}
		if !yield(f) {
			break
		}
	}
	s.good = true
	return nil
}

// factsOf says what is known of an account; a is nil if it is not there.
func (s *session) factsOf(ctx context.Context, name string, a *account) (sdk.Facts, error) {
	f := sdk.Facts{Account: name, ReadAt: time.Now().UTC()}
	if a == nil {
		return f, nil
	}
	f.Exists = true
	f.Identity = a.identity()
	f.Locked = a.locked()
	f.HasPassword = a.hasPassword()
	f.PasswordChangedAt = a.changed
	f.Attributes = map[string]string{"account_status": a.status, "authentication": a.kind, "profile": a.profile}
	if a.expired() {
		f.Attributes["password_expired"] = yes
	}
	if a.last != "" {
		f.Attributes["last_login"] = a.last // UTC
	}
	r, err := s.rights(ctx, name)
	if err != nil {
		return sdk.Facts{}, err
	}
	f.Grants, f.Groups = r.grants, r.roles
	if len(r.inactive) > 0 {
		f.Attributes["inactive_roles"] = strings.Join(r.inactive, " ")
	}
	open, err := s.sessions(ctx, name)
	f.Sessions = len(open)
	return f, err
}

// rights is what was granted to an account, each sorted.
type rights struct {
	grants   []string // system privileges, privileges on objects, quotas
	roles    []string
	inactive []string // roles that are not active at login
}

func (r rights) all() []string {
	return slices.Concat(r.grants, []string{"|"}, r.roles, []string{"|"}, r.inactive)
}

func (s *session) rights(ctx context.Context, grantee string) (r rights, err error) {
	const what = "read the rights of the account"
	system, err := s.query(ctx, what, "SELECT privilege, admin_option FROM dba_sys_privs WHERE grantee = :1", grantee)
	if err != nil {
		return r, err
	}
	for _, p := range system {
		r.grants = append(r.grants, p[0]+option(p[1], " WITH ADMIN OPTION"))
	}
	object, err := s.query(ctx, what, "SELECT privilege, owner, table_name, grantable FROM dba_tab_privs WHERE grantee = :1", grantee)
	if err != nil {
		return r, err
	}
	for _, p := range object {
		r.grants = append(r.grants, p[0]+" ON "+p[1]+"."+p[2]+option(p[3], " WITH GRANT OPTION"))
	}
	quotas, err := s.query(ctx, what, "SELECT tablespace_name, TO_CHAR(max_bytes) FROM dba_ts_quotas WHERE username = :1", grantee)
	if err != nil {
		return r, err
	}
	for _, q := range quotas {
		r.grants = append(r.grants, "QUOTA "+strings.Replace(q[1], "-1", "UNLIMITED", 1)+" ON "+q[0])
	}
	roles, err := s.query(ctx, what, "SELECT granted_role, admin_option, default_role FROM dba_role_privs WHERE grantee = :1", grantee)
	if err != nil {
		return r, err
	}
	for _, g := range roles {
		r.roles = append(r.roles, g[0]+option(g[1], " WITH ADMIN OPTION"))
		if g[2] == "NO" {
			r.inactive = append(r.inactive, g[0])
		}
	}
	passwords, err := s.query(ctx, what, "SELECT sysdba, sysoper, sysbackup, sysdg, syskm FROM v$pwfile_users WHERE username = :1", grantee)
	if err != nil {
		return r, err
	}
	for _, p := range passwords { // administrative privileges are nowhere else
		for i, name := range []string{"SYSDBA", "SYSOPER", "SYSBACKUP", "SYSDG", "SYSKM"} {
			if p[i] == "TRUE" {
				r.grants = append(r.grants, name)
			}
		}
	}
	for _, list := range []*[]string{&r.grants, &r.roles, &r.inactive} { // in a container database a grant may be there twice
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return r, nil
}

func option(answer, text string) string {
	if answer == "YES" {
		return text
	}
	return ""
}

var sessionForm = regexp.MustCompile(`^[0-9]+,[0-9]+,@[0-9]+$`)

// sessions lists the sessions of an account on every instance, as sid,serial#,@instance.
func (s *session) sessions(ctx context.Context, account string) ([]string, error) {
	rows, err := s.query(ctx, "read the sessions",
		"SELECT TO_CHAR(sid), TO_CHAR(serial#), TO_CHAR(inst_id) FROM gv$session WHERE username = :1", account)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, r := range rows {
		which := r[0] + "," + r[1] + ",@" + r[2]
		if !sessionForm.MatchString(which) {
			return nil, sdk.Errorf(sdk.ClassProtocol, "the server's list of sessions is not understood").
				WithFix("report the server's version with this message")
		}
		all = append(all, which)
	}
	return all, nil
}
