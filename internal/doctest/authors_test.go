//go:build linux

package doctest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
)

func TestAReaderOfAuthorsMdWritesAConnectorAndRegistersIt(t *testing.T) {
	t.Parallel()
	r := newReader(t, "docs/connectors/authors.md")
	lab := testlab.New(t)
	dev, err := lab.Address()
	if err != nil {
		t.Fatal(err)
	}
	web01 := testlab.NewHost(t, lab, testlab.HostOptions{Name: "web01", Accounts: []testlab.HostAccount{{Name: "root", Password: "root's secret"}}})
	source, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	// The reader has Go, with a cache, and the modules of ours.
	env, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Fields(string(env))
	r.env[0] += ":" + dirs[0] + "/bin"
	r.env = append(r.env, "GOMODCACHE="+dirs[1], "GOCACHE="+dirs[2], "GOFLAGS=-mod=mod -modcacherw")
	r.replace = [][2]string{
		{"/usr/src/reeve", source}, {"/home/me", r.home}, {"192.0.2.10", web01.Addr},
		{"reeved dev --data", "reeved dev --host " + dev + " --data"}, {"127.0.0.1:8443", dev + ":8443"},
	}
	r.answers = map[string]string{"Password of pam_test: ": "Canary-77-test"}
	exists := func(want bool) func() {
		return func() {
			if _, ok, err := web01.Passwd("pam_test"); err != nil || ok != want {
				t.Errorf("pam_test is in web01's /etc/passwd: %v (%v), want %v", ok, err, want)
			}
		}
	}
	const run = "reeve connector run ~/bin/connectors/connector-ssh "
	r.after = map[string]func(){
		// What a reader has of the host: the directory is there now.
		"reeve connector new": func() {
			r.write("/home/me/connector-acme/web01.pub", web01.HostKey()+"\n")
			r.write("/home/me/connector-acme/web01.password", "root's secret\n")
		},
		run + "plan":        exists(false),
		run + "provision":   exists(true),
		run + "deprovision": exists(false),
		"reeve connector selftest": func() {
			out, err := web01.OutOfBand("getent passwd | grep -c reevetest; true")
			if err != nil || strings.TrimSpace(out) != "0" {
				t.Errorf("accounts of the self-test are left: %q, %v", out, err)
			}
		},
	}
	r.secrets = []string{"root's secret"}
	r.follow()
}
