package inventory

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/internal/reeve"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// Whatever a connector says of itself is refused with one code, or good enough to check names and roles with.
func FuzzDescription(f *testing.F) {
	seed := func(change func(*connectorv1.Description)) {
		d := description()
		change(d)
		b, err := proto.Marshal(d)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "root")
		f.Add(b, "")
	}
	seed(func(*connectorv1.Description) {})
	seed(func(d *connectorv1.Description) { d.Name = "../ssh" })
	seed(func(d *connectorv1.Description) { d.NameRule.Pattern = "(" })
	seed(func(d *connectorv1.Description) { d.NameRule.Pattern = "" })
	seed(func(d *connectorv1.Description) { d.NameRule.Pattern = "a*" })
	seed(func(d *connectorv1.Description) { d.NameRule.Pattern = "a)|(?:.*" })
	seed(func(d *connectorv1.Description) { d.DefaultPort = 1 << 31 })
	seed(func(d *connectorv1.Description) { d.Roles = append(d.Roles, nil, &connectorv1.Role{}) })
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		d := new(connectorv1.Description)
		if proto.Unmarshal(b, d) != nil {
			return
		}
		if err := checkDescription(d); err != nil {
			if reeve.KindOf(err) != reeve.Invalid {
				t.Fatalf("refused as %v", err)
			}
			return
		}
		c := &Connector{Name: d.GetName()}
		c.Description.M = d
		if err := c.CheckName(name); err == nil && (name == "" || len(name) > int(d.GetNameRule().GetMaxBytes())) {
			t.Fatalf("the name %q passed a rule of %d bytes", name, d.GetNameRule().GetMaxBytes())
		}
	})
}
