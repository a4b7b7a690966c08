// Package wire is the Telnet protocol: it separates data from commands, negotiates the
// few options a program at the client's end needs, and nothing else. RFC 854 (protocol),
// 855 (options), 856 (binary), 857 (echo), 858 (suppress go ahead), 1073 (window size),
// 1091 (terminal type). Only package dialogue imports it.
package wire

import (
	"errors"
	"slices"
)

// Commands (RFC 854).
const (
	se   = 240
	sb   = 250
	will = 251
	wont = 252
	do   = 253
	dont = 254
	iac  = 255
)

// Options.
const (
	optBinary = 0  // RFC 856
	optEcho   = 1  // RFC 857
	optSGA    = 3  // RFC 858
	optTTYPE  = 24 // RFC 1091
	optNAWS   = 31 // RFC 1073
)

// TERMINAL-TYPE commands (RFC 1091).
const (
	ttypeIs   = 0
	ttypeSend = 1
)

// Bounds on what the other side may make us do.
const (
	maxSubnegotiation = 512  // bytes
	maxCommands       = 2000 // in one connection
)

// ErrProtocol is what breaks the protocol, or abuses it.
var ErrProtocol = errors.New("telnet: the other side does not keep to the protocol")

// Window and terminal type we claim: wide, so that nothing is wrapped, and without
// escape sequences.
const (
	Columns  = 512
	Rows     = 1000
	Terminal = "DUMB"
)

// decoder takes what the server sends, byte by byte. The zero value is ready.
type decoder struct {
	state    state
	command  byte   // will, wont, do, dont
	sub      []byte // of a subnegotiation
	commands int
	cr       bool // the last byte of data was CR

	local  [256]bool // options we do
	remote [256]bool // options the server does
	asked  map[byte]bool

	reply []byte // to send
}

type state int

const (
	inData state = iota
	afterIAC
	afterVerb
	inSub
	inSubIAC
)

// open returns what a client says first when it wants eight bits in both directions.
// The answers need no answer (RFC 854: no acknowledgement of a state one is in).
func (d *decoder) open() []byte {
	d.asked = map[byte]bool{will: true, do: true}
	return []byte{iac, will, optBinary, iac, do, optBinary}
}

// feed appends the data in p to data. What is to be answered is in d.reply.
func (d *decoder) feed(data, p []byte) ([]byte, error) {
	for _, b := range p {
		var err error
		if data, err = d.take(data, b); err != nil {
			return data, err
		}
	}
	return data, nil
}

func (d *decoder) take(data []byte, b byte) ([]byte, error) {
	switch d.state {
	case inData:
		if b == iac {
			d.state = afterIAC
			return data, nil
		}
		return d.data(data, b), nil
	case afterIAC:
		d.state = inData
		switch b {
		case iac:
			return d.data(data, iac), nil
		case will, wont, do, dont:
			d.state, d.command = afterVerb, b
			return data, d.count()
		case sb:
			d.state, d.sub = inSub, d.sub[:0]
			return data, d.count()
		default: // NOP, DM, GA and their kind ask for nothing
			return data, d.count()
		}
	case afterVerb:
		d.state = inData
		d.negotiate(d.command, b)
		return data, nil
	case inSub:
		if b == iac {
			d.state = inSubIAC
			return data, nil
		}
		return data, d.keep(b)
	case inSubIAC:
		switch b {
		case se:
			d.state = inData
			d.subnegotiate(d.sub)
			return data, nil
		case iac:
			d.state = inSub
			return data, d.keep(iac)
		default:
			return data, ErrProtocol
		}
	}
	return data, ErrProtocol
}

// data takes one byte of data: of CR NUL, the NUL means nothing (RFC 854, the NVT's CR).
func (d *decoder) data(to []byte, b byte) []byte {
	cr := d.cr
	d.cr = b == '\r'
	if b == 0 && (cr || !d.remote[optBinary]) {
		return to
	}
	return append(to, b)
}

func (d *decoder) count() error {
	if d.commands++; d.commands > maxCommands {
		return ErrProtocol
	}
	return nil
}

func (d *decoder) keep(b byte) error {
	if len(d.sub) >= maxSubnegotiation {
		return ErrProtocol
	}
	d.sub = append(d.sub, b)
	return nil
}

// negotiate answers one request. A state that does not change is not answered, so that
// two sides cannot answer each other for ever.
func (d *decoder) negotiate(verb, option byte) {
	table, ours, yes, no := &d.local, []byte{optBinary, optSGA, optTTYPE, optNAWS}, byte(will), byte(wont)
	if verb == will || verb == wont {
		table, ours, yes, no = &d.remote, []byte{optBinary, optEcho, optSGA}, do, dont
	}
	on := verb == will || verb == do
	answered := option == optBinary && d.asked[yes] // it answers our own request
	if answered {
		delete(d.asked, yes)
	}
	wanted := slices.Contains(ours, option)
	switch {
	case on && !wanted:
		d.reply = append(d.reply, iac, no, option)
	case on == table[option]:
	default:
		table[option] = on
		if answered {
			return
		}
		if on {
			d.reply = append(d.reply, iac, yes, option)
		} else {
			d.reply = append(d.reply, iac, no, option)
		}
		if on && verb == do && option == optNAWS {
			d.reply = append(d.reply, iac, sb, optNAWS, Columns>>8, Columns&0xff, Rows>>8, Rows&0xff, iac, se)
		}
	}
}

func (d *decoder) subnegotiate(sub []byte) {
	if d.local[optTTYPE] && len(sub) == 2 && sub[0] == optTTYPE && sub[1] == ttypeSend {
		d.reply = append(d.reply, iac, sb, optTTYPE, ttypeIs)
		d.reply = append(d.reply, Terminal...)
		d.reply = append(d.reply, iac, se)
	}
}

// encode appends text as it goes over the wire: IAC doubled, and a line feed as the end
// of a line. In binary that is CR alone, which a terminal's driver takes for the return
// key; otherwise CR NUL.
func (d *decoder) encode(to, text []byte) []byte {
	for _, b := range text {
		switch b {
		case iac:
			to = append(to, iac, iac)
		case '\n':
			to = append(to, '\r')
			if !d.local[optBinary] {
				to = append(to, 0)
			}
		default:
			to = append(to, b)
		}
	}
	return to
}
