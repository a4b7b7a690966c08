package lifecycle

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
)

func TestAnExpiryCanBeExtendedAndCleared_A3_10(t *testing.T) {
	bubble(t, func(_ *testing.T, r *rig) {
		r.asset("web1")
		in := request("web1")
		in.ExpiresAt = time.Now().Add(time.Hour)
		a := r.provision(in)
		later, never, past := time.Now().Add(2*time.Hour), time.Time{}, time.Now().Add(-time.Hour)
		r.wantCode("expiry_past", func(tx *store.Tx) error { _, err := Update(tx, alice, a.ID, Change{ExpiresAt: &past}); return err })
		r.do(func(tx *store.Tx) error { _, err := Update(tx, alice, a.ID, Change{ExpiresAt: &later}); return err })
		r.pass(time.Hour + time.Minute)
		r.want(r.account(a.ID), Active, InSync)
		r.do(func(tx *store.Tx) error { _, err := Update(tx, alice, a.ID, Change{ExpiresAt: &never}); return err })
		r.pass(3 * time.Hour)
		r.want(r.account(a.ID), Active, InSync)
	})
}

func TestAnUpdateRecordsWhatChanged_U1(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.asset("web1")
		a := r.provision(request("web1"))
		owner, off := "carol", false
		r.do(func(tx *store.Tx) error {
			_, err := Update(tx, alice, a.ID, Change{Owner: &owner, RotationEnabled: &off})
			return err
		})
		r.do(func(tx *store.Tx) error {
			all, err := audit.List(tx, 0, 1000, audit.Filter{Object: string(a.ID)})
			if err != nil {
				return err
			}
			e := all[len(all)-1]
			want := map[string]string{"owner": "alice", "rotation_enabled": "true"}
			if diff := cmp.Diff(want, e.Before); diff != "" || e.After["owner"] != "carol" || e.Action != "account.update" {
				t.Errorf("%s before (-want +got):\n%s after %v", e.Action, diff, e.After)
			}
			return nil
		})
		r.wantCode("rotation_disabled", func(tx *store.Tx) error { _, err := r.Rotate(tx, alice, a.ID); return err })
	})
}

func TestARestoredBackupPutsEveryAccountInDoubt_C16(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		m.set(a.Name, "set after the backup was made")
		r.do(func(tx *store.Tx) error {
			far, err := Suspect(tx, alice, "restored the snapshot of yesterday", 0, Suspects{})
			if err == nil {
				far, err = Suspect(tx, alice, "restored the snapshot of yesterday", 0, far)
			}
			if far.Count != 1 || !far.Done {
				t.Errorf("accounts in doubt: %+v, want one", far)
			}
			return err
		})
		r.want(r.account(a.ID), Active, Uncertain)
		r.pass(10 * time.Second)
		r.want(r.account(a.ID), Active, InSync) // reconciled
		r.settled(r.account(a.ID), m)
	})
}
