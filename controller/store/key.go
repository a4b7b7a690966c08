package store

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"
)

// TableName names a table: lower-case letters, digits and underscores, singular.
type TableName string

// All tables and indexes share one ordered key space:
//
//	record  part(table) 'r' id
//	index   part(table) 'i' part(index) part(p1) … part(pn) 00 00 id
//
// part(s) is s with each 00 replaced by 00 FF, then 00 01. It keeps the order of the
// strings, also when one is a prefix of the other, and no part can be mistaken for
// two. The mark 00 00 sorts before any further part. Index entries have no value.
const (
	kindRecord = "r"
	kindIndex  = "i"
	partEnd    = "\x00\x01"
	tupleEnd   = "\x00\x00"
)

func escape(s string) string {
	if strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(s, "\x00", "\x00\xff")
}

func part(s string) string { return escape(s) + partEnd }

func recordPrefix(t TableName) string { return part(string(t)) + kindRecord }

func indexPrefix(t TableName, index string) string { return part(string(t)) + kindIndex + part(index) }

// tuple is prefix, the parts of an index entry, and end.
func tuple(prefix string, parts []string, end string) string {
	n := len(prefix) + len(end)
	for _, p := range parts {
		n += len(p) + len(partEnd)
	}
	var b strings.Builder
	b.Grow(n)
	b.WriteString(prefix)
	for _, p := range parts {
		b.WriteString(escape(p))
		b.WriteString(partEnd)
	}
	b.WriteString(end)
	return b.String()
}

// tableOf is the table of a key, and whether the key is that of a record. It reports
// false for a key that this package did not make.
func tableOf(key string) (t TableName, record, ok bool) {
	i := strings.Index(key, partEnd) // table names hold no 00
	if i <= 0 || len(key) <= i+len(partEnd) {
		return "", false, false
	}
	kind := key[i+len(partEnd) : i+len(partEnd)+1]
	return TableName(key[:i]), kind == kindRecord, kind == kindRecord || kind == kindIndex
}

// ours reports whether tableOf can tell the table of the key.
func ours(key []byte) bool {
	i := bytes.Index(key, []byte(partEnd))
	if i <= 0 || len(key) <= i+len(partEnd) {
		return false
	}
	kind := key[i+len(partEnd)]
	return kind == kindRecord[0] || kind == kindIndex[0]
}

// after is the smallest key greater than every key with the prefix, "" if there is none.
func after(prefix string) string {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xff {
			return prefix[:i] + string([]byte{prefix[i] + 1})
		}
	}
	return ""
}

// aad binds a sealed value to its place: it opens under this table and id only.
func aad(t TableName, id string) []byte { return appendPart(aadOf(t), id) }

// aadOf is what aad begins with for every record of the table.
func aadOf(t TableName) []byte { return appendPart(appendPart(nil, "reeve/store/v1"), string(t)) }

func appendPart(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s))) //nolint:gosec // keys are bounded by maxKeyBytes
	return append(b, s...)
}

// TimePart is t as an index part of fixed width that sorts in time order, with
// nanosecond resolution, for the years 0 to 9999.
func TimePart(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000Z") }
