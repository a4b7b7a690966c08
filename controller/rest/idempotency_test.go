package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/identity"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// as is the context a handler gets for a call by a principal.
func as(principal, method, path string) *gin.Context {
	c, _ := gin.CreateTestContext(httptest.NewRecorder())
	c.Request = httptest.NewRequest(method, path, nil)
	if principal != "" {
		c.Set(permissionKey, &permission{who: identity.Caller{Principal: identity.Principal{ID: reeve.PrincipalID(principal), Kind: identity.User}}, rule: rule{access: own}})
	}
	return c
}

type answer struct{ N int64 }

func TestAnIdempotencyKeyMakesACallHappenOnce(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s := &Server{Config: Config{Store: storetest.New(t, storetest.WithClock(clock.Now)), Node: "node_1"}}
	var done int64 // how often the work was done and kept
	call := func(c *gin.Context, key string, body any) (answer, error) {
		return update(c, s, &key, body, func(*store.Tx, audit.Actor) (answer, error) {
			done++
			return answer{done}, nil
		})
	}
	expect := func(what string, want int64, code string, c *gin.Context, key string, body any) {
		t.Helper()
		if got, err := call(c, key, body); reeve.CodeOf(err) != code || (err == nil && got.N != want) {
			t.Errorf("%s: %+v %v, want %d %s", what, got, err, want, code)
		}
	}
	body := map[string]string{"name": "dmz"}
	expect("first", 1, "", as("prin_1", "POST", "/v1/sites"), "key-0001", body)
	expect("again", 1, "", as("prin_1", "POST", "/v1/sites"), "key-0001", body)
	expect("another body", 0, "idempotency_key_reused", as("prin_1", "POST", "/v1/sites"), "key-0001", map[string]string{"name": canary})
	expect("another route", 0, "idempotency_key_reused", as("prin_1", "POST", "/v1/assets"), "key-0001", body)
	expect("another method", 0, "idempotency_key_reused", as("prin_1", "PUT", "/v1/sites"), "key-0001", body)
	expect("another principal", 2, "", as("prin_2", "POST", "/v1/sites"), "key-0001", body)
	expect("another key", 3, "", as("prin_1", "POST", "/v1/sites"), "key-0002", body)
	if _, err := update(as("prin_1", "POST", "/v1/sites"), s, nil, body, func(*store.Tx, audit.Actor) (answer, error) {
		done++
		return answer{done}, nil
	}); err != nil || done != 4 {
		t.Errorf("without a key: %d %v", done, err)
	}
	clock.Advance(replayFor + time.Second)
	for i := range 3 { // these carry old keys away
		expect("later", int64(5+i), "", as("prin_3", "POST", "/v1/sites"), fmt.Sprint("key-later-", i), body)
	}
	expect("the first, a day later", 8, "", as("prin_1", "POST", "/v1/sites"), "key-0001", body)
}

func TestAFailedCallMayBeRepeatedWithItsKey(t *testing.T) {
	t.Parallel()
	s := &Server{Config: Config{Store: storetest.New(t)}}
	key, fail := "key-0001", errors.New("no")
	call := func(err error) (answer, error) {
		return update(as("prin_1", "POST", "/v1/sites"), s, &key, nil, func(*store.Tx, audit.Actor) (answer, error) { return answer{7}, err })
	}
	if _, err := call(fail); !errors.Is(err, fail) {
		t.Fatal(err)
	}
	if got, err := call(nil); err != nil || got.N != 7 {
		t.Fatalf("%+v %v", got, err)
	}
}

func TestConcurrentDuplicatesHappenOnce(t *testing.T) {
	t.Parallel()
	s := &Server{Config: Config{Store: storetest.New(t)}}
	counters := store.NewTable("counter", store.Key(func(*counter) string { return "one" }))
	key := "key-0001"
	var g sync.WaitGroup
	var wrong atomic.Int64
	for range 16 {
		g.Go(func() {
			got, err := update(as("prin_1", "POST", "/v1/sites"), s, &key, nil, func(tx *store.Tx, _ audit.Actor) (answer, error) {
				n, err := counters.Get(tx, "one")
				if reeve.KindOf(err) == reeve.NotFound {
					n, err = &counter{}, nil
				}
				if err != nil {
					return answer{}, err
				}
				n.N++
				return answer{n.N}, counters.Put(tx, n)
			})
			if err != nil || got.N != 1 {
				wrong.Add(1)
			}
		})
	}
	g.Wait()
	if wrong.Load() != 0 {
		t.Errorf("%d of 16 calls were not answered with the one result", wrong.Load())
	}
	if err := s.Store.View(t.Context(), func(tx *store.Tx) error {
		n, err := counters.Get(tx, "one")
		if err == nil && n.N != 1 {
			t.Errorf("it happened %d times", n.N)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

type counter struct {
	N int64 `cbor:"1,keyasint"`
}

func TestKeysAreForgottenAFewAtATime(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s := &Server{Config: Config{Store: storetest.New(t, storetest.WithClock(clock.Now))}}
	put := func(key string) {
		t.Helper()
		if _, err := update(as("prin_1", "POST", "/v1/sites"), s, &key, nil, func(*store.Tx, audit.Actor) (none, error) { return none{}, nil }); err != nil {
			t.Fatal(err)
		}
	}
	kept := func() (n int) {
		t.Helper()
		if err := s.Store.View(t.Context(), func(tx *store.Tx) error {
			for _, err := range replays.List(tx, "") {
				if err != nil {
					return err
				}
				n++
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range 20 {
		put(fmt.Sprintf("key-%04d", i))
	}
	clock.Advance(replayFor + time.Second)
	put("key-after-1")
	if got := kept(); got != 13 {
		t.Errorf("%d are kept, want 20-8+1", got)
	}
	put("key-after-2")
	put("key-after-3")
	if got := kept(); got != 3 {
		t.Errorf("%d are kept, want the three new ones", got)
	}
}

// FuzzAuthorization: no header but that with the token itself gets in, all others are
// refused with one of three codes, and none is quoted.
func FuzzAuthorization(f *testing.F) {
	st := storetest.New(f)
	var good reeve.Secret
	if err := st.Update(context.Background(), func(tx *store.Tx) error {
		p, err := identity.CreatePrincipal(tx, audit.System("test"), "ada", identity.User, identity.Profile{})
		if err == nil {
			_, good, err = identity.CreateToken(tx, audit.System("test"), identity.NewToken{Principal: p.ID})
		}
		return err
	}); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", "Bearer", "Bearer ", "Basic " + canary, "Bearer " + canary, "bearer  x", "Bearer reevet_", "Bearer " + identity.TokenPrefix + strings.Repeat("a", 58)} {
		f.Add(seed)
	}
	check := func(header string) error {
		secret, err := bearer(header)
		if err != nil {
			return err
		}
		return st.View(context.Background(), func(tx *store.Tx) error {
			_, err := identity.Authenticate(tx, secret, netip.Addr{})
			return err
		})
	}
	if err := check("bEaReR " + good.Reveal()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, header string) {
		err := check(header)
		p := problemOf(err, "")
		switch {
		case err == nil:
			t.Fatalf("%q was let in", header)
		case p.Status != http.StatusUnauthorized:
			t.Fatalf("%d %s", p.Status, p.Code)
		case len(header) > 20 && strings.Contains(err.Error(), header):
			t.Fatalf("it is quoted: %v", err)
		}
	})
}

func TestAnExpiredTokenHasItsOwnCode_Z4(t *testing.T) {
	t.Parallel()
	clock := storetest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	st := storetest.New(t, storetest.WithClock(clock.Now))
	var token reeve.Secret
	if err := st.Update(t.Context(), func(tx *store.Tx) error {
		p, err := identity.CreatePrincipal(tx, audit.System("test"), "ada", identity.User, identity.Profile{})
		if err == nil {
			_, token, err = identity.CreateToken(tx, audit.System("test"), identity.NewToken{Principal: p.ID, Expires: clock.Now().Add(time.Minute)})
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	clock.Advance(time.Minute)
	err := st.View(t.Context(), func(tx *store.Tx) error {
		_, err := identity.Authenticate(tx, token, netip.Addr{})
		return err
	})
	if p := problemOf(err, ""); p.Status != http.StatusUnauthorized || p.Code != "token_expired" {
		t.Errorf("%+v", p)
	}
}
