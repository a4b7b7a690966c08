package systemtest_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/fleet"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// verifyAudit exports the trail, proves it whole offline, and returns its records.
func verifyAudit(t *testing.T, c *systemtest.Cluster) (records []auditchain.Record) {
	t.Helper()
	raw := exportAudit(t, c)
	if _, err := auditchain.Verify(bytes.NewReader(raw), auditchain.Options{}); err != nil {
		t.Errorf("U1: %v", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, auditchain.MaxLine)
	for lines.Scan() {
		var r auditchain.Record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

func exportAudit(t *testing.T, c *systemtest.Cluster) []byte {
	t.Helper()
	return systemtest.Call[[]byte](c, func(api *client.Client) (*http.Response, error) { return api.ExportAudit(t.Context(), nil) })
}

// story is what the trail says happened to an object, in order.
func story(records []auditchain.Record, object string) (out []string) {
	for _, r := range records {
		if r.Object == object {
			out = append(out, r.Action+" "+r.Outcome)
		}
	}
	return out
}

// Every change of an account's life has one record, in order, also when a request is
// sent twice; a request that is refused has none; the export verifies offline, and one
// that was tampered with does not.
func TestEveryChangeHasOneAuditRecord_U1(t *testing.T) {
	t.Parallel()
	shared.of(t)
	c := systemtest.Start(t, systemtest.Options{Terms: terms})
	c.Agent("lan", systemtest.AgentOptions{})
	g := c.AddAsset("lan", "told", shared.target(t, "mysql"))
	id := c.Provision("told", g).Id
	done := func(j client.Job) bool { return j.State == client.JobStateDone }
	for _, action := range []string{"verify", "rotate", "disable", "enable", "deprovision"} {
		job := c.Act(id, action, "")
		c.AwaitJob(job, "is done", done)
		if again := c.Act(id, action, ""); again != job {
			t.Errorf("the same request was answered with job %s, then %s", job, again)
		}
	}
	_, err := fleet.Answer[client.JobRef](c.Client(0).ActOnAccount(t.Context(), id, "rotate", nil)) //nolint:bodyclose // Answer does
	if p, ok := err.(*fleet.ErrProblem); !ok || p.Code != "account_state" {                         //nolint:errorlint // as it is returned
		t.Errorf("rotation of a removed account: %v", err)
	}
	records := verifyAudit(t, c)
	want := []string{"account.provision requested", "account.provision ok"}
	for _, action := range []string{"verify", "rotate", "disable", "enable", "deprovision"} {
		want = append(want, "account."+action+" requested", "account."+action+" ok")
	}
	if diff := cmp.Diff(want, story(records, id)); diff != "" {
		t.Errorf("what the trail says of the account (-want +got):\n%s", diff)
	}
	for _, j := range c.Kept(id).Jobs {
		if diff := cmp.Diff([]string{"job.enqueue ok", "secret.lease ok", "job.finish done"}, story(records, string(j.ID))); diff != "" {
			t.Errorf("what the trail says of the %s (-want +got):\n%s", j.Operation, diff)
		}
	}

	raw := exportAudit(t, c)
	lines := bytes.SplitAfter(raw, []byte("\n"))
	for what, tampered := range map[string][]byte{
		"a word was changed":    bytes.Replace(raw, []byte(`"account.rotate"`), []byte(`"account.verify"`), 1),
		"a record was removed":  bytes.Join(slices.Delete(slices.Clone(lines), 10, 11), nil),
		"records were switched": bytes.Join(slices.Insert(slices.Delete(slices.Clone(lines), 10, 11), 11, lines[10]), nil),
	} {
		if _, err := auditchain.Verify(bytes.NewReader(tampered), auditchain.Options{}); err == nil {
			t.Errorf("%s, and the export verifies", what)
		}
	}
}

// Nodes that have applied the same entries agree on the head of the trail and on its newest
// checkpoint; one that stopped earlier has the head that the trail had then. Leaders change
// meanwhile (U3).
func TestAllNodesAgreeOnTheHeadOfTheTrail_U3(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{Nodes: 3, Terms: terms})
	work(t, c, "first", 5)
	c.Kill(c.Leader())
	work(t, c, "second", 5)
	for n := range c.Nodes() {
		if _, err := c.Status(n); err != nil {
			c.Restart(n)
		}
	}
	c.AwaitVoters(3)
	early := (c.Leader() + 1) % c.Nodes()
	c.Stop(early)
	work(t, c, "third", 5)
	systemtest.Call[client.RotatedAuditKey](c, func(api *client.Client) (*http.Response, error) { return api.RotateAuditKey(t.Context(), nil) }) // signs now
	records := verifyAudit(t, c)
	before := c.Trail(early)
	if n := before.Head.Sequence; n == 0 || n >= uint64(len(records)) || records[n-1].Hash != before.Head.Hash {
		t.Errorf("U3: the node that stopped earlier has head %+v, not that of the trail then", before.Head)
	}
	c.Restart(early)
	sameState(t, c) // stops all
	first := c.Trail(0)
	if first.Head.Sequence <= before.Head.Sequence || first.Signed.Sequence <= before.Signed.Sequence {
		t.Errorf("%+v, then %+v", before, first)
	}
	for n := 1; n < c.Nodes(); n++ {
		if diff := cmp.Diff(first, c.Trail(n)); diff != "" {
			t.Errorf("U3: node 0 and node %d: %s", n, diff)
		}
	}
}
