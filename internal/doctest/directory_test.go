//go:build linux

package doctest

import (
	"path/filepath"
	"testing"

	"github.com/reeve-pam/reeve/internal/testlab"
)

func TestAReaderOfDirectoryMdSignsInWithActiveDirectory(t *testing.T) {
	t.Parallel()
	r := newReader(t, "docs/directory.md")
	lab := testlab.New(t)
	dev, err := lab.Address()
	if err != nil {
		t.Fatal(err)
	}
	dc := testlab.NewSambaAD(t, lab, testlab.SambaOptions{})
	const password = "Canary-9-ferret-umbrella"
	if err := dc.AddAccount(t.Context(), "ada", password); err != nil {
		t.Fatal(err)
	}
	if err := dc.Add(t.Context(), "CN=DBA,"+testlab.GroupsOU, map[string][]string{"objectClass": {"group"}, "sAMAccountName": {"dba"}, "member": {"CN=ada," + testlab.AccountsOU}}); err != nil {
		t.Fatal(err)
	}
	r.write(filepath.Join(r.home, "ca.pem"), dc.CAPEM)
	r.write(filepath.Join(r.home, "bind.password"), dc.ManagementPassword+"\n")
	r.replace = [][2]string{
		{"dc1.example.com", dc.Addr}, {"DC=example,DC=com", testlab.DomainDN},
		{"reeved dev --data", "reeved dev --host " + dev + " --data"}, {"127.0.0.1:8443", dev + ":8443"},
	}
	r.answers = map[string]string{"Password of ada: ": password}
	r.secrets = []string{dc.ManagementPassword}
	r.follow()
}
