package systemtest_test

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// noCipher opens nothing: what follows looks at sealed bytes.
type noCipher struct{}

func (noCipher) Seal(_, _ []byte) ([]byte, error) { return nil, fmt.Errorf("sealed") }
func (noCipher) Open(_, _ []byte) ([]byte, error) { return nil, fmt.Errorf("sealed") }

// While sites are added without a pause, each node is stopped and started in turn, the
// leader among them, and one is killed. Everything that was acknowledged is there
// afterwards, on every node and once (O1); and when all have stopped, the states of the
// nodes are equal byte for byte, however each came to its own (O3, O4).
func TestAcknowledgedWritesSurviveAnyNode_O1_O3_O4(t *testing.T) {
	t.Parallel()
	for _, processes := range []bool{false, true} {
		t.Run(fmt.Sprintf("processes=%v", processes), func(t *testing.T) {
			t.Parallel()
			c := systemtest.Start(t, systemtest.Options{Nodes: 3, Processes: processes})
			var mu sync.Mutex
			acknowledged := map[string]string{} // id by name
			stop := make(chan struct{})
			var writers sync.WaitGroup
			end := sync.OnceFunc(func() { close(stop); writers.Wait() })
			defer end()
			for w := range 4 {
				writers.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						name, key := fmt.Sprintf("s%d-%d", w, n), rand.Text()
						site, err := systemtest.Try[client.Site](c, func(api *client.Client) (*http.Response, error) {
							return api.AddSite(t.Context(), &client.AddSiteParams{IdempotencyKey: &key}, client.SiteRequest{Name: name})
						})
						if err != nil {
							t.Errorf("add %s: %v", name, err)
							return
						}
						mu.Lock()
						acknowledged[name] = site.Id
						mu.Unlock()
						time.Sleep(10 * time.Millisecond) // leaves the processor to the elections
					}
				})
			}
			count := func() int { mu.Lock(); defer mu.Unlock(); return len(acknowledged) }
			for range 3 {
				victim := c.Leader()
				before := count()
				c.Kill(victim)
				c.Eventually("writes go on without the leader", func() (bool, string) { return count() > before+20, "" })
				c.Restart(victim)
				c.AwaitVoters(3)
			}
			end()

			for i := range 3 {
				there := map[string]string{}
				var cursor *string
				for {
					limit := 1000
					page, err := fleet.Answer[client.SitePage](c.Client(i).ListSites(t.Context(), &client.ListSitesParams{Limit: &limit, Cursor: cursor})) //nolint:bodyclose // Answer does
					if err != nil {
						t.Fatal(err)
					}
					for _, s := range page.Items {
						if there[s.Name] != "" {
							t.Errorf("node %d: %s is there twice", i, s.Name)
						}
						there[s.Name] = s.Id
					}
					if cursor = page.Next; cursor == nil {
						break
					}
				}
				for name, id := range acknowledged {
					if there[name] != id {
						t.Errorf("node %d: %s was acknowledged as %s and is %q", i, name, id, there[name])
					}
				}
				if len(there) != len(acknowledged) {
					t.Errorf("node %d has %d sites, %d were acknowledged", i, len(there), len(acknowledged))
				}
			}
			verifyAudit(t, c)
			sameState(t, c)
		})
	}
}

// sameState waits until all nodes have applied the same entries, stops them, and
// compares what is on their disks.
func sameState(t *testing.T, c *systemtest.Cluster) {
	t.Helper()
	c.AwaitVoters(c.Nodes())
	time.Sleep(time.Second) // for followers to be told of the last commit; none follows it
	leader := c.Leader()
	for i := range c.Nodes() {
		if i != leader {
			c.Stop(i)
		}
	}
	c.Stop(leader)
	type state struct {
		index uint64
		hash  [32]byte
	}
	var first state
	for i := range c.Nodes() {
		st, err := store.Open(store.Config{Path: filepath.Join(c.Config(i).DataDir, "state.db"), Cipher: noCipher{}, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		var s state
		s.index, s.hash, err = st.StateHash()
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		if i == 0 {
			first = s
		} else if s != first {
			t.Errorf("O3: node 0 is at index %d with state %x, node %d at %d with %x", first.index, first.hash, i, s.index, s.hash)
		}
	}
}
