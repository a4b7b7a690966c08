package sdk

import (
	"fmt"
	"sync"
	"testing"
)

// Patterns come with roles, over the wire: however many there are, few are kept, and each means itself.
func TestPatternsAreKeptWithinABound(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 2 * patternsKept {
				word := fmt.Sprintf("w%d_%d", w, i/2) // each twice: compiled, then found
				rule := NameRule{Pattern: "^" + word + "$", Help: "one word"}
				if err := rule.Check(word); err != nil {
					t.Error(err)
				}
				if rule.Check(word+"x") == nil {
					t.Errorf("%s took another name", rule.Pattern)
				}
			}
		})
	}
	wg.Wait()
	patterns.Lock()
	defer patterns.Unlock()
	if n := len(patterns.known); n == 0 || n > patternsKept {
		t.Errorf("%d patterns are kept", n)
	}
}

func TestAPatternThatIsNoneStaysAnError(t *testing.T) {
	t.Parallel()
	for range 2 {
		if err := (NameRule{Pattern: "^($"}).Check("a"); ClassOf(err) != ClassInternal {
			t.Errorf("got %v", err)
		}
	}
}
