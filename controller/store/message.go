package store

import (
	"bytes"

	"google.golang.org/protobuf/proto"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// Message keeps a protobuf message inside a record, as its wire bytes, so that the
// message evolves by protobuf's rules and the record by its own. The zero Message
// holds nil. Tag such a field "omitzero".
type Message[M proto.Message] struct{ M M }

// Wrap puts m into a Message.
func Wrap[M proto.Message](m M) Message[M] { return Message[M]{M: m} }

// MarshalBinary implements encoding.BinaryMarshaler, which CBOR asks for.
func (m Message[M]) MarshalBinary() ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m.M)
}

// UnmarshalBinary implements encoding.BinaryUnmarshaler.
func (m *Message[M]) UnmarshalBinary(b []byte) error {
	var zero M
	fresh := zero.ProtoReflect().New().Interface().(M) //nolint:errcheck // New makes the same type
	if err := proto.Unmarshal(b, fresh); err != nil {
		return err
	}
	m.M = fresh
	return nil
}

func (m *Message[M]) clone() {
	m.M = proto.CloneOf(m.M)
}

// Lazy keeps a part of a record as its CBOR until somebody wants it: for what is large,
// seldom read, and almost never changed. The zero Lazy holds the zero T. Tag such a
// field "omitzero"; what is written is what a plain T would be.
type Lazy[T any] struct{ raw []byte }

// Put makes l hold v.
func (l *Lazy[T]) Put(v T) error {
	raw, err := encMode.Marshal(v)
	if err != nil {
		return reeve.Errorf(reeve.Internal, "record_encode_failed", "cannot encode a part of a record").Wrap(err)
	}
	l.raw = raw
	return nil
}

// Get decodes what l holds.
func (l Lazy[T]) Get() (v T, err error) {
	if l.IsZero() {
		return v, nil
	}
	if err := decMode.Unmarshal(l.raw, &v); err != nil {
		return v, reeve.Errorf(reeve.Internal, "record_unreadable", "cannot decode a part of a record").Wrap(err)
	}
	return v, nil
}

// clone has nothing to do: what l holds is replaced, never changed.
func (l *Lazy[T]) clone() {}

// IsZero reports whether l holds nothing.
func (l Lazy[T]) IsZero() bool { return len(l.raw) == 0 }

// MarshalCBOR implements cbor.Marshaler.
func (l Lazy[T]) MarshalCBOR() ([]byte, error) { return l.raw, nil }

// UnmarshalCBOR implements cbor.Unmarshaler.
func (l *Lazy[T]) UnmarshalCBOR(b []byte) error {
	l.raw = bytes.Clone(b)
	return nil
}
