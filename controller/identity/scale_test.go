package identity

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

var benchUsers = flag.Int("users", 100_000, "how many users BenchmarkAHundredThousandUsers has")

// BenchmarkAHundredThousandUsers measures, with 100,000 users in 10,000 groups of ten, each
// with a PAM role of its own and one through its group for an asset group that the object was
// put into, all of them under an access policy of their group, what a call costs before its own
// work: finding who shows a token and proving a privilege; and what a sign-in costs beside
// the hash of the password. Reported are median and 99th percentile.
func BenchmarkAHundredThousandUsers(b *testing.B) {
	const inGroup = 10
	users := *benchUsers // a multiple of 500
	st := storetest.New(b)
	ids, secrets := make([]reeve.PrincipalID, users), make([]reeve.Secret, users)
	for from := 0; from < users; from += 500 {
		update(b, st, func(tx *store.Tx) error { return populate(tx, from, from+500, inGroup, ids, secrets) })
	}
	object := func(i int) Object {
		n := i / inGroup
		return Object{Kind: "asset", Placed: true, Site: reeve.SiteID(fmt.Sprintf("site_%d", n)), Tags: map[string]string{"env": "prod"}, Type: "ssh", Asset: reeve.AssetID(fmt.Sprintf("asset_%d", n))}
	}
	measured := func(name string, do func(tx *store.Tx, i int) error) {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				i := rand.IntN(users) //nolint:gosec // a sample
				began := time.Now()
				if err := st.View(context.Background(), func(tx *store.Tx) error { return do(tx, i) }); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
	from := netip.MustParseAddr("192.0.2.1")
	measured("authenticate and authorize", func(tx *store.Tx, i int) error {
		c, err := Authenticate(tx, secrets[i], from)
		if err != nil {
			return err
		}
		sight, err := Look(tx, c)
		if err == nil {
			err = sight.Authorize(LifecycleManage, object(i))
		}
		return err
	})
	measured("refuse", func(tx *store.Tx, i int) error {
		sight, err := Look(tx, Caller{Principal: Principal{ID: ids[i]}})
		if err == nil && sight.Can(VaultReveal, object(i+inGroup)) {
			err = fmt.Errorf("user %d may", i)
		}
		return err
	})
	measured("find for sign-in", func(tx *store.Tx, i int) error {
		if err := admitAddress(tx, from); err != nil {
			return err
		}
		p, err := principals.Find(tx, "name", canonical(fmt.Sprintf(" User-%d", i)))
		if err != nil {
			return err
		}
		if _, err := throttled(tx, p.ID); err != nil {
			return err
		}
		_, err = passwords.Get(tx, string(p.ID))
		if reeve.KindOf(err) == reeve.NotFound {
			return nil
		}
		return err
	})
}

// populate adds users from..to with a token and a PAM role each, and their groups.
func populate(tx *store.Tx, from, to, inGroup int, ids []reeve.PrincipalID, secrets []reeve.Secret) error {
	for i := from; i < to; i += inGroup {
		site := Scope{Sites: []reeve.SiteID{reeve.SiteID(fmt.Sprintf("site_%d", i/inGroup))}}
		servers := &AssetGroup{ID: reeve.NewAssetGroupID(), Name: fmt.Sprintf("servers-%d", i/inGroup), Rule: Scope{Types: []string{"winrm"}}}
		g := &Group{ID: reeve.NewGroupID(), Name: fmt.Sprintf("group-%d", i/inGroup), CreatedAt: tx.Now()}
		if err := groups.Insert(tx, g); err != nil {
			return err
		}
		if err := assignments.Insert(tx, &Assignment{ID: reeve.NewAssignmentID(), Role: "lifecycle-operator", Subject: string(g.ID), Scope: Scope{AssetGroups: []reeve.AssetGroupID{servers.ID}}, CreatedAt: tx.Now()}); err != nil {
			return err
		}
		shows := &AccessPolicy{ID: reeve.NewAccessPolicyID(), Name: g.Name, For: Limited{Groups: []reeve.GroupID{g.ID}}, Scope: site}
		if err := errors.Join(assetGroups.Insert(tx, servers), groupedAssets.Insert(tx, &groupedAsset{Group: servers.ID, Asset: reeve.AssetID(fmt.Sprintf("asset_%d", i/inGroup))}),
			accessPolicies.Insert(tx, shows), policySubjects.Insert(tx, &policySubject{Subject: string(g.ID), Policy: shows.ID})); err != nil {
			return err
		}
		for n := i; n < i+inGroup; n++ {
			p := &Principal{ID: reeve.NewPrincipalID(), Name: fmt.Sprintf("user-%d", n), Kind: User, Created: tx.Now()}
			if err := principals.Insert(tx, p); err != nil {
				return err
			}
			var hash string
			ids[n] = p.ID
			secrets[n], hash = tokenBearer.make()
			if err := tokens.Insert(tx, &Token{ID: reeve.NewTokenID(), Principal: p.ID, Hash: hash, Created: tx.Now()}); err != nil {
				return err
			}
			if err := memberships.Insert(tx, &membership{Group: g.ID, Principal: p.ID, Since: tx.Now()}); err != nil {
				return err
			}
			own := Scope{Tags: map[string]string{"team": fmt.Sprintf("team-%d", n)}}
			if err := assignments.Insert(tx, &Assignment{ID: reeve.NewAssignmentID(), Role: "user", Subject: string(p.ID), Scope: own, CreatedAt: tx.Now()}); err != nil {
				return err
			}
		}
	}
	return nil
}
