package main

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

const sampleReceive = `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" ` +
	`xmlns:rsp="http://schemas.microsoft.com/wbem/wsman/1/windows/shell"><s:Header><a:Action>x</a:Action></s:Header><s:Body><rsp:ReceiveResponse>` +
	`<rsp:Stream Name="stdout" CommandId="A-1">aGk=</rsp:Stream><rsp:Stream Name="stderr" CommandId="A-1">b2g=</rsp:Stream>` +
	`<rsp:CommandState CommandId="A-1" State="http://schemas.microsoft.com/wbem/wsman/1/windows/shell/CommandState/Done">` +
	`<rsp:ExitCode>3221225786</rsp:ExitCode></rsp:CommandState></rsp:ReceiveResponse></s:Body></s:Envelope>`

func TestAnAnswerIsReadWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	e, err := parseEnvelope([]byte(sampleReceive))
	if err != nil {
		t.Fatal(err)
	}
	pieces, done, exit, err := e.received("a-1")
	if err != nil || !done || exit != -1073741510 || len(pieces) != 2 || string(pieces[0].data) != "hi" || !pieces[1].stderr {
		t.Errorf("%+v, %t, %d, %v", pieces, done, exit, err)
	}
	if _, _, _, err := e.received("another"); err == nil {
		t.Error("the output of another command was taken")
	}
	for name, change := range map[string][2]string{
		"no base64":      {"aGk=", "aG!="},
		"no exit status": {"3221225786", "x"},
		"another state":  {"CommandState/Done", "CommandState/Odd"},
		"another stream": {`Name="stderr"`, `Name="stdin"`},
	} {
		e, err := parseEnvelope([]byte(strings.Replace(sampleReceive, change[0], change[1], 1)))
		if err == nil {
			_, _, _, err = e.received("A-1")
		}
		if err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	for _, bad := range []string{"", " ", "<a/>", sampleReceive[:len(sampleReceive)-3], sampleReceive + "<x/>", sampleReceive + "x", "\xff", "<!DOCTYPE x><a/>"} {
		if _, err := parseEnvelope([]byte(bad)); err == nil {
			t.Errorf("%.40q was taken", bad)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(sampleReceive))
	f.Add([]byte(strings.Replace(sampleReceive, "aGk=", "", 1)))
	f.Add([]byte(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault><s:Detail>` +
		`<f:WSManFault xmlns:f="x" Code="2150858793"/></s:Detail></s:Fault></s:Body></s:Envelope>`))
	f.Add([]byte(`<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"/>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := parseEnvelope(body)
		if err != nil {
			return
		}
		for _, id := range []string{e.shellID(), e.commandID()} {
			if strings.ContainsAny(id, "<>&\"' ") || len(id) > 64 {
				t.Fatalf("%q would go into a request", id)
			}
		}
		if code, failed := e.fault(); code != 0 && !failed {
			t.Fatal("a number of no fault")
		}
		pieces, done, exit, err := e.received("A-1")
		if err != nil && (pieces != nil || done || exit != 0) {
			t.Fatal("output beside an error")
		}
	})
}

func challenge(pairs ...[]byte) []byte {
	info := bytes.Join(pairs, nil)
	c := make([]byte, 48)
	copy(c, "NTLMSSP\x00\x02")
	binary.LittleEndian.PutUint32(c[20:], 0xa0888205)
	binary.LittleEndian.PutUint16(c[40:], uint16(len(info)))
	binary.LittleEndian.PutUint16(c[42:], uint16(len(info)))
	binary.LittleEndian.PutUint32(c[44:], 48)
	return append(c, info...)
}

func TestTheBindingTakesThePlaceOfOneTheServerSent(t *testing.T) {
	t.Parallel()
	end := []byte{0, 0, 0, 0}
	name := []byte{2, 0, 2, 0, 'X', 0}
	theirs := append([]byte{10, 0, 16, 0}, make([]byte, 16)...)
	binding := bytes.Repeat([]byte{7}, 16)
	out, err := bound(challenge(name, theirs, end), binding)
	if err != nil {
		t.Fatal(err)
	}
	at := binary.LittleEndian.Uint32(out[44:])
	want := bytes.Join([][]byte{name, {10, 0, 16, 0}, binding, end}, nil)
	if got := out[at:]; !bytes.Equal(got, want) || int(binary.LittleEndian.Uint16(out[40:])) != len(want) {
		t.Errorf("%x, want %x", got, want)
	}
	for _, bad := range [][]byte{nil, challenge(), challenge(name), challenge([]byte{2, 0, 200, 0}), challenge(name, end)[:50]} {
		if _, err := bound(bad, binding); err == nil {
			t.Errorf("%x was taken", bad)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	f.Add(challenge([]byte{2, 0, 2, 0, 'X', 0}, []byte{0, 0, 0, 0}))
	f.Add(challenge([]byte{7, 0, 8, 0, 1, 2, 3, 4, 5, 6, 7, 8}, []byte{0, 0, 0, 0}))
	f.Add([]byte("NTLMSSP\x00\x02"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, message []byte) {
		proof, err := authenticate(message, bytes.Repeat([]byte{7}, 16), "alice", "Correct-Horse7")
		if err == nil && !bytes.Contains(proof, bytes.Repeat([]byte{7}, 16)) {
			t.Fatal("a proof without the binding")
		}
		if bytes.Contains(proof, []byte("Correct-Horse7")) || bytes.Contains(proof, []byte("C\x00o\x00r\x00r\x00e\x00c\x00t\x00")) {
			t.Fatal("the password itself was sent")
		}
	})
}
