package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/testlab"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func TestProbeSaysWhatTheServerIsAndWhatIsMissing(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	f, err := connector{}.Probe(t.Context(), target(d))
	if err != nil || f.Product != mariaDB || !strings.HasPrefix(f.Version, "10.") || len(f.MissingRights) != 0 {
		t.Errorf("probe: %+v, %v", f, err)
	}
	asRoot(t, d, "CREATE USER 'weak'@'%' IDENTIFIED BY 'weak-1'", "GRANT PROCESS ON *.* TO 'weak'@'%'",
		"CREATE USER 'all'@'%' IDENTIFIED BY 'all-1'", "GRANT ALL PRIVILEGES ON *.* TO 'all'@'%' WITH GRANT OPTION")
	for user, want := range map[string][]string{
		"weak": {"CREATE USER ON *.*", "CONNECTION ADMIN ON *.*", "SELECT ON mysql.*"},
		"all":  nil,
	} {
		tgt := target(d)
		tgt.Management = sdk.Credential{Username: user, Password: secret(user + "-1")}
		f, err := connector{}.Probe(t.Context(), tgt)
		if err != nil || !slices.Equal(f.MissingRights, want) {
			t.Errorf("%s: missing %q (%v), want %q", user, f.MissingRights, err, want)
		}
	}
	tgt := target(d)
	tgt.Management.Password = secret(canary)
	_, err = connector{}.Probe(t.Context(), tgt)
	wantClass(t, "probe with a wrong password", err, sdk.ClassAuthFailed)
}

func TestServerIsTrustedOnlyByItsCertificate(t *testing.T) {
	t.Parallel()
	d, other := testlab.MariaDB(t, testlab.MariaDBOptions{}), testlab.MariaDB(t, testlab.MariaDBOptions{})
	if _, err := (connector{}).Probe(t.Context(), rig.Trusts(t, target(d), other.CAPEM)); err != nil {
		t.Errorf("approved: %v", err)
	}
	logs, err := d.Logs()
	if err != nil || strings.Contains(logs, "Access denied") {
		t.Errorf("a password was sent to a server that is not trusted, or: %v", err)
	}
}

func TestPlainServerIsRefused(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{Config: []string{"--skip-ssl"}})
	_, err := connector{}.Probe(t.Context(), target(d))
	wantClass(t, "probe", err, sdk.ClassUnsupported)
}

func TestEveryRoleOfTheCatalogueWorks(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{Grants: []string{"ALL PRIVILEGES ON *.*"}})
	for _, r := range roles() {
		in := intent(sdk.Provision)
		in.Role, in.Account, in.AccountID = r, strings.ReplaceAll(r.Name, "-", "_"), "acct_"+r.Name
		if len(r.Params) > 0 {
			in.Params = map[string]string{"Database": "a_p-p$"}
		}
		res, err := apply(t.Context(), target(d), in, first)
		if strings.HasPrefix(r.Name, "mysql8-") { // with rights that MariaDB does not know
			wantClass(t, r.Name, err, sdk.ClassInvalid)
			if _, there, err := d.GlobalPriv(t.Context(), in.Account, "%"); there || err != nil {
				t.Errorf("%s: the account is there: %t, %v", r.Name, there, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", r.Name, err)
			continue
		}
		if len(res.Facts.Grants) == 0 || res.Facts.Grants[0] == "GRANT USAGE ON *.* TO `"+in.Account+"`@`%`" && len(res.Facts.Grants) == 1 {
			t.Errorf("%s grants nothing: %q", r.Name, res.Facts.Grants)
		}
		if strings.Contains(strings.Join(res.Facts.Grants, ""), hash(secret(first))) {
			t.Errorf("%s: the facts hold the password's hash", r.Name)
		}
		wantLogin(t, d, in.Account, first, nil)
		if again := must(t, target(d), in, first); again.Changed {
			t.Errorf("%s: provisioning again changed something", r.Name)
		}
		in.Action, in.Identity = sdk.Deprovision, res.Facts.Identity
		must(t, target(d), in, "")
	}
}

func TestAccountsAreMadeForTLSOnlyUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	for option, want := range map[string]bool{"yes": true, "no": false} {
		tgt := target(d)
		tgt.Options[optionTLS] = option
		in := intent(sdk.Provision)
		in.Account = "tls_" + option
		must(t, tgt, in, first)
		priv, _, err := d.GlobalPriv(t.Context(), in.Account, "%")
		if _, required := priv["ssl_type"]; required != want || err != nil {
			t.Errorf("%s: ssl_type %v, %v", option, priv["ssl_type"], err)
		}
	}
}

func TestDiscoverListsEveryHostEntry(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	asRoot(t, d, "CREATE USER 'x'@'10.%' IDENTIFIED BY 'y'", "CREATE USER 'x'@'%' ACCOUNT LOCK", "CREATE ROLE r")
	var got []string
	err := connector{}.Discover(t.Context(), target(d), func(f sdk.Facts) bool {
		got = append(got, f.Identity)
		return true
	})
	want := []string{"mariadb.sys@localhost", testlab.Management + "@%", "root@localhost", "x@%", "x@10.%"}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%s, %v", d, err)
	}
	n := 0
	_ = connector{}.Discover(t.Context(), target(d), func(sdk.Facts) bool { n++; return false })
	if n != 1 {
		t.Errorf("%d yields after the first said stop", n)
	}
}

func TestPlanOfAProbedServerNeedsNoConnection(t *testing.T) {
	t.Parallel()
	tgt := sdk.Target{
		Address: "127.0.0.1", Port: 1, Options: map[string]string{optionHost: "%", optionTLS: "yes"},
		Management:  sdk.Credential{Username: "reeve"},
		Fingerprint: sdk.Fingerprint{Product: mySQL, Version: "8.0.36"},
	}
	in := intent(sdk.Provision)
	in.Role, in.Params = role(t, "mysql-db-ro"), map[string]string{"Database": "app_1"}
	plan, err := connector{}.Plan(t.Context(), tgt, in)
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, s := range plan.Steps {
		commands = append(commands, s.Command)
	}
	want := []string{
		`CREATE USER 'alice'@'%' IDENTIFIED BY '********' REQUIRE SSL ACCOUNT LOCK ` +
			`ATTRIBUTE '{"comment":"for alice, ticket 7","reeve":"acct_1"}'`,
		"GRANT SELECT ON `app\\_1`.* TO 'alice'@'%'",
		`ALTER USER 'alice'@'%' IDENTIFIED BY '********'`,
		`ALTER USER 'alice'@'%' ACCOUNT UNLOCK`,
	}
	if d := cmp.Diff(want, commands); d != "" {
		t.Error(d)
	}

	in.Account = tgt.Management.Username
	for _, action := range []sdk.Action{sdk.Disable, sdk.Deprovision} {
		in.Action = action
		_, err := connector{}.Plan(t.Context(), tgt, in)
		wantClass(t, string(action)+" of the management account", err, sdk.ClassInvalid)
	}
	tgt.Options[optionHost] = "x' OR '1"
	_, err = connector{}.Plan(t.Context(), tgt, intent(sdk.Provision))
	wantClass(t, "a host part that is none", err, sdk.ClassInvalid)
}

func TestPlanOfAnotherServerIsNotApplied(t *testing.T) {
	t.Parallel()
	d := testlab.MariaDB(t, testlab.MariaDBOptions{})
	tgt := target(d)
	tgt.Fingerprint = sdk.Fingerprint{Product: mySQL, Version: "8.0.36"}
	_, err := apply(t.Context(), tgt, intent(sdk.Provision), first)
	wantClass(t, "provision", err, sdk.ClassPlanChanged)
	if _, there, err := d.GlobalPriv(t.Context(), "alice", "%"); there || err != nil {
		t.Errorf("the account is there: %t, %v", there, err)
	}
}
