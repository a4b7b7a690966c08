package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/masterzen/winrm"
	"github.com/masterzen/winrm/soap"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

const (
	// idleTime is after how long the server ends a shell that nobody talks to. Its own default is two hours.
	idleTime = "PT180S"
	// cleanTime bounds the effort to end a shell whose operation has failed.
	cleanTime = time.Second
	// maxPrinted bounds what a script may answer: facts of some thousand accounts.
	maxPrinted = 8 << 20
)

// shell is a shell on the host, in which scripts run one after the other.
type shell struct {
	*link
	id     string
	target sdk.Target
	login  sdk.Credential
	sent   bool // a change has been sent
	broken bool // a script was given up in the middle
	task   bool // what runs in it is a task, which ends with the operation, finished or not
}

// open logs in and makes a shell.
func open(ctx context.Context, t sdk.Target, c sdk.Credential) (*shell, error) {
	l, err := dial(ctx, t, c)
	if err != nil {
		return nil, err
	}
	s := &shell{link: l, target: t, login: c}
	const what = "open a shell"
	e, err := s.ask(ctx, what, createMessage(l.url), nsTransfer+"CreateResponse")
	if err == nil {
		if s.id = e.shellID(); s.id == "" {
			err = sdk.Errorf(sdk.ClassProtocol, "%s: the answer names no shell", what).WithFix("%s", strangeFix)
		}
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return s, nil
}

// ask sends a message and checks that the answer is the one to it.
func (s *shell) ask(ctx context.Context, what string, m *soap.SoapMessage, action string) (*envelope, error) {
	e, err := s.post(ctx, what, m.String(), s.sent)
	if err != nil {
		return nil, err
	}
	if code, failed := e.fault(); failed {
		return nil, explainFault(what, code, s.sent)
	}
	if e.Header.Action != action {
		return nil, strange(what, s.sent, "the answer is for another request")
	}
	return e, nil
}

// close ends the shell. One in which a change was given up half-way is left to the host, which ends it when it has been
// idle: to stop a cmdlet in the middle is worse. Any other is ended now, over a new connection if the old one is gone.
func (s *shell) close() {
	defer s.link.close()
	ctx, cancel := context.WithTimeout(context.Background(), cleanTime)
	defer cancel()
	m := winrm.NewDeleteShellRequest(s.url, s.id, params())
	if !s.broken {
		if _, err := s.post(ctx, "close the shell", m.String(), false); err == nil {
			return
		}
	}
	if s.broken && s.sent && !s.task {
		return
	}
	l, err := dial(ctx, s.target, s.login)
	if err != nil {
		return
	}
	defer l.close()
	_, _ = l.post(ctx, "close the shell", m.String(), false)
}

// run runs a command line with what it reads, and hands out what it prints.
func (s *shell) run(ctx context.Context, what, line string, stdin []byte, changes bool, print func(output) error) (int, error) {
	e, err := s.ask(ctx, what, commandMessage(s.url, s.id, line), nsShell+"/CommandResponse")
	if err != nil {
		s.broken = true
		return 0, err
	}
	id := e.commandID()
	if id == "" {
		s.broken = true
		return 0, strange(what, s.sent, "the answer names no command")
	}
	exit, err := s.talk(ctx, what, id, stdin, changes, print)
	if err != nil {
		s.broken = true
		return 0, err
	}
	// A shell has one command at a time; this makes room for the next. That the server has forgotten the command already is fine.
	if _, err := s.post(ctx, what, winrm.NewSignalRequest(s.url, s.id, id, params()).String(), s.sent); err != nil {
		s.broken = true
		return 0, err
	}
	return exit, nil
}

// talk gives a command its input, which ends it, and collects its output until the command has ended.
func (s *shell) talk(ctx context.Context, what, id string, stdin []byte, changes bool, print func(output) error) (int, error) {
	s.sent = s.sent || changes
	send := winrm.NewSendInputRequest(s.url, s.id, id, stdin, true, params())
	if _, err := s.ask(ctx, what, send, nsShell+"/SendResponse"); err != nil {
		return 0, err
	}
	for {
		e, err := s.post(ctx, what, winrm.NewGetOutputRequest(s.url, s.id, id, "stdout stderr", params()).String(), s.sent)
		if err != nil {
			return 0, err
		}
		if code, failed := e.fault(); failed {
			if code == faultTimedOut {
				continue
			}
			return 0, explainFault(what, code, s.sent)
		}
		if e.Header.Action != nsShell+"/ReceiveResponse" {
			return 0, strange(what, s.sent, "the answer is for another request")
		}
		pieces, done, exit, err := e.received(id)
		if err != nil {
			return 0, strange(what, s.sent, "the output cannot be read")
		}
		for _, p := range pieces {
			if err := print(p); err != nil {
				return 0, strange(what, s.sent, "%v", err)
			}
		}
		if done {
			return exit, nil
		}
	}
}

// call runs a script and reads its answer into result. failed is what the script said if it failed.
func (s *shell) call(ctx context.Context, what string, sc script, args any, secret sdk.Secret, result any) (failed *scriptError, err error) {
	arguments, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	in := input(arguments, secret)
	defer clear(in)
	var printed []byte
	all := 0
	_, err = s.run(ctx, what, sc.commandLine(), in, sc.changes, func(o output) error {
		if !o.stderr { // what PowerShell writes there is for people, in their language
			printed = append(printed, o.data...)
		}
		if all += len(o.data); all > maxPrinted {
			return fmt.Errorf("the script printed more than %d bytes", maxPrinted)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	raw, failed, err := scriptAnswer(printed)
	if err != nil || failed != nil {
		if err != nil && s.sent {
			err = strange(what, true, "PowerShell gave no answer that is understood")
		}
		return failed, err
	}
	if err := json.Unmarshal(raw, result); err != nil {
		return nil, strange(what, s.sent, "the script's answer cannot be read")
	}
	return nil, nil
}

func params() *winrm.Parameters { return winrm.NewParameters(pollTime, "en-US", envelopeSize) }

// header begins a message, as the library's own do.
func header(url, action string) (*soap.SoapMessage, *soap.SoapHeader) {
	m := soap.NewMessage()
	return m, m.Header().To(url).ReplyTo("http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous").
		MaxEnvelopeSize(envelopeSize).Id(messageID()).Locale("en-US").Timeout(pollTime).
		Action(action).ResourceURI(nsShell + "/cmd")
}

func messageID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("uuid:%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// createMessage asks for a shell. The library's own leaves it to live for two hours when we are cut off.
func createMessage(url string) *soap.SoapMessage {
	m, h := header(url, nsTransfer+"Create")
	h.AddOption(soap.NewHeaderOption("WINRS_NOPROFILE", "FALSE")).AddOption(soap.NewHeaderOption("WINRS_CODEPAGE", "65001")).Build()
	body := m.CreateBodyElement("Shell", soap.DOM_NS_WIN_SHELL)
	m.CreateElement(body, "InputStreams", soap.DOM_NS_WIN_SHELL).SetContent("stdin")
	m.CreateElement(body, "OutputStreams", soap.DOM_NS_WIN_SHELL).SetContent("stdout stderr")
	m.CreateElement(body, "IdleTimeOut", soap.DOM_NS_WIN_SHELL).SetContent(idleTime)
	return m
}

// commandMessage starts a command whose standard input is a pipe. The library's own makes it a console, which has lines of limited
// length and an end nobody can send.
func commandMessage(url, shell, line string) *soap.SoapMessage {
	m, h := header(url, nsShell+"/Command")
	h.ShellId(shell).AddOption(soap.NewHeaderOption("WINRS_CONSOLEMODE_STDIN", "FALSE")).
		AddOption(soap.NewHeaderOption("WINRS_SKIP_CMD_SHELL", "FALSE")).Build()
	body := m.CreateBodyElement("CommandLine", soap.DOM_NS_WIN_SHELL)
	m.CreateElement(body, "Command", soap.DOM_NS_WIN_SHELL).SetContent(line) // ours: base64 and plain words
	return m
}

// identifyMessage asks what the server is, which needs a login and nothing else (DSP0226, 11).
const identifyMessage = `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" ` +
	`xmlns:wsmid="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd">` +
	`<s:Header/><s:Body><wsmid:Identify/></s:Body></s:Envelope>`
