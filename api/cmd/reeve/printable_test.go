package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// A log can hold what an agent or a target makes it hold: nothing of it steers the
// terminal, makes lines of its own, or turns the direction of what follows.
func TestALogNeverSteersTheTerminal_J6(t *testing.T) {
	t.Parallel()
	evil := "red \x1b[31m clear \x1b[2J title \x1b]0;pwned\x07 back \r over\x08\x08 csi \u009b31m del \x7f bidi \u202e nul \x00 line\nnew"
	quoted, err := json.Marshal(map[string]string{"time": "2026-11-22T15:03:05Z", "step": "a\x1b[1m", "message": evil})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"message": string(quoted), "no JSON": "raw \x1b[31m \x07 \xff \u202e"} {
		context, _ := logServer(t, event("1.0.10", "log", data)+event("1.0.10", "end",
			`{"id":"job_1","operation":"rotate","state":"failed","error":{"class":"auth_failed","message":"refused \u001b[2J","fix":"look \u0007"}}`))
		res := invoke(t.Context(), "", "--context", context, "job", "logs", "-f", "job_1")
		if shown := res.out + res.err; strings.ContainsAny(shown, "\x1b\x07\r\x08\x7f\x00\u009b\u202e") || !strings.Contains(shown, `\u001b[31m`) || !strings.Contains(shown, `\u001b[2J`) {
			t.Errorf("%s: %q", name, shown)
		}
		if n := strings.Count(res.out+res.err, "\n"); n > 4 {
			t.Errorf("%s: the log makes %d lines:\n%s", name, n, res.out+res.err)
		}
	}
}

// In JSON the escapes mean what was there.
func TestPrintableJSONMeansTheSame(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"plain é € 😀\ttab", "\u009b \u202e \u2028 \x7f", "line\nbreak"} {
		var out bytes.Buffer
		enc := json.NewEncoder(printable{&out})
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got != s {
			t.Errorf("%q became %q (%v)", s, got, err)
		}
	}
}
