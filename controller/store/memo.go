package store

import (
	"bytes"
	"hash/maphash"
	"reflect"
	"sync/atomic"
	"time"
)

// memo remembers what a few records of a table were decoded to, because the same bytes are
// decoded several times between two changes of a record. It holds for all stores, as decoding
// depends on the bytes alone, and it is asked only after they were opened: a sealed node
// reads nothing. Nobody is given what it keeps, only copies of it.
type memo[T any] struct {
	fix   func(v reflect.Value) // nil: T has no references
	slots [memoSlots]atomic.Pointer[memoized[T]]
}

// memoSlots bounds the memory of a table; records that share a slot displace each other.
const memoSlots = 128

type memoized[T any] struct {
	encoded []byte
	record  T
}

var memoSeed = maphash.MakeSeed()

// newMemo returns nil if there are records of T that it could not copy.
func newMemo[T any]() *memo[T] {
	fix, ok := copier(reflect.TypeFor[T]())
	if !ok {
		return nil
	}
	return &memo[T]{fix: fix}
}

func (m *memo[T]) slot(id string) *atomic.Pointer[memoized[T]] {
	return &m.slots[maphash.String(memoSeed, id)%memoSlots]
}

// get returns what encoded was decoded to; nil if that is not known.
func (m *memo[T]) get(id string, encoded []byte) *T {
	if k := m.slot(id).Load(); k != nil && bytes.Equal(k.encoded, encoded) {
		return m.copy(&k.record)
	}
	return nil
}

// put remembers what encoded was decoded to.
func (m *memo[T]) put(id string, encoded []byte, r *T) {
	m.slot(id).Store(&memoized[T]{encoded: bytes.Clone(encoded), record: *m.copy(r)})
}

// copy shares nothing with r that can be changed.
func (m *memo[T]) copy(r *T) *T {
	c := new(T)
	*c = *r
	if m.fix != nil {
		m.fix(reflect.ValueOf(c).Elem())
	}
	return c
}

// cloner is a part of a record that gives a plain copy what it needs to be independent.
type cloner interface{ clone() }

// copier makes a function that turns a plain copy of a value of the type into one that
// shares nothing with the original that can be changed: nil if it is that already. It
// reports false for types it does not know how to copy.
func copier(t reflect.Type) (fix func(v reflect.Value), ok bool) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return nil, true // it has a pointer to its zone, which nobody changes
	case reflect.PointerTo(t).Implements(reflect.TypeFor[cloner]()):
		return func(v reflect.Value) { v.Addr().Interface().(cloner).clone() }, true //nolint:errcheck // it was just asked
	}
	switch t.Kind() {
	case reflect.Struct:
		return structCopier(t)
	case reflect.Slice:
		of, ok := copier(t.Elem())
		return func(v reflect.Value) {
			if v.IsNil() {
				return
			}
			c := reflect.MakeSlice(t, v.Len(), v.Len())
			reflect.Copy(c, v)
			for i := 0; of != nil && i < c.Len(); i++ {
				of(c.Index(i))
			}
			v.Set(c)
		}, ok
	case reflect.Pointer:
		of, ok := copier(t.Elem())
		return func(v reflect.Value) {
			if v.IsNil() {
				return
			}
			c := reflect.New(t.Elem())
			c.Elem().Set(v.Elem())
			if of != nil {
				of(c.Elem())
			}
			v.Set(c)
		}, ok
	case reflect.Map:
		of, ok := copier(t.Elem())
		keys, simple := copier(t.Key())
		return func(v reflect.Value) {
			if v.IsNil() {
				return
			}
			c := reflect.MakeMapWithSize(t, v.Len())
			for all := v.MapRange(); all.Next(); {
				x := reflect.New(t.Elem()).Elem()
				x.Set(all.Value())
				if of != nil {
					of(x)
				}
				c.SetMapIndex(all.Key(), x)
			}
			v.Set(c)
		}, ok && simple && keys == nil
	case reflect.Array, reflect.Interface, reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return nil, false
	default: // numbers, booleans, strings
		return nil, true
	}
}

func structCopier(t reflect.Type) (func(v reflect.Value), bool) {
	type part struct {
		field int
		fix   func(v reflect.Value)
	}
	var parts []part
	for i := range t.NumField() {
		fix, ok := copier(t.Field(i).Type)
		if !ok || fix != nil && !t.Field(i).IsExported() {
			return nil, false
		}
		if fix != nil {
			parts = append(parts, part{i, fix})
		}
	}
	if parts == nil {
		return nil, true
	}
	return func(v reflect.Value) {
		for _, p := range parts {
			p.fix(v.Field(p.field))
		}
	}, true
}
