package main

import (
	"strings"
	"testing"
)

// A QR code has a margin all around, and as many lines as half its width.
func TestAQRCodeIsDrawnWithItsMargin(t *testing.T) {
	t.Parallel()
	picture, err := qrText("otpauth://totp/Reeve:ada?algorithm=SHA1&digits=6&issuer=Reeve&period=30&secret=JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(picture, "\n"), "\n")
	for i, l := range lines {
		if n := len([]rune(l)); (n+1)/2 != len(lines) {
			t.Errorf("line %d has %d modules, %d lines", i, n, len(lines))
		}
		if !strings.HasPrefix(l, "████") || !strings.HasSuffix(l, "████") {
			t.Errorf("line %d has no margin: %s", i, l)
		}
	}
	if !strings.Contains(picture, "▄") {
		t.Error("nothing is drawn")
	}
}
