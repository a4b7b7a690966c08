package main

import (
	"context"
	"slices"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Probe implements sdk.Prober, by a fresh login. What roles grant is not looked at: a role that grants
// more than the management account may pass on is refused by the server when used.
func (connector) Probe(ctx context.Context, t sdk.Target) (sdk.Fingerprint, error) {
	s, err := connect(ctx, t, t.Management)
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	defer s.close()
	f := sdk.Fingerprint{
		Product:    s.server.product,
		Version:    s.server.number(),
		Attributes: map[string]string{"version": s.version},
	}
	grants, err := s.strings(ctx, "read the management account's rights", "SHOW GRANTS")
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	held := globalRights(grants)
	for _, right := range []string{"CREATE USER", "PROCESS", s.server.killRight()} {
		if !held[right] && !held["ALL PRIVILEGES"] {
			f.MissingRights = append(f.MissingRights, right+" ON *.*")
		}
	}
	accounts, err := s.accounts(ctx)
	if sdk.ClassOf(err) == sdk.ClassNotPermitted {
		f.MissingRights = append(f.MissingRights, "SELECT ON mysql.*")
		return f, nil
	}
	if err != nil {
		return sdk.Fingerprint{}, err
	}
	var anonymous []string
	for _, a := range accounts {
		if a.user == "" {
			anonymous = append(anonymous, "''@'"+a.host+"'")
		}
	}
	if len(anonymous) > 0 {
		f.Attributes["anonymous_accounts"] = strings.Join(anonymous, " ")
	}
	return f, s.settings(ctx, f.Attributes)
}

// settings adds the server's settings that stand in the way of the connector.
func (s *session) settings(ctx context.Context, attributes map[string]string) error {
	rows, err := s.pairs(ctx, "read the server's settings", `SHOW GLOBAL VARIABLES WHERE Variable_name IN
 ('read_only', 'strict_password_validation', 'validate_password.policy', 'default_authentication_plugin')`)
	for name, value := range rows {
		attributes[name] = value
	}
	return err
}

// globalRights reads the rights on *.* from what SHOW GRANTS prints.
func globalRights(grants []string) map[string]bool {
	held := map[string]bool{}
	for _, g := range grants {
		list, _, global := strings.Cut(g, " ON *.* TO ")
		list, ok := strings.CutPrefix(list, "GRANT ")
		if !global || !ok {
			continue
		}
		for right := range strings.SplitSeq(list, ",") {
			held[strings.TrimSpace(right)] = true
		}
	}
	return held
}

// shadows lists accounts the server would match before a: it sorts by host, the more
// specific first, and takes the first entry whose user is the same or empty. So a
// login as a may end as one of these, with their password.
// https://mariadb.com/kb/en/troubleshooting-connection-issues/#localhost-and
// https://dev.mysql.com/doc/refman/8.0/en/connection-access.html
func shadows(a *account, all []*account) []string {
	if a.host != "%" { // among other patterns there is no order that is simple to say
		return nil
	}
	var found []string
	for _, b := range all {
		if (b.user == "" || b.user == a.user) && b.host != "%" && b.host != "" {
			found = append(found, "'"+b.user+"'@'"+b.host+"'")
		}
	}
	slices.Sort(found)
	return found
}
