// Package recorded holds a connector to the transcript of its self-test that is shipped
// with it, in docs/connectors/selftest: owners of real targets compare theirs with it.
// Only tests import it.
package recorded

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/reeve-pam/reeve/agent/pluginhost"
	"github.com/reeve-pam/reeve/internal/selftest"
	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

var record = flag.Bool("record", false, "write the transcripts of self-tests again")

// Check lives the life of an account on a target with the connector in binary, whose
// tests run in plugins/NAME, and fails the test if it is not the one that is recorded, or
// not as it should be. With -record the transcript is written again if it differs. The
// role is one of the description, by name; "" is the one that owners get who name none.
func Check(t *testing.T, binary string, target sdk.Target, role string, params map[string]string) {
	t.Helper()
	c, stop, err := pluginhost.Open(t.Context(), binary, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	d, err := c.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	j := &selftest.Journal{}
	l := &selftest.Life{Journal: j, Client: c, Description: d, Target: target, Params: params, Prefix: "reevetest", Timeout: 2 * time.Minute}
	if role == "" {
		role = selftest.DefaultRole(d.Roles)
	}
	for _, r := range d.Roles {
		if r.Name == role {
			l.Role = r
		}
	}
	if l.Role.Name == "" {
		t.Fatalf("there is no role %q", role)
	}
	if err := l.Live(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, e := range j.Entries {
		if !e.OK {
			t.Errorf("%s: %s, want %s: %+v", e.Step, e.Got, e.Want, e.Error)
		}
	}
	if t.Failed() {
		return
	}
	path := filepath.Join("..", "..", "docs", "connectors", "selftest", d.Name+".jsonl")
	expected, err := read(path)
	if err != nil && (!*record || !errors.Is(err, fs.ErrNotExist)) {
		t.Fatalf("%v; write it with: go test ./plugins/%s -run %s -record", err, d.Name, t.Name())
	}
	var differences []selftest.Difference
	if expected != nil {
		differences = selftest.Compare(expected, j.Transcript())
	}
	if *record && (expected == nil || len(differences) > 0) {
		if err := write(path, j.Transcript()); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, diff := range differences {
		t.Errorf("it is another life than the recorded one (write it again with -record):\n%s", diff)
	}
}

// write writes a transcript without what is of the machine the test ran on alone.
func write(path string, t *selftest.Transcript) error {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(t.Header); err != nil {
		return err
	}
	for _, e := range t.Entries {
		var fp connectorv1.Fingerprint
		if len(e.Probe) > 0 && protojson.Unmarshal(e.Probe, &fp) == nil {
			fp.Attributes = nil
			e.Probe = selftest.JSON(&fp)
		}
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	return os.WriteFile(path, out.Bytes(), 0o644) //nolint:gosec // it is published
}

func read(path string) (*selftest.Transcript, error) {
	f, err := os.Open(path) //nolint:gosec // of this tree
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return selftest.Read(f)
}
