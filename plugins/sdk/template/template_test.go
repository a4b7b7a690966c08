package template_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/reeve-pam/reeve/plugins/sdk/template"
)

func TestExpand(t *testing.T) {
	t.Parallel()
	values := map[string]string{"Username": "alice", "P_1": "%Username% '%%"}
	value := func(name string) (string, error) {
		v, ok := values[name]
		if !ok {
			return "", errors.New("unknown")
		}
		return v, nil
	}
	for in, want := range map[string]string{
		"":                       "",
		"plain":                  "plain",
		"%Username%":             "alice",
		"a %Username% b %P_1% c": "a alice b %Username% '%% c", // values are not looked at again
		"100%%":                  "100%",
		"%%Username%%":           "%Username%",
		"%Username%%Username%":   "alicealice",
	} {
		if got, err := template.Expand(in, value); err != nil || got != want {
			t.Errorf("Expand(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"%", "100% sure", "%Username", "%not a name%", "%1%", "%Unknown%", "a % b % c", "%%%"} {
		if got, err := template.Expand(in, value); err == nil {
			t.Errorf("Expand(%q) = %q, want an error", in, got)
		}
	}
}

func TestPlaceholdersAreListedOnce(t *testing.T) {
	t.Parallel()
	got, err := template.Placeholders("%B% %A% %% %B%")
	if err != nil || !slices.Equal(got, []string{"B", "A"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// FuzzExpand: a template that is accepted keeps all of its text in order, and the value
// of a placeholder cannot change how the rest is read.
func FuzzExpand(f *testing.F) {
	f.Add("user %Username% 100%% %P%", "val%ue")
	f.Add("%%%Username%", "%")
	f.Fuzz(func(t *testing.T, command, v string) {
		names, err := template.Placeholders(command)
		if err != nil {
			return
		}
		count := 0
		got, err := template.Expand(command, func(name string) (string, error) {
			if !slices.Contains(names, name) {
				t.Errorf("%q was not listed", name)
			}
			count++
			return v, nil
		})
		if err != nil {
			t.Fatalf("listed but not expanded: %v", err)
		}
		bare, err := template.Expand(command, func(string) (string, error) { return "", nil })
		if err != nil || len(got) != len(bare)+count*len(v) {
			t.Errorf("Expand(%q) = %q with %d values of %q; without %q", command, got, count, v, bare)
		}
		if count == 0 && strings.ReplaceAll(command, "%%", "%") != got {
			t.Errorf("text changed: %q to %q", command, got)
		}
	})
}
