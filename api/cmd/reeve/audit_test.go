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
	signing, verifying, err := checkpoint.NewKey("example")
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
		signed, err := checkpoint.Sign(checkpoint.Checkpoint{Cluster: "example", Head: head, Root: tree.Root(), Time: r.Time}, signing)
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
		"truncated":         {[]string{truncated, "--checkpoint", late, "--key", keyFile}, cmdline.Failed, "record 5: truncated"},
		"other key":         {[]string{ours + "/trail", "--checkpoint", late, "--key", forged + "/key"}, cmdline.Failed, "did not sign"},
		"no key":            {[]string{ours + "/trail", "--checkpoint", late}, cmdline.Usage, "go together"},
		"no checkpoint":     {[]string{ours + "/trail", "--key", keyFile}, cmdline.Usage, "go together"},
		"no such key":       {[]string{ours + "/trail", "--checkpoint", late, "--key", ours + "/none"}, cmdline.Usage, "neither a key"},
		"not a checkpoint":  {[]string{ours + "/trail", "--checkpoint", ours + "/trail", "--key", keyFile}, cmdline.Failed, "did not sign"},
		"no such file":      {[]string{ours + "/trail", "--checkpoint", ours + "/none", "--key", keyFile}, cmdline.Usage, "none"},
		"empty checkpoints": {[]string{ours + "/trail", "--checkpoint", os.DevNull, "--key", keyFile}, cmdline.Failed, "holds no checkpoint"},
	} {
		got := invoke(t.Context(), "", append([]string{"audit", "verify"}, tt.args...)...)
		if got.status != tt.status || !strings.Contains(got.out+got.err, tt.says) {
			t.Errorf("%s: status %d, want %d and %q\n%s%s", name, got.status, tt.status, tt.says, got.out, got.err)
		}
	}
}
