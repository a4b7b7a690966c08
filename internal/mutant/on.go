//go:build mutants

package mutant

import (
	"os"
	"sync/atomic"
)

// Built says whether mutants are compiled in.
const Built = true

var active atomic.Pointer[Name]

func init() { Set(Name(os.Getenv("REEVE_MUTANT"))) }

// Is says whether the mutant is active.
func Is(n Name) bool { return *active.Load() == n }

// Set makes n the active mutant of this process; "" means none.
func Set(n Name) { active.Store(&n) }
