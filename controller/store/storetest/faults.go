package storetest

import "sync"

// Fate is what becomes of a log entry.
type Fate int

// The fates.
const (
	Commit        Fate = iota // committed, and reported so
	CommitUnknown             // committed, but Update returns Kind OutcomeUnknown
	Lose                      // never committed, and Update returns Kind OutcomeUnknown
	Refuse                    // never committed, and Update returns Kind Unavailable
)

// Faults decides the fate of log entries. The zero Faults commits all of them. One
// entry may hold the write sets of several Updates that ran at the same time.
type Faults struct {
	mu    sync.Mutex
	fates []Fate
	gate  chan struct{} // nil or closed: entries pass
}

// Next sets the fates of the entries to come, one each; those after are committed.
func (f *Faults) Next(fates ...Fate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fates = append(f.fates, fates...)
}

// Hold delays all entries until release is called: Updates run and wait. An Update
// whose context ends meanwhile returns Kind OutcomeUnknown and is committed at release.
func (f *Faults) Hold() (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	gate := make(chan struct{})
	f.gate = gate
	return sync.OnceFunc(func() { close(gate) })
}

func (f *Faults) next() Fate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.fates) == 0 {
		return Commit
	}
	fate := f.fates[0]
	f.fates = f.fates[1:]
	return fate
}

var passing = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

func (f *Faults) open() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gate == nil {
		return passing
	}
	return f.gate
}
