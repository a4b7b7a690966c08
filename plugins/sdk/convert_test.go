package sdk_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/reeve-pam/reeve/plugins/sdk"
	connectorv1 "github.com/reeve-pam/reeve/proto/reeve/connector/v1"
)

// fill sets every field of a message, so that a conversion that forgets one is seen.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		value := func() protoreflect.Value {
			switch f.Kind() {
			case protoreflect.StringKind:
				return protoreflect.ValueOfString(string(f.Name()))
			case protoreflect.BytesKind:
				return protoreflect.ValueOfBytes([]byte(f.Name()))
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(true)
			case protoreflect.Uint32Kind:
				return protoreflect.ValueOfUint32(uint32(7 + depth))
			case protoreflect.Int64Kind:
				return protoreflect.ValueOfInt64(1700000000)
			case protoreflect.Int32Kind:
				return protoreflect.ValueOfInt32(5)
			default:
				panic("unexpected kind " + f.Kind().String())
			}
		}
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
		case f.IsList() && f.Message() != nil:
			fill(m.Mutable(f).List().AppendMutable().Message(), depth+1)
		case f.IsList():
			m.Mutable(f).List().Append(value())
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), depth+1)
		default:
			m.Set(f, value())
		}
	}
}

func TestConversionsKeepEveryField(t *testing.T) {
	t.Parallel()
	description := &connectorv1.Description{}
	role := &connectorv1.Role{}
	for _, c := range []struct {
		message proto.Message
		back    func(proto.Message) proto.Message
	}{
		{&connectorv1.Target{}, func(m proto.Message) proto.Message {
			return sdk.TargetToProto(sdk.TargetFromProto(m.(*connectorv1.Target)))
		}},
		{&connectorv1.Plan{}, func(m proto.Message) proto.Message {
			return sdk.PlanToProto(sdk.PlanFromProto(m.(*connectorv1.Plan)))
		}},
		{&connectorv1.Facts{}, func(m proto.Message) proto.Message {
			return sdk.FactsToProto(sdk.FactsFromProto(m.(*connectorv1.Facts)))
		}},
		{&connectorv1.Intent{}, func(m proto.Message) proto.Message {
			return sdk.IntentToProto(sdk.IntentFromProto(m.(*connectorv1.Intent)))
		}},
		{role, func(m proto.Message) proto.Message { return sdk.RoleToProto(sdk.RoleFromProto(m.(*connectorv1.Role))) }},
		{description, func(m proto.Message) proto.Message {
			return sdk.DescriptionToProto(sdk.DescriptionFromProto(m.(*connectorv1.Description)))
		}},
	} {
		fill(c.message.ProtoReflect(), 0)
		switch m := c.message.(type) {
		case *connectorv1.Intent:
			m.Role.Phases[0].Phase = "grant"
		case *connectorv1.Role:
			m.Phases[0].Phase = "grant"
		case *connectorv1.Description:
			m.Roles[0].Phases[0].Phase = "grant"
		}
		if got := c.back(c.message); !proto.Equal(got, c.message) {
			t.Errorf("%T lost something:\n got %v\nwant %v", c.message, got, c.message)
		}
	}
}

func TestZeroValuesConvertToNothing(t *testing.T) {
	t.Parallel()
	var zero sdk.Target
	if diff := cmp.Diff(zero, sdk.TargetFromProto(sdk.TargetToProto(zero)), cmp.AllowUnexported(sdk.Secret{})); diff != "" {
		t.Error(diff)
	}
	if m := sdk.TargetToProto(zero).GetManagement(); m != nil {
		t.Errorf("no credential became %v", m)
	}
	if got := sdk.FactsFromProto(sdk.FactsToProto(sdk.Facts{})); !got.ExpiresAt.IsZero() || got.Exists {
		t.Errorf("no facts became %+v", got)
	}
	if got := sdk.IntentFromProto(nil); !got.ExpiresAt.Equal(time.Time{}) || got.Action != "" {
		t.Errorf("no intent became %+v", got)
	}
}
