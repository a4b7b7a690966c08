package sdk

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsGivenBackOnceAfterEachBurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rests := 0
		i := &idle{rest: func() { rests++ }}
		want := func(n int) {
			t.Helper()
			synctest.Wait()
			if rests != n {
				t.Errorf("given back %d times, want %d", rests, n)
			}
		}
		i.begin()
		i.begin()
		i.end()
		time.Sleep(3 * idleAfter) // one call is still at work
		want(0)
		i.end()
		time.Sleep(idleAfter / 2)
		i.begin() // before it was time
		time.Sleep(3 * idleAfter)
		want(0)
		i.end()
		time.Sleep(10 * idleAfter)
		want(1)
		i.begin()
		i.end()
		time.Sleep(10 * idleAfter)
		want(2)
	})
}
