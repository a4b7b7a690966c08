package tds

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// Faults are what goes wrong; the zero value is nothing.
type Faults struct {
	HangAtAccept bool // connections are taken and never answered
	HangAtLogin  bool // … until the login is sent
	// Login refuses logins; nil, or nil from it, refuses none.
	Login func(user string) *Error
	// Statement says what happens to a statement; nil, or a zero Fault, is nothing.
	Statement func(text string) Fault
}

// Fault is what happens to one statement.
type Fault struct {
	Kind FaultKind
	Err  *Error // of Refuse
}

// FaultKind is a kind of fault.
type FaultKind int

// The kinds of faults.
const (
	None       FaultKind = iota
	Refuse               // it is not done and answered with an error
	DropBefore           // the connection ends before it is done
	DropAfter            // … after it is done, before the answer
	HangBefore           // it is not done and never answered
	HangInside           // it is done and answered by half
	Oversized            // it is done; the answer says that it is longer than it is
	Garbage              // it is done; the answer is no token
	Fatal                // it is done; the answer is an error that ends the session
)

// SetFaults makes things go wrong from now on.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

func (s *Server) fault() Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.faults
}

// work is one request and its answer.
type work struct {
	server  *Server
	session *session
	cancel  chan struct{} // closed when the client cancels or leaves
	ended   chan struct{}
	reply   reply
	begin   func([]byte) error // sends a part of the answer
	fault   Fault
	err     error
	between byte // the token that ends a statement which is not the last
}

// do does a request.
func (w *work) do(m message) {
	defer close(w.ended)
	if m.reset {
		w.server.state.mu.Lock()
		w.session.reset()
		w.server.state.mu.Unlock()
		w.reply.envText(envReset, "", "")
	}
	switch m.kind {
	case packetBatch:
		body, err := withoutHeaders(m.data)
		if err != nil {
			w.err = strange("%v", err)
			return
		}
		text := fromUCS2(body)
		w.run(text, text, nil, tokenDone)
	case packetRPC:
		c, err := parseCall(m.data)
		if err != nil {
			w.err = strange("%v", err)
			return
		}
		w.call(c)
	case packetTransaction:
		w.transaction(m.data)
	default:
		w.err = strange("a packet of type %d", m.kind)
	}
}

func (w *work) call(c call) {
	variables := map[string]any{}
	if c.procedure != "sp_executesql" || len(c.parameters) == 0 {
		w.server.unknown("the procedure "+c.procedure, c.procedure)
		w.reply.message(tokenError, &Error{2812, 62, 16, "Could not find stored procedure '" + c.procedure + "'."})
		w.reply.done(tokenDoneProc, doneError, 0, 0)
		return
	}
	text, _ := c.parameters[0].value.(string)
	record := "exec sp_executesql N'" + text + "'"
	for i, p := range c.parameters {
		if i < 2 { // the text and the declarations
			continue
		}
		variables[strings.ToLower(p.name)] = p.value
		record += fmt.Sprintf(", %s=%v", p.name, p.value)
	}
	w.run(text, record, variables, tokenDoneProc)
}

// transaction answers a transaction manager request. Nothing is undone by a rollback: the
// connector uses no transactions, and clients that do send no changes in them.
func (w *work) transaction(d []byte) {
	d, err := withoutHeaders(d)
	if err != nil || len(d) < 2 {
		w.err = strange("a wrong transaction request")
		return
	}
	id := []byte{1, 0, 0, 0, 0, 0, 0, 0}
	switch kind := binary.LittleEndian.Uint16(d); kind {
	case 5:
		w.reply.envBytes(envBegin, id, nil)
	case 7:
		w.reply.envBytes(envCommit, nil, id)
	case 8:
		w.reply.envBytes(envRollback, nil, id)
	default:
		w.err = strange("a transaction request %d", kind)
		return
	}
	w.reply.done(tokenDone, 0, 0, 0)
}

// run does a batch or the text of a call, and records it.
func (w *work) run(text, record string, variables map[string]any, end byte) {
	w.server.mu.Lock()
	w.server.record = append(w.server.record, record)
	decide := w.server.faults.Statement
	w.server.mu.Unlock()
	if decide != nil {
		w.fault = decide(text)
	}
	var err *Error
	switch w.fault.Kind {
	case Refuse:
		err = w.fault.Err
	case DropBefore:
		w.err = errDropped
		return
	case HangBefore:
		return
	default:
		if w.between = tokenDone; end == tokenDoneProc {
			w.between = tokenDoneInProc
		}
		err = w.batch(text, variables)
	}
	if end == tokenDoneProc {
		w.reply.WriteByte(tokenReturnStatus)
		w.reply.u32(0)
	}
	status := 0
	if err != nil {
		w.reply.message(tokenError, err)
		status = doneError
	}
	w.reply.done(end, status, 0, 0)
	if w.fault.Kind == DropAfter {
		w.err = errDropped
	}
}

const errDropped = droppedError("dropped on purpose")

type droppedError string

func (e droppedError) Error() string { return string(e) }

// send sends the answer, or what the fault makes of it.
func (w *work) send(f *framed, hungUp func() error) error {
	if w.err != nil {
		return w.err
	}
	data := w.reply.Bytes()
	switch w.fault.Kind {
	case HangBefore:
		return hungUp()
	case HangInside:
		// The first packet of two that the header promises.
		half := append([]byte{packetReply, 0, 0, 0, 0, 0, 1, 0}, data[:len(data)/2]...)
		binary.BigEndian.PutUint16(half[2:], uint16(len(half)))
		if _, err := f.rw.Write(half); err != nil {
			return err
		}
		return hungUp()
	case Oversized:
		var r reply
		r.columns([]column{{"x", kindText}})
		r.WriteByte(tokenRow)
		r.u16(0xFFF0) // of a value of at most 8000
		r.WriteByte(1)
		return f.write(r.Bytes())
	case Garbage:
		return f.write([]byte{0x00, 0x13, 0x37, 0xFF})
	case Fatal:
		var r reply
		r.message(tokenError, &Error{3624, 1, 20, "A system assertion check has failed."})
		r.done(tokenDone, doneError|doneFatal, 0, 0)
		if err := f.write(r.Bytes()); err != nil {
			return err
		}
		return errDropped
	}
	return f.write(data)
}

// flush sends what there is of the answer.
func (w *work) flush() {
	if err := w.begin(w.reply.Bytes()); err != nil && w.err == nil {
		w.err = err
	}
	w.reply.Reset()
}

// wait waits like WAITFOR DELAY, or until the client cancels.
func (w *work) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.cancel:
	}
}
