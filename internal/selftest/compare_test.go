package selftest

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/internal/redact"
	"github.com/reeve-pam/reeve/internal/reeve"
	"github.com/reeve-pam/reeve/plugins/sdk"
)

func life(account, id, through string) *Transcript {
	return &Transcript{Header{Transcript: Format, Connector: "acme", Account: account, Through: through, Role: "acme-reader", Params: map[string]string{"Database": "shop"}},
		[]Entry{
			{Step: stepFree, Want: Absent, Got: Absent},
			{Step: "provision", Want: Changed, Got: Changed, Plan: []sdk.Step{{ID: "create", Command: "create " + account + " for " + id + " until 2026-12-01T10:00:00Z"}},
				Events: []Event{{"create", "started", ""}, {"create", "done", ""}}, Facts: json.RawMessage(`{"exists":true,"identity":"1001","groups":["users","` + account + `"]}`)},
			{Step: StepDisabled, Want: NotOK, Got: NotOK, Verdict: "locked"},
			{Step: "disable", Want: Changed, Got: Changed},
		}}
}

func TestNamesTimesAndNumbersAreNoDifference(t *testing.T) {
	t.Parallel()
	a, b := life("reevetestaaaa", "acct_"+strings.Repeat("0", 26), ByHand), life("REEVETESTBBBB", "acct_"+strings.Repeat("1", 26), ByHand)
	b.Entries[1].Plan[0].Command = strings.ReplaceAll(b.Entries[1].Plan[0].Command, "2026-12-01T10:00:00Z", "2031-01-02 03:04:05")
	a.Entries[1].Plan[0].Command += " as tmp-6a86245819f013" // made of the id
	b.Entries[1].Plan[0].Command += " as tmp-179fd00930e2b7"
	if d := Compare(a, b); len(d) != 0 {
		t.Errorf("%v", d)
	}
	b.Entries[1].Plan[0].Command += " (6390850e3c1e)" // a digest of a script is short
	a.Entries[1].Plan[0].Command += " (b69ce9aea785)"
	if d := Compare(a, b); len(d) != 1 {
		t.Errorf("another script is no difference: %v", d)
	}
}

func TestWhatMattersIsADifference(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*Transcript)
		want   []Difference
	}{
		"verdict": {func(x *Transcript) { x.Entries[2].Verdict = "bad_credential" }, []Difference{{StepDisabled, "verdict", []string{"locked"}, []string{"bad_credential"}}}},
		"result and error": {func(x *Transcript) {
			x.Entries[3].Got, x.Entries[3].Error = "error not_permitted", &Failure{Class: "not_permitted", Message: "no, reevetestaaaa 1.2.3"}
		}, []Difference{{"disable", "result", []string{Changed}, []string{"error not_permitted"}}, {"disable", "error", []string{}, []string{"not_permitted: no, ‹account› ‹version›"}}}},
		"plan": {func(x *Transcript) { x.Entries[1].Plan[0].Command = "make it" }, []Difference{{"provision", "plan",
			[]string{"create: create ‹account› for ‹id› until ‹time›"}, []string{"create: make it"}}}},
		"done":            {func(x *Transcript) { x.Entries[1].Events[1].State = "skipped" }, []Difference{{"provision", "done", []string{"create done"}, []string{"create skipped"}}}},
		"facts":           {func(x *Transcript) { x.Entries[1].Facts = json.RawMessage(`{"exists":true,"groups":["users"]}`) }, []Difference{{"provision", "facts", []string{"group: ‹account›"}, []string{}}}},
		"another role":    {func(x *Transcript) { x.Header.Role = "acme-writer" }, []Difference{{"", "role", []string{"acme-reader"}, []string{"acme-writer"}}}},
		"another kind":    {func(x *Transcript) { x.Header.Connector = "toy" }, []Difference{{"", "connector", []string{"acme"}, []string{"toy"}}}},
		"a missing step":  {func(x *Transcript) { x.Entries = x.Entries[:3] }, []Difference{{"disable", "result", []string{Changed}, []string{"not done"}}}},
		"cleaning up":     {func(x *Transcript) { x.Entries = append(x.Entries, Entry{Step: StepRemoveAgain, Got: Changed}) }, []Difference{{StepRemoveAgain, "result", []string{"not done"}, []string{Changed}}}},
		"through cluster": {func(x *Transcript) { x.Header.Through, x.Entries = Cluster, x.Entries[1:] }, nil},
	} {
		id := "acct_" + strings.Repeat("0", 26)
		got := life("reevetestaaaa", id, ByHand)
		c.change(got)
		if diff := cmp.Diff(c.want, Compare(life("reevetestaaaa", id, ByHand), got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAJournalIsReadAsItWasWritten_AndHoldsNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "canary-Pa\"ss\\wörd-4711"
	var b bytes.Buffer
	j := &Journal{To: &b, Redactor: redact.New(reeve.SecretString(secret)), Header: Header{Connector: "acme", Account: "a"}}
	if err := j.Begin(); err != nil {
		t.Fatal(err)
	}
	if err := j.Note(Entry{Step: "rotate", Want: Changed, Got: "error internal", Events: []Event{{"set", "failed", "PASSWORD " + secret}}, Error: &Failure{"internal", secret, secret}}); err != nil {
		t.Fatal(err)
	}
	raw, _ := json.Marshal(j.Entries)
	quoted, _ := json.Marshal(secret)
	for _, s := range []string{secret, strings.Trim(string(quoted), `"`)} {
		if strings.Contains(b.String()+string(raw), s) {
			t.Errorf("a secret is in the transcript:\n%s", b.String())
		}
	}
	got, err := Read(&b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(j.Transcript(), got); diff != "" || j.Differ != 1 {
		t.Errorf("%d differ (-written +read):\n%s", j.Differ, diff)
	}
}

func TestTheDefaultRoleNeedsNothing(t *testing.T) {
	t.Parallel()
	needs := []sdk.RoleParam{{Name: "Database", Required: true}}
	roles := []sdk.Role{{Name: "a-admin", HighRisk: true}, {Name: "b-reader", Params: needs}, {Name: "d-user"}, {Name: "c-user"}}
	if got := DefaultRole(roles); got != "c-user" {
		t.Errorf("%q", got)
	}
	if got := DefaultRole(roles[:2]); got != "" {
		t.Errorf("%q", got)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"transcript":1,"connector":"a","account":"b","params":{"X":"("}}` + "\n" + `{"step":"probe","got":"x","probe":{"product":"y"},"plan":[{"id":"a"}],"events":[{"step":"a","state":"done"}]}` + "\n"))
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"transcript":2}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Read(bytes.NewReader(raw))
		if err != nil {
			return
		}
		for _, d := range Compare(got, got) {
			if len(got.Entries) == 1 { // steps of one name are one step
				t.Errorf("it differs from itself: %v", d)
			}
		}
	})
}
