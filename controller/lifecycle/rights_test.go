package lifecycle

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/reeve-pam/reeve/controller/inventory"
	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// A check of rights is for accounts that lack some; its answer stays with the job, and what it meets on the way stops the
// asset as any other work does.
func TestRightsAreCheckedAlsoWhereSomeAreMissing(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		asset, m := r.asset("web1")
		check := func(role string, params map[string]string) (j *jobs.Job, err error) {
			t.Helper()
			err = r.try(func(tx *store.Tx) (err error) {
				j, err = r.CheckRights(tx, alice, asset.ID, role, params)
				return err
			})
			if err != nil {
				return nil, err
			}
			synctest.Wait()
			r.do(func(tx *store.Tx) (err error) {
				j, err = jobs.Get(tx, j.ID)
				return err
			})
			return j, nil
		}
		answered := func() {
			t.Helper()
			j, err := check("ssh-standard", nil)
			if err != nil || j.State != jobs.StateDone || j.Operation != opRights || j.Mutates {
				t.Fatalf("job %+v, %v", j, err)
			}
			res, err := j.DecodeResult()
			if err != nil || len(res.GetRights()) != 1 || res.GetRights()[0].GetName() != "ssh-standard" {
				t.Errorf("result %v, %v", res, err)
			}
		}
		answered()
		r.do(func(tx *store.Tx) error { // the probe says that rights are missing
			a, err := inventory.GetAsset(tx, "web1")
			if err == nil {
				_, err = inventory.RecordProbe(tx, alice, a.ID, inventory.Probe{Secret: a.Management.SecretID, Version: a.Management.Version,
					Fingerprint: &connectorv1.Fingerprint{Product: "debian", MissingRights: []string{"chpasswd"}}})
			}
			return err
		})
		r.wantCode("management_rights", func(tx *store.Tx) error { _, err := r.Provision(tx, alice, request("web1")); return err })
		answered()

		for role, code := range map[string]string{"nobody": "role_unknown", "mysql-standard": "role_wrong_connector"} {
			if _, err := check(role, nil); reeve.CodeOf(err) != code {
				t.Errorf("%s: %v", role, err)
			}
		}
		if _, err := check("ssh-standard", map[string]string{"X": "y"}); reeve.CodeOf(err) != "param_unknown" {
			t.Errorf("%v", err)
		}

		m.mu.Lock()
		m.hostKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA8yTrw2eMlP0wD8tEcJd8hZCJbqMFjJwLqXTi0Ui4CU"
		m.mu.Unlock()
		if j, err := check("ssh-standard", nil); err != nil || j.State == jobs.StateDone {
			t.Errorf("job %+v, %v", j, err)
		}
		if got, err := inventoryAsset(r, asset.ID); err != nil || got.Trust.Changed == nil {
			t.Errorf("a changed host key stopped nothing: %+v, %v", got.Trust, err)
		}
		if _, err := check("ssh-standard", nil); reeve.CodeOf(err) != "host_key_changed" {
			t.Errorf("%v", err)
		}
	})
}

func TestAConnectorThatCannotTellRightsIsNotAsked(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		asset, _ := r.asset("web1")
		r.do(func(tx *store.Tx) error {
			d := describe("ssh")
			d.Powers = nil
			_, err := inventory.RegisterConnector(tx, alice, d, strings.Repeat("b", 64))
			return err
		})
		before := r.queued()
		r.wantCode("rights_unsupported", func(tx *store.Tx) error {
			_, err := r.CheckRights(tx, alice, asset.ID, "ssh-standard", nil)
			return err
		})
		if r.queued() != before {
			t.Error("a job was queued")
		}
	})
}
