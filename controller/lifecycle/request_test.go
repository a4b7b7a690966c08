package lifecycle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/service"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// queued counts all jobs, so that a test can say that nothing was added.
func (r *rig) queued() (n int) {
	r.t.Helper()
	r.do(func(tx *store.Tx) error {
		all, _, err := jobs.List(tx, jobs.Filter{}, "", 1000)
		n = len(all)
		return err
	})
	return n
}

func TestBadRequestsAreRefusedBeforeAnythingIsQueued(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.asset("web1")
		r.provision(request("web1"))
		r.do(func(tx *store.Tx) error { // an asset without a management account
			_, err := inventory.AddAsset(tx, alice, inventory.NewAsset{Name: "bare", Site: "dc1", Connector: "ssh", Address: "bare.example"})
			return err
		})
		before, records := r.queued(), len(r.actions(""))
		now := time.Now()
		for name, c := range map[string]struct {
			code   string
			change func(*Request)
		}{
			"hostile name":         {"name_invalid", func(q *Request) { q.Prefix, q.Name = "", "a;id" }},
			"no name":              {"name_invalid", func(q *Request) { q.Name = "" }},
			"long with its prefix": {"name_invalid", func(q *Request) { q.Name = strings.Repeat("a", 30) }},
			"taken name":           {"name_taken", func(*Request) {}},
			"management account":   {"name_is_management", func(q *Request) { q.Prefix, q.Name = "", "root" }},
			"unknown asset":        {"asset_not_found", func(q *Request) { q.Assets = []string{"nowhere"} }},
			"asset twice":          {"asset_twice", func(q *Request) { q.Name, q.Assets = "eve", []string{"web1", "web1"} }},
			"no asset":             {"assets_missing", func(q *Request) { q.Assets = nil }},
			"one bad asset of two": {"management_missing", func(q *Request) { q.Name, q.Assets = "eve", []string{"web1", "bare"} }},
			"unknown role":         {"role_unknown", func(q *Request) { q.Name, q.Role = "eve", "linux-god" }},
			"role of another kind": {"role_wrong_connector", func(q *Request) { q.Name, q.Role = "eve", "mysql-standard" }},
			"unknown parameter":    {"param_unknown", func(q *Request) { q.Name, q.Params = "eve", map[string]string{"Shell": "x"} }},
			"newline in password":  {"password_policy", func(q *Request) { q.Name, q.Password = "eve", reeve.SecretString("Abcdefgh1234!\nroot:x") }},
			"weak password":        {"password_policy", func(q *Request) { q.Name, q.Password = "eve", reeve.SecretString("secret") }},
			"expired":              {"expiry_past", func(q *Request) { q.Name, q.ExpiresAt = "eve", now.Add(-time.Hour) }},
			"ends before it starts": {"expiry_past", func(q *Request) {
				q.Name, q.StartAt, q.ExpiresAt = "eve", now.Add(2*time.Hour), now.Add(time.Hour)
			}},
			"long text": {"text_invalid", func(q *Request) { q.Name, q.Description = "eve", strings.Repeat("x", 1025) }},
		} {
			in := request("web1")
			c.change(&in)
			err := r.try(func(tx *store.Tx) error { _, err := r.Provision(tx, alice, in); return err })
			if reeve.CodeOf(err) != c.code {
				t.Errorf("%s: %v, want %s", name, err, c.code)
			}
			if s := in.Password.Reveal(); s != "" && err != nil && strings.Contains(err.Error(), s) {
				t.Errorf("%s: the error quotes the password", name)
			}
		}
		if q, n := r.queued(), len(r.actions("")); q != before || n != records {
			t.Errorf("%d jobs and %d records were added by refused requests", q-before, n-records)
		}
	})
}

func TestWorkIsRefusedWhereItCouldOnlyFail(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		asset, m := r.asset("web1")
		a := r.provision(request("web1"))
		eve := request("web1")
		eve.Name = "eve"
		provision := func(tx *store.Tx) error { _, err := r.Provision(tx, alice, eve); return err }
		verify := func(tx *store.Tx) error { _, err := r.Verify(tx, alice, a.ID); return err }

		r.agents = 0
		r.wantCode("site_without_agents", provision)
		r.wantCode("site_without_agents", verify)
		r.agents = 1

		r.do(func(tx *store.Tx) error { return service.Set(tx, alice, service.Lifecycle, false) })
		r.wantCode("service_disabled", provision)
		r.wantCode("service_disabled", verify)
		r.do(func(tx *store.Tx) error { return service.Set(tx, alice, service.Lifecycle, true) })

		r.do(func(tx *store.Tx) error { return inventory.RevokeDigest(tx, alice, "ssh", strings.Repeat("a", 64)) })
		r.wantCode("connector_unregistered", provision)
		r.do(func(tx *store.Tx) error {
			_, err := inventory.RegisterConnector(tx, alice, describe("ssh"), strings.Repeat("b", 64))
			return err
		})

		// The host key changes: the job that meets it fails, and all work stops.
		m.hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA8yTrw2eMlP0wD8tEcJd8hZCJbqMFjJwLqXTi0Ui4CU"
		a = r.act(a.ID, r.Rotate)
		if a.LastError == nil || a.LastError.Class != reeve.ClassHostKeyChanged {
			t.Errorf("last error %+v", a.LastError)
		}
		r.wantCode("host_key_changed", provision)
		r.wantCode("host_key_changed", verify)
		got, err := inventoryAsset(r, asset.ID)
		if err != nil || got.Trust.Changed == nil || got.Alert() == "" {
			t.Fatalf("no visible alert: %+v %v", got.Trust, err)
		}
		// A person approves; the asset is probed again by itself.
		m.hostKey = ""
		r.do(func(tx *store.Tx) error {
			_, _, err := r.ApproveHostKey(tx, alice, asset.ID, got.Trust.Changed.Fingerprint)
			return err
		})
		synctest.Wait()
		a = r.act(a.ID, r.Rotate)
		r.want(a, Active, InSync)
		r.settled(a, m)
	})
}

func inventoryAsset(r *rig, id reeve.AssetID) (a *inventory.Asset, err error) {
	err = r.try(func(tx *store.Tx) error { a, err = inventory.GetAsset(tx, string(id)); return err })
	return a, err
}

func TestAWrongManagementPasswordIsUnverifiedAndSaysSo_A1_3(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		asset, _ := r.asset("web1")
		r.do(func(tx *store.Tx) error {
			_, _, err := r.SetManagement(tx, alice, asset.ID, Management{Username: "root", Password: reeve.SecretString("wrong-password")})
			return err
		})
		synctest.Wait()
		got, err := inventoryAsset(r, asset.ID)
		if err != nil || got.Management.Verified() || got.Management.LastError.Class != reeve.ClassAuthFailed {
			t.Errorf("%+v %v", got.Management, err)
		}
		r.wantCode("management_unverified", func(tx *store.Tx) error { _, err := r.Provision(tx, alice, request("web1")); return err })
		for code, m := range map[string]Management{
			"username_invalid":    {Username: "a\nb", Password: reeve.SecretString("x")},
			"management_secret":   {Username: "root"},
			"password_policy":     {Username: "root", Password: reeve.SecretString("x\n")},
			"private_key_invalid": {Username: "root", PrivateKey: reeve.SecretString("-----BEGIN nonsense")},
		} {
			r.wantCode(code, func(tx *store.Tx) error { _, _, err := r.SetManagement(tx, alice, asset.ID, m); return err })
		}
	})
}

func TestSomebodyElsesAccountIsNeverAdopted_A3_4(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		m.accounts["pam_bob"] = &login{password: "theirs", uid: "77"}
		a := r.provision(request("web1"))
		r.want(a, Failed, Unproven)
		if a.LastError == nil || a.LastError.Class != reeve.ClassExists || m.password("pam_bob") != "theirs" {
			t.Errorf("%+v; password %q", a.LastError, m.password("pam_bob"))
		}
		r.wantCode("account_state", func(tx *store.Tx) error { _, err := r.Deprovision(tx, alice, a.ID); return err })
		// Nothing holds the asset, and the name can be tried again.
		delete(m.accounts, "pam_bob")
		r.want(r.provision(request("web1")), Active, InSync)
	})
}

func TestAReplacedAccountIsNotTakenForOurs_C9(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.accounts[a.Name].uid = "4711"
		a = r.act(a.ID, r.Inspect)
		if a.Sync != OutOfSync || a.LastError == nil || a.LastError.Class != reeve.ClassExists {
			t.Errorf("%s %+v", a.Sync, a.LastError)
		}
	})
}

func TestAChangedPlanIsMadeAgainOnce(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.plan = "--as-of-version-2"
		r.agent.seen = nil
		a = r.act(a.ID, r.Rotate)
		r.want(a, Active, InSync)
		if diff := cmp.Diff([]string{"rotate", "plan", "rotate"}, r.agent.seen); diff != "" {
			t.Errorf("operations (-want +got):\n%s", diff)
		}
		if p, err := a.plan(opRotate); err != nil || !strings.Contains(p.Hash, "version-2") {
			t.Errorf("frozen plan %+v, %v", p, err)
		}
		r.wantActions(string(a.ID), "account.provision requested", "account.provision ok",
			"account.rotate requested", "account.rotate failed", "account.plan ok", "account.rotate ok")
	})
}

func TestDryRunOnlyPlans_A3_13(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		in := request("web1")
		in.DryRun = true
		a := r.provision(in)
		r.want(a, Planned, Unproven)
		if plans, err := a.Plans.Get(); err != nil || len(plans) != 5 || a.SecretID != "" || len(m.accounts) != 0 {
			t.Errorf("plans %d, %v, secret %q, target %v", len(plans), err, a.SecretID, m.accounts)
		}
		r.want(r.provision(request("web1")), Active, InSync) // the name was not taken
		var listed []State
		r.do(func(tx *store.Tx) error {
			for x, err := range List(tx, "", Filter{}) {
				if err != nil {
					return err
				}
				listed = append(listed, x.State)
			}
			return nil
		})
		if diff := cmp.Diff([]State{Active}, listed); diff != "" {
			t.Errorf("listed (-want +got):\n%s", diff)
		}
	})
}

func TestOneRequestManyAssets_A3_12(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var in Request
		machines := map[string]*machine{}
		for _, n := range []string{"web1", "web2", "web3"} {
			_, machines[n] = r.asset(n)
		}
		in = request("web1")
		in.Assets = []string{"web1", "web2", "web3"}
		machines["web2"].accounts["pam_bob"] = &login{password: "theirs"}
		a := r.provision(in)
		states := map[string]State{}
		passwords := map[string]bool{}
		r.do(func(tx *store.Tx) error {
			for x, err := range List(tx, "", Filter{Batch: a.Batch}) {
				if err != nil {
					return err
				}
				states[x.AssetName] = x.State
				passwords[machines[x.AssetName].password(x.Name)] = true
			}
			return nil
		})
		if diff := cmp.Diff(map[string]State{"web1": Active, "web2": Failed, "web3": Active}, states); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
		if len(passwords) != 3 {
			t.Error("two accounts share a password")
		}
	})
}

func TestScheduledStartAndExpiry_A3_9_A3_10(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		in := request("web1")
		in.StartAt, in.ExpiresAt = time.Now().Add(time.Hour), time.Now().Add(3*time.Hour)
		a := r.provision(in)
		r.want(a, Scheduled, Unproven)
		r.pass(time.Hour - 2*time.Second)
		if len(m.accounts) != 0 || len(r.agent.seen) != 1 { // the probe
			t.Errorf("the target was touched early: %v", r.agent.seen)
		}
		r.pass(4 * time.Second)
		r.want(r.account(a.ID), Active, InSync)
		r.pass(2*time.Hour - 10*time.Second)
		r.want(r.account(a.ID), Active, InSync)
		r.pass(10 * time.Second)
		r.want(r.account(a.ID), Disabled, InSync)
		if !m.accounts[a.Name].locked {
			t.Error("not locked on the target")
		}
		r.pass(time.Hour)
		if diff := cmp.Diff([]string{"probe", "provision", "disable"}, r.agent.seen); diff != "" {
			t.Errorf("each must fire once (-want +got):\n%s", diff)
		}
	})
}

func TestAStartThatIsRefusedIsTriedAgain_C5(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.asset("web1")
		in := request("web1")
		in.StartAt = time.Now().Add(time.Minute)
		a := r.provision(in)
		r.agents = 0
		r.pass(2 * time.Minute)
		a = r.account(a.ID)
		if a.State != Scheduled || a.LastError == nil || a.LastError.Fix == "" {
			t.Errorf("%s %+v", a.State, a.LastError)
		}
		r.agents = 1
		r.pass(retryDue)
		r.want(r.account(a.ID), Active, InSync)
	})
}

func TestAScheduledAccountIsRemovedWithoutTouchingTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		asset, _ := r.asset("web1")
		in := request("web1")
		in.StartAt = time.Now().Add(time.Hour)
		a := r.provision(in)
		r.wantCode("asset_in_use", func(tx *store.Tx) error { return inventory.RetireAsset(tx, alice, asset.ID) })
		r.want(r.act(a.ID, r.Deprovision), Removed, Unproven)
		r.do(func(tx *store.Tx) error { return inventory.RetireAsset(tx, alice, asset.ID) })
		r.pass(2 * time.Hour)
		if diff := cmp.Diff([]string{"probe"}, r.agent.seen); diff != "" {
			t.Errorf("operations (-want +got):\n%s", diff)
		}
	})
}

func TestAPasswordRefusedWhileProvisioningIsReplacedThreeTimesAtMost_C3(t *testing.T) {
	for _, c := range []struct {
		refuse int
		static bool
		want   State
		tries  int
	}{{2, false, Active, 3}, {9, false, Failed, 3}, {1, true, Failed, 1}} {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				_, m := r.asset("web1")
				m.refuse = c.refuse
				in := request("web1")
				if c.static {
					in.Password = reeve.SecretString("Static-pass-12")
				}
				a := r.provision(in)
				if a.State != c.want {
					t.Errorf("%s %+v, want %s", a.State, a.LastError, c.want)
				}
				if all, _ := r.kept(a); len(all) != c.tries {
					t.Errorf("%d passwords were tried and kept, want %d", len(all), c.tries)
				}
			})
		})
	}
}

func TestDeprovisioningSurvivesACrashAtEveryStep_C15(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ point, fate string }{
		{"taken", ""}, {"before-apply", ""}, {"sent", "now"}, {"sent", "never"}, {"applied", ""}, {"verified", ""},
	} {
		t.Run(c.point+" "+c.fate, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				asset, m := r.asset("web1")
				a := r.provision(request("web1"))
				r.agent.crash, r.agent.fate = c.point, c.fate
				a = r.act(a.ID, r.Deprovision)
				if a.State != Deprovisioning {
					t.Errorf("%s although nobody reported", a.State)
				}
				r.pass(afterCrash)
				r.want(r.account(a.ID), Removed, Unproven)
				if m.accounts[a.Name] != nil {
					t.Error("still on the target")
				}
				r.do(func(tx *store.Tx) error { return inventory.RetireAsset(tx, alice, asset.ID) })
			})
		})
	}
}

// A removal of which nobody knows whether it happened, and that did not: the account says
// so, and can be removed.
func TestARemovalThatDidNotHappenIsSaid_C15(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.asset("web1")
		a := r.provision(request("web1"))
		r.agent.crash = "taken"
		a = r.act(a.ID, r.Deprovision)
		if _, err := r.broker.Cancel(t.Context(), alice, a.Job); err != nil {
			t.Fatal(err)
		}
		r.pass(afterCrash)
		a = r.account(a.ID)
		if a.State != Deprovisioning || a.LastError == nil || a.LastError.Class != reeve.ClassUnknownOutcome || a.LastError.Fix == "" {
			t.Errorf("%s, %s: %+v", a.State, a.Sync, a.LastError)
		}
		r.want(r.act(a.ID, r.Deprovision), Removed, Unproven)
	})
}

func TestOneOperationAtATime_J1(t *testing.T) {
	bubble(t, func(_ *testing.T, r *rig) {
		r.asset("web1")
		a := r.provision(request("web1"))
		r.agent.crash = "taken"
		r.act(a.ID, r.Rotate)
		for _, fn := range []func(*store.Tx, audit.Actor, reeve.AccountID) (*jobs.Job, error){r.Rotate, r.Verify, r.Disable, r.Deprovision, r.Inspect} {
			r.wantCode("account_busy", func(tx *store.Tx) error { _, err := fn(tx, alice, a.ID); return err })
		}
		r.wantCode("account_state", func(tx *store.Tx) error { _, err := r.Enable(tx, alice, a.ID); return err })
	})
}

func TestEveryDifferenceOfFactsIsKept_A4_7(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		r.pass(time.Second)
		r.act(a.ID, r.Inspect)
		m.accounts[a.Name].locked = true
		r.pass(time.Second)
		a = r.act(a.ID, r.Inspect)
		if a.LastError == nil || a.LastError.Class != reeve.ClassLocked {
			t.Errorf("a lock that Reeve did not set is not reported: %+v", a.LastError)
		}
		var got [][]Difference
		r.do(func(tx *store.Tx) error {
			for s, err := range FactHistory(tx, a.ID) {
				if err != nil {
					return err
				}
				got = append(got, s.Changes)
			}
			return nil
		})
		want := [][]Difference{nil, nil, {{Fact: "locked", Before: "no", After: "yes"}}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("history (-want +got):\n%s", diff)
		}
	})
}

func TestNoPasswordInRecordsJobsOrAudit_K1_A6(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		const canary = "Canary-7f3a-Static"
		_, m := r.asset("web1")
		in := request("web1")
		in.Password = reeve.SecretString(canary)
		a := r.provision(in)
		if m.password(a.Name) != canary || a.PasswordMode != Static {
			t.Fatalf("the static password did not reach the target (%s)", a.State)
		}
		var seen bytes.Buffer
		fmt.Fprintf(&seen, "%+v %+v", in, a)
		r.do(func(tx *store.Tx) error {
			all, _, err := jobs.List(tx, jobs.Filter{}, "", 1000)
			if err != nil {
				return err
			}
			records, err := audit.List(tx, 0, 1000, audit.Filter{})
			if err != nil {
				return err
			}
			for _, x := range []any{all, records, a, in} {
				b, err := json.Marshal(x)
				if err != nil {
					return err
				}
				seen.Write(b)
			}
			for _, j := range all {
				seen.Write(j.Work)
				seen.Write(j.Result)
			}
			return nil
		})
		for _, s := range []string{canary, m.root} {
			if bytes.Contains(seen.Bytes(), []byte(s)) {
				t.Errorf("%q is readable", s)
			}
		}
	})
}

func TestAnUnreachableTargetKeepsTheRequestUntilItsOwnerDecides(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		asset, m := r.asset("web1")
		m.down = true
		a := r.provision(request("web1"))
		r.pass(2 * time.Hour) // five deliveries
		a = r.account(a.ID)
		if a.State != Provisioning || a.LastError == nil || a.LastError.Class != reeve.ClassUnreachable {
			t.Fatalf("%s %+v", a.State, a.LastError)
		}
		r.wantCode("name_taken", func(tx *store.Tx) error { _, err := r.Provision(tx, alice, request("web1")); return err })
		m.down = false
		r.do(func(tx *store.Tx) error { _, err := jobs.Retry(tx, alice, a.Job); return err })
		r.pass(time.Second)
		r.want(r.account(a.ID), Active, InSync)

		m.down = true
		in := request("web1")
		in.Name = "eve"
		b := r.provision(in)
		r.pass(2 * time.Hour)
		r.want(r.act(b.ID, r.Deprovision), Removed, Unproven) // never planned, so never touched
		r.wantCode("asset_in_use", func(tx *store.Tx) error { return inventory.RetireAsset(tx, alice, asset.ID) })
	})
}

func TestACancelledRequestEndsCleanly(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		asset, m := r.asset("web1")
		m.down = true
		a := r.provision(request("web1"))
		if _, err := r.broker.Cancel(t.Context(), alice, a.Job); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Second)
		r.want(r.account(a.ID), Failed, Unproven)
		r.do(func(tx *store.Tx) error { return inventory.RetireAsset(tx, alice, asset.ID) })
	})
}

func TestARevealedPasswordOpensTheAccount_A3_20(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		got, err := r.Vault.Reveal(t.Context(), r.store, alice, a.SecretID, 0, "ticket 7")
		if err != nil || got.Value.Reveal() != m.password(a.Name) {
			t.Errorf("the revealed password is not the account's (%v)", err)
		}
	})
}
