package device

import (
	"bufio"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
)

// Of RFC 854 to 858, 1073 and 1091.
const (
	se, sb, will, wont, do, dont, iac = 240, 250, 251, 252, 253, 254, 255

	echo, goAhead, terminalType, windowSize = 1, 3, 24, 31
)

// pageLength is how many lines a page has, unless "terminal length" says otherwise.
const pageLength = 24

// session is one connection.
type session struct {
	device *Device
	conn   net.Conn
	in     *bufio.Reader
	number int // absolute number of its line

	asked    map[[2]byte]bool // what we asked for and has not been answered
	answered map[[2]byte]bool

	user    string // set under device.mu
	level   int    // privilege level: from 2 on the prompt is "#", 15 may do everything
	mode    string // "", "config", "config-if"
	iface   string
	length  int
	printed int  // lines since the last page
	quit    bool // at a "--More--"
	over    bool
}

func newSession(d *Device, c net.Conn, number int) *session {
	return &session{
		device: d, conn: c, in: bufio.NewReader(c), number: number, length: pageLength,
		asked: map[[2]byte]bool{}, answered: map[[2]byte]bool{},
	}
}

func (s *session) serve() {
	for _, ask := range [][2]byte{{will, echo}, {will, goAhead}, {do, terminalType}, {do, windowSize}} {
		s.asked[ask] = true
		s.raw([]byte{iac, ask[0], ask[1]})
	}
	s.print(strings.ReplaceAll(s.device.options.Banner, "\n", "\r\n"))
	s.print("\r\nUser Access Verification\r\n\r\n")
	if !s.login() {
		return
	}
	for !s.over {
		s.print(s.prompt())
		line, ok := s.readLine(true, true)
		if !ok {
			return
		}
		if line = strings.TrimSpace(line); line != "" {
			s.execute(line)
		}
	}
}

func (s *session) login() bool {
	for range 3 {
		s.print("Username: ")
		name, ok := s.readLine(true, false)
		if !ok {
			return false
		}
		s.print("Password: ")
		password, ok := s.readLine(s.device.fault().EchoSecret, false)
		if !ok {
			return false
		}
		if s.device.tries(name, password) {
			u, _ := s.device.User(name)
			s.device.mu.Lock()
			s.user, s.level = name, u.Privilege
			s.device.mu.Unlock()
			s.print("\r\n")
			if motd := s.device.options.Motd; motd != "" {
				s.print(motd + "\r\n")
			}
			return true
		}
		s.print("% Login invalid\r\n\r\n")
	}
	s.print("% Bad passwords\r\n")
	return false
}

func (s *session) prompt() string {
	p := s.device.options.Hostname
	if s.mode != "" {
		p += "(" + s.mode + ")"
	}
	if s.level > 1 {
		return p + "#"
	}
	return p + ">"
}

func (s *session) raw(b []byte) {
	if !s.device.fault().Dribble {
		_, _ = s.conn.Write(b)
		return
	}
	for i := range b {
		_, _ = s.conn.Write(b[i : i+1])
	}
}

func (s *session) print(text string) { s.raw([]byte(text)) }

// line prints a line of output, page by page.
func (s *session) line(format string, args ...any) {
	if s.quit || s.over {
		return
	}
	if s.length > 0 && s.printed >= s.length-1 {
		s.page()
		if s.quit || s.over {
			return
		}
	}
	s.printed++
	s.print(fmt.Sprintf(format, args...) + "\r\n")
}

func (s *session) page() {
	s.print(" --More-- ")
	b, ok := s.readByte()
	if !ok {
		s.over = true
		return
	}
	s.print(strings.Repeat("\b", 10) + strings.Repeat(" ", 10) + strings.Repeat("\b", 10))
	switch b {
	case ' ':
		s.printed = 0
	case '\r':
		s.printed--
	default:
		s.quit = true
	}
}

// confirm asks, and takes the return key or "y" for yes.
func (s *session) confirm(question string) bool {
	s.print(question + "[confirm]")
	b, ok := s.readByte()
	s.print("\r\n")
	s.over = s.over || !ok
	return ok && (b == '\r' || b == 'y')
}

// readLine reads up to the return key; a line feed by itself is no end of a line in Telnet.
// Where a command is typed, a question mark asks for help.
func (s *session) readLine(echoed, command bool) (string, bool) {
	var line []byte
	for {
		b, ok := s.readByte()
		switch {
		case !ok:
			return "", false
		case b == '\r':
			s.print("\r\n")
			return string(line), true
		case b == '?' && command:
			s.print("?\r\n% Unrecognized command\r\n" + s.prompt() + string(line))
			s.device.violation("help was asked for in the middle of %q", line)
		case b == '\b' || b == 0x7f:
			line = line[:max(0, len(line)-1)]
		case b < ' ':
			s.device.violation("control character %#x", b)
		default:
			if line = append(line, b); echoed {
				s.print(string(rune(b)))
			}
		}
	}
}

// readByte reads one byte of data; what follows CR is swallowed.
func (s *session) readByte() (byte, bool) {
	for {
		b, err := s.in.ReadByte()
		if err != nil {
			return 0, false
		}
		switch b {
		case iac:
			if !s.command() {
				return 0, false
			}
		case '\r':
			next, err := s.in.ReadByte()
			if err != nil {
				return 0, false
			}
			if next != 0 && next != '\n' {
				s.device.violation("CR followed by %#x", next)
				_ = s.in.UnreadByte()
			}
			return b, true
		default:
			return b, true
		}
	}
}

// command reads what follows IAC.
func (s *session) command() bool {
	verb, err := s.in.ReadByte()
	if err != nil {
		return false
	}
	switch verb {
	case will, wont, do, dont:
		option, err := s.in.ReadByte()
		if err != nil {
			return false
		}
		s.negotiated(verb, option)
		return true
	case sb:
		return s.subnegotiation()
	default:
		s.device.violation("command %d", verb)
		return true
	}
}

// negotiated holds the client to one answer for each question, and to asking for nothing itself.
func (s *session) negotiated(verb, option byte) {
	question := [2]byte{do, option}
	if verb == do || verb == dont {
		question[0] = will
	}
	switch {
	case !s.asked[question]:
		s.device.violation("answer %d to option %d, which was not asked for", verb, option)
	case s.answered[question]:
		s.device.violation("second answer to option %d", option)
	}
	s.answered[question] = true
	if verb == will && option == terminalType {
		s.raw([]byte{iac, sb, terminalType, 1, iac, se})
	}
}

func (s *session) subnegotiation() bool {
	var body []byte
	for {
		b, err := s.in.ReadByte()
		if err != nil {
			return false
		}
		if b == iac {
			if b, err = s.in.ReadByte(); err != nil {
				return false
			}
			if b == se {
				break
			}
			if b != iac {
				s.device.violation("command %d within a subnegotiation", b)
			}
		}
		body = append(body, b)
	}
	ok := len(body) > 0 && (body[0] == terminalType && len(body) > 2 && body[1] == 0 || body[0] == windowSize && len(body) == 5)
	if !ok {
		s.device.violation("subnegotiation %v", body)
	}
	return true
}

var maskedSecret = regexp.MustCompile(`(secret \d+ ).+`)

// execute does one line.
func (s *session) execute(line string) {
	d := s.device
	d.mu.Lock()
	d.commands = append(d.commands, s.prompt()+maskedSecret.ReplaceAllString(line, "${1}*"))
	d.mu.Unlock()
	f := d.fault()
	begins := func(prefix string) bool { return prefix != "" && strings.HasPrefix(line, prefix) }
	switch {
	case begins(f.HangAt):
		for ok := true; ok; {
			_, ok = s.readByte()
		}
		s.over = true
		return
	case begins(f.CutAt):
		s.over = true
		return
	}
	s.printed, s.quit = 0, false
	if begins(f.CutAfter) {
		s.conn = silent{s.conn}
		defer func() { s.over = true }()
	}
	words := strings.Fields(line)
	if s.mode != "" {
		s.configure(words)
		return
	}
	s.exec(line, words)
}

// silent swallows what is written.
type silent struct{ net.Conn }

func (silent) Write(p []byte) (int, error) { return len(p), nil }

func (s *session) invalid() {
	s.print(strings.Repeat(" ", len(s.prompt())) + "^\r\n% Invalid input detected at '^' marker.\r\n\r\n")
}

// is compares words with a command, whose words may be cut.
func is(words []string, command string) bool {
	full := strings.Fields(command)
	return len(words) == len(full) && !slices.ContainsFunc(full, func(w string) bool {
		i := slices.Index(full, w)
		return words[i] == "" || !strings.HasPrefix(w, words[i])
	})
}
