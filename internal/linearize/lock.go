package linearize

import (
	"context"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// The lock of exclusive use, as a record in the store: inserted if the account has none,
// deleted if it is mine. A unique index keeps the second one out.
type lockRecord struct {
	ID      string `cbor:"1,keyasint"`
	Account string `cbor:"2,keyasint"`
	Holder  string `cbor:"3,keyasint"`
}

var lockTable = store.NewTable("linearize_lock",
	store.Key(func(l *lockRecord) string { return l.ID }),
	store.Unique("account", func(l *lockRecord) []string { return []string{l.Account} }))

type lockOp struct{ Do, Holder string } // acquire, release, read

type lockState struct{ Holder string }

// lockModel: a mutex with a name on it. Output is the holder for a read, else whether it
// was done.
var lockModel = model(func(s lockState, in lockOp, out *string) (bool, lockState) {
	next, answer := s, "no"
	switch {
	case in.Do == "read":
		answer = s.Holder
	case in.Do == "acquire" && s.Holder == "":
		next, answer = lockState{in.Holder}, "yes"
	case in.Do == "release" && s.Holder == in.Holder:
		next, answer = lockState{}, "yes"
	}
	return out == nil || *out == answer, next
})

func (c *client) lock(ctx context.Context) {
	account := c.key("lock", 5)
	n := c.pick()
	in := lockOp{Do: []string{"acquire", "release", "read"}[c.rand.IntN(3)], Holder: c.name}
	call := c.history.now()
	if in.Do == "read" {
		holder, err := readLock(ctx, n, account)
		c.note(account, lockModel, call, lockOp{Do: "read"}, holder, readVerdict(err))
		return
	}
	err := n.store.Update(ctx, func(tx *store.Tx) error {
		if in.Do == "acquire" {
			return lockTable.Insert(tx, &lockRecord{ID: string(reeve.NewTokenID()), Account: account, Holder: in.Holder})
		}
		held, err := lockTable.Find(tx, "account", account)
		if err != nil {
			return err
		}
		if held.Holder != in.Holder {
			return reeve.Errorf(reeve.Conflict, "not_mine", "somebody else holds it")
		}
		return lockTable.Delete(tx, held.ID)
	})
	answer := "yes"
	if err != nil {
		answer = "no"
	}
	c.note(account, lockModel, call, in, answer, verdictOf(err))
}

func readLock(ctx context.Context, n *parts, account string) (holder string, err error) {
	err = n.view(ctx, func(tx *store.Tx) error {
		held, err := lockTable.Find(tx, "account", account)
		if reeve.KindOf(err) == reeve.NotFound {
			return nil
		}
		if err == nil {
			holder = held.Holder
		}
		return err
	})
	return holder, err
}
