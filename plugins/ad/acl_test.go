package main

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

const (
	sidA, sidB   = "S-1-5-21-1-2-3-1001", "S-1-5-21-1-2-3-1002"
	guidA, guidB = "00299570-246d-11d0-a768-00aa006e0529", "bf967aba-0de6-11d0-a285-00aa003049e2"
)

func TestFirstEntryOfAnAccessListDecides(t *testing.T) {
	t.Parallel()
	allow := func(e ace) ace { e.mask, e.sid = rightWrite, sidA; return e }
	deny := func(e ace) ace { e = allow(e); e.deny = true; return e }
	for name, c := range map[string]struct {
		list acl
		want bool
	}{
		"nothing":                 {nil, false},
		"everything":              {acl{allow(ace{})}, true},
		"its own":                 {acl{allow(ace{object: guidA})}, true},
		"another's":               {acl{allow(ace{object: guidB})}, false},
		"denied before":           {acl{deny(ace{object: guidA}), allow(ace{})}, false},
		"denied after":            {acl{allow(ace{}), deny(ace{object: guidA})}, true},
		"another's denied before": {acl{deny(ace{object: guidB}), allow(ace{})}, true},
		"what is below":           {acl{allow(ace{inherits: true, inheritOnly: true})}, false},
		"somebody else":           {acl{{mask: rightWrite, sid: sidB}}, false},
		"another right":           {acl{{mask: rightRead, sid: sidA}}, false},
		"no list":                 {everybody, true},
	} {
		if got := c.list.allows([]string{sidA, "S-1-1-0"}, rightWrite, guidA); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
	list := acl{{mask: 1, sid: sidA}, {mask: 2, sid: sidA, inherits: true, inheritOnly: true, class: guidA}, {mask: 4, sid: sidA, inherits: true, class: guidB}}
	if got := list.below(guidA); len(got) != 1 || got[0].mask != 2 || got[0].inheritOnly {
		t.Errorf("below: %+v", got)
	}
}

// descriptorOf is a security descriptor with these entries, in hexadecimal with spaces.
func descriptorOf(t testing.TB, aces ...string) []byte {
	t.Helper()
	var all []byte
	for _, a := range aces {
		raw, err := hex.DecodeString(strings.ReplaceAll(a, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, raw...)
	}
	b := []byte{1, 0, 4, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 4, 0, 0, 0, byte(len(aces)), 0, 0, 0}
	binary.LittleEndian.PutUint16(b[22:], uint16(8+len(all)))
	return append(b, all...)
}

const (
	worldReads = "00 02 1400 10000000 01 01 000000000001 00000000"
	resets     = "05 0a 3800 00010000 03000000 709529006d24d011a76800aa006e0529 ba7a96bfe60dd011a28500aa003049e2 01 01 000000000001 00000000"
	genericAll = "00 0a 1400 00000010 01 01 000000000003 00000000"
	condition  = "09 00 1400 ff010f00 01 01 000000000001 00000000"
)

func TestSecurityDescriptorsAreRead(t *testing.T) {
	t.Parallel()
	got, err := aclOf(descriptorOf(t, condition, worldReads, resets, genericAll))
	want := acl{
		{inherits: true, mask: rightRead, sid: "S-1-1-0"},
		{inherits: true, inheritOnly: true, mask: rightExtended, object: guidA, class: guidB, sid: "S-1-1-0"},
		{inherits: true, inheritOnly: true, mask: 0x10000000 | full, sid: creatorOwner},
	}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
	if l, err := aclOf(descriptorOf(t)); err != nil || l == nil || len(l) != 0 {
		t.Errorf("an empty list: %+v, %v", l, err)
	}
	none := descriptorOf(t)
	none[2] = 0
	if l, err := aclOf(none); err != nil || !l.allows([]string{"S-1-1-0"}, rightWrite) {
		t.Errorf("no list: %+v, %v", l, err)
	}
}

func FuzzDescriptor(f *testing.F) {
	f.Add(descriptorOf(f, worldReads, resets, genericAll, condition))
	f.Add(descriptorOf(f))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := aclOf(raw)
		if err == nil && l == nil {
			t.Error("no list and no error")
		}
		for _, e := range l {
			if !strings.HasPrefix(e.sid, "S-1-") || e.object != "" && len(e.object) != 36 || e.class != "" && len(e.class) != 36 {
				t.Errorf("%+v", e)
			}
		}
	})
}
