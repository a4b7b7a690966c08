package wire

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestOptionsAreNegotiatedOnce(t *testing.T) {
	t.Parallel()
	const naws = "\xff\xfa\x1f\x02\x00\x03\xe8\xff\xf0" // 512 columns, 1000 rows
	for name, c := range map[string]struct {
		in, data, reply string
		open            bool
	}{
		"plain text":                          {in: "login: ", data: "login: "},
		"a doubled IAC is data":               {in: "a\xff\xffb", data: "a\xffb"},
		"NUL after CR means nothing":          {in: "a\r\x00b\x00", data: "a\rb"},
		"echo and no go ahead are welcome":    {in: "\xff\xfb\x01\xff\xfb\x03", reply: "\xff\xfd\x01\xff\xfd\x03"},
		"what is agreed on is not said again": {in: "\xff\xfb\x01\xff\xfb\x01", reply: "\xff\xfd\x01"},
		"an end is agreed to, once":           {in: "\xff\xfb\x01\xff\xfc\x01\xff\xfc\x01", reply: "\xff\xfd\x01\xff\xfe\x01"},
		"unknown options are refused":         {in: "\xff\xfb\x26\xff\xfd\x20", reply: "\xff\xfe\x26\xff\xfc\x20"},
		"the window's size":                   {in: "\xff\xfd\x1f", reply: "\xff\xfb\x1f" + naws},
		"the terminal's type": {
			in: "\xff\xfd\x18\xff\xfa\x18\x01\xff\xf0", reply: "\xff\xfb\x18\xff\xfa\x18\x00DUMB\xff\xf0",
		},
		"a type nobody agreed to tell": {in: "\xff\xfa\x18\x01\xff\xf0"},
		"answers need no answer":       {in: "\xff\xfd\x00\xff\xfb\x00", open: true},
		"a refusal needs no answer":    {in: "\xff\xfe\x00\xff\xfc\x00", open: true},
		"binary that is ended later":   {in: "\xff\xfb\x00\xff\xfc\x00\xff\xfb\x00", reply: "\xff\xfe\x00\xff\xfd\x00", open: true},
		"commands without a meaning":   {in: "a\xff\xf1\xff\xf2\xff\xf9b", data: "ab"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var d decoder
			if c.open {
				d.open()
			}
			data, err := d.feed(nil, []byte(c.in))
			if err != nil || string(data) != c.data || string(d.reply) != c.reply {
				t.Errorf("data %q, reply %q, %v; want %q, %q", data, d.reply, err, c.data, c.reply)
			}
		})
	}
}

func TestLinesEndAsTheServerWantsThem(t *testing.T) {
	t.Parallel()
	var d decoder
	if got := d.encode(nil, []byte("a\xffb\n")); string(got) != "a\xff\xffb\r\x00" {
		t.Errorf("NVT: %q", got)
	}
	d.open()
	if _, err := d.feed(nil, []byte("\xff\xfd\x00")); err != nil {
		t.Fatal(err)
	}
	if got := d.encode(nil, []byte("ü\n")); string(got) != "ü\r" {
		t.Errorf("binary: %q", got)
	}
}

func TestFloodsOfCommandsEndTheConnection(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"options that go on and off":        strings.Repeat("\xff\xfb\x01\xff\xfc\x01", maxCommands),
		"a subnegotiation for ever":         "\xff\xfa\x18" + strings.Repeat("x", maxSubnegotiation+1),
		"a command within a subnegotiation": "\xff\xfa\x18\xff\xf1",
	} {
		var d decoder
		if _, err := d.feed(nil, []byte(in)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzDecoder feeds anything, whole and in two parts: the outcome is the same, never more
// data than came in, and a bounded answer.
func FuzzDecoder(f *testing.F) {
	for _, seed := range []string{
		"login: ", "\xff\xfb\x01\xff\xfd\x1f\xff\xfd\x18\xff\xfa\x18\x01\xff\xf0a\r\x00\xff\xff", "\xff\xfa\x00\xff\xff\xff\xf0", "\xff",
		"\xff\xfd\x00\xff\xfb\x00\xff\xfc\x00x\r\ny",
	} {
		f.Add([]byte(seed), 3, true)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int, open bool) {
		var whole, parts decoder
		if open {
			whole.open()
			parts.open()
		}
		a, errA := whole.feed(nil, in)
		cut = min(max(cut, 0), len(in))
		b, errB := parts.feed(nil, in[:cut])
		if errB == nil {
			b, errB = parts.feed(b, in[cut:])
		}
		if !bytes.Equal(a, b) || !bytes.Equal(whole.reply, parts.reply) || (errA == nil) != (errB == nil) {
			t.Errorf("whole: %q, %q, %v; in parts: %q, %q, %v", a, whole.reply, errA, b, parts.reply, errB)
		}
		if len(a) > len(in) || len(whole.reply) > 6*len(in) {
			t.Errorf("%d bytes of data and %d of answers came of %d", len(a), len(whole.reply), len(in))
		}
		// What we send is data to a decoder, and gives the text back.
		text := bytes.ReplaceAll(a, []byte("\r"), nil)
		text = bytes.ReplaceAll(text, []byte{0}, nil)
		var other decoder
		other.remote[optBinary] = whole.local[optBinary]
		back, err := other.feed(nil, whole.encode(nil, text))
		if err != nil || !bytes.Equal(bytes.ReplaceAll(back, []byte("\r"), []byte("\n")), text) || len(other.reply) > 0 {
			t.Errorf("%q came back as %q, %v", text, back, err)
		}
	})
}
