package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/auditchain/checkpoint"
	"github.com/reeve-pam/reeve/internal/cmdline"
)

// signedTrail writes a trail of five records, checkpoints of it in two files, and the key.
func signedTrail(t *testing.T, dir, actor string) {
	t.Helper()
	signing := checkpoint.NewKey()
	verifying, err := signing.Verifying("example")
	if err != nil {
		t.Fatal(err)
	}
	var trail []byte
	var head auditchain.Head
	var tree checkpoint.Tree
	for n := range 5 {
		r := auditchain.Record{Time: time.Date(2026, 11, 30, 19, n, 0, 0, time.UTC), Actor: auditchain.Actor{Kind: "user", Name: "ada"}, Action: "site.add", Outcome: "ok"}
		if n == 3 {
			r.Actor.Name = actor
		}
		head = auditchain.Chain(head, &r)
		line, err := auditchain.Encode(&r)
		if err == nil {
			err = tree.Append(r.Hash)
		}
		if err != nil {
			t.Fatal(err)
		}
		trail = append(trail, line...)
		signed, err := signing.Sign(checkpoint.Checkpoint{Cluster: "example", Head: head, Root: tree.Root(), Time: r.Time, Edge: tree.Edge})
		if err != nil {
			t.Fatal(err)
		}
		for name, at := range map[string]string{"early": "01", "late": "4"} {
			if strings.Contains(at, string(rune('0'+n))) {
				write(t, filepath.Join(dir, name), signed)
			}
		}
	}
	write(t, filepath.Join(dir, "trail"), trail)
	write(t, filepath.Join(dir, "key"), []byte(verifying+"\n"))
}

// write appends to a file.
func write(t *testing.T, path string, text []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.Write(text)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAuditVerifyProvesATrailAgainstCheckpoints_U2(t *testing.T) {
	t.Parallel()
	ours, forged := t.TempDir(), t.TempDir()
	signedTrail(t, ours, "mallory")
	signedTrail(t, forged, "alice") // rewritten from record 4 on, hashes and all
	key, err := os.ReadFile(filepath.Join(ours, "key"))
	if err != nil {
		t.Fatal(err)
	}
	truncated := filepath.Join(ours, "truncated")
	whole, err := os.ReadFile(filepath.Join(ours, "trail"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, truncated, []byte(strings.Join(strings.SplitAfter(string(whole), "\n")[:4], "")))
	between := filepath.Join(ours, "between")
	write(t, between, []byte(strings.Join(strings.SplitAfter(string(whole), "\n")[2:], "")))
	second := ours + "/second" // the checkpoint of record 2 alone
	raw, err := os.ReadFile(filepath.Join(ours, "early"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, second, checkpoint.Split(raw)[1])
	early, late, keyFile := ours+"/early", ours+"/late", ours+"/key"
	for name, tt := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"two files":         {[]string{ours + "/trail", "--checkpoint", early, "--checkpoint", late, "--key", keyFile}, 0, "records 1 to 5 are those that were signed"},
		"key itself":        {[]string{ours + "/trail", "--checkpoint", late, "--key", strings.TrimSpace(string(key))}, 0, "records 1 to 5"},
		"early only":        {[]string{forged + "/trail", "--checkpoint", early, "--key", keyFile}, 0, "records 1 to 2"},
		"rewritten":         {[]string{forged + "/trail", "--checkpoint", early, "--checkpoint", late, "--key", keyFile}, cmdline.Failed, "record 3: other_root"},
		"between two":       {[]string{between, "--checkpoint", second, "--checkpoint", late, "--key", keyFile}, 0, "records 3 to 5 are those that were signed\nthey follow the checkpoint of record 2"},
		"after none":        {[]string{between, "--checkpoint", late, "--key", keyFile}, cmdline.Failed, "record 3 (line 1): missing: record 1 is expected here"},
		"another between":   {[]string{between, "--checkpoint", forged + "/late", "--checkpoint", second, "--key", keyFile}, cmdline.Failed, "checkpoint 1 of " + forged + "/late: the key"},
		"truncated":         {[]string{truncated, "--checkpoint", late, "--key", keyFile}, cmdline.Failed, "record 5: truncated"},
		"other key":         {[]string{ours + "/trail", "--checkpoint", late, "--key", forged + "/key"}, cmdline.Failed, "did not sign"},
		"no key":            {[]string{ours + "/trail", "--checkpoint", late}, cmdline.Usage, "go together"},
		"no checkpoint":     {[]string{ours + "/trail", "--key", keyFile}, cmdline.Usage, "go together"},
		"no such key":       {[]string{ours + "/trail", "--checkpoint", late, "--key", ours + "/none"}, cmdline.Usage, "neither a key"},
		"not a checkpoint":  {[]string{ours + "/trail", "--checkpoint", ours + "/trail", "--key", keyFile}, cmdline.Failed, "no checkpoint of an audit trail"},
		"no such file":      {[]string{ours + "/trail", "--checkpoint", ours + "/none", "--key", keyFile}, cmdline.Usage, "none"},
		"empty checkpoints": {[]string{ours + "/trail", "--checkpoint", os.DevNull, "--key", keyFile}, cmdline.Failed, "holds no checkpoint"},
	} {
		got := invoke(t.Context(), "", append([]string{"audit", "verify"}, tt.args...)...)
		if got.status != tt.status || !strings.Contains(got.out+got.err, tt.says) {
			t.Errorf("%s: status %d, want %d and %q\n%s%s", name, got.status, tt.status, tt.says, got.out, got.err)
		}
	}
}

func TestAStretchOfTheTrailIsNamedByCheckpointsOrNumbers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	signedTrail(t, dir, "ada")
	late, two := dir+"/late", dir+"/early"
	for name, tt := range map[string]struct {
		from, to       string
		after, through int64 // 0: not asked for
		wrong          string
	}{
		"all":          {},
		"numbers":      {from: "2", to: "4", after: 1, through: 4},
		"from the one": {from: "1", to: "1", after: 0, through: 1},
		"checkpoint":   {from: "3", to: late, after: 2, through: 5},
		"after it":     {from: late, after: 5},
		"backwards":    {from: late, to: "3", wrong: "the earlier"},
		"several":      {from: two, wrong: "2 checkpoints"},
		"zero":         {to: "0", wrong: "from 1"},
		"no file":      {to: dir + "/none", wrong: "neither a number nor"},
		"no note":      {to: dir + "/trail", wrong: "no checkpoint"},
	} {
		after, through, err := stretch(tt.from, tt.to)
		if (err == nil) != (tt.wrong == "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (value(after) != tt.after || value(through) != tt.through) {
			t.Errorf("%s: after %d, through %d", name, value(after), value(through))
		}
	}
}

func value(n *int64) int64 {
	if n == nil {
		return 0
	}
	return *n
}
