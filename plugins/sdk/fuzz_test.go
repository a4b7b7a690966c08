package sdk_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// Whatever bytes come over the wire as a message, reading it does not panic, and what was read reads the same again
// after it was written: nothing is lost or changed on the second way.
func FuzzMessages(f *testing.F) {
	full := func(kind byte, m proto.Message) {
		fill(m.ProtoReflect(), 0)
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(kind, b)
	}
	full(0, &connectorv1.Intent{})
	full(1, &connectorv1.Plan{})
	full(2, &connectorv1.Facts{})
	full(3, &connectorv1.Description{})
	full(4, &connectorv1.Target{})
	full(5, &connectorv1.Fingerprint{})
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		switch kind % 6 {
		case 0:
			there(t, b, &connectorv1.Intent{}, func(m *connectorv1.Intent) *connectorv1.Intent { return sdk.IntentToProto(sdk.IntentFromProto(m)) })
		case 1:
			there(t, b, &connectorv1.Plan{}, func(m *connectorv1.Plan) *connectorv1.Plan {
				p := sdk.PlanFromProto(m)
				if sdk.PlanHash(p) != sdk.PlanHash(sdk.PlanFromProto(sdk.PlanToProto(p))) {
					t.Fatal("a plan has another hash after the way over the wire")
				}
				return sdk.PlanToProto(p)
			})
		case 2:
			there(t, b, &connectorv1.Facts{}, func(m *connectorv1.Facts) *connectorv1.Facts { return sdk.FactsToProto(sdk.FactsFromProto(m)) })
		case 3:
			there(t, b, &connectorv1.Description{}, func(m *connectorv1.Description) *connectorv1.Description {
				return sdk.DescriptionToProto(sdk.DescriptionFromProto(m))
			})
		case 4:
			there(t, b, &connectorv1.Target{}, func(m *connectorv1.Target) *connectorv1.Target { return sdk.TargetToProto(sdk.TargetFromProto(m)) })
		case 5:
			there(t, b, &connectorv1.Fingerprint{}, func(m *connectorv1.Fingerprint) *connectorv1.Fingerprint {
				return sdk.FingerprintToProto(sdk.FingerprintFromProto(m))
			})
		}
	})
}

func there[M proto.Message](t *testing.T, b []byte, m M, convert func(M) M) {
	t.Helper()
	if proto.Unmarshal(b, m) != nil {
		return
	}
	once := convert(m)
	if twice := convert(once); !proto.Equal(once, twice) {
		t.Fatalf("%T changes on the second way:\n%v\n%v", m, once, twice)
	}
}
