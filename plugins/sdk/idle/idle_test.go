package idle

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// server gives connections, which are numbers, and knows which are dead and which were ended.
type server struct {
	mu    sync.Mutex
	last  int
	dead  []int
	ended []int
}

func (s *server) pool() *Pool[int] {
	return New(func(conn int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = append(s.ended, conn)
	})
}

func (s *server) dial(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return s.last, nil
}

func (s *server) works(_ context.Context, conn int) bool { return !slices.Contains(s.dead, conn) }

func (s *server) gone() []int {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.ended))
}

func borrow(t *testing.T, s *server, p *Pool[int], at sdk.Target, of string) (int, func(bool)) {
	t.Helper()
	conn, back, err := p.Borrow(t.Context(), at, of, s.dial, s.works)
	if err != nil {
		t.Fatal(err)
	}
	return conn, back
}

func target() sdk.Target {
	return sdk.Target{
		Address: "db", Port: 1, Options: map[string]string{"a": "b", "c": "d"},
		Management: sdk.Credential{Username: "m", Password: sdk.NewSecret([]byte("one"))},
	}
}

func TestOneConnectionHasOneUserAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		p := s.pool()
		a, backA := borrow(t, s, p, target(), "")
		b, backB := borrow(t, s, p, target(), "")
		backA(true)
		c, backC := borrow(t, s, p, target(), "")
		if a != 1 || b != 2 || c != 1 {
			t.Errorf("connections %d, %d and %d", a, b, c)
		}
		backB(true)
		backC(false)
		if d, _ := borrow(t, s, p, target(), ""); d != 2 {
			t.Errorf("connection %d", d)
		}
		if diff := cmp.Diff([]int{1}, s.gone()); diff != "" {
			t.Errorf("ended: %s", diff)
		}
	})
}

func TestConnectionsEndByThemselves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		p := s.pool()
		_, back := borrow(t, s, p, target(), "")
		back(true)
		time.Sleep(After - time.Second)
		if gone := s.gone(); len(gone) > 0 {
			t.Errorf("ended early: %v", gone)
		}
		time.Sleep(time.Second)
		if diff := cmp.Diff([]int{1}, s.gone()); diff != "" {
			t.Errorf("not used for %s: %s", After, diff)
		}
		began := time.Now()
		for conn := 0; conn <= 2; time.Sleep(After / 2) { // the second, for as long as it lasts
			if time.Since(began) > Most+After {
				t.Fatalf("a connection is used for longer than %s", Most)
			}
			conn, back = borrow(t, s, p, target(), "")
			back(true)
		}
		time.Sleep(After)
		_, back = borrow(t, s, p, target(), "")
		time.Sleep(2 * Most)
		back(true)
		if conn, back := borrow(t, s, p, target(), ""); conn != 5 {
			t.Errorf("connection %d is used after %s", conn, 2*Most)
		} else {
			back(false)
		}
		if diff := cmp.Diff([]int{1, 2, 3, 4, 5}, s.gone()); diff != "" {
			t.Errorf("older than %s: %s", Most, diff)
		}
		if len(p.free) > 0 {
			t.Errorf("%d are remembered", len(p.free))
		}
	})
}

// Whoever differs in anything that decides who he is or whom he trusts gets a connection of his own.
func TestConnectionsAreForOneKindOfUser(t *testing.T) {
	t.Parallel()
	others := map[string]func(*sdk.Target){
		"address":     func(t *sdk.Target) { t.Address = "db2" },
		"port":        func(t *sdk.Target) { t.Port = 2 },
		"host keys":   func(t *sdk.Target) { t.Trust.HostKeys = []string{"k"} },
		"certificate": func(t *sdk.Target) { t.Trust.CAPEM = "pem" },
		"server name": func(t *sdk.Target) { t.Trust.ServerName = "n" },
		"option":      func(t *sdk.Target) { t.Options = map[string]string{"a": "b", "c": "e"} },
		"user":        func(t *sdk.Target) { t.Management.Username = "n" },
		"password":    func(t *sdk.Target) { t.Management.Password = sdk.NewSecret([]byte("two")) },
		"private key": func(t *sdk.Target) { t.Management.PrivateKey = sdk.NewSecret([]byte("one")) },
	}
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		p := s.pool()
		seen := map[int]string{}
		use := func(what string, at sdk.Target, of string) {
			conn, back := borrow(t, s, p, at, of)
			back(true)
			if same, there := seen[conn]; there {
				t.Errorf("%s shares a connection with %s", what, same)
			}
			seen[conn] = what
		}
		use("the first", target(), "")
		use("another database", target(), "x")
		for what, change := range others {
			at := target()
			change(&at)
			use(what, at, "")
		}
		if conn, _ := borrow(t, s, p, target(), ""); conn != 1 {
			t.Errorf("the same gets connection %d", conn)
		}
		time.Sleep(Most)
		if gone := s.gone(); len(gone) != len(seen)-1 {
			t.Errorf("ended: %v", gone)
		}
	})
}

func TestDeadConnectionsAreReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		p := s.pool()
		var backs []func(bool)
		for range 3 {
			_, back := borrow(t, s, p, target(), "")
			backs = append(backs, back)
		}
		for _, back := range backs {
			back(true)
		}
		s.dead = []int{1, 2, 3}
		if conn, _ := borrow(t, s, p, target(), ""); conn != 4 {
			t.Errorf("connection %d", conn)
		}
		if diff := cmp.Diff([]int{1, 2, 3}, s.gone()); diff != "" {
			t.Errorf("ended: %s", diff)
		}
		time.Sleep(Most) // their timers end nothing twice
		if diff := cmp.Diff([]int{1, 2, 3}, s.gone()); diff != "" {
			t.Errorf("ended: %s", diff)
		}
	})
}

func TestAKeptConnectionThatIsSilentIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		p := s.pool()
		_, back := borrow(t, s, p, target(), "")
		back(true)
		began := time.Now()
		silent := func(ctx context.Context, _ int) bool { <-ctx.Done(); return false }
		conn, _, err := p.Borrow(t.Context(), target(), "", s.dial, silent)
		if err != nil || conn != 2 || time.Since(began) > tryIn {
			t.Errorf("connection %d after %s, %v", conn, time.Since(began), err)
		}
		refused := errors.New("refused")
		_, _, err = p.Borrow(t.Context(), target(), "x", func(context.Context) (int, error) { return 0, refused }, s.works)
		if !errors.Is(err, refused) {
			t.Error(err)
		}
	})
}
