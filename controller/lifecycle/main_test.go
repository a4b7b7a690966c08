package lifecycle

import (
	"flag"
	"os"
	"testing"
)

// TestMain plays fewer random histories than rapid would by itself: each is a store and
// hours of fake time. -rapid.checks asks for more.
func TestMain(m *testing.M) {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "rapid.checks" })
	if !asked {
		if err := flag.Set("rapid.checks", "30"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
