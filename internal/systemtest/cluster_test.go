package systemtest_test

import (
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// A cluster keeps what it acknowledged over stops and starts of its nodes.
func TestClusterKeepsWhatItAcknowledged_O1(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3, Shamir: true})
	c.AddSite("dmz")
	leader := c.Leader()
	c.Stop(leader)
	c.AddSite("lan")
	c.Restart(leader)
	for i := range 3 {
		page, err := fleet.Answer[client.SitePage](c.Client(i).ListSites(t.Context(), nil)) //nolint:bodyclose // Answer does
		if err != nil || len(page.Items) != 2 {
			t.Errorf("node %d: %+v %v", i, page, err)
		}
	}
}
