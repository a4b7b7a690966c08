package lifecycle

import (
	"slices"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/controller/jobs"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Somebody may see that a password which was replaced is refused. Whatever the login shows, the account stays as it was:
// above all its password is not changed back, and the failed login does not count against the current one.
func TestASupersededPasswordIsTriedAndNothingFollows(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		_, m := r.asset("web1")
		a := r.provision(request("web1"))
		a = r.act(a.ID, r.Rotate)
		try := func(version uint32) (*jobs.Job, error) {
			t.Helper()
			var j *jobs.Job
			err := r.try(func(tx *store.Tx) (err error) {
				j, err = r.VerifySuperseded(tx, alice, a.ID, version)
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
		verdicts := func(j *jobs.Job) (out []string) {
			t.Helper()
			res, err := j.DecodeResult()
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range res.GetObservation().GetLogins() {
				out = append(out, l.GetVerdict())
			}
			return out
		}
		all, _ := r.kept(a)
		before := r.account(a.ID)
		j, err := try(1)
		if err != nil || !j.State.Final() || !slices.Equal(verdicts(j), []string{"bad_credential"}) {
			t.Fatalf("%+v, %v", j, err)
		}
		m.set(a.Name, all[1]) // somebody set the old one again: it is seen, and nothing is adopted
		if j, err = try(1); err != nil || !slices.Equal(verdicts(j), []string{"ok"}) {
			t.Errorf("%+v, %v", j, err)
		}
		after := r.account(a.ID)
		before.Job, after.Job = "", ""
		if diff := cmp.Diff(before.Tried, after.Tried); diff != "" || after.State != before.State || after.Sync != before.Sync || !after.VerifiedAt.Equal(before.VerifiedAt) {
			t.Errorf("the account is another: %+v, was %+v", after, before)
		}
		if _, info := r.kept(a); info.Current != 2 {
			t.Errorf("version %d is the current one", info.Current)
		}
		for version, code := range map[uint32]string{2: "password_version_in_use", 7: "password_version_not_found"} {
			if _, err := try(version); reeve.CodeOf(err) != code {
				t.Errorf("version %d: %v", version, err)
			}
		}
		r.act(a.ID, r.Verify) // heals
		a = r.act(a.ID, r.Disable)
		if _, err := try(1); reeve.CodeOf(err) != "account_state" {
			t.Errorf("a disabled account: %v", err)
		}
		if got := r.actions(string(a.ID)); !slices.Contains(got, "account.verify_superseded requested") || !slices.Contains(got, "account.verify_superseded ok") {
			t.Errorf("audit: %v", got)
		}
	})
}
