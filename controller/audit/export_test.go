package audit

import "github.com/reeve-pam/reeve/controller/store"

// Forge replaces a record, as nothing in the product can.
func Forge(tx *store.Tx, e *Entry) error { return entries.Put(tx, e) }

// CSVRow is a line of ExportCSV.
var CSVRow = csvRow

// Uncovered is how many records no checkpoint covers.
var Uncovered = uncovered

// SpoilTree makes the tree of the checkpoints unreadable.
func SpoilTree(tx *store.Tx) error {
	type row struct {
		Size string `cbor:"1,keyasint"`
	}
	return store.NewTable(trees.Name(), store.Key(func(*row) string { return headKey })).Put(tx, &row{Size: "seven"})
}
