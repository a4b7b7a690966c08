package sdktest

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func TestPasswordsAreFoundOnTheWire(t *testing.T) {
	t.Parallel()
	const password = "Aa1.Right-Pässword/7"
	found := map[string]string{
		"plain": "login alice " + password + "\r\n", "utf-16": "\x00" + string(utf16Of(password)),
		"hex": "A'" + strings.ToUpper(hex.EncodeToString([]byte(password))) + "'", "hex of utf-16": hex.EncodeToString(utf16Of(password)),
		"url": "p=Aa1.Right-P%C3%A4ssword%2F7&x=1",
	}
	for n := range 4 { // as in Authorization: Basic, behind names of any length
		user := strings.Repeat("a", n)
		found[fmt.Sprint("base64 behind ", n)] = base64.StdEncoding.EncodeToString([]byte(user + ":" + password + "\n"))
		found[fmt.Sprint("base64 of utf-16 behind ", n)] = base64.StdEncoding.EncodeToString(append([]byte(user), utf16Of(password+"'")...))
	}
	for name, stream := range found {
		if inClear([]byte(stream), password) == "" {
			t.Errorf("%s: not found", name)
		}
		if form := inClear([]byte(stream), "Aa1.Another-Pässword/7"); form != "" {
			t.Errorf("%s: found another one, %s", name, form)
		}
	}
}
