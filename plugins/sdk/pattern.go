package sdk

import (
	"regexp"
	"sync"
)

// patternsKept bounds the patterns kept compiled: far more than a connector and its roles have.
const patternsKept = 256

// patterns are regular expressions compiled before. Each job checks the same few several times, and compiling them
// was a sixth of a connector's work.
var patterns = struct {
	sync.Mutex
	known map[string]*regexp.Regexp
}{known: map[string]*regexp.Regexp{}}

// compiled is regexp.Compile for patterns that come again.
func compiled(pattern string) (*regexp.Regexp, error) {
	patterns.Lock()
	re := patterns.known[pattern]
	patterns.Unlock()
	if re != nil {
		return re, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	patterns.Lock()
	defer patterns.Unlock()
	if len(patterns.known) >= patternsKept {
		clear(patterns.known)
	}
	patterns.known[pattern] = re
	return re, nil
}
