package sdk

import (
	"sync"
	"time"
)

// idleAfter is how long a connector has nothing to do before it gives memory back.
const idleAfter = 5 * time.Second

// idle calls rest each time nothing has been at work for idleAfter. What a burst of
// jobs needed would otherwise stay with a process that may wait for hours: Go returns
// free memory only slowly, and collects none while nothing is allocated.
type idle struct {
	rest func() // nil: nothing is done

	mu    sync.Mutex
	busy  int
	timer *time.Timer
}

func (i *idle) begin() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.busy++
	if i.timer != nil {
		i.timer.Stop()
	}
}

func (i *idle) end() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.busy--
	switch {
	case i.busy > 0 || i.rest == nil:
	case i.timer == nil:
		i.timer = time.AfterFunc(idleAfter, i.rest)
	default:
		i.timer.Reset(idleAfter)
	}
}
