package lifecycle

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProvisionVerifyRotateDisableEnableDeprovision_A3_21(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		asset, m := r.asset("web1")
		if err := asset.Ready(); err != nil {
			t.Fatal(err)
		}
		a := r.provision(request("web1"))
		r.want(a, Active, InSync)
		r.opens(a, m, "after provisioning")
		r.settled(a, m)
		plans, err := a.Plans.Get()
		if err != nil || len(plans) != 5 || a.Name != "pam_bob" || a.Identity != "1000" || a.Facts == nil || a.ExecutedAt.IsZero() || a.VerifiedAt.IsZero() {
			t.Errorf("account %+v", a)
		}
		first := m.password(a.Name)
		a = r.act(a.ID, r.Verify)
		r.want(a, Active, InSync)
		a = r.act(a.ID, r.Rotate)
		r.want(a, Active, InSync)
		r.settled(a, m)
		if m.password(a.Name) == first || a.Rotation != nil {
			t.Errorf("the password was not changed, or the rotation is still open: %+v", a.Rotation)
		}
		a = r.act(a.ID, r.Disable)
		r.want(a, Disabled, InSync)
		if !m.accounts[a.Name].locked {
			t.Error("not locked on the target")
		}
		a = r.act(a.ID, r.Enable)
		r.want(a, Active, InSync)
		a = r.act(a.ID, r.Deprovision)
		r.want(a, Removed, Unproven)
		if m.accounts[a.Name] != nil {
			t.Error("still on the target")
		}
		r.wantActions(string(a.ID), "account.provision requested", "account.provision ok",
			"account.verify requested", "account.verify ok", "account.rotate requested", "account.rotate ok",
			"account.disable requested", "account.disable ok", "account.enable requested", "account.enable ok",
			"account.deprovision requested", "account.deprovision ok")
	})
}

// Nobody has to approve the plan of a new account: it is made by one job. Should its report come without plans, the next
// action makes them before it does anything.
func TestOneJobMakesAnAccount_AndWithoutPlansTheNextActionPlansFirst(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.asset("web1")
		r.agent.seen, r.agent.planless = nil, true
		a := r.provision(request("web1"))
		r.want(a, Active, InSync)
		if diff := cmp.Diff([]string{"provision"}, r.agent.seen); diff != "" || !a.Plans.IsZero() {
			t.Fatalf("frozen: %v; operations (-want +got):\n%s", !a.Plans.IsZero(), diff)
		}
		r.agent.seen = nil
		a = r.act(a.ID, r.Disable)
		r.want(a, Disabled, InSync)
		if diff := cmp.Diff([]string{"plan", "disable"}, r.agent.seen); diff != "" || a.Plans.IsZero() {
			t.Errorf("frozen: %v; operations (-want +got):\n%s", !a.Plans.IsZero(), diff)
		}
	})
}
