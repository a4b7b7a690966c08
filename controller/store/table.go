package store

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Table is a typed table: records of T under a primary key, with indexes. It holds no
// state; make one for each table as a package variable with [NewTable].
//
// Records are CBOR with integer keys: tag every persisted field of T
// `cbor:"1,keyasint,omitempty"` and never use a number again. Fields may be added; a
// release that does not know a field drops it when it writes the record. A field of
// type [reeve.Secret] makes every write fail: the vault seals secrets by themselves.
//
// Values are sealed, bound to table and id, unless the table is [Plain]. Identifiers
// and indexed values are not sealed: never index by anything that must stay secret.
type Table[T any] struct {
	name    TableName
	key     func(*T) string
	plain   bool
	indexes []index[T]
	prefix  string // of the keys of its records
	bound   []byte // what aad begins with
	memo    *memo[T]
}

type index[T any] struct {
	name   string
	unique bool
	parts  func(*T) []string
	prefix string // of the keys of its entries
}

// Option describes a Table.
type Option[T any] func(*Table[T])

// Key says which string identifies a record; it may not be empty. Every table has one.
func Key[T any](id func(*T) string) Option[T] {
	return func(t *Table[T]) { t.key = id }
}

// Unique adds an index in which no two records may have the same parts. A record for
// which parts is nil is not in it. All records have the same number of parts.
func Unique[T any](name string, parts func(*T) []string) Option[T] {
	return func(t *Table[T]) { t.indexes = append(t.indexes, index[T]{name: name, unique: true, parts: parts}) }
}

// Index adds an index. A record for which parts is nil is not in it.
func Index[T any](name string, parts func(*T) []string) Option[T] {
	return func(t *Table[T]) { t.indexes = append(t.indexes, index[T]{name: name, parts: parts}) }
}

// Plain leaves the values unsealed, for what a sealed node must read (addresses of
// nodes) and what is sealed already (wrapped keys).
func Plain[T any]() Option[T] {
	return func(t *Table[T]) { t.plain = true }
}

// NewTable describes a table. It panics on a description that can never work: a bad or
// missing name, no Key, or two indexes of one name.
func NewTable[T any](name TableName, opts ...Option[T]) *Table[T] {
	t := &Table[T]{name: name, prefix: recordPrefix(name), bound: aadOf(name), memo: newMemo[T]()}
	for _, o := range opts {
		o(t)
	}
	mustName(string(name))
	if t.key == nil {
		panic(fmt.Sprintf("store: table %s has no key", name))
	}
	seen := map[string]bool{}
	for i := range t.indexes {
		x := &t.indexes[i]
		mustName(x.name)
		x.prefix = indexPrefix(name, x.name)
		if seen[x.name] {
			panic(fmt.Sprintf("store: table %s has two indexes %s", name, x.name))
		}
		seen[x.name] = true
	}
	return t
}

func mustName(s string) {
	if s == "" || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		panic(fmt.Sprintf("store: bad table or index name %q", s))
	}
}

// Name is the table's name, for [Store.Watch].
func (t *Table[T]) Name() TableName { return t.name }

// Get returns the record with the id. If there is none the error has Kind NotFound and
// code "<table>_not_found"; while the node is sealed, Kind Sealed.
func (t *Table[T]) Get(tx *Tx, id string) (*T, error) {
	if err := tx.check(); err != nil {
		return nil, err
	}
	key := t.prefix + id
	value, ok := tx.get(key)
	if !ok {
		return nil, t.notFound(id)
	}
	r, err := t.decode(tx, id, value)
	if err == nil && tx.write {
		tx.remember(key, t.entries(r))
	}
	return r, err
}

// Insert adds a new record. The error has Kind Conflict and code "<table>_exists" if
// the id is in use, "<table>_<index>_taken" if a unique index has the parts already.
func (t *Table[T]) Insert(tx *Tx, r *T) error {
	if err := tx.check(); err != nil {
		return err
	}
	id := t.key(r)
	if _, ok := tx.get(t.prefix + id); ok {
		return reeve.Errorf(reeve.Conflict, string(t.name)+"_exists", "there is already a %s %q", t.name, id)
	}
	return t.write(tx, id, nil, r)
}

// Put adds the record or replaces the one with its id. It fails like Insert when a
// unique index has the parts already.
func (t *Table[T]) Put(tx *Tx, r *T) error {
	id := t.key(r)
	was, known := tx.seen[t.prefix+id]
	if !known {
		if _, err := t.Get(tx, id); err != nil && reeve.KindOf(err) != reeve.NotFound {
			return err
		}
		was = tx.seen[t.prefix+id]
	}
	return t.write(tx, id, was, r)
}

// Delete removes the record. If there is none the error is that of Get.
func (t *Table[T]) Delete(tx *Tx, id string) error {
	if _, err := t.Get(tx, id); err != nil {
		return err
	}
	return t.write(tx, id, tx.seen[t.prefix+id], nil)
}

// write replaces the record by r, nil for none. was are the index entries the record has
// now, nil if there is no record.
func (t *Table[T]) write(tx *Tx, id string, was []string, r *T) error {
	if id == "" {
		return reeve.Errorf(reeve.Internal, string(t.name)+"_id_missing", "a %s without an identifier", t.name)
	}
	is := t.entries(r)
	for i := range t.indexes {
		old := ""
		if was != nil {
			old = was[i]
		}
		if err := t.reindex(tx, &t.indexes[i], id, old, is[i], r); err != nil {
			return err
		}
	}
	c := cell{gone: true}
	if r != nil {
		value, err := t.encode(tx, id, r)
		if err != nil {
			return err
		}
		c = cell{value: value}
	}
	key := t.prefix + id
	if err := tx.set(key, c); err != nil {
		return err
	}
	if r == nil {
		is = nil
	}
	tx.remember(key, is)
	return nil
}

// entries are the keys of the record's index entries without the id, one for each index,
// "" where it has none.
func (t *Table[T]) entries(r *T) []string {
	out := make([]string, len(t.indexes))
	for i := range t.indexes {
		out[i] = t.indexes[i].entry(r)
	}
	return out
}

// reindex replaces one index entry of a record by that of r.
func (t *Table[T]) reindex(tx *Tx, x *index[T], id, was, is string, r *T) error {
	if was == is {
		return nil
	}
	if is != "" && x.unique {
		taken := false
		sn := tx.view()
		defer sn.own.release()
		if mutant.Is(mutant.UniqueCommittedOnly) {
			sn.layers = sn.layers[len(sn.layers)-2:]
		}
		sn.scan(is, after(is), func(string, []byte) bool { taken = true; return false })
		if taken {
			return reeve.Errorf(reeve.Conflict, fmt.Sprintf("%s_%s_taken", t.name, x.name),
				"another %s has the same %s: %s", t.name, x.name, strings.Join(x.parts(r), ", "))
		}
	}
	if was != "" {
		if err := tx.set(was+id, cell{gone: true}); err != nil {
			return err
		}
	}
	if is != "" {
		return tx.set(is+id, cell{value: []byte{}})
	}
	return nil
}

// entry is the key of the record's index entry without the id, "" if it has none.
func (x *index[T]) entry(r *T) string {
	if r == nil {
		return ""
	}
	parts := x.parts(r)
	if len(parts) == 0 {
		return ""
	}
	return tuple(x.prefix, parts, tupleEnd)
}

// Find returns the record that has the parts in a unique index, or the error of Get.
func (t *Table[T]) Find(tx *Tx, index string, parts ...string) (*T, error) {
	x, err := t.index(tx, index)
	if err != nil {
		return nil, err
	}
	if !x.unique {
		return nil, reeve.Errorf(reeve.Internal, "index_unknown", "index %s of %s is not unique", index, t.name)
	}
	prefix := tuple(x.prefix, parts, tupleEnd)
	id, found := "", false
	sn := tx.view()
	defer sn.own.release()
	sn.scan(prefix, after(prefix), func(key string, _ []byte) bool {
		id, found = key[len(prefix):], true
		return false
	})
	if !found {
		return nil, t.notFound(strings.Join(parts, "/"))
	}
	return t.Get(tx, id)
}

func (t *Table[T]) index(tx *Tx, name string) (*index[T], error) {
	if err := tx.check(); err != nil {
		return nil, err
	}
	for i := range t.indexes {
		if t.indexes[i].name == name {
			return &t.indexes[i], nil
		}
	}
	return nil, reeve.Errorf(reeve.Internal, "index_unknown", "table %s has no index %s", t.name, name)
}

// List yields the records in the order of their ids, those greater than afterID only
// ("" for all), as they were when the iteration began. It ends after the first error.
func (t *Table[T]) List(tx *Tx, afterID string) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		if err := tx.check(); err != nil {
			yield(nil, err)
			return
		}
		prefix := t.prefix
		from := prefix
		if afterID != "" {
			from = prefix + afterID + "\x00"
		}
		sn := tx.view()
		defer sn.own.release()
		sn.scan(from, after(prefix), func(key string, value []byte) bool {
			r, err := t.decode(tx, key[len(prefix):], value)
			return yield(r, err) && err == nil
		})
	}
}

// ListDesc is List downwards: from the greatest id, those less than beforeID only ("" for
// all).
func (t *Table[T]) ListDesc(tx *Tx, beforeID string) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		if err := tx.check(); err != nil {
			yield(nil, err)
			return
		}
		prefix := t.prefix
		to := after(prefix)
		if beforeID != "" {
			to = prefix + beforeID
		}
		sn := tx.view()
		defer sn.own.release()
		sn.scanDown(prefix, to, func(key string, value []byte) bool {
			r, err := t.decode(tx, key[len(prefix):], value)
			return yield(r, err) && err == nil
		})
	}
}

// Range is a part of an index. The zero Range is all of it.
type Range struct {
	// Prefix is the leading parts that all entries have.
	Prefix []string
	// From and To bound the part after Prefix: From <= part < To. "" is no bound.
	From, To string
}

// Scan yields the records of a part of an index, in the order of their parts and then
// of their ids, as they were when the iteration began. It ends after the first error.
func (t *Table[T]) Scan(tx *Tx, index string, in Range) iter.Seq2[*T, error] {
	return t.scan(tx, index, in, (*snapshot).scan)
}

// ScanDesc is Scan in the reverse order.
func (t *Table[T]) ScanDesc(tx *Tx, index string, in Range) iter.Seq2[*T, error] {
	return t.scan(tx, index, in, (*snapshot).scanDown)
}

type scan func(sn *snapshot, from, to string, yield func(key string, value []byte) bool)

func (t *Table[T]) scan(tx *Tx, index string, in Range, do scan) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		x, err := t.index(tx, index)
		if err != nil {
			yield(nil, err)
			return
		}
		prefix := tuple(x.prefix, in.Prefix, "")
		from, to := prefix+escape(in.From), after(prefix)
		if in.To != "" {
			to = prefix + escape(in.To)
		}
		sn := tx.view()
		defer sn.own.release()
		do(&sn, from, to, func(key string, _ []byte) bool {
			id := key[strings.Index(key, tupleEnd)+len(tupleEnd):]
			value, ok := sn.get(t.prefix + id)
			if !ok {
				yield(nil, reeve.Errorf(reeve.Internal, "index_corrupt", "index %s of %s names %q, which is not there",
					index, t.name, id))
				return false
			}
			r, err := t.decode(tx, id, value)
			return yield(r, err) && err == nil
		})
	}
}

func (t *Table[T]) notFound(what string) error {
	return reeve.Errorf(reeve.NotFound, string(t.name)+"_not_found", "there is no %s %q", t.name, what)
}

func (t *Table[T]) encode(tx *Tx, id string, r *T) ([]byte, error) {
	tx.encoded.Reset()
	if err := encMode.MarshalToBuffer(r, &tx.encoded); err != nil {
		return nil, reeve.Errorf(reeve.Internal, "record_encode_failed", "cannot encode %s %q", t.name, id).Wrap(err)
	}
	if t.plain {
		return bytes.Clone(tx.encoded.Bytes()), nil
	}
	sealed, err := tx.store.cipher.Seal(t.aad(tx, id), tx.encoded.Bytes())
	if err != nil && !isOurs(err) {
		return nil, reeve.Errorf(reeve.Internal, "record_seal_failed", "cannot seal %s %q", t.name, id).Wrap(err)
	}
	return sealed, err
}

// aad is what aad is for the record, valid until it is called again.
func (t *Table[T]) aad(tx *Tx, id string) []byte {
	tx.bound = appendPart(append(tx.bound[:0], t.bound...), id)
	return tx.bound
}

func (t *Table[T]) decode(tx *Tx, id string, value []byte) (*T, error) {
	if !t.plain {
		opened, err := tx.store.cipher.Open(t.aad(tx, id), value)
		if err != nil && !isOurs(err) {
			err = reeve.Errorf(reeve.Internal, "record_unreadable", "cannot open %s %q", t.name, id).Wrap(err)
		}
		if err != nil {
			return nil, err
		}
		value = opened
	}
	if t.memo != nil {
		if r := t.memo.get(id, value); r != nil {
			return r, nil
		}
	}
	r := new(T)
	if err := decMode.Unmarshal(value, r); err != nil {
		return nil, reeve.Errorf(reeve.Internal, "record_unreadable", "cannot decode %s %q", t.name, id).Wrap(err)
	}
	if t.memo != nil {
		t.memo.put(id, value, r)
	}
	return r, nil
}

// isOurs reports an *reeve.Error, which is passed on as it is.
func isOurs(err error) bool {
	_, ok := errors.AsType[*reeve.Error](err)
	return ok
}
