//nolint:bodyclose // must closes every one
package rest_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/rest"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/auditchain/checkpoint"
	"github.com/reeve-pam/reeve/internal/systemtest"
)

// trail reads what is added to the audit trail.
type trail struct {
	c    *systemtest.Cluster
	seen int64 // the last record that was read
}

// next are the records since the last that was read.
func (a *trail) next(t *testing.T) (all []client.AuditRecord) {
	t.Helper()
	limit := 1000
	for {
		page := systemtest.Call[client.AuditPage](a.c, func(api *client.Client) (*http.Response, error) {
			return api.ListAudit(t.Context(), &client.ListAuditParams{After: &a.seen, Limit: &limit})
		})
		all = append(all, page.Items...)
		if len(page.Items) > 0 {
			a.seen = page.Items[len(page.Items)-1].Sequence
		}
		if page.Next == nil {
			return all
		}
	}
}

// byItself reports whether the cluster or an agent did it, and nobody who called.
func byItself(r client.AuditRecord) bool {
	return slices.Contains([]string{"system", "agent", "node"}, r.Actor["kind"])
}

// The action of some operations depends on what they are asked for.
var actionsOf = map[string][]string{
	"account.act": {"account.verify", "account.verify_superseded", "account.rotate"},
	"asset.trust": {"asset.import_trust", "asset.approve_host_key"},
	// What is begun is recorded when it is finished, or refused.
	"BeginStepUp": {""}, "BeginStepUpOIDC": {""}, "BeginStepUpBrowser": {""},
	"CallbackOIDC": {"session.begin", "session.step_up"},
}

// besides are changes of other things that some operations make as well, each thing with a record.
var besides = map[string][]string{
	"ActOnAccount": {"job.enqueue"}, "ProvisionAccounts": {"job.enqueue"}, "SetManagementAccount": {"job.enqueue"}, "TrustAsset": {"job.enqueue"},
	"CancelJob": {"job.finish"}, "AddGroup": {"group.map"}, "SignIn": {"group.add_member", "recovery_code.use"}, "ConfirmFactor": {"session.step_up", "recovery_code.create"},
	"RemoveDirectory": {"session.end", "principal.shut_out"}, "RemoveUser": {"session.end", "assignment.delete"},
	"ChangePassword": {"session.end"}, "ResetFactors": {"session.end"}, "FinishOIDCBrowser": {"recovery_code.use"}, "Unwrap": {"secret.reveal"},
	"ProveRekey": {"seal.rekey"}, "RestoreSnapshot": {"job.finish", "lifecycle.suspect"},
}

// recorded holds the records that a call made against what its operation says it records:
// exactly one of a success, and none but denials of what was refused (U1).
func (w *witness) recorded(op string, status int, made []client.AuditRecord) {
	w.t.Helper()
	want := []string{rest.Records(op)}
	for _, which := range []string{want[0], op} {
		if of := actionsOf[which]; of != nil {
			want = of
		}
	}
	main, seen := 0, map[string]bool{}
	for _, r := range made {
		switch {
		case byItself(r):
		case status >= 400 && (r.Outcome == "denied" || op == "TestAuditSink" || op == "TestDirectory"): // which are recorded before they are tried
		case status >= 400:
			w.t.Errorf("U1: %s was refused with %d, and yet recorded as %s %s", op, status, r.Action, r.Outcome)
		case slices.Contains(want, r.Action):
			main++
		case !slices.Contains(besides[op], r.Action) || seen[r.Action+r.Object]:
			w.t.Errorf("U1: %s recorded %s %s (%s) besides", op, r.Action, r.Outcome, r.Object)
		default:
			seen[r.Action+r.Object] = true
		}
	}
	if status < 300 && want[0] != "" && main != 1 {
		w.t.Errorf("U1: %s made %d records of %v", op, main, want)
	}
}

// These are done by somebody who has no session yet, or tried to be.
var sessionless = []string{"session.begin", "session.refuse", "invitation.accept", "recovery_code.use"}

// changes are the actions that give something another value: their records say which it was,
// which it is, or both.
var changes = []string{"agent.ban", "agent.unban", "asset.label", "asset.set_management", "asset.import_trust", "assignment.create", "assignment.delete", "audit_key.rotate",
	"audit_sink.add", "audit_sink.edit", "audit_sink.remove", "directory.add", "directory.renew", "directory.remove", "group.create", "group.map", "group.remove", "node.join", "node.renew",
	"oidc.add_provider", "oidc.remove_provider", "pam_role.create", "pam_role.edit", "pam_role.delete", "principal.create", "principal.edit", "principal.disable", "principal.enable",
	"principal.remove", "seal.rekey", "service.enable", "service.disable"}

// complete looks at every record: it says who, from where, with what session and through
// which node, and of a change what was before or after.
func complete(t *testing.T, all []client.AuditRecord) {
	t.Helper()
	seen := map[string]bool{}
	for _, r := range all {
		seen[r.Action] = true
		a := r.Actor
		lacks := func(what string) {
			t.Errorf("record %d, %s %s by %v, has no %s", r.Sequence, r.Action, r.Outcome, a, what)
		}
		if a["kind"] == "" || a["id"] == "" && a["name"] == "" && a["kind"] != "anonymous" {
			lacks("actor")
		}
		if _, err := netip.ParseAddr(a["from"]); err != nil && !byItself(r) {
			lacks("address")
		}
		if !strings.HasPrefix(a["node"], "node_") && !byItself(r) {
			lacks("node")
		}
		open := slices.Contains(sessionless, r.Action) || a["kind"] == "directory" // what a directory says at a sign-in
		if session := a["session"]; !strings.HasPrefix(session, "sess_") && !strings.HasPrefix(session, "tok_") && !strings.HasPrefix(session, "wrap_") && !byItself(r) && !open {
			lacks("session")
		}
		if r.Before == nil && r.After == nil && slices.Contains(changes, r.Action) {
			lacks("before or after")
		}
		if r.Object == "" && r.Action != "access.deny" {
			lacks("object")
		}
	}
	for _, action := range changes {
		if !seen[action] {
			t.Errorf("nobody did %s", action)
		}
	}
}

// proven: after all that happened, a change of the key and a restored snapshot among it, who
// noted the first key proves the trail up to the last checkpoint.
func (s *story) proven() {
	s.t.Helper()
	limit := 1000
	page := must[client.AuditCheckpointPage](s)(s.api.ListAuditCheckpoints(s.t.Context(), &client.ListAuditCheckpointsParams{Limit: &limit}))
	var notes [][]byte
	for _, c := range page.Items {
		notes = append(notes, []byte(c.Note))
	}
	all, err := checkpoint.OpenAll(notes, s.firstKey)
	if err != nil || *page.Key == s.firstKey {
		s.t.Fatalf("U2: %v", err)
	}
	whole := must[[]byte](s)(s.api.ExportAudit(s.t.Context(), nil))
	if rep, err := checkpoint.Verify(bytes.NewReader(whole), all, auditchain.Options{}); err != nil || rep.Signed() != all[len(all)-1].Head.Sequence {
		s.t.Errorf("U2: %+v %v", rep, err)
	}
}

// Every refused call of somebody without the right has one record, whatever it was for, up to
// a bound for each principal; and calls of nobody, of which there may be any number, have none.
func TestEveryDenialHasOneRecord_U1(t *testing.T) {
	t.Parallel()
	c := systemtest.Start(t, systemtest.Options{})
	objects := scene(t, c)
	a := &trail{c: c}
	a.next(t)
	var stranger *who
	asked, denied := 0, map[string]int{}
	for _, op := range operations(t) {
		path := objects.path(op, objects.places(op)[0])
		if asked%25 == 0 { // 30 of each principal are recorded in a minute
			stranger = &who{name: "stranger", roles: map[string]client.Scope{}}
			stranger.enrol(t, c, fmt.Sprintf("stranger-%d", asked))
		}
		asked++
		a.next(t)
		if openTo[op.id] == "" {
			if got := verdict(t, c, op, path, ""); got != "unknown" {
				t.Errorf("%s for nobody", op.id)
			}
			if made := a.next(t); len(made) > 0 {
				t.Errorf("%s by nobody is recorded: %+v", op.id, made)
			}
		}
		before := denied[op.id]
		got := send(t, c, 0, call{method: op.method, path: path + "?nonsense=1", token: stranger.token})
		for _, r := range a.next(t) {
			if r.Action == "access.deny" {
				denied[op.id]++
				if r.Outcome != "denied" || (*r.Details)["operation"] == "" || (*r.Details)["privilege"] == "" && got.problem.Code != "session_needed" || (*r.Details)["code"] != got.problem.Code {
					t.Errorf("%s: %+v", op.id, r)
				}
			} else if !byItself(r) {
				t.Errorf("%s was refused with %d and recorded as %s", op.id, got.StatusCode, r.Action)
			}
		}
		want := 0
		if got.StatusCode == http.StatusForbidden || got.StatusCode == http.StatusNotFound {
			want = 1
		}
		if denied[op.id]-before != want {
			t.Errorf("%s was refused with %d %s: %d records", op.id, got.StatusCode, got.problem.Code, denied[op.id]-before)
		}
	}
	if len(denied) < 60 {
		t.Errorf("%d operations were denied: %v", len(denied), denied)
	}
	for range 40 {
		send(t, c, 0, call{method: "GET", path: "/v1/cluster", token: stranger.token})
	}
	if made := a.next(t); len(made) > 30 || len(made) < 5 {
		t.Errorf("a flood of 40 made %d records", len(made))
	}
}
