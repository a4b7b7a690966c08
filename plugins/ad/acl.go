package main

import (
	"encoding/binary"
	"errors"
	"slices"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// Rights of an access mask (MS-ADTS 5.1.3.2).
const (
	rightCreateChild = 0x1
	rightDeleteChild = 0x2
	rightRead        = 0x10 // of attributes
	rightWrite       = 0x20 // of attributes
	rightExtended    = 0x100
	rightDelete      = 0x10000
)

// generic are rights that stand for others, as entries that are only inherited may still have them (MS-ADTS 5.1.3.2).
var generic = map[uint32]uint32{0x10000000: 0xF01FF, 0x20000000: 0x20004, 0x40000000: 0x20028, 0x80000000: 0x20094}

// ace is an entry of an access list (MS-DTYP 2.4.4).
type ace struct {
	deny, inherits, inheritOnly bool
	mask                        uint32
	object                      string // the GUID of the attribute, class or right it is about; empty: all
	class                       string // the GUID of the class of the objects that inherit it; empty: all
	sid                         string
}

// acl is an access list in its order, which decides.
type acl []ace

// everybody is the access list of an object that has none.
var everybody = acl{{mask: 0xFFFFFFFF, inherits: true, sid: "S-1-1-0"}}

// creatorOwner stands in entries for whoever makes the object that inherits them.
const creatorOwner = "S-1-3-0"

// allows reports whether who has all these SIDs holds a right. of are the GUIDs of what it is about, and of the set of
// attributes that belongs to: the first entry about one of them decides (MS-ADTS 5.1.3.3.2, for one right).
func (l acl) allows(sids []string, right uint32, of ...string) bool {
	for _, e := range l {
		if !e.inheritOnly && e.mask&right != 0 && (e.object == "" || slices.Contains(of, e.object)) && slices.Contains(sids, e.sid) {
			return !e.deny
		}
	}
	return false
}

// below is what a new object of a class right below gets of an access list.
func (l acl) below(class string) acl {
	var out acl
	for _, e := range l {
		if e.inherits && (e.class == "" || e.class == class) {
			e.inheritOnly = false
			out = append(out, e)
		}
	}
	return out
}

// Types and flags of entries, and what is present in an entry about objects (MS-DTYP 2.4.4.1, 2.4.4.3).
const (
	typeAllow, typeDeny             = 0, 1
	typeAllowObject, typeDenyObject = 5, 6
	flagInherits, flagInheritOnly   = 0x2, 0x8
	hasObject, hasClass             = 1, 2
	controlDACL                     = 0x4
)

// aclOf reads the access list of a security descriptor (MS-DTYP 2.4.6). Entries with conditions are left out: what they
// give depends on what is not known here.
func aclOf(b []byte) (acl, error) {
	malformed := sdk.Errorf(sdk.ClassProtocol, "the server's answer is malformed: a security descriptor cannot be read")
	if len(b) < 20 || b[0] != 1 {
		return nil, malformed
	}
	at := binary.LittleEndian.Uint32(b[16:])
	if b[2]&controlDACL == 0 || at == 0 {
		return everybody, nil
	}
	if uint64(at)+8 > uint64(len(b)) {
		return nil, malformed
	}
	list := b[at:]
	count, rest := binary.LittleEndian.Uint16(list[4:]), list[8:]
	out := acl{}
	for range count {
		if len(rest) < 4 {
			return nil, malformed
		}
		size := int(binary.LittleEndian.Uint16(rest[2:]))
		if size < 4 || size > len(rest) {
			return nil, malformed
		}
		e, known, err := aceOf(rest[:size])
		if err != nil {
			return nil, malformed
		}
		if known {
			out = append(out, e)
		}
		rest = rest[size:]
	}
	return out, nil
}

// aceOf reads an entry. One of an unknown kind is not known.
func aceOf(b []byte) (e ace, known bool, err error) {
	kind, flags := b[0], b[1]
	about := kind == typeAllowObject || kind == typeDenyObject
	if !about && kind != typeAllow && kind != typeDeny {
		return ace{}, false, nil
	}
	e = ace{deny: kind == typeDeny || kind == typeDenyObject, inherits: flags&flagInherits != 0, inheritOnly: flags&flagInheritOnly != 0}
	if len(b) < 12 {
		return ace{}, false, errShort
	}
	e.mask, b = binary.LittleEndian.Uint32(b[4:]), b[8:]
	for bit, means := range generic {
		if e.mask&bit != 0 {
			e.mask |= means
		}
	}
	if about {
		present := binary.LittleEndian.Uint32(b)
		b = b[4:]
		if e.object, b, err = guidIf(present&hasObject != 0, b); err == nil {
			e.class, b, err = guidIf(present&hasClass != 0, b)
		}
		if err != nil {
			return ace{}, false, err
		}
	}
	if len(b) < 8 || len(b) < 8+4*int(b[1]) { // what follows a SID is of no concern
		return ace{}, false, errShort
	}
	e.sid, err = sidString(b[:8+4*int(b[1])])
	return e, true, err
}

var errShort = errors.New("it is too short")

func guidIf(present bool, b []byte) (string, []byte, error) {
	if !present {
		return "", b, nil
	}
	if len(b) < 16 {
		return "", nil, errShort
	}
	text, err := guidText(b[:16])
	return text, b[16:], err
}
