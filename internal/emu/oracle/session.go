package oracle

import (
	"errors"
	"fmt"
	"io"
)

// TTC messages.
const (
	msgProtocol  = 0x01
	msgDataTypes = 0x02
	msgCall      = 0x03
	msgError     = 0x04 // the summary of a call
	msgRowHeader = 0x06
	msgRow       = 0x07
	msgParameter = 0x08
	msgStatus    = 0x09
	msgDescribe  = 0x10
	msgPiggyback = 0x11
	msgServer    = 0x17
	msgNegotiate = 0xDE // the first byte of an advanced negotiation
)

// Functions of calls.
const (
	callFetch        = 0x05
	callLogoff       = 0x09
	callCommit       = 0x0E
	callRollback     = 0x0F
	callVersion      = 0x3B
	callExecute      = 0x5E
	callCloseCursors = 0x69
	callLogin        = 0x73
	callSessionKey   = 0x76
	callPing         = 0x93
)

// session is what a client does on one connection.
type session struct {
	server *Server
	link   *link
	field  byte // version that decides which optional fields there are

	convLength bool // texts carry their own length
	in         []byte
	login      *login
	entry      *entry // in V$SESSION; nil before the login
	cursors    map[uint64]*cursor
	lastCursor uint64
}

var errBreak = errors.New("the client asked to break off")

// more reads the next packet with data.
func (s *session) more() error {
	for {
		kind, body, err := s.link.read()
		if err != nil {
			return err
		}
		switch {
		case kind == packetMarker && len(body) >= 3 && (body[2] == markerInterrupt || body[2] == markerBreak):
			return errBreak
		case kind == packetMarker:
		case kind != packetData || len(body) < 2:
			return notEmulated(fmt.Sprintf("a packet of kind %d in a session", kind))
		case body[1]&dataEOF != 0:
			return io.EOF
		default:
			s.in = append(s.in, body[2:]...)
			return nil
		}
	}
}

// parse reads one message with f, which is called again when more of it has come.
func (s *session) parse(f func(r *reader)) error {
	for {
		if len(s.in) > 0 {
			r := &reader{b: s.in}
			f(r)
			if r.wrong {
				return notEmulated(fmt.Sprintf("a message that cannot be read: % x", s.in[:min(len(s.in), 64)]))
			}
			if !r.short {
				s.in = s.in[r.at:]
				return nil
			}
		}
		if err := s.more(); err != nil {
			return err
		}
	}
}

// peek returns the first bytes of the next message.
func (s *session) peek() (message, function byte, err error) {
	err = s.parse(func(r *reader) {
		message, function = r.byte(), 0
		if message == msgCall || message == msgPiggyback {
			function = r.byte()
		}
		if !r.short {
			r.at = 0
		}
	})
	return message, function, err
}

func (s *session) loop() error {
	for {
		message, function, err := s.peek()
		if errors.Is(err, errBreak) { // there was nothing to break off any more
			if err := s.brokenOff(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		switch message {
		case msgNegotiate:
			err = s.negotiate()
		case msgProtocol:
			err = s.protocol()
		case msgDataTypes:
			err = s.dataTypes()
		case msgPiggyback:
			err = s.piggyback(function)
		case msgCall:
			err = s.call(function)
		default:
			err = notEmulated(fmt.Sprintf("message %#x", message))
		}
		if err != nil {
			return err
		}
	}
}

func (s *session) call(function byte) error {
	switch function {
	case callSessionKey:
		return s.sessionKey()
	case callLogin:
		return s.authenticate()
	}
	if s.entry == nil {
		return s.fail(oraError(1012, "not logged on"))
	}
	switch function {
	case callVersion:
		return s.version()
	case callPing, callCommit, callRollback, callLogoff:
		if err := s.parse(func(r *reader) { r.skip(3) }); err != nil {
			return err
		}
		return s.status()
	case callExecute:
		return s.execute()
	case callFetch:
		return s.fetch()
	default:
		return notEmulated(fmt.Sprintf("call %#x", function))
	}
}

// piggyback is a call that rides in front of another and has no answer.
func (s *session) piggyback(function byte) error {
	if function != callCloseCursors {
		return notEmulated(fmt.Sprintf("piggyback %#x", function))
	}
	var closed []uint64
	err := s.parse(func(r *reader) {
		closed = nil
		r.skip(4)
		for range r.count() {
			if r.short || r.wrong {
				return
			}
			closed = append(closed, r.uint())
		}
	})
	for _, id := range closed {
		delete(s.cursors, id)
	}
	return err
}

func (s *session) status() error {
	var w writer
	w.bytes(msgStatus)
	w.uint(1)
	w.uint(0)
	return s.link.send(w.b)
}

func (s *session) version() error {
	if err := s.parse(func(r *reader) {
		r.skip(4)
		r.uint()
		r.skip(2)
		if s.field >= 11 {
			r.uint()
		}
	}); err != nil {
		return err
	}
	text := fmt.Sprintf("Oracle Database %dc Enterprise Edition Release %d.0.0.0.0 - Production (emulated)",
		s.server.options.Major, s.server.options.Major)
	var w writer
	w.bytes(msgParameter)
	w.uint(uint64(len(text)))
	w.clr([]byte(text))
	w.uint(uint64(s.server.options.number())) //nolint:gosec // never negative
	w.bytes(msgStatus)
	w.uint(1)
	w.uint(0)
	return s.link.send(w.b)
}

// summary writes the end of a call's answer. Fields of one byte stay 0: clients read some of them differently.
func (w *writer) summary(err *Error, cursor, rows uint64) {
	var code uint64
	if err != nil {
		code = uint64(err.Code) //nolint:gosec // never negative
	}
	w.bytes(msgError)
	w.uint(1) // status of the call
	w.zeros(2)
	w.uint(code & 0xFFFF)
	w.zeros(2)
	w.uint(cursor)
	w.uint(0)
	w.bytes(0, 0, 0, 0, 0, 0) // kind, fatal, flags, cursor options, upi, warning
	w.zeros(2)
	w.bytes(0)
	w.zeros(3)
	w.bytes(0, 0)
	w.zeros(6)
	w.uint(code)
	w.uint(rows)
	if err != nil {
		w.clr([]byte(err.Error() + "\n"))
	}
}

// fail answers with an error, after the markers that a real server sends.
func (s *session) fail(e *Error) error {
	if !s.server.options.NoMarkers {
		if err := s.markers(); err != nil {
			return err
		}
	}
	var w writer
	w.summary(e, 0, 0)
	return s.link.send(w.b)
}

func (s *session) markers() error {
	for _, m := range []byte{markerBreak, markerReset} {
		if err := s.link.write(packetMarker, []byte{1, 0, m}); err != nil {
			return err
		}
	}
	for { // a break of the client's own may cross them
		kind, body, err := s.link.read()
		if err != nil {
			return err
		}
		if kind != packetMarker || len(body) < 3 {
			return notEmulated(fmt.Sprintf("a packet of kind %d instead of a reset marker", kind))
		}
		if body[2] == markerReset {
			return nil
		}
	}
}

// brokenOff answers a break marker, unless a fault says not to.
func (s *session) brokenOff() error {
	if s.server.faultsNow().IgnoreBreak {
		return s.link.stall()
	}
	return s.fail(oraError(1013, "user requested cancel of current operation"))
}
