package tds

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"time"
)

// Tokens of replies, and bits of DONE's status. [MS-TDS] 2.2.7
const (
	tokenReturnStatus = 0x79
	tokenColumns      = 0x81
	tokenError        = 0xAA
	tokenInfo         = 0xAB
	tokenLoginAck     = 0xAD
	tokenFeatureAck   = 0xAE
	tokenRow          = 0xD1
	tokenEnvChange    = 0xE3
	tokenDone         = 0xFD
	tokenDoneProc     = 0xFE
	tokenDoneInProc   = 0xFF

	doneMore      = 0x01
	doneError     = 0x02
	doneCount     = 0x10
	doneAttention = 0x20
	doneFatal     = 0x100
)

// Kinds of ENVCHANGE.
const (
	envDatabase   = 1
	envLanguage   = 2
	envPacketSize = 4
	envCollation  = 7
	envBegin      = 8
	envCommit     = 9
	envRollback   = 10
	envReset      = 18
)

// collation is SQL_Latin1_General_CP1_CI_AS.
var collation = []byte{0x09, 0x04, 0xD0, 0x00, 0x34}

// Error is an answer of the server.
type Error struct {
	Number       int
	State, Class byte
	Message      string
}

// reply is the tokens of an answer.
type reply struct{ bytes.Buffer }

func (r *reply) u16(v int)    { r.Write(binary.LittleEndian.AppendUint16(nil, uint16(v))) }
func (r *reply) u32(v int)    { r.Write(binary.LittleEndian.AppendUint32(nil, uint32(v))) }
func (r *reply) u64(v uint64) { r.Write(binary.LittleEndian.AppendUint64(nil, v)) }

// short and long are texts with a length of one or two bytes.
func (r *reply) short(s string) {
	b := toUCS2(s)
	r.WriteByte(byte(len(b) / 2))
	r.Write(b)
}

func (r *reply) long(s string) {
	b := toUCS2(s)
	r.u16(len(b) / 2)
	r.Write(b)
}

// sized writes a token with a length of two bytes before its body.
func (r *reply) sized(token byte, body func(*reply)) {
	var b reply
	body(&b)
	r.WriteByte(token)
	r.u16(b.Len())
	r.Write(b.Bytes())
}

func (r *reply) envText(kind byte, now, before string) {
	r.sized(tokenEnvChange, func(b *reply) {
		b.WriteByte(kind)
		b.short(now)
		b.short(before)
	})
}

func (r *reply) envBytes(kind byte, now, before []byte) {
	r.sized(tokenEnvChange, func(b *reply) {
		b.WriteByte(kind)
		b.WriteByte(byte(len(now)))
		b.Write(now)
		b.WriteByte(byte(len(before)))
		b.Write(before)
	})
}

func (r *reply) message(token byte, e *Error) {
	r.sized(token, func(b *reply) {
		b.u32(e.Number)
		b.WriteByte(e.State)
		b.WriteByte(e.Class)
		b.long(e.Message)
		b.short("EMULATOR")
		b.short("")
		b.u32(1)
	})
}

func (r *reply) info(number int, message string) {
	r.message(tokenInfo, &Error{Number: number, State: 1, Message: message})
}

func (r *reply) done(token byte, status, command int, rows int) {
	r.WriteByte(token)
	r.u16(status)
	r.u16(command)
	r.u64(uint64(rows))
}

// welcome is the answer to a login that succeeded.
func (r *reply) welcome(l *loginRequest, database string, version [4]byte) {
	r.envText(envDatabase, database, "master")
	r.info(5701, "Changed database context to '"+database+"'.")
	r.envBytes(envCollation, collation, nil)
	r.envText(envLanguage, "us_english", "")
	r.info(5703, "Changed language setting to us_english.")
	r.sized(tokenLoginAck, func(b *reply) {
		b.WriteByte(1)
		b.Write(binary.BigEndian.AppendUint32(nil, l.version))
		b.short("Microsoft SQL Server")
		b.Write(version[:])
	})
	r.envText(envPacketSize, strconv.Itoa(int(l.packetSize)), "4096")
	if _, asked := l.features[featureUTF8]; asked {
		r.WriteByte(tokenFeatureAck)
		r.WriteByte(featureUTF8)
		r.u32(1)
		r.Write([]byte{1, preEnd})
	}
	r.done(tokenDone, 0, 0, 0)
}

// Types of columns. A value is nil, string, int64, bool, []byte or time.Time.
type kind byte

const (
	kindText   kind = 0xE7
	kindInt    kind = 0x26
	kindBit    kind = 0x68
	kindBinary kind = 0xA5
	kindTime   kind = 0x6F // datetime
)

type column struct {
	name string
	kind kind
}

const widest = 8000 // bytes of a value

func (r *reply) columns(columns []column) {
	r.WriteByte(tokenColumns)
	r.u16(len(columns))
	for _, c := range columns {
		r.u32(0)
		r.u16(1) // nullable
		r.WriteByte(byte(c.kind))
		switch c.kind {
		case kindBit:
			r.WriteByte(1)
		case kindInt, kindTime:
			r.WriteByte(8)
		case kindBinary:
			r.u16(widest)
		case kindText:
			r.u16(widest)
			r.Write(collation)
		}
		r.short(c.name)
	}
}

func (r *reply) row(columns []column, values []any) {
	r.WriteByte(tokenRow)
	for i, c := range columns {
		r.value(c.kind, values[i])
	}
}

func (r *reply) value(k kind, v any) {
	switch k {
	case kindText, kindBinary:
		b, ok := v.([]byte)
		if s, text := v.(string); text {
			b, ok = toUCS2(s), true
		}
		if !ok {
			r.u16(0xFFFF)
			return
		}
		b = b[:min(len(b), widest)]
		r.u16(len(b))
		r.Write(b)
	case kindInt:
		if n, ok := v.(int64); ok {
			r.WriteByte(8)
			r.u64(uint64(n))
			return
		}
		r.WriteByte(0)
	case kindBit:
		if set, ok := v.(bool); ok {
			r.Write([]byte{1, map[bool]byte{true: 1}[set]})
			return
		}
		r.WriteByte(0)
	case kindTime:
		t, ok := v.(time.Time)
		if !ok {
			r.WriteByte(0)
			return
		}
		since := t.Sub(time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC))
		days := since / (24 * time.Hour)
		r.WriteByte(8)
		r.u32(int(days))
		r.u32(int((since - days*24*time.Hour).Seconds() * 300))
	}
}
