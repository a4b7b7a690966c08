package identity

import (
	"cmp"
	"net/netip"
	"sync"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Failed sign-ins in a row slow an account down, and then stop it. The count is in the
// store, under the principal's id: neither another spelling nor another leader resets it.
const (
	freeFailures = 5                // before the first wait
	firstWait    = 30 * time.Second // doubled with each further failure
	longestWait  = 15 * time.Minute
	mostFailures = 100 // SP 800-63B-4 §3.2.2; then an administrator must act
	// perAddress is how many sign-ins may fail from one network within addressWindow.
	perAddress    = 60
	addressWindow = 10 * time.Minute
)

// atOnce is how many sign-ins of one network may be in hand at once: hashing takes turns,
// and one network must not keep all others waiting.
const atOnce = 16

// hands counts the sign-ins that are in hand on this node.
type hands struct {
	mu sync.Mutex
	of map[string]int // by network
}

var inHand = hands{of: map[string]int{}}

// take counts one more of a network until done is called; code sign_ins_too_many.
func (h *hands) take(from netip.Addr) (done func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := addressKey(from)
	if h.of[key] == atOnce {
		return nil, reeve.Errorf(reeve.TooMany, "sign_ins_too_many", "too many sign-ins from this network are in hand").WithFix("try again in a few seconds")
	}
	h.of[key]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.of[key]--; h.of[key] == 0 {
			delete(h.of, key)
		}
	}, nil
}

// failures counts failed sign-ins: of a principal in a row, or of a network in a window.
type failures struct {
	Key   string    `cbor:"1,keyasint"`
	Count int       `cbor:"2,keyasint"`
	Last  time.Time `cbor:"3,keyasint"` // of a principal: the last failure; of a network: when the window began
}

var failed = store.NewTable("failed_sign_in",
	store.Key(func(f *failures) string { return f.Key }),
	store.Index("last", func(f *failures) []string { return []string{store.TimePart(f.Last)} }),
)

// waitUntil is when the next try counts.
func (f *failures) waitUntil() time.Time {
	if f.Count < freeFailures {
		return time.Time{}
	}
	wait := longestWait
	if n := f.Count - freeFailures; n < 6 {
		wait = min(longestWait, firstWait<<n)
	}
	return f.Last.Add(wait)
}

// addressKey is the network that counts as one: an IPv4 address, or an IPv6 /64, which is
// what one subscriber has.
func addressKey(a netip.Addr) string {
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return "address:unknown"
	}
	return "address:" + p.String()
}

func getFailures(tx *store.Tx, key string) (*failures, error) {
	f, err := failed.Get(tx, key)
	if reeve.KindOf(err) == reeve.NotFound {
		return &failures{Key: key}, nil
	}
	return f, err
}

// throttled reports whether a sign-in of the principal must fail whatever it shows.
func throttled(tx *store.Tx, id reeve.PrincipalID) (bool, error) {
	f, err := getFailures(tx, string(id))
	if err != nil {
		return false, err
	}
	return f.Count >= mostFailures || tx.Now().Before(f.waitUntil()), nil
}

// admitAddress fails with TooMany "sign_ins_too_many" if too many sign-ins have failed
// from a network lately.
func admitAddress(tx *store.Tx, from netip.Addr) error {
	f, err := getFailures(tx, addressKey(from))
	if err != nil {
		return err
	}
	if f.Count >= perAddress && tx.Now().Before(f.Last.Add(addressWindow)) {
		return reeve.Errorf(reeve.TooMany, "sign_ins_too_many", "too many sign-ins have failed from this network").
			WithFix("wait until %s", f.Last.Add(addressWindow).UTC().Format(time.RFC3339))
	}
	return nil
}

// nobody stands for all principals that do not exist, so that a failure costs as much for
// them.
const nobody = "nobody"

// noteFailure counts a failed sign-in of a principal ("" for one that does not exist) from
// an address. What is tried while a principal must wait is not looked at, and neither
// lengthens the wait nor counts for the last limit: else whoever knows a name could lock
// its owner out for ever within a minute.
func noteFailure(tx *store.Tx, id reeve.PrincipalID, from netip.Addr) error {
	f, err := getFailures(tx, cmp.Or(string(id), nobody))
	if err != nil {
		return err
	}
	if id == "" || f.Count < mostFailures && !tx.Now().Before(f.waitUntil()) {
		f.Count, f.Last = f.Count+1, tx.Now()
	}
	if err := failed.Put(tx, f); err != nil {
		return err
	}
	f, err = getFailures(tx, addressKey(from))
	if err != nil {
		return err
	}
	if !tx.Now().Before(f.Last.Add(addressWindow)) {
		f.Count, f.Last = 0, tx.Now()
	}
	f.Count++
	if err := failed.Put(tx, f); err != nil {
		return err
	}
	return forgetOldFailures(tx)
}

// forgetOldFailures drops a few windows of networks that are over.
func forgetOldFailures(tx *store.Tx) error {
	n := 0
	for f, err := range failed.Scan(tx, "last", store.Range{To: store.TimePart(tx.Now().Add(-addressWindow))}) {
		if err != nil {
			return err
		}
		if n++; n == 16 {
			break
		}
		if reeve.ValidID("prin", f.Key) {
			continue
		}
		if err := failed.Delete(tx, f.Key); err != nil {
			return err
		}
	}
	return nil
}

func forgetFailures(tx *store.Tx, id reeve.PrincipalID) error {
	err := failed.Delete(tx, string(id))
	if reeve.KindOf(err) == reeve.NotFound {
		return nil
	}
	return err
}

// Unlock lets a principal that failed to sign in too often try again. The grantor must
// hold all that it holds.
func Unlock(tx *store.Tx, by audit.Actor, grantor Caller, id reeve.PrincipalID) (*Principal, error) {
	return change(tx, by, grantor, id, "principal.unlock", func(*Principal) (before, after map[string]string, err error) {
		return nil, nil, forgetFailures(tx, id)
	})
}
