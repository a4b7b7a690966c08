//go:build linux

package testlab

import (
	"fmt"
	"strings"
	"testing"
)

// recorder is a test that notes how it ended instead of ending.
type recorder struct {
	testing.TB
	ended string
}

func (r *recorder) Helper() {}

func (r *recorder) end(how, format string, args ...any) {
	r.ended = how + ": " + fmt.Sprintf(format, args...)
	panic(r)
}
func (r *recorder) Skip(args ...any)                  { r.end("skip", "%s", fmt.Sprint(args...)) }
func (r *recorder) Skipf(format string, args ...any)  { r.end("skip", format, args...) }
func (r *recorder) Fatalf(format string, args ...any) { r.end("fatal", format, args...) }

func TestPolicyDecidesWhatAMissingProgramMeans(t *testing.T) {
	missing := newNeed("reeved", program("no-such-program", "no-such-package", "-V"))
	present := newNeed("sh", program("true", "coreutils", "--version"))
	for _, c := range []struct {
		policy string
		need   need
		want   []string // "" alone: the test goes on
	}{
		{"", present, []string{""}},
		{"", missing, []string{"skip", "apt-get install", "no-such-package"}},
		{"auto", missing, []string{"skip", "apt-get install", "no-such-package"}},
		{"require", missing, []string{"fatal", "apt-get install", "no-such-package"}},
		{"require", present, []string{""}},
		{"off", present, []string{"skip", "REEVE_LAB=off"}},
	} {
		t.Setenv("REEVE_LAB", c.policy)
		r := &recorder{TB: t}
		func() {
			defer func() {
				if p := recover(); p != nil && p != any(r) {
					panic(p)
				}
			}()
			demand(r, c.need)
		}()
		for _, want := range c.want {
			if !strings.Contains(r.ended, want) || (want == "" && r.ended != "") {
				t.Errorf("REEVE_LAB=%q with %s: ended %q, want %q in it", c.policy, c.need.name, r.ended, want)
			}
		}
	}
}
