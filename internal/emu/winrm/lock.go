package winrm

import "time"

// locked are the scripts that wait for each other if they are given the same lock.
var locked = map[string]bool{
	"read": true, "create": true, "password": true, "enable": true, "disable": true, "sessions": true, "remove": true, "role": true, "right": true,
}

// Stalled is a script that has begun, has its lock, and does not go on.
type Stalled struct {
	Began     chan struct{} // closed when it has begun
	continues chan struct{}
}

// Stall lets the next script of that name stall.
func (h *Host) Stall(script string) *Stalled {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &Stalled{Began: make(chan struct{}), continues: make(chan struct{})}
	h.stalls[script] = s
	return s
}

// Continue lets the script go on.
func (s *Stalled) Continue() { close(s.continues) }

// stall waits if the script was told to, and reports whether its process is still there.
func (h *Host) stall(name string, stop <-chan struct{}) bool {
	h.mu.Lock()
	s := h.stalls[name]
	delete(h.stalls, name)
	h.mu.Unlock()
	if s == nil {
		return true
	}
	close(s.Began)
	select {
	case <-s.continues:
		return true
	case <-stop:
		return false
	}
}

// Waits has a value when a script has begun to wait for another one.
func (h *Host) Waits() <-chan struct{} { return h.waits }

// take is the model of the part "lock" of scripts: a file that is open for one process. release is nil if it was not to be had in time;
// alive is false if the process was stopped meanwhile.
func (h *Host) take(lock string, stop <-chan struct{}) (release func(), alive bool) {
	limit := time.NewTimer(h.LockWait)
	defer limit.Stop()
	for {
		h.mu.Lock()
		taken := h.locks[lock]
		if taken == nil {
			mine := make(chan struct{})
			h.locks[lock] = mine
			h.mu.Unlock()
			return func() {
				h.mu.Lock()
				delete(h.locks, lock)
				h.mu.Unlock()
				close(mine)
			}, true
		}
		h.mu.Unlock()
		select {
		case h.waits <- struct{}{}:
		default:
		}
		select {
		case <-taken:
		case <-limit.C:
			return nil, true
		case <-stop:
			return nil, false
		}
	}
}
