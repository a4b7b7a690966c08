package unix

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"regexp"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/plugins/sdk"
	"github.com/reeve-pam/reeve/plugins/sdk/quote"
	"github.com/reeve-pam/reeve/plugins/sdk/shadow"
	"github.com/reeve-pam/reeve/plugins/telnet/dialogue"
)

const (
	maxOutput = 1 << 20 // bytes kept of a script's output
	maxInput  = 4000    // bytes of a line; a terminal's driver takes 4095 (termios(3), canonical mode)
)

// loop takes the place of the login shell. It reads lines without echo and without a prompt,
// and runs what it has collected when it is told to; "@ask" lets the commands read from the
// terminal, after a prompt. Its first line tells that it runs, and as which uid; FIRST and
// SECOND are put together by printf, so that an echo of this text is not taken for it.
//
// It holds no single quote and no exclamation mark: the login shell may be csh.
const loop = `stty -echo icanon icrnl -istrip -opost cs8 2>/dev/null; ` +
	`nl=$(printf "\nx"); nl=${nl%x}; s=; printf "\n%s%s %s\n" FIRST SECOND "$(id -u)"; ` +
	`while IFS= read -r l; do case $l in ` +
	`"@run "*) n=${l#"@run "}; printf "\n%s begin\n" "$n"; (eval "$s") </dev/null; printf "\n%s end %s\n" "$n" "$?"; s=;; ` +
	`"@ask "*) n=${l#"@ask "}; printf "\n%s begin\n%s?" "$n" "$n"; (eval "$s"); printf "\n%s end %s\n" "$n" "$?"; s=;; ` +
	`*) s=$s$l$nl;; esac; done`

// administration is what the loop of the account tools begins with. A tool that is at work
// when the connection ends must not end with it: half an account helps nobody.
const administration = `trap "" HUP; LC_ALL=C; LANG=C; PATH=/usr/sbin:/usr/bin:/sbin:/bin; export LC_ALL LANG PATH; umask 022; `

// task is what the loop of tasks begins with.
const task = `PAGER=cat; SYSTEMD_PAGER=; export PAGER SYSTEMD_PAGER; `

// shell is a session in which the loop runs.
type shell struct {
	*login
	uid string
}

// script is something to run.
type script struct {
	text    string     // POSIX sh
	args    []string   // $1, $2, …
	input   sdk.Secret // one line, given when the script is asked for it
	changes bool       // a broken connection leaves the outcome unknown
}

// output is what a script printed, on both streams, and its exit status.
type output struct {
	text   string
	status int
}

// open logs in and starts the loop with the login's own rights.
func open(ctx context.Context, t sdk.Target, as sdk.Credential, prelude string) (*shell, error) {
	l, err := logIn(ctx, t, as)
	if err != nil {
		return nil, err
	}
	sh := &shell{login: l}
	if err := sh.start(prelude); err != nil {
		l.Close()
		return nil, err
	}
	return sh, nil
}

// openRoot logs in with the management account and becomes root, with sudo if need be.
func openRoot(ctx context.Context, t sdk.Target) (*shell, error) {
	sh, err := open(ctx, t, t.Management, administration)
	if errors.Is(err, errHungUp) { // a wrong password is not answered so, and does not count twice
		sh, err = open(ctx, t, t.Management, administration)
	}
	if errors.Is(err, errHungUp) {
		return nil, sdk.Errorf(sdk.ClassAuthFailed, "%s twice", sdk.ErrorText(err)).Wrap(err).
			WithFix("look on the host whether the account has expired (chage -l) or is locked (passwd -S), and whether its shell works")
	}
	if err != nil {
		return nil, err
	}
	if sh.uid == "0" {
		return sh, nil
	}
	if err := sh.become(t.Management.Password); err != nil {
		sh.Close()
		return nil, err
	}
	return sh, nil
}

// program returns the loop and the line by which it tells that it runs.
func program(prelude string) (text string, ready *regexp.Regexp) {
	first, second := rand.Text(), rand.Text()
	text = strings.NewReplacer("FIRST", first, "SECOND", second).Replace(prelude + loop)
	return text, regexp.MustCompile("^" + first + second + ` ([0-9]+)$`)
}

// start makes the login shell the loop.
func (sh *shell) start(prelude string) error {
	if sh.noShell {
		return sdk.Errorf(sdk.ClassNotPermitted, "%s at %s has no shell that runs commands", sh.user, sh.Address()).
			WithFix("give the account a login shell")
	}
	text, ready := program(prelude)
	// The shell's history is somebody's: it does not get this line.
	if err := sh.Send("unset HISTFILE; exec /bin/sh -c '" + text + "'\n"); err != nil {
		return err
	}
	i, err := sh.Expect(loginWithin, nil,
		dialogue.Case{Line: sh.told(ready)},
		dialogue.Case{Line: trimmed(refusal)},
		dialogue.Case{Line: trimmed(noShellNotice)},
		dialogue.Case{Tail: asksForLogin, Settled: true},
		dialogue.Case{Tail: matches(changePrompt)})
	switch {
	case err != nil:
		return err
	case i == 1 || i == 3:
		return sdk.Errorf(sdk.ClassAuthFailed, "%s at %s: the host does not accept the password", sh.user, sh.Address()).
			WithFix(shadow.FixRefused)
	case i == 2:
		sh.noShell = true
		return sh.start(prelude)
	case i == 4:
		return sdk.Errorf(sdk.ClassMustChange, "%s at %s: the password must be changed before it can be used", sh.user, sh.Address()).
			WithFix(shadow.FixMustChange)
	}
	return nil
}

// told recognises the loop's first line and takes the uid from it.
func (sh *shell) told(ready *regexp.Regexp) func(string) bool {
	return func(line string) bool {
		m := ready.FindStringSubmatch(strings.TrimSpace(line))
		if m != nil {
			sh.uid = m[1]
		}
		return m != nil
	}
}

// become starts a loop within the loop, as root. The password is sent in answer to sudo's
// own prompt, which is a nonce; a rule that asks for none is sent none.
func (sh *shell) become(password sdk.Secret) error {
	text, ready := program(administration)
	prompt, n := rand.Text(), rand.Text()
	quoted, err := quote.ShArg(text)
	if err != nil {
		return err
	}
	if err := sh.Send("exec sudo -k -p " + prompt + " -- /bin/sh -c " + quoted + "\n@ask " + n + "\n"); err != nil {
		return err
	}
	var said text1K
	cases := []dialogue.Case{
		{Line: sh.told(ready)},
		{Line: func(l string) bool { return strings.HasPrefix(l, n+" end ") }},
		{Tail: func(s string) bool { return strings.HasSuffix(s, prompt) }, Secret: true},
	}
	for asked := false; ; asked = true {
		i, err := sh.Expect(loginWithin, said.add, cases...)
		switch {
		case err != nil:
			return err
		case i == 0 && sh.uid == "0":
			return nil
		case i == 2 && asked:
			return sdk.Errorf(sdk.ClassAuthFailed, "sudo at %s does not accept the password of %s", sh.Address(), sh.user).
				WithFix("check the password; sudo may ask for another one (rootpw, targetpw)")
		case i == 2:
			if err := sh.Answer(password); err != nil {
				return err
			}
		default:
			return sdk.Errorf(sdk.ClassNotPermitted, "%s at %s cannot become root: %s", sh.user, sh.Address(), said.printable(n, prompt)).
				WithFix("allow %s to run /bin/sh with sudo, or log in as root", sh.user)
		}
	}
}

// run runs s. The error is about running it at all; whether it did what it should is in the
// output. Nothing of a script is done before all of it has arrived.
func (sh *shell) run(s script) (output, error) {
	var kept strings.Builder
	status, err := sh.stream(s, func(text string) {
		kept.WriteString(text[:min(len(text), max(0, maxOutput-kept.Len()))])
	})
	if err != nil {
		return output{}, err
	}
	return output{text: kept.String(), status: status}, nil
}

// User is who is logged in.
func (sh *shell) User() string { return sh.user }

// Script implements shadow.Host. What was printed on either stream is in both of the output's.
func (sh *shell) Script(_ context.Context, s shadow.Script) (shadow.Output, error) {
	typed := script{text: s.Text, args: s.Args, changes: s.Changes}
	if !s.Input.Empty() {
		typed.input = sdk.NewSecret(bytes.TrimSuffix(bytes.Clone(s.Input.Bytes()), []byte("\n")))
		defer typed.input.Wipe()
	}
	out, err := sh.run(typed)
	if err != nil {
		return shadow.Output{}, err
	}
	said := printable(out.text)
	if out.text == "" {
		said = ""
	}
	return shadow.Output{Stdout: out.text, Stderr: said, Status: out.status}, nil
}

// stream runs s and gives away what it prints, line by line.
func (sh *shell) stream(s script, each func(string)) (status int, err error) {
	n := rand.Text()
	verb := "@run "
	if !s.input.Empty() {
		verb = "@ask "
	}
	text, err := s.lines()
	if err != nil {
		return 0, err
	}
	if err := sh.Typable(s.input); err != nil {
		return 0, unchanged(err)
	}
	if err := sh.Send(text); err != nil {
		return 0, unchanged(err)
	}
	// From here on it may have begun; with an input, only once that was given.
	sure := s.changes && s.input.Empty()
	if err := sh.Send(verb + n + "\n"); err != nil {
		return 0, sh.outcome(err, sure)
	}
	if _, err := sh.Expect(0, nil, dialogue.Case{Line: func(l string) bool { return l == n+" begin" }}); err != nil {
		return 0, sh.outcome(err, sure)
	}
	if !s.input.Empty() {
		prompt := n + "?"
		if _, err := sh.Expect(0, nil, dialogue.Case{Tail: func(t string) bool { return t == prompt }, Secret: true}); err != nil {
			return 0, unchanged(err)
		}
		if err := sh.Answer(s.input); err != nil {
			return 0, sh.outcome(err, s.changes)
		}
	}
	end := n + " end "
	held := "" // an empty line is held back: the last one is the loop's own
	_, err = sh.Expect(0, func(text string) {
		if held != "" {
			each(held)
			held = ""
		}
		if text == "\n" {
			held = text
			return
		}
		each(text)
	}, dialogue.Case{Line: func(l string) bool {
		value, ok := strings.CutPrefix(l, end)
		if !ok {
			return false
		}
		var bad error
		if status, bad = strconv.Atoi(value); bad != nil {
			status = -1
		}
		return true
	}})
	if err != nil {
		return 0, sh.outcome(err, s.changes)
	}
	if status < 0 {
		return 0, sh.outcome(sdk.Errorf(sdk.ClassProtocol, "%s did not tell the exit status", sh.Address()).
			WithFix("see what its shell is, and what its start files print"), s.changes)
	}
	return status, nil
}

// lines is the script as the loop reads it.
func (s script) lines() (string, error) {
	var b strings.Builder
	if len(s.args) > 0 {
		b.WriteString("set --")
		for _, a := range s.args {
			quoted, err := quote.ShArg(a)
			if err != nil {
				return "", sdk.Errorf(sdk.ClassInvalid, "an argument has a NUL byte")
			}
			b.WriteString(" " + quoted)
		}
		b.WriteByte('\n')
	}
	b.WriteString(s.text)
	text := strings.TrimSuffix(b.String(), "\n") + "\n"
	for line := range strings.Lines(text) {
		switch {
		case len(line) > maxInput:
			return "", sdk.Errorf(sdk.ClassInvalid, "a line of the command has more than %d bytes, and cannot be typed", maxInput).
				WithFix("write it on several lines")
		case strings.HasPrefix(line, "@run "), strings.HasPrefix(line, "@ask "):
			return "", sdk.Errorf(sdk.ClassInvalid, "a line of the command begins with a word that has a meaning of its own here")
		case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }):
			return "", sdk.Errorf(sdk.ClassInvalid, "the command has a control character, and cannot be typed")
		}
	}
	return text, nil
}

// unchanged says of an error of the connection that nothing was done.
func unchanged(err error) error {
	e, ok := err.(*sdk.Error) //nolint:errorlint // errors of a session are not wrapped
	if !ok {
		return err
	}
	c := *e
	c.Message += "; nothing was changed"
	return &c
}

// outcome is the error of a connection that failed while something ran.
func (sh *shell) outcome(err error, changes bool) error {
	if !changes {
		return unchanged(err)
	}
	return sdk.Errorf(sdk.ClassUnknownOutcome, "the connection to %s ended while a change was under way", sh.Address()).
		Wrap(err).WithFix("read the account back before anything else is tried")
}

// text1K keeps the beginning of what a host says, for messages.
type text1K struct{ strings.Builder }

func (t *text1K) add(text string) {
	t.WriteString(text[:min(len(text), max(0, 1024-t.Len()))])
}

func (t *text1K) printable(without ...string) string { return printable(t.String(), without...) }

// printable makes text of a host fit for a message.
func printable(s string, without ...string) string {
	for _, w := range without {
		s = strings.ReplaceAll(s, w, "")
	}
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r >= 0x7f && r < 0xa0 || r == '\uFFFD':
			return -1
		}
		return r
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 500 {
		s = strings.ToValidUTF8(s[:500], "") + "…"
	}
	if s == "" {
		return "it says nothing"
	}
	return s
}
