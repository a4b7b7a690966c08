package inventory

import (
	"strconv"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// hold says that somebody above, an account, stands on an object of the inventory.
type hold struct {
	Object string `cbor:"1,keyasint"` // asset_…, or a role's key
	Holder string `cbor:"2,keyasint"` // acct_…
}

var holds = store.NewTable("inventory_hold",
	store.Key(func(h *hold) string { return h.Object + " " + h.Holder }),
	store.Index("object", func(h *hold) []string { return []string{h.Object} }),
	store.Index("holder", func(h *hold) []string { return []string{h.Holder} }))

// Hold notes that the holder lives on the asset and was made with the role version,
// so that the asset cannot be retired (C14). Repeating it is harmless.
func Hold(tx *store.Tx, holder string, asset reeve.AssetID, role RoleKey) error {
	for _, object := range []string{string(asset), role.String()} {
		if err := holds.Put(tx, &hold{Object: object, Holder: holder}); err != nil {
			return err
		}
	}
	return nil
}

// Release takes back all holds of a holder.
func Release(tx *store.Tx, holder string) error {
	var keys []string
	for h, err := range holds.Scan(tx, "holder", store.Range{Prefix: []string{holder}}) {
		if err != nil {
			return err
		}
		keys = append(keys, h.Object+" "+h.Holder)
	}
	for _, k := range keys {
		if err := holds.Delete(tx, k); err != nil {
			return err
		}
	}
	return nil
}

// Holders is how many accounts live on an asset, or use a role version.
func Holders(tx *store.Tx, object string) (int, error) {
	return count(holds.Scan(tx, "object", store.Range{Prefix: []string{object}}))
}

// RoleKey names one version of a role.
type RoleKey struct {
	Connector string `cbor:"1,keyasint"`
	Name      string `cbor:"2,keyasint"`
	Version   uint32 `cbor:"3,keyasint"`
}

// String is unique per key and sorts by connector, name and version, but for names of which one is the beginning of the
// other: a '-' comes before the '/' that ends a name.
func (k RoleKey) String() string {
	n := strconv.FormatUint(uint64(k.Version), 10)
	return k.Connector + "/" + k.Name + "/" + "0000000000"[len(n):] + n
}
