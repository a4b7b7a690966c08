package winrm

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"time"
)

// shell is a shell of an account.
type shell struct {
	id, owner string
	command   *command // one at a time
}

func (sh *shell) end() {
	if sh.command != nil {
		sh.command.kill()
	}
}

// command is a process in a shell.
type command struct {
	id   string
	line string

	mu          sync.Mutex
	stdin       bytes.Buffer
	out, err    bytes.Buffer
	done        bool
	exit        int
	changed     chan struct{} // has a value when there is something to receive
	input       chan struct{} // closed when standard input has ended
	stop        chan struct{} // closed when it is killed
	once, eof   sync.Once
	consoleMode bool
}

func (c *command) kill() { c.once.Do(func() { close(c.stop) }) }

func (c *command) poke() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// print adds to what the command has printed.
func (c *command) print(to *bytes.Buffer, text string) {
	c.mu.Lock()
	to.WriteString(text)
	c.mu.Unlock()
	c.poke()
}

// answer is what the host says to a message of a user who is logged in.
func (s *Server) answer(ctx context.Context, user string, m *request) answer {
	if !s.Host.mayUseWinRM(user) {
		return m.fault(faultAccess, "w:AccessDenied", "Zugriff verweigert")
	}
	if m.Body.Identify != nil {
		return m.reply("", `<wsmid:IdentifyResponse xmlns:wsmid="http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd">`+
			`<wsmid:ProtocolVersion>http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd</wsmid:ProtocolVersion>`+
			`<wsmid:ProductVendor>Microsoft Corporation</wsmid:ProductVendor>`+
			`<wsmid:ProductVersion>OS: `+Version+` SP: 0.0 Stack: 3.0</wsmid:ProductVersion></wsmid:IdentifyResponse>`)
	}
	if m.Header.MessageID == "" || m.Header.Resource != nsShell+"/cmd" {
		s.problem("a message without id, or for resource %q", m.Header.Resource)
		return m.fault(faultBadAction, "w:InvalidMessageInformationHeader", "no")
	}
	id := valueOf(m.Header.Selectors, "ShellId")
	switch m.Header.Action {
	case nsTransfer + "Create":
		return s.create(user, m)
	case nsTransfer + "Delete":
		sh := s.shell(user, id)
		if sh == nil {
			return noShell(m)
		}
		s.mu.Lock()
		delete(s.shells, id)
		s.mu.Unlock()
		sh.end()
		return m.reply(nsTransfer+"DeleteResponse", "")
	}
	sh := s.shell(user, id)
	if sh == nil {
		return noShell(m)
	}
	switch m.Header.Action {
	case nsShell + "/Command":
		return s.command(user, sh, m)
	case nsShell + "/Send":
		return s.send(sh, m)
	case nsShell + "/Receive":
		return s.receive(ctx, sh, m)
	case nsShell + "/Signal":
		return s.signal(sh, m)
	}
	s.problem("action %q", m.Header.Action)
	return m.fault(faultBadAction, "a:ActionNotSupported", "no such action")
}

func noShell(m *request) answer {
	return m.fault(faultNoShell, "w:InvalidSelectors", "Die Shell wurde auf dem Server nicht gefunden.")
}

func (s *Server) shell(user, id string) *shell {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shells[id]
	if sh == nil || sh.owner != user {
		return nil
	}
	return sh
}

func (s *Server) create(user string, m *request) answer {
	if m.Body.Shell == nil || valueOf(m.Header.Options, "WINRS_CODEPAGE") == "" {
		s.problem("Create without a shell or a code page")
		return m.fault(faultBadAction, "w:SchemaValidationError", "no")
	}
	if s.Host.NoShells {
		return m.fault(faultNoShells, "w:AccessDenied", "Der Zugriff auf Remoteshells ist nicht zulässig.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	open := 0
	for _, sh := range s.shells {
		if sh.owner == user {
			open++
		}
	}
	if open >= s.options.MaxShells {
		return m.fault(faultQuota, "w:QuotaLimit", "This user is allowed a maximum number of concurrent shells, which has been exceeded.")
	}
	sh := &shell{id: newID(), owner: user}
	s.shells[sh.id] = sh
	return m.reply(nsTransfer+"CreateResponse", fmt.Sprintf(`<x:ResourceCreated><a:Address>http://%s/wsman</a:Address>`+
		`<a:ReferenceParameters><w:ResourceURI>%s/cmd</w:ResourceURI><w:SelectorSet><w:Selector Name="ShellId">%s</w:Selector></w:SelectorSet>`+
		`</a:ReferenceParameters></x:ResourceCreated><rsp:Shell><rsp:ShellId>%s</rsp:ShellId><rsp:Owner>%s</rsp:Owner>`+
		`<rsp:IdleTimeOut>%s</rsp:IdleTimeOut><rsp:InputStreams>stdin</rsp:InputStreams><rsp:OutputStreams>stdout stderr</rsp:OutputStreams></rsp:Shell>`,
		strings.ToLower(HostName), nsShell, sh.id, sh.id, escaped(HostName+`\`+user), escaped(m.Body.Shell.Idle)))
}

// maxLine is what cmd.exe takes.
const maxLine = 8191

func (s *Server) command(user string, sh *shell, m *request) answer {
	if m.Body.Line == nil {
		s.problem("Command without a command line")
		return m.fault(faultBadAction, "w:SchemaValidationError", "no")
	}
	c := &command{
		id: newID(), line: strings.Join(append([]string{m.Body.Line.Command}, m.Body.Line.Arguments...), " "),
		changed: make(chan struct{}, 1), input: make(chan struct{}), stop: make(chan struct{}),
		consoleMode: valueOf(m.Header.Options, "WINRS_CONSOLEMODE_STDIN") != "FALSE",
	}
	s.mu.Lock()
	if sh.command != nil {
		s.mu.Unlock()
		return m.fault(faultCommands, "w:QuotaLimit", "one command at a time")
	}
	sh.command = c
	s.mu.Unlock()
	s.serving.Go(func() {
		exit := 1
		if len(c.line) > maxLine {
			c.print(&c.err, "The command line is too long.\r\n")
		} else {
			exit = s.execute(user, c)
		}
		c.mu.Lock()
		c.done, c.exit = true, exit
		c.mu.Unlock()
		c.poke()
	})
	return m.reply(nsShell+"/CommandResponse", `<rsp:CommandResponse><rsp:CommandId>`+c.id+`</rsp:CommandId></rsp:CommandResponse>`)
}

// current is the shell's command if it has the id.
func (s *Server) current(sh *shell, id string) *command {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh.command == nil || sh.command.id != id {
		return nil
	}
	return sh.command
}

func (s *Server) send(sh *shell, m *request) answer {
	for _, stream := range m.Body.Send.Streams {
		c := s.current(sh, stream.Command)
		data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(stream.Data))
		if c == nil || err != nil || stream.Name != "stdin" {
			s.problem("Send of something else than standard input of the command")
			return noShell(m)
		}
		c.mu.Lock()
		c.stdin.Write(data)
		c.mu.Unlock()
		if strings.EqualFold(stream.End, "true") {
			c.eof.Do(func() { close(c.input) })
		}
	}
	return m.reply(nsShell+"/SendResponse", `<rsp:SendResponse/>`)
}

func (s *Server) signal(sh *shell, m *request) answer {
	c := s.current(sh, m.Body.Signal.Command)
	if c == nil || !strings.HasPrefix(m.Body.Signal.Code, nsShell+"/signal/") {
		return noShell(m)
	}
	c.kill()
	s.mu.Lock()
	sh.command = nil
	s.mu.Unlock()
	return m.reply(nsShell+"/SignalResponse", `<rsp:SignalResponse/>`)
}

func (s *Server) receive(ctx context.Context, sh *shell, m *request) answer {
	c := s.current(sh, m.Body.Receive.Desired.Command)
	if c == nil {
		return noShell(m)
	}
	wait := m.wait()
	if longest := s.options.LongestWait; longest > 0 {
		wait = min(wait, longest)
	}
	limit := time.NewTimer(wait)
	defer limit.Stop()
	for {
		c.mu.Lock()
		if c.out.Len() > 0 || c.err.Len() > 0 || c.done {
			defer c.mu.Unlock()
			return m.reply(nsShell+"/ReceiveResponse", `<rsp:ReceiveResponse>`+c.received()+`</rsp:ReceiveResponse>`)
		}
		c.mu.Unlock()
		select {
		case <-c.changed:
		case <-limit.C:
			return m.fault(faultTimedOut, "w:TimedOut", "Der Vorgang wurde nicht innerhalb der Zeit abgeschlossen, die in OperationTimeout angegeben ist.")
		case <-s.done:
			return answer{status: 503}
		case <-ctx.Done():
			return answer{status: 503}
		}
	}
}

// received is what has been printed since last time, 16 KiB at most as Windows does it, and the state.
func (c *command) received() string {
	var b strings.Builder
	for _, stream := range []struct {
		name string
		from *bytes.Buffer
	}{{"stdout", &c.out}, {"stderr", &c.err}} {
		if data := stream.from.Next(16 << 10); len(data) > 0 {
			fmt.Fprintf(&b, `<rsp:Stream Name="%s" CommandId="%s">%s</rsp:Stream>`, stream.name, c.id, base64.StdEncoding.EncodeToString(data))
		}
	}
	if !c.done || c.out.Len() > 0 || c.err.Len() > 0 {
		c.poke()
		fmt.Fprintf(&b, `<rsp:CommandState CommandId="%s" State="%s/CommandState/Running"/>`, c.id, nsShell)
		return b.String()
	}
	fmt.Fprintf(&b, `<rsp:Stream Name="stdout" CommandId="%s" End="true"></rsp:Stream><rsp:Stream Name="stderr" CommandId="%s" End="true"></rsp:Stream>`,
		c.id, c.id)
	fmt.Fprintf(&b, `<rsp:CommandState CommandId="%s" State="%s/CommandState/Done"><rsp:ExitCode>%d</rsp:ExitCode></rsp:CommandState>`,
		c.id, nsShell, uint32(c.exit))
	return b.String()
}
