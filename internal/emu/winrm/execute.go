package winrm

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
)

// powershell begins the one kind of command line that is modelled.
const powershell = "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand "

// execute runs a process and returns its exit status.
func (s *Server) execute(user string, c *command) int {
	h := s.Host
	h.mu.Lock()
	h.commandLines = append(h.commandLines, c.line)
	h.mu.Unlock()
	if c.line == "whoami" {
		c.print(&c.out, strings.ToLower(HostName+`\`+user)+"\r\n")
		return 0
	}
	encoded, ok := strings.CutPrefix(c.line, powershell)
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil {
		s.problem("command line %.60q", c.line)
		word, _, _ := strings.Cut(c.line, " ")
		c.print(&c.err, fmt.Sprintf("Der Befehl %q ist entweder falsch geschrieben oder konnte nicht gefunden werden.\r\n", word))
		return 1
	}
	text := fromUTF16(raw)
	h.mu.Lock()
	h.scriptBlocks = append(h.scriptBlocks, text)
	h.mu.Unlock()
	name := scripts[hash(text)]
	if name == "" {
		s.problem("a script with hash %s", hash(text))
		c.print(&c.err, "#< CLIXML\r\n<Objs Version=\"1.1.0.1\" xmlns=\"http://schemas.microsoft.com/powershell/2004/04\">"+
			"<S S=\"Error\">unknown script_x000D__x000A_</S></Objs>")
		return 1
	}
	if c.consoleMode {
		s.problem("script %s reads from a console", name)
	}
	if h.Constrained { // what the script has written out for this
		c.say(map[string]any{"error": map[string]any{"id": "ReeveLanguageMode"}})
		return 3
	}
	select { // $input has everything, so it waits for the end
	case <-c.input:
	case <-c.stop:
		return stopped
	}
	args, secret, err := c.read()
	if err != nil {
		s.problem("script %s: %v", name, err)
		return c.fail("FormatException", -2146233033)
	}
	if locked[name] && args.Lock != "" {
		if !h.mayLock(user) {
			return c.fail("UnauthorizedAccessException", codeDenied)
		}
		release, alive := h.take(args.Lock, c.stop)
		switch {
		case !alive:
			return stopped
		case release == nil:
			return c.fail("ReeveBusy", codeException)
		}
		defer release()
	}
	h.mu.Lock()
	h.did = append(h.did, name)
	before := h.BeforeScript
	h.mu.Unlock()
	if !h.stall(name, c.stop) {
		return stopped
	}
	if before != nil {
		if id := before(name); id != "" {
			return c.fail(id, -2146233087)
		}
	}
	if name == "run" {
		return s.task(c, args.Command)
	}
	result, problem := h.do(name, user, args, secret)
	if problem != nil {
		if problem.crash {
			s.EndShells()
			return stopped
		}
		if problem.bug != "" {
			s.problem("script %s: %s", name, problem.bug)
		}
		return c.fail(problem.id, problem.code)
	}
	c.say(map[string]any{"result": result})
	return 0
}

// stopped is the status of a process that was ended (STATUS_CONTROL_C_EXIT).
const stopped = -1073741510

// hash names a script.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// arguments are what scripts are given; each takes some of them.
type arguments struct {
	Account, Temporary, SID, Description, FullName, Command, Right, Lock string

	Groups, Commands []string

	Expires    int64
	Check, Add bool
}

// read reads the two lines of standard input.
func (c *command) read() (a arguments, secret string, err error) {
	c.mu.Lock()
	lines := strings.Split(c.stdin.String(), "\n")
	c.mu.Unlock()
	if len(lines) != 3 || lines[2] != "" {
		return a, "", fmt.Errorf("standard input has %d lines", len(lines)-1)
	}
	raw, err := base64.StdEncoding.DecodeString(lines[0])
	if err != nil {
		return a, "", err
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return a, "", err
	}
	raw, err = base64.StdEncoding.DecodeString(lines[1])
	return a, string(raw), err
}

func (c *command) say(v any) {
	j, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of plain values
	}
	c.print(&c.out, "reeve "+base64.StdEncoding.EncodeToString(j)+"\r\n")
}

func (c *command) fail(id string, code int) int {
	c.say(map[string]any{"error": map[string]any{"id": id + ",Microsoft.PowerShell.Commands.Command", "type": "System.Exception", "code": code}})
	return 3
}

// task does what a test has registered.
func (s *Server) task(c *command, text string) int {
	s.Host.mu.Lock()
	s.Host.scriptBlocks = append(s.Host.scriptBlocks, text)
	t := s.Host.Tasks[text]
	s.Host.mu.Unlock()
	if t == nil {
		s.problem("task %q", text)
		c.print(&c.err, "no such task\r\n")
		return 1
	}
	return t(func(text string) { c.print(&c.out, text) }, func(text string) { c.print(&c.err, text) }, c.stop)
}
