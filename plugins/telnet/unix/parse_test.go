package unix

import (
	"strings"
	"testing"
)

// FuzzState reads anything as what stateScript printed: what is taken for an account is the one that was asked for.
func FuzzState(f *testing.F) {
	for _, seed := range []string{
		"passwd a:x:1000:1000:reeve acct_1 x:/home/a:/bin/bash\npassword set\naging 20000:0:99999:7::21000:\nhash 0123\ngroups a sudo\nsession 7\nend\n",
		"absent\nend\n", "end", "passwd b:x:0:0::/:\nend\n", "passwd a:x:-1:0::/:\nend\n", "aging 1\nend\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, ok := parseState(text, "a")
		if !ok {
			if s.exists {
				t.Error("an account came of what is not all there")
			}
			return
		}
		if s.exists != strings.Contains("\n"+text, "\npasswd a:") && s.exists {
			t.Errorf("%+v came of %q", s, text)
		}
		if s.uid < 0 || s.expires < -1 || s.changed < -1 {
			t.Errorf("%+v", s)
		}
		if facts := s.facts("a"); facts.Exists != s.exists || facts.Exists && facts.Identity == "" {
			t.Errorf("%+v", facts)
		}
	})
}

// FuzzProbe reads anything as what probeScript printed.
func FuzzProbe(f *testing.F) {
	f.Add("product debian\nversion 12\nkernel Linux 6\nmissing x\nunreadable shadow\nend\n")
	f.Add("product \nend")
	f.Fuzz(func(t *testing.T, text string) {
		if fp, ok := parseProbe(text); ok && (fp.Product == "" || fp.Version == "") {
			t.Errorf("%+v", fp)
		}
	})
}
